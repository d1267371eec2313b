//! Waiting for something to become true, with a deadline instead of a guess.

use anyhow::{Result, bail};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How often a condition is looked at: often enough for the shortest times that are measured (tenths
/// of a second), seldom enough to leave two cores to what is being waited for.
const POLL: Duration = Duration::from_millis(20);

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Ends all waiting with an error, now and from now on: a signal asks the program to stop, and what it
/// made is removed on its way out.
pub fn interrupt() {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

fn check_interrupted() -> Result<()> {
    if INTERRUPTED.load(Ordering::Relaxed) {
        bail!("interrupted");
    }
    Ok(())
}

/// Calls the probe until it gives a value.
///
/// # Errors
/// Past the deadline, naming what was waited for; or when [interrupted](interrupt).
pub fn wait_for<T>(what: &str, deadline: Duration, mut probe: impl FnMut() -> Option<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = probe() {
            return Ok(value);
        }
        check_interrupted()?;
        if start.elapsed() >= deadline {
            bail!("{what} did not happen within {deadline:?}");
        }
        thread::sleep(POLL);
    }
}

/// Calls the probe until it is true, and says how long that took.
///
/// # Errors
/// Past the deadline, naming what was waited for.
pub fn wait_until(what: &str, deadline: Duration, mut probe: impl FnMut() -> bool) -> Result<Duration> {
    let start = Instant::now();
    wait_for(what, deadline, || probe().then_some(()))?;
    Ok(start.elapsed())
}

/// Checks for a time that something stays true: the way to show that nothing happened.
///
/// # Errors
/// As soon as it is not.
pub fn stays_true(what: &str, time: Duration, mut probe: impl FnMut() -> bool) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < time {
        check_interrupted()?;
        if !probe() {
            bail!("{what} was no longer so after {:?}", start.elapsed());
        }
        thread::sleep(POLL);
    }
    Ok(())
}

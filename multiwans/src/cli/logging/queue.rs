//! Lines on their way to where they are written: nobody who logs waits for that.
//!
//! A journal that hangs, a pipe that nobody empties: writing to either waits, and the loop that fails links
//! over must not. So each output has a thread of its own and a bounded queue before it; what does not fit
//! is counted, and told where it is missing. (tracing-appender has such a queue, but tells nobody where
//! lines are missing, and prints to stdout where its end comes late.)

use std::collections::VecDeque;
use std::io::{self, Write};
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use super::lines::Lines;
use super::record::Record;

/// Lines that wait at most: an hour of flapping links, or a moment of every packet's decision, in some
/// megabyte.
const CAPACITY: usize = 4096;

/// The near end of an output.
#[derive(Debug)]
pub(super) struct Queue(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Arc<Record>>,
    /// Lines that came after those that wait, and did not fit.
    dropped: u64,
    /// What was taken out is not written yet.
    writing: bool,
}

impl Queue {
    /// Starts the thread that writes lines to `output`, each by one call of [`Write::write_all`].
    ///
    /// # Errors
    /// No thread is to be had.
    pub(super) fn start(lines: Lines, output: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let far = Arc::clone(&shared);
        // Nobody joins it: it may hang in a write, and ends with the process.
        thread::Builder::new().name("log".to_owned()).spawn(move || far.write(&lines, output))?;
        Ok(Self(shared))
    }

    /// Has a line written. Waits for nothing.
    pub(super) fn push(&self, record: Arc<Record>) {
        let mut state = self.0.state();
        if state.waiting.len() < CAPACITY {
            state.waiting.push_back(record);
        } else {
            state.dropped += 1;
        }
        drop(state);
        self.0.changed.notify_all();
    }

    /// Waits until everything is written, but not longer than that.
    pub(super) fn flush(&self, until: Instant) {
        let mut state = self.0.state();
        while !state.waiting.is_empty() || state.writing {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.0.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, lines: &Lines, mut output: impl Write) {
        loop {
            let (batch, dropped) = self.take();
            let missing = (dropped > 0).then(|| Arc::new(Record::missing(dropped)));
            for record in batch.into_iter().chain(missing) {
                // There is nobody to tell it to.
                let _ = output.write_all(lines.line(&record).as_bytes());
            }
        }
    }

    /// Waits for lines, and takes them all. Those dropped until then came right after them.
    fn take(&self) -> (VecDeque<Arc<Record>>, u64) {
        let mut state = self.state();
        state.writing = false;
        self.changed.notify_all();
        while state.waiting.is_empty() {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.writing = true;
        (mem::take(&mut state.waiting), mem::take(&mut state.dropped))
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;

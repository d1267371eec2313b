//! The thread that looks after the flow table: removals never keep the daemon's loop waiting.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::census::{Census, is_nearly_full};
use super::keeper::FlowKeeper;
use crate::datapath::DatapathError;

/// How often it looks whether the table fills up: one read of a counter.
const LOOK: Duration = Duration::from_millis(200);
/// How often it walks through the table while there is room.
const PACE: Duration = Duration::from_secs(10);
/// How long after all lines came into use it walks, to give back those that a burst needed for a moment only.
const SETTLE: Duration = Duration::from_secs(1);
/// While there is room, walks may take a fiftieth of a CPU: a large table is walked through less often.
const SHARE: u32 = 50;
/// While there is none, a fifth.
const SHARE_FULL: u32 = 5;
/// A table that stays full is told at most this often.
const TELL: Duration = Duration::from_secs(60);
/// The first time it is told so much later than it was noticed: the first numbers say nothing.
const GATHER: Duration = Duration::from_secs(3);

/// The table as of the last walk, and what became of flows since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FlowReport {
    /// Entries the table holds.
    pub max: u64,
    /// What it takes of the kernel's memory, in bytes.
    pub bytes: u64,
    /// How much of that is in use.
    pub bytes_in_use: u64,
    /// What is in it.
    pub census: Census,
    /// When that was counted; `None`: not yet.
    pub counted: Option<Instant>,
    /// Removed because they were idle for too long, or their WAN went out of service.
    pub expired: u64,
    /// Removed though alive, to make room: handshakes, closing connections, questions and their answers.
    pub evicted_passing: u64,
    /// Removed though alive, to make room: established connections and streams.
    pub evicted_lasting: u64,
}

/// The running thread; dropping it ends it.
#[derive(Debug)]
pub struct FlowThread {
    report: Arc<Mutex<FlowReport>>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl FlowThread {
    /// Starts it.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn start(keeper: FlowKeeper) -> Result<Self, DatapathError> {
        let (bytes, bytes_in_use) = (keeper.bytes(), keeper.bytes_in_use());
        let report = FlowReport { max: keeper.max(), bytes, bytes_in_use, ..FlowReport::default() };
        let report = Arc::new(Mutex::new(report));
        let (stop, stopped) = channel();
        let shared = Arc::clone(&report);
        let thread = std::thread::Builder::new()
            .name("flows".to_owned())
            .spawn(move || keep(keeper, &shared, &stopped))
            .map_err(DatapathError::Thread)?;
        Ok(Self { report, stop: Some(stop), thread: Some(thread) })
    }

    /// What it knows.
    pub fn report(&self) -> FlowReport {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for FlowThread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It panicked only where the panic was told already.
            let _ = thread.join();
        }
    }
}

fn keep(mut keeper: FlowKeeper, report: &Mutex<FlowReport>, stopped: &Receiver<()>) {
    let mut pace = Pace::new(Instant::now());
    let mut telling = Telling::default();
    let mut trouble = String::new();
    // The first walk is due at once: it finds the seeded flows.
    while stopped.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
        match look(&mut keeper, &mut pace, &mut telling, report) {
            Ok(()) => trouble.clear(),
            Err(error) => {
                let error = error.to_string();
                if error != trouble {
                    tracing::warn!("flows that ended are not removed: {error}");
                    trouble = error;
                }
            }
        }
    }
}

fn look(
    keeper: &mut FlowKeeper,
    pace: &mut Pace,
    telling: &mut Telling,
    report: &Mutex<FlowReport>,
) -> Result<(), DatapathError> {
    let (made, refused) = (keeper.made()?, keeper.refused()?);
    let begin = Instant::now();
    // Who was refused would have come, had there been more room.
    let mut lost = keeper.grow(pace.entries(made) + telling.refused_since(refused));
    if keeper.is_all_in_use() {
        pace.grew(begin);
    } else {
        telling.forget(refused);
    }
    if !pace.is_due(begin, made, keeper.max()) {
        let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
        report.evicted_lasting += lost;
        report.bytes_in_use = keeper.bytes_in_use();
        return Ok(());
    }
    let walked = keeper.bytes_in_use();
    let swept = keeper.sweep()?;
    lost += keeper.fit(pace.expected(swept.census.total(), made));
    // What the next walk will take, where it has less to walk through.
    let part = (keeper.bytes_in_use() as f64 / walked as f64).min(1.0);
    pace.walked(begin, begin.elapsed().mul_f64(part), made, swept.census.total());
    pace.is_large = keeper.is_all_in_use();
    {
        let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
        report.expired += swept.expired;
        report.evicted_passing += swept.evicted_passing;
        report.evicted_lasting += swept.evicted_lasting + lost;
        report.census = swept.census;
        report.counted = Some(begin);
        report.bytes_in_use = keeper.bytes_in_use();
    }
    if let Some(text) =
        telling.tell(begin, keeper.max(), swept.evicted_passing, swept.evicted_lasting, refused)
    {
        tracing::warn!("{text}");
    }
    Ok(())
}

/// When to walk through the table next.
struct Pace {
    /// When, while there is room.
    due: Instant,
    /// When at the earliest, while there is none.
    due_full: Instant,
    /// Entries at the last walk.
    entries: u64,
    /// Entries ever made until then.
    made: u64,
    /// What it took.
    took: Duration,
    /// Whether all lines were in use then, or the walk after they came into use is due already.
    is_large: bool,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self { due: now, due_full: now, entries: 0, made: 0, took: Duration::ZERO, is_large: false }
    }

    fn is_due(&self, now: Instant, made: u64, max: u64) -> bool {
        now >= self.due || (now >= self.due_full && is_nearly_full(self.entries(made), max))
    }

    /// How many there are at most.
    fn entries(&self, made: u64) -> u64 {
        self.entries + made.saturating_sub(self.made)
    }

    /// How many there may soon be, where a walk found so many. As many may come as did: lines that a burst will need are
    /// not given back in its middle.
    fn expected(&self, entries: u64, made: u64) -> u64 {
        entries + made.saturating_sub(self.made)
    }

    fn walked(&mut self, begin: Instant, took: Duration, made: u64, entries: u64) {
        self.due = begin + PACE.max(took * SHARE);
        self.due_full = begin + took * SHARE_FULL;
        (self.made, self.entries, self.took) = (made, entries, took);
    }

    /// All lines are in use.
    fn grew(&mut self, now: Instant) {
        if !self.is_large {
            self.due = self.due.min(now + SETTLE.max(self.took * SHARE));
            self.is_large = true;
        }
    }
}

/// Tells the operator that the table is too small, or under attack.
#[derive(Default)]
struct Telling {
    last: Option<Instant>,
    /// When there was something to tell for the first time since.
    noticed: Option<Instant>,
    passing: u64,
    lasting: u64,
    refused_told: u64,
}

impl Telling {
    /// Flows refused since the last were told, or forgotten.
    fn refused_since(&self, refused: u64) -> u64 {
        refused.saturating_sub(self.refused_told)
    }

    /// Those refused up to now did not find the table full: there was more room to be made.
    fn forget(&mut self, refused: u64) {
        self.refused_told = refused;
    }

    /// What there is to tell, if it is time to.
    fn tell(&mut self, now: Instant, max: u64, passing: u64, lasting: u64, refused: u64) -> Option<String> {
        self.passing += passing;
        self.lasting += lasting;
        let refused_new = self.refused_since(refused);
        if self.passing + self.lasting + refused_new == 0 {
            return None;
        }
        let noticed = *self.noticed.get_or_insert(now);
        if now < noticed + GATHER || self.last.is_some_and(|last| now < last + TELL) {
            return None;
        }
        let seconds = now.duration_since(noticed).as_secs();
        let (passing, lasting) = (self.passing, self.lasting);
        *self = Self { last: Some(now), refused_told: refused, ..Self::default() };
        Some(format!(
            "the flow table (flows.max {max}) is full: in {seconds} s {refused_new} new flows were not stored, {passing} \
             short-lived and {lasting} lasting ones made room. A flood, or too small a table"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filling_table_is_walked_through_at_once() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        assert!(pace.is_due(start, 0, 1600));
        pace.walked(start, Duration::from_millis(100), 50, 1000);
        let soon = start + Duration::from_millis(400);
        let later = start + Duration::from_millis(500);
        assert!(!pace.is_due(later, 50 + 500, 1600), "there is room");
        assert!(pace.is_due(later, 50 + 501, 1600));
        assert!(!pace.is_due(soon, 50 + 600, 1600), "a fifth of a CPU");
        assert!(pace.is_due(start + PACE, 50, 1600));
    }

    #[test]
    fn the_lines_that_a_burst_took_are_soon_looked_at() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        pace.walked(start, Duration::from_millis(1), 0, 10);
        let burst = start + Duration::from_secs(3);
        pace.grew(burst);
        pace.grew(burst + Duration::from_millis(200));
        assert!(!pace.is_due(burst + Duration::from_millis(999), 0, 1600));
        assert!(pace.is_due(burst + SETTLE, 0, 1600));
        // They are needed.
        pace.walked(burst + SETTLE, Duration::from_millis(1), 0, 10);
        pace.grew(burst + SETTLE * 2);
        assert!(!pace.is_due(burst + SETTLE * 3, 0, 1600));
    }

    #[test]
    fn a_burst_is_expected_to_go_on_until_a_walk_finds_that_it_does_not() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        pace.walked(start, Duration::from_millis(1), 1_000, 100);
        assert_eq!(pace.expected(20_000, 21_000), 40_000);
        pace.walked(start, Duration::from_millis(1), 21_000, 20_000);
        assert_eq!(pace.expected(15_000, 21_000), 15_000);
    }

    #[test]
    fn a_full_table_is_told_with_numbers_that_say_something() {
        let mut telling = Telling::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut tell = |seconds, passing, refused| telling.tell(at(seconds), 1024, passing, 0, refused);
        let text = |seconds, refused, passing| {
            Some(format!(
                "the flow table (flows.max 1024) is full: in {seconds} s {refused} new flows were not stored, {passing} \
                 short-lived and 0 lasting ones made room. A flood, or too small a table"
            ))
        };
        assert_eq!(tell(0, 0, 0), None);
        assert_eq!(tell(10, 300, 0), None);
        assert_eq!(tell(12, 300, 20), None);
        assert_eq!(tell(13, 300, 30), text(3, 30, 900));
        assert_eq!(tell(20, 1, 31), None);
        assert_eq!(tell(73, 1, 31), text(53, 1, 2));
        assert_eq!(tell(200, 0, 31), None, "it is over");
        assert_eq!(tell(300, 5, 31), None);
        assert_eq!(tell(310, 0, 31), text(10, 0, 5));
    }

    #[test]
    fn a_large_table_is_walked_through_less_often() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        pace.walked(start, Duration::from_secs(1), 0, 10);
        assert!(!pace.is_due(start + PACE, 0, 1600));
        assert!(pace.is_due(start + Duration::from_secs(50), 0, 1600));
    }
}

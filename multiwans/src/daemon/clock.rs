//! The only clock the engine gets to see.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::engine::Now;

/// Counts from the daemon's start.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    start: Instant,
}

impl Clock {
    /// Starts now.
    pub(super) fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// The time of an event.
    pub(super) fn now(&self) -> Now {
        // A clock before 1970 is wrong anyway, and this one is for people only.
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        // The zone is looked up anew where it changes: summer time begins while the daemon runs.
        let utc_offset = jiff::Zoned::now().offset().seconds();
        Now { mono: self.start.elapsed(), wall, utc_offset }
    }

    /// When the engine's time will be `mono`.
    pub(super) fn instant(&self, mono: Duration) -> Instant {
        self.start + mono
    }
}

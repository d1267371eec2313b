//! What happens, printed with the time since the start.

use std::io::{IsTerminal, stdout};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

const BOLD: &str = "\x1b[1m";
const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const PLAIN: &str = "\x1b[0m";

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Voice {
    /// The demo does something to the network.
    Act,
    /// The traffic went another way, or stopped.
    Traffic,
    /// The daemon reports.
    Daemon,
    /// A measured result.
    Result,
}

/// The printed story. Lines of several threads come out whole.
#[derive(Debug)]
pub(super) struct Timeline {
    start: Instant,
    has_colour: bool,
    output: Mutex<()>,
}

impl Timeline {
    pub(super) fn start() -> Self {
        Self { start: Instant::now(), has_colour: stdout().is_terminal(), output: Mutex::new(()) }
    }

    pub(super) fn say(&self, voice: Voice, text: &str) {
        self.say_at(Instant::now(), voice, text);
    }

    /// Says what happened at a moment that has just passed.
    pub(super) fn say_at(&self, at: Instant, voice: Voice, text: &str) {
        let (speaker, colour) = match voice {
            Voice::Act => ("==>    ", BOLD),
            Voice::Traffic => ("traffic", PLAIN),
            Voice::Daemon => ("daemon ", PLAIN),
            Voice::Result => ("  ok   ", GREEN),
        };
        let colour =
            if voice == Voice::Traffic && text.ends_with(super::traffic::NO_ANSWER) { RED } else { colour };
        let seconds = at.saturating_duration_since(self.start).as_secs_f64();
        let line = format!("t+{seconds:>6.3} s  {speaker}  {text}");
        let _whole_lines = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        if self.has_colour && colour != PLAIN {
            println!("{colour}{line}{PLAIN}");
        } else {
            println!("{line}");
        }
    }
}

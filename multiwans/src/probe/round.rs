//! The bookkeeping of rounds: what was asked when, which answer belongs to it, what came of it. Pure: the
//! caller reads the clock.
//!
//! ```text
//! begin ──> open ── first answer that matches ──> Answered, told at once
//!            ├───── deadline passed ────────────> Silent, or Unresolved
//!            └───── a later round answered ─────> forgotten
//! ```

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use super::echo::{Cookie, Reply};
use crate::engine::event::Outcome;

/// The rounds of one prober that are still open. There are several where `ping.timeout` is longer than
/// `probe.interval`.
#[derive(Debug)]
pub(super) struct Rounds {
    timeout: Duration,
    /// Oldest first; with one timeout for all, so are their deadlines.
    open: VecDeque<Open>,
    next_sequence: u16,
}

#[derive(Debug)]
struct Open {
    sequence: u16,
    cookie: Cookie,
    deadline: Instant,
    /// Who was asked, and when: sending to many targets takes its time.
    asked: Vec<(Ipv4Addr, Instant)>,
    /// The first failure to ask.
    send_error: Option<String>,
    /// More are to be asked, but not known yet.
    unresolved: bool,
}

impl Rounds {
    /// No rounds yet. `timeout`: how long an answer may take.
    pub(super) fn new(timeout: Duration) -> Self {
        Self { timeout, open: VecDeque::new(), next_sequence: 0 }
    }

    /// Opens a round and gives its sequence number. What follows of [`asked`](Self::asked) and
    /// [`not_asked`](Self::not_asked) belongs to it.
    pub(super) fn begin(&mut self, cookie: Cookie, now: Instant) -> u16 {
        let sequence = self.next_sequence;
        self.next_sequence = sequence.wrapping_add(1);
        self.open.push_back(Open {
            sequence,
            cookie,
            deadline: now + self.timeout,
            asked: Vec::new(),
            send_error: None,
            unresolved: false,
        });
        sequence
    }

    /// A request of the newest round left for `target`.
    pub(super) fn asked(&mut self, target: Ipv4Addr, now: Instant) {
        if let Some(round) = self.open.back_mut() {
            round.asked.push((target, now));
        }
    }

    /// A request of the newest round could not be sent. The first reason is kept.
    pub(super) fn not_asked(&mut self, reason: String) {
        if let Some(round) = self.open.back_mut() {
            round.send_error.get_or_insert(reason);
        }
    }

    /// Not everybody whom the newest round should ask is known yet.
    pub(super) fn unresolved(&mut self) {
        if let Some(round) = self.open.back_mut() {
            round.unresolved = true;
        }
    }

    /// The outcome of the round that `reply` answers, or `None` where it answers no open round: wrong
    /// cookie or sequence, sent by someone who was not asked, a second answer, or a late one.
    ///
    /// Whether a round is still open is for [`expire`](Self::expire) to say, not for the clock: an
    /// answer that waited in the socket while the process could not run did come in time.
    ///
    /// Older rounds that are still open are forgotten. Their silence would be told after this answer
    /// though it is older news, and would count as a failure that follows it.
    pub(super) fn answer(&mut self, reply: &Reply, now: Instant) -> Option<Outcome> {
        let (place, sent) = self.open.iter().enumerate().find_map(|(place, round)| {
            if round.sequence != reply.echo.sequence || round.cookie != reply.echo.cookie {
                return None;
            }
            let &(_, sent) = round.asked.iter().find(|(target, _)| *target == reply.source)?;
            Some((place, sent))
        })?;
        self.open.drain(..=place);
        Some(Outcome::Answered { target: reply.source, rtt: now.saturating_duration_since(sent) })
    }

    /// Closes the oldest round if its time was up at `now`; call it until it gives `None`, and only after
    /// every reply that had arrived by `now` was shown to [`answer`](Self::answer).
    pub(super) fn expire(&mut self, now: Instant) -> Option<Outcome> {
        let round = self.open.pop_front_if(|round| round.deadline <= now)?;
        let Open { send_error, unresolved, .. } = round;
        Some(if unresolved { Outcome::Unresolved { send_error } } else { Outcome::Silent { send_error } })
    }

    /// When the oldest open round's time is up.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.open.front().map(|round| round.deadline)
    }
}

#[cfg(test)]
#[path = "round_tests.rs"]
mod tests;

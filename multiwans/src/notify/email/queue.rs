//! Messages that wait for the server. Pure: the time is handed in.

use std::collections::VecDeque;
use std::time::Duration;

use super::message::Message;

/// Messages that wait at most. Each is some 20 kB, and nobody reads more of them after an outage.
pub(super) const CAPACITY: usize = 50;

/// The first pause after a failure; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// The longest pause. An outage's end is told at once where we see it; this is for what we do not see.
const LONGEST_PAUSE: Duration = Duration::from_secs(5 * 60);
/// How long a message is tried for (RFC 5321 §4.5.4.1: at least 4 to 5 days).
const MAX_AGE: Duration = Duration::from_secs(5 * 24 * 3600);

/// A waiting message.
#[derive(Debug)]
struct Waiting {
    message: Message,
    since: Duration,
    tries: u32,
    due: Duration,
}

/// The messages, oldest first.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: VecDeque<Waiting>,
    /// Failures of the server, rather than of one message, in a row.
    server_tries: u32,
    server_due: Duration,
}

impl Queue {
    /// Adds a message, and returns the one that had to go for it. Something happened, so what kept the
    /// others may be over: they are tried again now.
    pub(super) fn push(&mut self, message: Message, now: Duration) -> Option<Message> {
        let dropped = if self.waiting.len() >= CAPACITY { self.waiting.pop_front() } else { None };
        self.waiting.push_back(Waiting { message, since: now, tries: 0, due: now });
        self.server_due = now;
        dropped.map(|waiting| waiting.message)
    }

    /// Everything is tried again now: a link came back, or it is the last chance.
    pub(super) fn hurry(&mut self, now: Duration) {
        self.server_tries = 0;
        self.server_due = now;
        self.waiting.iter_mut().for_each(|waiting| waiting.due = now);
    }

    /// Takes out the message to try now.
    pub(super) fn take(&mut self, now: Duration) -> Option<Taken> {
        if now < self.server_due {
            return None;
        }
        let index = self.waiting.iter().position(|waiting| waiting.due <= now)?;
        self.waiting.remove(index).map(Taken)
    }

    /// The server did its part.
    pub(super) fn answered(&mut self) {
        self.server_tries = 0;
    }

    /// Puts a message back that the server, or the way to it, failed. How long until the next try.
    pub(super) fn server_failed(&mut self, taken: Taken, now: Duration) -> Duration {
        let pause = pause(self.server_tries);
        self.server_tries += 1;
        self.server_due = now + pause;
        self.put_back(taken.0);
        pause
    }

    /// Puts a message back that the server does not want for now; others are not kept waiting by it. How
    /// long until its next try, or the message itself where it is too old for one.
    pub(super) fn postpone(&mut self, mut taken: Taken, now: Duration) -> Result<Duration, Message> {
        if now.saturating_sub(taken.0.since) >= MAX_AGE {
            return Err(taken.0.message);
        }
        let pause = pause(taken.0.tries);
        taken.0.tries += 1;
        taken.0.due = now + pause;
        self.put_back(taken.0);
        Ok(pause)
    }

    /// When to ask [`take`](Self::take) again; `None`: nothing waits.
    pub(super) fn due(&self) -> Option<Duration> {
        let first = self.waiting.iter().map(|waiting| waiting.due).min()?;
        Some(first.max(self.server_due))
    }

    /// Everything that waits, oldest first; the queue is empty afterwards.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Message> {
        std::mem::take(&mut self.waiting).into_iter().map(|waiting| waiting.message)
    }

    /// In its place by age. While it was out, the queue may have been filled up: then it is the oldest
    /// that goes, at the next push.
    fn put_back(&mut self, waiting: Waiting) {
        let index = self.waiting.partition_point(|other| other.since <= waiting.since);
        self.waiting.insert(index, waiting);
    }
}

/// A message that is being tried.
#[derive(Debug)]
pub(super) struct Taken(Waiting);

impl Taken {
    /// The message.
    pub(super) fn message(&self) -> &Message {
        &self.0.message
    }

    /// The message, to take recipients out that need not be tried again.
    pub(super) fn message_mut(&mut self) -> &mut Message {
        &mut self.0.message
    }
}

fn pause(tries: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(2u32.saturating_pow(tries.min(16))).min(LONGEST_PAUSE)
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;

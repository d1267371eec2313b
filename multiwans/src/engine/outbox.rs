//! Commands on their way: numbering them, knowing which target was carried out, trying again.

use std::collections::VecDeque;
use std::time::Duration;

use super::command::{Command, Numbered};
use super::event::CommandId;

/// The first pause after a failure: long enough for what is transient (`EBUSY`, a route whose address is
/// just being set), short beside an outage.
pub(super) const FIRST_RETRY: Duration = Duration::from_secs(1);

/// The longest pause: what does not heal by itself is tried twice a minute, and costs nothing.
pub(super) const LAST_RETRY: Duration = Duration::from_secs(30);

/// The pause after `failures` failures in a row.
pub(super) fn backoff(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1);
    FIRST_RETRY.saturating_mul(2u32.saturating_pow(doublings)).min(LAST_RETRY)
}

/// Commands issued and not yet fetched by the driver.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    last_id: u64,
    queue: VecDeque<Numbered>,
}

impl Outbox {
    /// Issues a command.
    pub(super) fn push(&mut self, command: Command) -> CommandId {
        self.last_id += 1;
        let id = CommandId(self.last_id);
        self.queue.push_back(Numbered { id, command });
        id
    }

    /// The oldest command not fetched yet.
    pub(super) fn pop(&mut self) -> Option<Numbered> {
        self.queue.pop_front()
    }

    /// Drops what was not fetched.
    pub(super) fn clear(&mut self) {
        self.queue.clear();
    }
}

/// One thing that is to be in a certain way, and how far that has come.
///
/// ```text
///               want(new)            issue              done
///  ┌─────────┐ ──────────> ┌─────┐ ────────> ┌────────┐ ────> ┌─────────┐
///  │ Settled │             │ Due │           │ Issued │       │ Settled │
///  └─────────┘             └─────┘           └────────┘       └─────────┘
///                             ^   want(new)     │ ^ failed   ┌─────────┐
///                             └─────────────────┘ └────────> │ RetryAt │ ── issue once it is time ─> Issued
///                             ^────────── want(new) ──────── └─────────┘
/// ```
///
/// Only the answer to the last command counts: an older target's says nothing about this one.
#[derive(Debug)]
pub(super) struct Slot<T> {
    target: Option<T>,
    progress: Progress,
    /// Failures in a row of this target.
    failures: u32,
    /// The last failure told of and not yet known to be over.
    trouble: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Settled,
    Due,
    Issued(CommandId),
    RetryAt(Duration),
}

/// What a failure comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failure {
    /// The pause before the next try.
    pub(super) retry_in: Duration,
    /// Whether it was not told yet.
    pub(super) news: bool,
}

impl<T: PartialEq> Slot<T> {
    /// Nothing wanted yet.
    pub(super) const fn empty() -> Self {
        Self { target: None, progress: Progress::Settled, failures: 0, trouble: None }
    }

    /// It is in this way already.
    pub(super) const fn settled(target: T) -> Self {
        Self { target: Some(target), progress: Progress::Settled, failures: 0, trouble: None }
    }

    /// What was wanted last.
    pub(super) fn target(&self) -> Option<&T> {
        self.target.as_ref()
    }

    /// Whether the last target was carried out.
    pub(super) fn is_settled(&self) -> bool {
        self.progress == Progress::Settled
    }

    /// Whether its command is due or on its way. Between two tries of a failing one it is not.
    pub(super) fn is_under_way(&self) -> bool {
        matches!(self.progress, Progress::Due | Progress::Issued(_))
    }

    /// Sets the target; nothing is due where it is the last one's equal.
    pub(super) fn want(&mut self, target: T) {
        if self.target.as_ref() != Some(&target) {
            self.target = Some(target);
            self.again();
        }
    }

    /// Makes the target due again: what was carried out may not hold any more.
    pub(super) fn again(&mut self) {
        self.progress = Progress::Due;
        self.failures = 0;
    }

    /// [`again`](Self::again), unless its command is due, on its way, or between two tries.
    pub(super) fn again_if_settled(&mut self) {
        if self.is_settled() {
            self.again();
        }
    }

    /// [`again`](Self::again), where anything is wanted at all.
    pub(super) fn again_if_wanted(&mut self) {
        if self.target.is_some() {
            self.again();
        }
    }

    /// Issues the target's command if it is due.
    pub(super) fn issue(&mut self, outbox: &mut Outbox, now: Duration, command: impl FnOnce(&T) -> Command) {
        let due = match self.progress {
            Progress::Due => true,
            Progress::RetryAt(at) => at <= now,
            Progress::Settled | Progress::Issued(_) => false,
        };
        if let Some(target) = self.target.as_ref().filter(|_| due) {
            self.progress = Progress::Issued(outbox.push(command(target)));
        }
    }

    /// When its next try is due.
    pub(super) fn deadline(&self) -> Option<Duration> {
        match self.progress {
            Progress::RetryAt(at) => Some(at),
            Progress::Settled | Progress::Due | Progress::Issued(_) => None,
        }
    }

    /// Whether this is the command it waits for.
    pub(super) fn awaits(&self, id: CommandId) -> bool {
        self.progress == Progress::Issued(id)
    }

    /// The command it waits for was carried out. True where that ends a trouble that was told.
    pub(super) fn done(&mut self) -> bool {
        self.progress = Progress::Settled;
        self.failures = 0;
        self.trouble.take().is_some()
    }

    /// The command it waits for failed.
    pub(super) fn failed(&mut self, error: &str, now: Duration) -> Failure {
        let news = self.failures == 0 || self.trouble.as_deref() != Some(error);
        self.failures = self.failures.saturating_add(1);
        self.trouble = Some(error.to_owned());
        let retry_in = backoff(self.failures);
        self.progress = Progress::RetryAt(now.saturating_add(retry_in));
        Failure { retry_in, news }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_half_a_minute() {
        let pauses: Vec<u64> = (1..=7).map(|failures| backoff(failures).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(backoff(u32::MAX), LAST_RETRY);
    }

    fn issue(slot: &mut Slot<u8>, outbox: &mut Outbox, now: u64) -> Option<CommandId> {
        slot.issue(outbox, Duration::from_secs(now), |_| Command::WriteStatus(Vec::new()));
        outbox.pop().map(|numbered| numbered.id)
    }

    #[test]
    fn a_failure_is_tried_again_in_time_and_told_once() {
        let (mut slot, mut outbox) = (Slot::empty(), Outbox::default());
        slot.want(1);
        let first = issue(&mut slot, &mut outbox, 0).unwrap();
        assert!(slot.awaits(first));
        assert!(slot.failed("busy", Duration::ZERO).news);
        assert_eq!(issue(&mut slot, &mut outbox, 0), None);
        assert_eq!(slot.deadline(), Some(Duration::from_secs(1)));

        issue(&mut slot, &mut outbox, 1).unwrap();
        let second = slot.failed("busy", Duration::from_secs(1));
        assert_eq!(second, Failure { retry_in: Duration::from_secs(2), news: false });
        issue(&mut slot, &mut outbox, 3).unwrap();
        assert!(slot.failed("no such device", Duration::from_secs(3)).news);

        issue(&mut slot, &mut outbox, 7).unwrap();
        assert!(slot.done());
        assert!(slot.is_settled());
        assert_eq!(slot.deadline(), None);
    }

    #[test]
    fn a_newer_target_does_not_wait_for_the_old_ones_retry() {
        let (mut slot, mut outbox) = (Slot::empty(), Outbox::default());
        slot.want(1);
        let first = issue(&mut slot, &mut outbox, 0).unwrap();
        slot.failed("busy", Duration::ZERO);
        slot.want(2);
        let second = issue(&mut slot, &mut outbox, 0).unwrap();
        assert!(!slot.awaits(first));
        assert!(slot.awaits(second));
        slot.want(2);
        assert_eq!(issue(&mut slot, &mut outbox, 0), None);
    }
}

//! Conntrack entries that are to be deleted once data path and routes send their flows elsewhere.
//!
//! ```text
//!            data path and routes confirmed,       done
//!  ┌──────┐  another link can take the flows  ┌────────┐ ────> forgotten
//!  │ Owed │ ────────────────────────────────> │ Issued │
//!  └──────┘                                   └────────┘ ──┐ failed, up to MAX_TRIES times
//!     ^  └── link back: forgotten                 ^        v
//!     │                                       ┌─────────┐ <┘
//!     └── link OFF / decisions changed        │ RetryAt │ ── link back: forgotten
//!                                             └─────────┘
//! ```

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::command::{Command, MoveFlows};
use super::event::CommandId;
use super::notice::{Kind, Task, WanLabel};
use super::outbox::{Outbox, backoff};
use crate::types::WanMark;

/// After this many failures (half a minute with the pauses between them) the flows have timed out or
/// found their way; a deletion that late would only hit new ones.
pub(super) const MAX_TRIES: u32 = 5;

/// What is owed and what is under way.
#[derive(Debug, Default)]
pub(super) struct Moves(BTreeMap<Whose, Move>);

/// Which flows. The order is the one they are issued in: flows of a dead link wait the hardest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Whose {
    OffDeadLink(WanMark),
    Unanswered,
}

#[derive(Debug)]
struct Move {
    target: MoveFlows,
    task: Task,
    step: Step,
    failures: u32,
    last_error: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Owed,
    Issued(CommandId),
    RetryAt(Duration),
}

impl Moves {
    /// A link went OFF: its flows are to move.
    pub(super) fn owe_dead_link(&mut self, label: &WanLabel, address: Ipv4Addr) {
        let wan = label.mark;
        let target = MoveFlows::OffDeadLink { wan, address };
        self.owe(Whose::OffDeadLink(wan), target, Task::MoveOffDeadLink(label.clone()));
    }

    /// A link is back: its flows may stay.
    pub(super) fn forgive(&mut self, wan: WanMark) {
        self.0.remove(&Whose::OffDeadLink(wan));
    }

    /// Decisions changed: flows nobody answered may have the wrong translation.
    pub(super) fn owe_unanswered(&mut self) {
        self.owe(Whose::Unanswered, MoveFlows::Unanswered, Task::MoveUnanswered);
    }

    /// Anew even if the same was under way: that one looked at the state before.
    fn owe(&mut self, whose: Whose, target: MoveFlows, task: Task) {
        self.0.insert(whose, Move { target, task, step: Step::Owed, failures: 0, last_error: None });
    }

    /// Issues what is due. The caller has seen data path and routes confirmed; `can_leave` tells whether
    /// a dead link's flows have anywhere to go.
    pub(super) fn issue(&mut self, outbox: &mut Outbox, now: Duration, can_leave: impl Fn(WanMark) -> bool) {
        for (whose, entry) in &mut self.0 {
            let due = match entry.step {
                Step::Owed => true,
                Step::RetryAt(at) => at <= now,
                Step::Issued(_) => false,
            };
            if due && whose.can_move(&can_leave) {
                entry.step = Step::Issued(outbox.push(Command::MoveFlows(entry.target.clone())));
            }
        }
    }

    /// When the next try is due, of what could be tried then; see [`issue`](Self::issue).
    pub(super) fn deadline(&self, can_leave: impl Fn(WanMark) -> bool) -> Option<Duration> {
        self.0
            .iter()
            .filter(|(whose, _)| whose.can_move(&can_leave))
            .filter_map(|(_, entry)| match entry.step {
                Step::RetryAt(at) => Some(at),
                Step::Owed | Step::Issued(_) => None,
            })
            .min()
    }

    /// A command was carried out; what to tell.
    pub(super) fn done(&mut self, id: CommandId) -> Option<Kind> {
        let whose = self.awaiting(id)?;
        let entry = self.0.remove(&whose)?;
        entry.last_error.map(|_| Kind::CommandRecovered { task: entry.task })
    }

    /// A command failed; what to tell.
    pub(super) fn failed(&mut self, id: CommandId, error: &str, now: Duration) -> Option<Kind> {
        let whose = self.awaiting(id)?;
        let mut entry = self.0.remove(&whose)?;
        let (task, error) = (entry.task.clone(), error.to_owned());
        entry.failures += 1;
        if entry.failures >= MAX_TRIES {
            return Some(Kind::CommandGivenUp { task, error, tries: entry.failures });
        }
        let retry_in = backoff(entry.failures);
        let told = entry.last_error.as_ref() == Some(&error);
        entry.step = Step::RetryAt(now.saturating_add(retry_in));
        entry.last_error = Some(error.clone());
        self.0.insert(whose, entry);
        (!told).then_some(Kind::CommandFailed { task, error, retry_in })
    }

    fn awaiting(&self, id: CommandId) -> Option<Whose> {
        self.0.iter().find(|(_, entry)| entry.step == Step::Issued(id)).map(|(whose, _)| *whose)
    }
}

impl Whose {
    fn can_move(self, can_leave: impl Fn(WanMark) -> bool) -> bool {
        match self {
            Self::OffDeadLink(wan) => can_leave(wan),
            Self::Unanswered => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::IfName;

    fn label() -> WanLabel {
        WanLabel {
            description: "WAN1".into(),
            iface: IfName::new("eth1").unwrap(),
            mark: WanMark::new(1).unwrap(),
        }
    }

    fn issue(moves: &mut Moves, now: Duration, can_leave: bool) -> Vec<(CommandId, Command)> {
        let mut outbox = Outbox::default();
        moves.issue(&mut outbox, now, |_| can_leave);
        std::iter::from_fn(|| outbox.pop()).map(|numbered| (numbered.id, numbered.command)).collect()
    }

    #[test]
    fn flows_of_a_dead_link_wait_for_one_that_takes_them() {
        let mut moves = Moves::default();
        moves.owe_dead_link(&label(), Ipv4Addr::LOCALHOST);
        assert!(issue(&mut moves, Duration::ZERO, false).is_empty());
        assert_eq!(issue(&mut moves, Duration::ZERO, true).len(), 1);
        assert!(issue(&mut moves, Duration::ZERO, true).is_empty(), "it is under way");
    }

    #[test]
    fn a_link_that_is_back_keeps_its_flows() {
        let mut moves = Moves::default();
        moves.owe_dead_link(&label(), Ipv4Addr::LOCALHOST);
        moves.forgive(label().mark);
        assert!(issue(&mut moves, Duration::ZERO, true).is_empty());
    }

    #[test]
    fn failures_are_told_once_and_end() {
        let mut moves = Moves::default();
        moves.owe_unanswered();
        let mut now = Duration::ZERO;
        let mut told = Vec::new();
        for _ in 0..MAX_TRIES {
            let issued = issue(&mut moves, now, true);
            told.extend(moves.failed(issued[0].0, "EOPNOTSUPP", now));
            now = moves.deadline(|_| true).unwrap_or(now);
        }
        assert_eq!(moves.deadline(|_| true), None);
        assert!(issue(&mut moves, Duration::MAX, true).is_empty());
        assert!(
            matches!(told[..], [Kind::CommandFailed { .. }, Kind::CommandGivenUp { tries: MAX_TRIES, .. }]),
            "{told:?}"
        );
    }

    #[test]
    fn an_answer_to_a_forgotten_command_says_nothing() {
        let mut moves = Moves::default();
        moves.owe_unanswered();
        let first = issue(&mut moves, Duration::ZERO, true)[0].0;
        moves.owe_unanswered();
        assert_eq!(moves.done(first), None);
        assert_eq!(issue(&mut moves, Duration::ZERO, true).len(), 1, "what changed since is still owed");
    }
}

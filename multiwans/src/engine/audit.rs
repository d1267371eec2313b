//! When to look whether everything still is as it was made, and what to say of what was not.
//!
//! ```text
//!  Disturbed ──> due ──(quiet, not before its time)──> Audit ──> Repaired … Done
//!  runInterval ──^                                                  │
//!                └── our own repairs disturb too: one more look ────┘
//! ```
//!
//! Looking costs a few dumps, so what is disturbed is looked at once the last look is [`SETTLE`] ago: a
//! burst is one look, and the events that our own repairs cause find nothing to do. Another program that
//! takes the same thing away again and again is met with growing pauses.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::command::{Command, Role, Routes};
use super::event::{CommandId, Disturbance};
use super::notice::Kind;
use super::outbox::{Outbox, Slot};
use crate::types::IfIndex;

/// From one look to the next that events ask for: longer than a burst of events, far below the second
/// within which what was taken is to be back.
const SETTLE: Duration = Duration::from_millis(100);

/// Repairs of one thing in a row that are taken for accidents or a person's experiments.
const PATIENCE: u32 = 20;

/// Repairs of one thing are in a row while there is no more than this between them.
const ROW: Duration = Duration::from_secs(60);

/// The longest pause against a program that works against us: the shortest `daemon.runInterval`.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// How often something was put back.
#[derive(Debug, Clone, Copy)]
struct Row {
    repairs: u32,
    last: Duration,
}

/// Decides when to look.
#[derive(Debug)]
pub(super) struct Auditor {
    period: Duration,
    /// When everything is looked at again.
    full_at: Duration,
    due: Disturbance,
    /// What events ask for waits until then.
    not_before: Duration,
    running: Option<CommandId>,
    rows: BTreeMap<String, Row>,
}

impl Auditor {
    /// The first look at everything comes a `period` after the start.
    pub(super) fn new(period: Duration) -> Self {
        Self {
            period,
            full_at: period,
            due: Disturbance::default(),
            not_before: Duration::ZERO,
            running: None,
            rows: BTreeMap::new(),
        }
    }

    /// Looks this often from now on.
    pub(super) fn set_period(&mut self, period: Duration, now: Duration) {
        self.period = period;
        self.full_at = self.full_at.min(now.saturating_add(period));
    }

    /// Somebody, perhaps we, changed something.
    pub(super) fn disturbed(&mut self, what: Disturbance) {
        self.due = self.due.and(what);
    }

    /// Issues a look if it is time. What is just being changed is looked at once that is done.
    pub(super) fn issue(
        &mut self,
        outbox: &mut Outbox,
        now: Duration,
        routes: &Slot<Routes>,
        programs: &Slot<BTreeMap<IfIndex, Role>>,
    ) {
        if self.running.is_some() || routes.is_under_way() || programs.is_under_way() {
            return;
        }
        if now >= self.full_at {
            self.full_at = now.saturating_add(self.period);
            self.due = Disturbance::ALL;
        } else if !self.due.any() || now < self.not_before {
            return;
        }
        let due = std::mem::take(&mut self.due);
        let routes = routes.target().filter(|_| due.routing).cloned();
        let programs = programs.target().filter(|_| due.programs).cloned();
        if routes.is_some() || programs.is_some() {
            self.running = Some(outbox.push(Command::Audit { routes, programs }));
        }
    }

    /// When there is something to issue if nothing happens before.
    pub(super) fn deadline(
        &self,
        routes: &Slot<Routes>,
        programs: &Slot<BTreeMap<IfIndex, Role>>,
    ) -> Option<Duration> {
        // An answer comes first in any case.
        if self.running.is_some() || routes.is_under_way() || programs.is_under_way() {
            return None;
        }
        // Before the interfaces were seen there is nothing to look at.
        routes.target()?;
        Some(if self.due.any() { self.not_before.min(self.full_at) } else { self.full_at })
    }

    /// Takes the answer to a command. `false`: it was not ours.
    pub(super) fn ended(&mut self, id: CommandId, now: Duration) -> bool {
        if self.running != Some(id) {
            return false;
        }
        self.running = None;
        self.not_before = self.not_before.max(now.saturating_add(SETTLE));
        true
    }

    /// Something was put back; what to tell.
    pub(super) fn repaired(&mut self, what: &BTreeSet<String>, now: Duration) -> Vec<Kind> {
        self.rows.retain(|_, row| now.saturating_sub(row.last) <= ROW);
        let mut told = Vec::new();
        for what in what {
            let row = self.rows.entry(what.clone()).or_insert(Row { repairs: 0, last: now });
            row.repairs = row.repairs.saturating_add(1);
            row.last = now;
            let Some(beyond) = row.repairs.checked_sub(PATIENCE).filter(|beyond| *beyond > 0) else {
                told.push(Kind::Repaired { what: what.clone() });
                continue;
            };
            let pause = Duration::from_secs(1).saturating_mul(2u32.saturating_pow(beyond - 1));
            let pause = pause.min(LONGEST_PAUSE);
            self.not_before = self.not_before.max(now.saturating_add(pause));
            if beyond == 1 {
                told.push(Kind::Contested {
                    what: what.clone(),
                    times: row.repairs,
                    longest_pause: LONGEST_PAUSE,
                });
            }
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTING: Disturbance = Disturbance { routing: true, programs: false };

    struct Bench {
        auditor: Auditor,
        outbox: Outbox,
        routes: Slot<Routes>,
        programs: Slot<BTreeMap<IfIndex, Role>>,
    }

    impl Bench {
        fn new() -> Self {
            Self {
                auditor: Auditor::new(Duration::from_secs(20)),
                outbox: Outbox::default(),
                routes: Slot::settled(Routes::default()),
                programs: Slot::settled(BTreeMap::new()),
            }
        }

        /// Issues at this time; whether routing and programs are looked at, and the command.
        fn at(&mut self, millis: u64) -> Option<(bool, bool, CommandId)> {
            let now = Duration::from_millis(millis);
            self.auditor.issue(&mut self.outbox, now, &self.routes, &self.programs);
            self.outbox.pop().map(|numbered| match numbered.command {
                Command::Audit { routes, programs } => (routes.is_some(), programs.is_some(), numbered.id),
                other => panic!("{other:?}"),
            })
        }

        fn deadline(&self) -> Option<u64> {
            let deadline = self.auditor.deadline(&self.routes, &self.programs)?;
            Some(u64::try_from(deadline.as_millis()).unwrap())
        }

        fn put_back(&mut self, what: &str, millis: u64) -> Vec<Kind> {
            self.auditor.repaired(&[what.to_owned()].into(), Duration::from_millis(millis))
        }
    }

    #[test]
    fn everything_is_looked_at_each_period() {
        let mut bench = Bench::new();
        assert_eq!(bench.deadline(), Some(20_000));
        assert_eq!(bench.at(19_999), None);
        let (routing, programs, id) = bench.at(20_000).unwrap();
        assert!(routing && programs);
        assert_eq!(bench.deadline(), None, "the answer comes first");
        assert_eq!(bench.at(50_000), None, "one at a time");
        assert!(bench.auditor.ended(id, Duration::from_secs(50)));
        assert!(bench.at(50_000).is_some());
    }

    #[test]
    fn a_disturbance_is_looked_at_at_once_and_its_echo_once() {
        let mut bench = Bench::new();
        bench.auditor.disturbed(ROUTING);
        let (routing, programs, id) = bench.at(1_000).unwrap();
        assert!(routing && !programs);
        // What the repair itself causes.
        bench.auditor.disturbed(ROUTING);
        bench.auditor.disturbed(ROUTING);
        assert!(!bench.auditor.ended(CommandId(99), Duration::from_millis(1_010)));
        assert!(bench.auditor.ended(id, Duration::from_millis(1_010)));
        assert_eq!(bench.at(1_010), None);
        assert_eq!(bench.deadline(), Some(1_110));
        let (_, _, id) = bench.at(1_110).unwrap();
        assert!(bench.auditor.ended(id, Duration::from_millis(1_120)));
        assert_eq!(bench.deadline(), Some(20_000));
    }

    #[test]
    fn what_is_being_changed_is_looked_at_afterwards() {
        let mut bench = Bench::new();
        bench.routes.again();
        bench.auditor.disturbed(ROUTING);
        assert_eq!((bench.at(1_000), bench.deadline()), (None, None));
        bench.routes = Slot::settled(Routes::default());
        assert!(bench.at(1_001).is_some());
        assert_eq!(Bench { routes: Slot::empty(), ..Bench::new() }.deadline(), None, "nothing wanted yet");
    }

    #[test]
    fn a_program_that_works_against_us_is_told_of_once_and_met_with_pauses() {
        let mut bench = Bench::new();
        for n in 0..20 {
            assert!(matches!(bench.put_back("rule a was gone", n * 200)[..], [Kind::Repaired { .. }]));
        }
        assert_eq!(bench.auditor.not_before, Duration::ZERO, "ten times each is nothing");
        assert!(matches!(bench.put_back("rule a was gone", 4_000)[..], [Kind::Contested { times: 21, .. }]));
        assert_eq!(bench.auditor.not_before, Duration::from_secs(5));
        assert_eq!(bench.put_back("rule a was gone", 5_000), []);
        assert_eq!(bench.auditor.not_before, Duration::from_secs(7));
        for n in 1..50 {
            bench.put_back("rule a was gone", 10_000 * n);
        }
        assert_eq!(bench.auditor.not_before, Duration::from_secs(500));
        bench.auditor.disturbed(ROUTING);
        assert!(bench.at(499_999).is_some(), "the full audit does not wait");
        assert!(matches!(bench.put_back("rule b was gone", 490_000)[..], [Kind::Repaired { .. }]));
        // A minute of peace, and it counts anew.
        assert!(matches!(bench.put_back("rule a was gone", 560_000)[..], [Kind::Repaired { .. }]));
    }
}

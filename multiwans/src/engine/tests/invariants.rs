//! Whatever happens in whatever order, these hold; the runs check each command by themselves.

use proptest::prelude::*;

use super::runs::{ORDERS, Op, Replaces, Run, op};
use super::world::{config, index, wan};
use crate::engine::*;
use crate::types::IfIndex;

fn ops() -> impl Strategy<Value = Vec<Op>> {
    prop::collection::vec(op(1..=4), 1..150)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// Once all is carried out, the last commands add up to the state of things, and looking again at the
    /// same gives none.
    #[test]
    fn commands_add_up_to_what_follows_from_the_events(ops in ops()) {
        let mut run = Run::of(&ops);
        run.settle();
        let model = &run.model;
        prop_assert_eq!(&run.last[&Replaces::Steer], &Command::Steer(model.steering()));
        prop_assert_eq!(&run.last[&Replaces::Routes], &Command::Routes(model.routes()));
        prop_assert_eq!(&run.last[&Replaces::Attach], &Command::Attach(model.roles()));
        prop_assert_eq!(&run.last[&Replaces::Status], &Command::WriteStatus(model.states()));
        for mark in 1..=4 {
            let last = run.last.get(&Replaces::Probe(mark)).cloned();
            let nothing = Command::Probe { wan: wan(mark), binding: None };
            let wanted = Command::Probe { wan: wan(mark), binding: model.binding(wan(mark)) };
            prop_assert_eq!(last.unwrap_or(nothing), wanted);
        }
        let issued = run.log.len();
        run.look();
        run.apply(&Op::Wait(60_000));
        prop_assert_eq!(&run.log[issued..], &[]);
    }

    /// Traffic no filter claims goes to a link that is ON as long as one could take it, and once there is
    /// a default there is one for good.
    #[test]
    fn a_default_once_chosen_stays_or_is_replaced(ops in ops()) {
        let mut run = Run::of(&ops);
        run.settle();
        let default = run.model.default;
        if let Some(default) = default {
            prop_assert!(run.model.is_on(default) || !run.model.has_candidate(), "WAN{default} is OFF");
        }
        let (mut steered, mut routed) = (false, false);
        for command in &run.log {
            match command {
                Command::Steer(Steering { default, .. }) => {
                    prop_assert!(default.is_some() || !steered);
                    steered = default.is_some();
                }
                Command::Routes(Routes { default, .. }) => {
                    prop_assert!(default.is_some() || !routed);
                    routed = default.is_some();
                }
                _ => {}
            }
        }
        prop_assert_eq!((steered, routed), (default.is_some(), default.is_some()));

        run.world.send(Event::Stop);
        prop_assert_eq!(run.world.engine.final_default().is_some(), steered || run.model.has_candidate());
        prop_assert_eq!(run.world.look(), []);
    }

    /// A recorded run, read back and replayed, gives the same commands and the same state.
    #[test]
    fn a_record_replays(ops in ops()) {
        let run = Run::of(&ops);
        let mut replayed = Engine::new(&config(&ORDERS));
        let mut log = Vec::new();
        let mut fetch = |engine: &mut Engine| log.extend(std::iter::from_fn(|| engine.poll_command()));
        fetch(&mut replayed);
        for line in &run.world.record {
            let (event, now): (Event, Now) = serde_json::from_str(line).unwrap();
            replayed.handle(&event, now);
            fetch(&mut replayed);
        }
        let read_back = serde_json::from_str(&serde_json::to_string(&log).unwrap());
        prop_assert_eq!(read_back.ok(), Some(log.clone()));
        let (hooks, log): (Vec<_>, Vec<_>) =
            log.into_iter().partition(|numbered| matches!(numbered.command, Command::RunHooks(_)));
        let hooks: Vec<Command> = hooks.into_iter().map(|numbered| numbered.command).collect();
        let recorded: Vec<Command> = run.world.hooks.iter().cloned().map(Command::RunHooks).collect();
        prop_assert_eq!(hooks, recorded);
        let commands: Vec<Command> = log.into_iter().map(|numbered| numbered.command).collect();
        prop_assert_eq!(commands, run.log);
        prop_assert_eq!(replayed.status(), run.world.engine.status());
    }

    /// Whatever standbys do, what is on the default is not touched.
    #[test]
    fn standbys_never_touch_the_default(ops in prop::collection::vec(op(3..=4), 1..150)) {
        let mut run = Run::new();
        run.answered(2);
        run.settle();
        let started = run.log.len();
        for op in &ops {
            run.apply(op);
            run.answered(2);
        }
        run.settle();
        for command in &run.log[started..] {
            match command {
                Command::Steer(Steering { default, usable }) => {
                    prop_assert_eq!(*default, Some(wan(2)));
                    prop_assert_eq!(usable.get(&wan(2)), Some(&IfIndex(index(2))));
                }
                Command::Routes(Routes { default, present, .. }) => {
                    prop_assert_eq!(*default, Some(wan(2)));
                    prop_assert_eq!(present.get(&wan(2)), Some(&IfIndex(index(2))));
                }
                Command::MoveFlows(MoveFlows::OffDeadLink { wan, .. }) | Command::Probe { wan, .. } => {
                    prop_assert!(wan.get() >= 3);
                }
                Command::BringUp { wan, .. } => prop_assert!(wan.get() >= 3),
                Command::MoveFlows(MoveFlows::Unanswered)
                | Command::Attach(_)
                | Command::Filters(_)
                | Command::Audit { .. }
                | Command::WriteStatus(_)
                | Command::RunHooks(_) => {}
            }
        }
    }
}

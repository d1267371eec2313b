//! Which changes hooks are told of, and when.

use super::world::*;
use crate::engine::*;
use crate::types::LinkState::{self, Off, On, Unknow};
use crate::types::{IfIndex, IfName, WanMark};

/// Who, from, to, default.
type Facts = (u8, LinkState, LinkState, Option<u8>);

/// The changes told since the last time, and their reasons.
fn told(world: &mut World) -> (Vec<Facts>, Vec<String>) {
    let changes: Vec<LinkChange> = world.hooks.drain(..).collect();
    let facts = changes
        .iter()
        .map(|change| (change.wan.get(), change.previous, change.state, change.default.map(WanMark::get)));
    (facts.collect(), changes.iter().map(|change| change.reason.clone()).collect())
}

#[test]
fn the_first_judgement_is_a_change() {
    let mut world = World::new(&[Some(1), Some(2)]);
    world.interfaces.retain(|interface| interface.name.as_str() != "eth2");
    world.look();
    world.answered(1);
    let (facts, reasons) = told(&mut world);
    assert_eq!(facts, [(2, Unknow, Off, None), (1, Unknow, On, Some(1))]);
    assert_eq!(reasons, ["the interface does not exist", ""]);
}

#[test]
fn hooks_are_told_of_changes_only_and_of_the_default_after_them() {
    let mut world = World::healthy(&[Some(1), Some(2)]);
    world.hooks.clear();
    world.answered(1);
    world.silent(1);
    assert_eq!(told(&mut world).0, []);
    world.silent(1);
    let (facts, reasons) = told(&mut world);
    assert_eq!(facts, [(1, On, Off, Some(2))]);
    assert!(reasons[0].starts_with("no reply from its target"), "{reasons:?}");
    // Another cause is no other state.
    world.change(1, |eth1| eth1.carrier = false);
    assert_eq!(told(&mut world).0, []);
    world.change(1, |eth1| eth1.carrier = true);
    world.regain(1);
    assert_eq!(told(&mut world), (vec![(1, Off, On, Some(1))], vec![String::new()]));
}

#[test]
fn hooks_come_after_data_path_and_routes() {
    let mut world = World::healthy(&[Some(1), Some(2)]);
    world.silent(1);
    let now = world.now();
    let round = Round {
        wan: wan(1),
        binding: Binding {
            index: IfIndex(index(1)),
            iface: IfName::new("eth1").unwrap(),
            source: address(1),
        },
        outcome: Outcome::Silent { send_error: None },
    };
    world.engine.handle(&Event::Round(round), now);
    let issued: Vec<Command> =
        std::iter::from_fn(|| world.engine.poll_command()).map(|numbered| numbered.command).collect();
    assert!(matches!(issued[..2], [Command::Steer(_), Command::Routes(_)]), "{issued:?}");
    assert!(matches!(issued.last(), Some(Command::RunHooks(_))), "{issued:?}");
}

#[test]
fn no_hooks_run_after_the_stop() {
    let mut world = World::healthy(&[Some(1)]);
    world.hooks.clear();
    world.send(Event::Stop);
    world.change(1, |eth1| eth1.carrier = false);
    assert_eq!(told(&mut world).0, []);
}

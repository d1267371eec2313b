//! What somebody else took is looked for, put back and told; interfaces that are down are switched on.

use std::time::Duration;

use super::world::*;
use crate::engine::*;
use crate::types::IfIndex;

const ROUTING: Disturbance = Disturbance { routing: true, programs: false };

fn is_audit(command: &Command) -> bool {
    matches!(command, Command::Audit { .. })
}

fn is_bring_up(command: &Command) -> bool {
    matches!(command, Command::BringUp { .. })
}

fn routing_audit(default: u8, present: &[u8]) -> Command {
    let Command::Routes(routes) = routes(Some(default), present) else { unreachable!() };
    Command::Audit { routes: Some(routes), programs: None }
}

#[test]
fn a_disturbance_is_audited_at_once_and_told() {
    let mut world = World::healthy(&[Some(1), Some(2)]);
    assert_eq!(world.send(Event::Disturbed(ROUTING)), [routing_audit(1, &[1, 2])]);
    assert_eq!(world.send(Event::Repaired(["rule 30000 was gone; put back".to_owned()].into())), []);
    assert_eq!(world.send(Event::Disturbed(ROUTING)), [], "the repair's own event");
    let notice = world.engine.poll_notice().unwrap();
    assert_eq!((notice.level, notice.to_string()), (Level::Warn, "rule 30000 was gone; put back".to_owned()));
    assert_eq!(world.answer(is_audit, None), []);
    assert_eq!(world.wait(), [routing_audit(1, &[1, 2])], "one more look");
    assert_eq!(world.answer(is_audit, None), []);
    assert_eq!((world.deadline(), world.notices()), (None, Vec::new()));
}

#[test]
fn everything_is_audited_in_time() {
    let mut config = config(&[Some(1)]);
    config.daemon.run_interval = Duration::from_secs(10);
    let mut world = World::of(&config).brought_up();
    for seconds in [10, 20, 30] {
        let commands = world.wait();
        let [Command::Audit { routes: Some(routes), programs: Some(roles) }] = &commands[..] else {
            panic!("{commands:?}");
        };
        assert_eq!((routes.default, roles.get(&IfIndex(index(1)))), (Some(wan(1)), Some(&Role::Wan(wan(1)))));
        assert_eq!(world.now, Duration::from_secs(seconds));
        world.answer(is_audit, None);
    }
}

#[test]
fn an_audit_during_a_failover_waits_and_has_the_new_target() {
    let mut world = World::healthy(&[Some(1), Some(2)]);
    world.lose(1);
    assert_eq!(world.send(Event::Disturbed(ROUTING)), []);
    world.answer(is_steer, None);
    let commands = world.answer(is_routes, None);
    assert_eq!(commands.last(), Some(&routing_audit(2, &[1, 2])));
    assert!(commands.contains(&off_dead_link(1)), "and delays no flow: {commands:?}");
}

#[test]
fn what_an_audit_cannot_put_back_is_the_targets_business() {
    let mut world = World::healthy(&[Some(1), Some(2)]);
    world.send(Event::Disturbed(ROUTING));
    let commands = world.answer(is_audit, Some("busy"));
    assert!(commands.contains(&routes(Some(1), &[1, 2])), "{commands:?}");
    assert_eq!(world.notices(), Vec::<String>::new(), "told by the command that is tried again");
    world.answer(|command| matches!(command, Command::Attach(_)), None);
    world.answer(is_routes, Some("busy"));
    assert_eq!(world.notices(), ["could not set up routes and rules: busy; next try in 1.0 s"]);
    // It fails again, in between two tries: nothing is told twice, and the pause is not shortened.
    world.send(Event::Disturbed(ROUTING));
    assert_eq!(world.wait(), [routing_audit(1, &[1, 2])]);
    assert!(!world.answer(is_audit, Some("busy")).iter().any(is_routes));
    assert_eq!(world.notices(), Vec::<String>::new());
    assert_eq!(world.deadline(), Some(Duration::from_secs(1)));
}

#[test]
fn an_interface_that_is_down_is_switched_on_after_growing_pauses() {
    let mut world = World::healthy(&[Some(1), Some(2)]);
    let reason = |world: &World| world.engine.status().wans[0].reason.clone();
    let down = |world: &mut World| world.change(1, |eth1| eth1.up = false);
    let up = |world: &mut World| world.change(1, |eth1| eth1.up = true);
    assert!(!down(&mut world).iter().any(is_bring_up), "not at once");
    world.settle();
    world.notices();
    let bring_up = Command::BringUp { wan: wan(1), iface: interface(1, 0).name };
    assert!(reason(&world).starts_with("the interface is down; multiwans switches it on at "));
    assert_eq!(world.wait(), std::slice::from_ref(&bring_up));
    assert_eq!(world.now, Duration::from_secs(2));
    assert_eq!(world.notices(), ["WAN1 (eth1): its interface is down; switching it on"]);
    assert_eq!(reason(&world), "the interface is down");

    // It fails, and then helps for a moment only, in turn.
    world.answer(is_bring_up, Some("No such device"));
    assert_eq!(
        world.notices(),
        ["could not switch on the interface of WAN1 (eth1): No such device; next try in 10.0 s"]
    );
    let mut at = 2;
    for (times, pause, next) in [(2, 10, "30.0 s"), (3, 30, "60.0 s"), (4, 60, "60.0 s"), (5, 60, "60.0 s")] {
        world.look();
        let due = world.deadline();
        at += pause;
        assert_eq!(due, Some(Duration::from_secs(at)), "{times}");
        assert_eq!(world.wait(), std::slice::from_ref(&bring_up));
        let told = format!(
            "WAN1 (eth1): its interface is down; switching it on for the {times}. time in a row, next time \
             after {next}"
        );
        assert_eq!(world.notices(), [told]);
        world.answer(is_bring_up, None);
        up(&mut world);
        world.settle();
        assert_eq!(world.deadline(), None);
        down(&mut world);
        world.settle();
        world.notices();
    }
    // It was on for long enough: another outage.
    up(&mut world);
    world.settle();
    world.now += Duration::from_secs(60);
    down(&mut world);
    world.settle();
    let due = world.now + Duration::from_secs(2);
    assert_eq!(world.wait(), [bring_up]);
    assert_eq!(world.now, due);
}

#[test]
fn an_interface_that_is_up_again_in_time_is_left_alone() {
    let mut world = World::healthy(&[Some(1), Some(2)]);
    world.change(2, |eth2| eth2.up = false);
    world.settle();
    world.now += Duration::from_secs(1);
    world.change(2, |eth2| eth2.up = true);
    world.settle();
    assert_eq!(world.deadline(), None);
}

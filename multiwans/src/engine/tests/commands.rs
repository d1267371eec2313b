//! What a change gives, in which order, and what happens when it fails.

use super::world::*;
use crate::engine::*;
use crate::types::LinkState::{Off, On};

#[test]
fn failover_and_failback_switch_data_path_then_routes() {
    let mut world = World::healthy(&[Some(1), Some(2)]);
    assert_eq!(world.silent(1), []);
    assert_eq!(world.silent(1), [steer(Some(2), &[2]), routes(Some(2), &[1, 2]), write_status(&[Off, On])]);
    world.settle();
    assert_eq!(world.regain(1), [steer(Some(1), &[1, 2]), routes(Some(1), &[1, 2]), write_status(&[On, On])]);
    let told = world.notices();
    assert_eq!(told[1], "default is WAN2 (eth2) now, was WAN1 (eth1)");
    assert_eq!(told[3], "default is WAN1 (eth1) now, was WAN2 (eth2)");
    assert_eq!(told.len(), 4, "{told:?}");
}

#[test]
fn a_pulled_cable_fails_over_at_once() {
    let mut world = World::healthy(&[Some(1), Some(2)]);
    assert_eq!(
        world.change(1, |eth1| eth1.carrier = false),
        [
            steer(Some(2), &[2]),
            routes(Some(2), &[1, 2]),
            Command::Probe { wan: wan(1), binding: None },
            write_status(&[Off, On])
        ]
    );
}

#[test]
fn all_links_down_is_told_and_changes_nothing() {
    let mut world = World::healthy(&[Some(1), Some(2)]);
    world.lose(1);
    world.settle();
    world.notices();
    assert_eq!(world.lose(2), [write_status(&[Off, Off])]);
    assert_eq!(world.settle(), []);
    let told = world.notices();
    let why = "no reply from its target for 0.0 s; last reply 19:13:20 from 1.1.1.1";
    assert_eq!(
        told[1],
        format!("all links are down: WAN1 (eth1): {why}. WAN2 (eth2): {why}. WAN2 (eth2) stays the default")
    );
    world.silent(1);
    world.silent(2);
    assert_eq!(world.notices(), Vec::<String>::new(), "told once");
    let status = world.engine.status();
    assert_eq!(status.default.as_deref(), Some("WAN2"));
    assert!(status.wans[1].usable && !status.wans[0].usable);

    // The one that comes back takes over, whichever it is.
    assert_eq!(world.regain(1), [steer(Some(1), &[1]), routes(Some(1), &[1, 2]), write_status(&[On, Off])]);
}

#[test]
fn a_default_without_an_interface_stays_the_default() {
    let mut world = World::healthy(&[Some(1)]);
    let eth1 = world.interfaces.remove(0);
    let commands = world.look();
    assert_eq!(commands[0], steer(Some(1), &[]));
    assert!(commands.contains(&routes(Some(1), &[])));
    assert!(!commands.iter().any(is_move));
    world.settle();
    world.interfaces.push(eth1);
    let commands = world.look();
    assert_eq!(commands[0], steer(Some(1), &[1]), "OFF still, but there is nothing better");
    assert!(commands.contains(&routes(Some(1), &[1])));
}

#[test]
fn routes_are_set_anew_when_the_kernel_may_have_dropped_them() {
    let mut world = World::healthy(&[Some(1), Some(2)]);
    // Down and up between two looks leaves no trace but, say, the address coming back elsewhere.
    let again = world.change(1, |eth1| eth1.addresses.insert(0, ([192, 168, 9, 1].into(), 24)));
    assert_eq!(again, [routes(Some(1), &[1, 2])]);
    world.settle();
    world.interfaces.push(interface(9, 99));
    assert!(!world.look().iter().any(is_routes), "another interface's change drops none of ours");
}

#[test]
fn an_interface_that_is_created_anew_is_probed_anew() {
    let mut world = World::healthy(&[Some(1), Some(2)]);
    let commands = world.change(2, |eth2| eth2.index.0 = 77);
    let kinds: Vec<bool> =
        commands.iter().map(|c| matches!(c, Command::Probe { binding: Some(_), .. })).collect();
    assert_eq!(kinds, [false, false, false, true], "{commands:?}");
    assert!(matches!(commands[..3], [Command::Steer(_), Command::Attach(_), Command::Routes(_)]));
}

#[test]
fn a_failed_command_is_told_once_and_tried_again() {
    let mut world = World::healthy(&[Some(1), Some(2)]);
    world.lose(1);
    world.notices();
    world.answer(is_steer, None);
    assert_eq!(world.answer(is_routes, Some("busy")), []);
    assert_eq!(world.notices(), ["could not set up routes and rules: busy; next try in 1.0 s"]);
    assert_eq!(world.send(Event::Tick), [], "not before its time");
    for pause in [1, 2, 4, 8, 16, 30, 30] {
        let before = world.now;
        assert_eq!(world.wait(), [routes(Some(2), &[1, 2])]);
        assert_eq!((world.now - before).as_secs(), pause);
        world.answer(is_routes, Some("busy"));
    }
    assert_eq!(world.notices(), Vec::<String>::new());
    world.wait();
    world.answer(is_routes, None);
    assert_eq!(world.notices(), ["could set up routes and rules after earlier failures"]);
}

#[test]
fn a_newer_target_supersedes_a_retry() {
    let mut world = World::healthy(&[Some(1), Some(2)]);
    world.lose(1);
    world.answer(is_steer, None);
    world.answer(is_routes, Some("busy"));
    world.wait();
    world.answer(is_routes, Some("busy"));
    world.notices();
    assert!(world.regain(1).contains(&routes(Some(1), &[1, 2])));
    assert_eq!(world.deadline(), None);
    world.answer(is_routes, Some("busy"));
    let told = world.notices();
    assert_eq!(told.last().unwrap(), "could not set up routes and rules: busy; next try in 1.0 s");
}

#[test]
fn the_answer_to_an_older_target_is_no_answer_to_the_newer() {
    let mut world = World::healthy(&[Some(1), Some(2)]);
    world.lose(1);
    world.regain(1);
    world.answer(is_steer, None);
    world.answer(is_routes, Some("the older one"));
    assert_eq!(world.deadline(), None);
    world.answer(is_steer, None);
    assert_eq!(world.answer(is_routes, None), [UNANSWERED]);
}

#[test]
fn a_link_whose_prober_cannot_start_holds_nobody_back() {
    let mut world = World::new(&[Some(1), Some(2)]);
    world.look();
    world.answered(2);
    let probe_1 = |command: &Command| matches!(command, Command::Probe { wan, .. } if wan.get() == 1);
    world.answer(probe_1, Some("Operation not permitted"));
    assert_eq!(world.engine.status().default, None);
    world.wait();
    world.answer(probe_1, Some("Operation not permitted"));
    assert_eq!(world.state(1), Off);
    assert_eq!(world.engine.status().default.as_deref(), Some("WAN2"));
}

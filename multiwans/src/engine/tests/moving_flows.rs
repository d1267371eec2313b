//! Which conntrack entries are to be deleted, and when.

use super::world::*;

#[test]
fn flows_move_only_once_data_path_and_routes_are_confirmed() {
    let mut world = World::healthy(&[Some(1), Some(2)]);
    assert!(!world.lose(1).iter().any(is_move));
    assert_eq!(world.answer(is_steer, None), []);
    assert_eq!(world.answer(is_routes, None), [off_dead_link(1), UNANSWERED]);
    assert_eq!(world.settle(), []);

    let mut world = World::healthy(&[Some(1), Some(2)]);
    world.lose(1);
    assert_eq!(world.answer(is_routes, None), []);
    assert_eq!(world.answer(is_steer, None), [off_dead_link(1), UNANSWERED]);
}

#[test]
fn flows_wait_for_a_failed_command_to_succeed() {
    for failing in [is_steer, is_routes] {
        let mut world = World::healthy(&[Some(1), Some(2)]);
        world.lose(1);
        assert_eq!(world.answer(failing, Some("busy")), []);
        assert_eq!(world.settle(), []);
        assert!(!world.wait().iter().any(is_move));
        assert_eq!(world.settle(), [off_dead_link(1), UNANSWERED]);
    }
}

#[test]
fn a_link_that_comes_back_meanwhile_keeps_its_flows() {
    let mut world = World::healthy(&[Some(1), Some(2)]);
    world.lose(1);
    world.regain(1);
    assert_eq!(world.settle(), [UNANSWERED]);
}

#[test]
fn a_standbys_failure_and_return_touch_only_its_own_flows() {
    let mut world = World::healthy(&[Some(1), Some(2)]);
    assert!(!world.lose(2).iter().any(is_routes));
    assert_eq!(world.settle(), [off_dead_link(2)]);
    world.settle();
    assert!(!world.regain(2).iter().any(is_routes));
    assert_eq!(world.settle(), [UNANSWERED]);
}

#[test]
fn flows_of_the_last_link_stay_until_another_takes_them() {
    let mut world = World::healthy(&[Some(1), Some(2), None]);
    world.lose(2);
    assert_eq!(world.settle(), [off_dead_link(2)]);
    world.lose(1);
    assert_eq!(world.settle(), [], "WAN3 is ON, but unclaimed flows would not take it");
    world.regain(2);
    assert_eq!(world.settle(), [off_dead_link(1), UNANSWERED]);
}

#[test]
fn an_address_that_a_live_link_has_too_is_left_alone() {
    let mut config = config(&[Some(1), Some(2), Some(3)]);
    config.wans[1].ip = address(1);
    let mut world = World::of(&config);
    world.interfaces[1].addresses = vec![(address(1), 24)];
    world.look();
    world.answered(1);
    world.answered(3);
    for _ in 0..2 {
        let silent = crate::engine::Outcome::Silent { send_error: None };
        let binding = crate::engine::Binding {
            index: world.interfaces[1].index,
            iface: world.interfaces[1].name.clone(),
            source: address(1),
        };
        let round = crate::engine::Round { wan: wan(2), binding, outcome: silent };
        world.send(crate::engine::Event::Round(round));
    }
    assert_eq!(world.state(2), crate::types::LinkState::Off);
    assert_eq!(world.settle(), [UNANSWERED], "WAN1 became the default, and its flows stay");
}

#[test]
fn a_failed_move_is_tried_a_few_times() {
    let mut world = World::healthy(&[Some(1), Some(2)]);
    world.lose(2);
    world.settle_steering();
    world.notices();
    for _ in 0..4 {
        assert_eq!(world.answer(is_move, Some("EPERM")), []);
        assert_eq!(world.wait(), [off_dead_link(2)]);
    }
    assert_eq!(world.answer(is_move, Some("EPERM")), []);
    assert_eq!(world.deadline(), None);
    assert_eq!(
        world.notices(),
        [
            "could not move the flows off WAN2 (eth2): EPERM; next try in 1.0 s",
            "could not move the flows off WAN2 (eth2), given up after 5 tries: EPERM"
        ]
    );
}

#[test]
fn a_link_that_comes_back_ends_the_retries_of_its_move() {
    let mut world = World::healthy(&[Some(1), Some(2)]);
    world.lose(2);
    world.settle_steering();
    world.answer(is_move, Some("EPERM"));
    assert!(world.deadline().is_some());
    world.regain(2);
    assert_eq!(world.deadline(), None);
    assert_eq!(world.settle(), [UNANSWERED]);
}

#[test]
fn a_retry_that_has_to_wait_sets_no_deadline() {
    let mut world = World::healthy(&[Some(1), Some(2)]);
    world.lose(2);
    world.settle_steering();
    world.answer(is_move, Some("EPERM"));
    // The last link goes: nowhere to move to, however late it is.
    world.lose(1);
    assert_eq!(world.deadline(), None);
}

impl World {
    /// Confirms everything but moves.
    fn settle_steering(&mut self) {
        while self.open.iter().any(|numbered| !is_move(&numbered.command)) {
            self.answer(|command| !is_move(command), None);
        }
    }
}

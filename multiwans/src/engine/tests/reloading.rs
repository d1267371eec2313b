//! Another configuration of the same WANs: what is put in force by it, and what stays as it is.

use std::time::Duration;

use super::world::*;
use crate::config::{Config, Difference, Target};
use crate::engine::*;
use crate::types::LinkState;

fn is_filters(command: &Command) -> bool {
    matches!(command, Command::Filters(_))
}

fn is_probe(command: &Command) -> bool {
    matches!(command, Command::Probe { .. })
}

/// The event for a change of `config(orders)`.
fn reload(orders: &[Option<u8>], change: impl FnOnce(&mut Config)) -> Event {
    let before = config(orders);
    let mut after = before.clone();
    change(&mut after);
    Event::Configured(Settings::new(&after, Difference::between(&before, &after), Revision(7)))
}

fn more_localnets(config: &mut Config) {
    config.localnets.push("172.31.0.0/16".parse().unwrap());
}

const TWO: [Option<u8>; 2] = [Some(1), Some(2)];

#[test]
fn filters_go_first_then_the_routers_own_rules_then_flows_nobody_answered() {
    let mut world = World::healthy(&TWO);
    let commands = world.send(reload(&TWO, more_localnets));
    assert_eq!(commands, [Command::Filters(Revision(7)), routes(Some(1), &[1, 2])]);
    assert_eq!(world.notices(), ["reloaded: localnets changed"]);
    assert_eq!(world.answer(is_routes, None), []);
    assert_eq!(world.answer(is_filters, None), [Command::MoveFlows(MoveFlows::Unanswered)]);
}

#[test]
fn filters_that_the_kernel_refuses_are_tried_again() {
    let mut world = World::healthy(&TWO);
    world.send(reload(&TWO, more_localnets));
    world.answer(is_routes, None);
    world.notices();
    assert_eq!(world.answer(is_filters, Some("out of memory")), []);
    assert_eq!(world.notices(), ["could not put the filters in force: out of memory; next try in 1.0 s"]);
    assert_eq!(world.wait(), [Command::Filters(Revision(7))]);
    assert_eq!(world.answer(is_filters, None), [Command::MoveFlows(MoveFlows::Unanswered)]);
}

#[test]
fn only_the_prober_that_changes_starts_anew_and_no_state_is_lost() {
    let mut world = World::healthy(&TWO);
    world.silent(2);
    let since = world.engine.status();
    let other = Target::Name("example.org".into());
    let commands = world.send(reload(&TWO, |config| config.wans[1].targets.push(other)));
    let [Command::Probe { wan: probed, binding: Some(_) }] = &commands[..] else { panic!("{commands:?}") };
    assert_eq!(*probed, wan(2));
    assert_eq!(world.answer(is_probe, None), []);
    assert_eq!(world.engine.status(), since);
    assert_eq!(world.state(2), LinkState::On);
}

#[test]
fn links_are_judged_by_the_new_limits() {
    let mut world = World::healthy(&TWO);
    assert_eq!(world.send(reload(&TWO, |config| config.ping.count = 2)), []);
    world.silent(2);
    world.silent(2);
    assert_eq!(world.state(2), LinkState::On, "two were enough before");
    world.silent(2);
    assert_eq!(world.state(2), LinkState::Off);
}

#[test]
fn a_shorter_period_of_the_audit_holds_at_once() {
    let slow = |config: &mut Config| config.daemon.run_interval = Duration::from_secs(60);
    let mut before = config(&TWO);
    slow(&mut before);
    let mut world = World::of(&before).brought_up();
    world.now += Duration::from_secs(5);
    let mut after = before.clone();
    after.daemon.run_interval = Duration::from_secs(10);
    let settings = Settings::new(&after, Difference::between(&before, &after), Revision(1));
    assert_eq!(world.send(Event::Configured(settings)), []);
    assert_eq!(world.engine.next_deadline(), Some(world.now + Duration::from_secs(10)));
}

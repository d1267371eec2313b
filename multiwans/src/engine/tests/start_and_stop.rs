use serde_json::json;

use super::world::*;
use crate::engine::*;
use crate::types::IfIndex;
use crate::types::LinkState::{Off, On, Unknow};

#[test]
fn the_status_file_comes_first_then_the_data_path_then_the_rest() {
    let mut world = World::new(&[Some(1), Some(2)]);
    assert_eq!(world.fetch(), [write_status(&[Unknow, Unknow])]);
    let probe = |mark: u8| Command::Probe {
        wan: wan(mark),
        binding: Some(Binding {
            index: IfIndex(index(mark)),
            iface: interface(mark, index(mark)).name,
            source: address(mark),
        }),
    };
    let roles = [1, 2].map(|mark| (IfIndex(index(mark)), Role::Wan(wan(mark))));
    assert_eq!(
        world.look(),
        [steer(None, &[]), Command::Attach(roles.into()), routes(None, &[1, 2]), probe(1), probe(2)]
    );
    assert_eq!(world.look(), []);
}

#[test]
fn nothing_but_the_status_is_asked_for_before_the_interfaces_were_seen() {
    let mut world = World::new(&[Some(1)]);
    world.fetch();
    assert_eq!(world.send(Event::Tick), []);
    assert_eq!(world.answered(1), []);
    assert_eq!(world.state(1), Unknow);
}

#[test]
fn a_link_with_a_fault_at_start_is_off_at_once_and_not_probed() {
    let mut world = World::new(&[Some(1), Some(2)]);
    world.fetch();
    world.interfaces[0].carrier = false;
    let commands = world.look();
    assert_eq!(commands.last(), Some(&write_status(&[Off, Unknow])));
    let probed = commands.iter().filter(|command| matches!(command, Command::Probe { .. })).count();
    assert_eq!(probed, 1);
    // Its table can be there all the same: it is switched on.
    assert!(commands.contains(&routes(None, &[1, 2])));
}

#[test]
fn nothing_is_chosen_while_a_better_link_is_not_judged() {
    let mut world = World::new(&[Some(1), Some(2)]);
    world.look();
    assert_eq!(world.answered(2), [steer(None, &[2]), write_status(&[Unknow, On])]);
    assert_eq!(world.engine.status().default, None);
    assert_eq!(world.lose(1), [steer(Some(2), &[2]), routes(Some(2), &[1, 2]), write_status(&[Off, On])]);
    assert_eq!(world.engine.status().default.as_deref(), Some("WAN2"));
}

#[test]
fn the_failover_order_counts_not_the_place_in_the_file() {
    let world = World::healthy(&[Some(3), None, Some(1), Some(2)]);
    assert_eq!(world.engine.status().default.as_deref(), Some("WAN3"));
}

#[test]
fn a_link_without_an_order_is_never_the_default() {
    let mut world = World::new(&[Some(1), None]);
    world.look();
    world.answered(2);
    world.lose(1);
    assert_eq!(world.engine.status().default, None);
    assert_eq!(world.engine.final_default(), None);
    let told = world.notices();
    assert!(
        told.last().unwrap().starts_with("all links are down: WAN1 (eth1): no reply"),
        "of those that could be the default none is left: {told:?}"
    );
    assert!(told.last().unwrap().ends_with("The default route stays as it was found"));
}

#[test]
fn interfaces_get_their_roles() {
    let mut world = World::new(&[Some(1)]);
    world.fetch();
    let other = |name: &str, index| Interface {
        name: crate::types::IfName::new(name).unwrap(),
        addresses: Vec::new(),
        ..interface(9, index)
    };
    world.interfaces.push(Interface { loopback: true, ..other("lo", 1) });
    world.interfaces.push(Interface { up: false, carrier: false, ..other("br-lan", 2) });
    world.interfaces.push(Interface { port: true, ..other("lan1", 3) });
    world.interfaces.push(other("wg0", 4));
    let roles =
        [(IfIndex(2), Role::Inside), (IfIndex(4), Role::Inside), (IfIndex(index(1)), Role::Wan(wan(1)))];
    assert!(world.look().contains(&Command::Attach(roles.into())));
    world.interfaces.pop();
    assert_eq!(world.look(), [Command::Attach(roles.into_iter().filter(|role| role.0.0 != 4).collect())]);
}

#[test]
fn the_status_has_its_published_form() {
    let mut world = World::new(&[Some(1), None, Some(2)]);
    world.interfaces[1].up = false;
    world.look();
    world.now += std::time::Duration::from_secs(7);
    world.answered(1);
    let status = serde_json::to_value(world.engine.status()).unwrap();
    assert_eq!(
        status,
        json!({
            "default": "WAN1",
            "wans": [
                {
                    "description": "WAN1", "iface": "eth1", "mark": 1, "state": "ON", "reason": "",
                    "since": 1_700_000_007, "order": 1, "address": "10.0.1.2/24", "usable": true,
                    "last_rtt_ms": 12.0, "last_target": "1.1.1.1"
                },
                {
                    "description": "WAN2", "iface": "eth2", "mark": 2, "state": "OFF",
                    "reason": "the interface is down", "since": 1_700_000_000, "order": null,
                    "address": "10.0.2.2/24", "usable": false, "last_rtt_ms": null, "last_target": null
                },
                {
                    "description": "WAN3", "iface": "eth3", "mark": 3, "state": "UNKNOW",
                    "reason": "not judged yet", "since": 1_700_000_000, "order": 2,
                    "address": "10.0.3.2/24", "usable": false, "last_rtt_ms": null, "last_target": null
                },
            ]
        })
    );
    assert_eq!(serde_json::from_value::<Status>(status).unwrap(), world.engine.status());
}

#[test]
fn the_stop_withdraws_what_was_not_fetched_and_names_the_best_link() {
    let mut world = World::healthy(&[Some(1), Some(2)]);
    world.lose(1);
    world.settle();
    world.notices();
    let down = Interface { carrier: false, ..interface(2, index(2)) };
    world.engine.handle(&Event::Interfaces(vec![down]), world.now());
    world.engine.handle(&Event::Stop, world.now());
    assert!(world.engine.stopping());
    assert_eq!(world.engine.poll_command(), None);
    assert_eq!(world.engine.next_deadline(), None);
    assert_eq!(world.engine.final_default(), Some(wan(2)), "none is ON: the default stays");
    assert_eq!(world.notices().last().unwrap(), "stopping; WAN2 (eth2) stays the default route");
    assert_eq!(world.look(), []);
    assert_eq!(world.regain_ignored(1), []);
}

#[test]
fn a_stop_before_the_first_judgement_changes_no_default() {
    let mut world = World::new(&[Some(1)]);
    world.look();
    world.send(Event::Stop);
    assert_eq!(world.engine.final_default(), None);
    assert_eq!(world.notices(), ["stopping; the default route was not changed"]);
}

#[test]
fn the_stop_prefers_a_link_that_is_on_to_a_better_one_not_judged() {
    let mut world = World::new(&[Some(1), Some(2)]);
    world.look();
    world.answered(2);
    world.send(Event::Stop);
    assert_eq!(world.engine.final_default(), Some(wan(2)));
}

impl World {
    fn regain_ignored(&mut self, mark: u8) -> Vec<Command> {
        (0..3).flat_map(|_| self.answered(mark)).collect()
    }
}

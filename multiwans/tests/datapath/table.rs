//! One packet, one expectation.

use std::collections::BTreeMap;

use multiwans::config::{Filter, PortRange, Protocol};
use multiwans::datapath::{Datapath, LoadOptions, Program, SeedFlow};
use multiwans::engine::command::Role;
use multiwans::policy::{Compiled, Policies, Tuple};
use multiwans::types::MarkMask;
use multiwans_common::{PolicySet, Reason};

use crate::config::{Kernel, Verdict, config, filter, mark, port};
use crate::frame::{Context, Packet, ethernet};

pub(crate) const CLIENT: &str = "192.168.50.2";
pub(crate) const HOST: &str = "203.0.113.10";
pub(crate) const SYN: u8 = 0x02;
pub(crate) const SYN_ACK: u8 = 0x12;
pub(crate) const ACK: u8 = 0x10;
pub(crate) const MORE_FRAGMENTS: u16 = 0x2000;

/// Two WANs; tcp/80 and a port range go to WAN2.
fn two_wans() -> Vec<Vec<Filter>> {
    let web =
        Filter { dports: vec![port(80), PortRange { first: 1000, last: 2000 }], ..filter(Protocol::Tcp) };
    vec![vec![], vec![web]]
}

pub(crate) fn kernel() -> Kernel {
    let mut kernel = Kernel::load(&config(MarkMask::default(), &["192.168.0.0/16"], two_wans()));
    kernel.steer(Some(1), &[1, 2]);
    kernel
}

pub(crate) fn steer(kernel: &mut Kernel, packet: &Packet) -> Verdict {
    kernel.run(Program::Steer, &packet.frame(), Context::default())
}

pub(crate) fn verdict(mark: u32, reason: Reason) -> Verdict {
    Verdict { mark, reason }
}

/// An answer that came in by WAN `number` and leaves to the inside.
pub(crate) fn answer(kernel: &mut Kernel, number: u8, packet: &Packet) -> Verdict {
    place_wans(kernel);
    let context =
        Context { mark: u32::from(number), ingress_ifindex: 100 + u32::from(number), ..Context::default() };
    kernel.run(Program::Learn, &packet.frame(), context)
}

/// Tells the programs the WANs' interface numbers. Attaching fails, for there are no such interfaces.
pub(crate) fn place_wans(kernel: &mut Kernel) {
    let roles = [1u8, 2]
        .map(|number| {
            let name = multiwans::types::IfName::new(&format!("mwnone{number}")).unwrap();
            (multiwans::types::IfIndex(100 + u32::from(number)), (name, Role::Wan(mark(number))))
        })
        .into_iter()
        .collect::<BTreeMap<_, _>>();
    assert_eq!(kernel.datapath.attach(&roles).len(), 2);
}

#[test]
fn a_filter_takes_its_packets_and_the_default_the_rest() {
    let kernel = &mut kernel();
    for (destination_port, expected) in [
        (80, verdict(2, Reason::Filter)),
        (81, verdict(1, Reason::Default)),
        (999, verdict(1, Reason::Default)),
        (1000, verdict(2, Reason::Filter)),
        (2000, verdict(2, Reason::Filter)),
        (2001, verdict(1, Reason::Default)),
    ] {
        assert_eq!(steer(kernel, &Packet::tcp(CLIENT, 4000, HOST, destination_port, SYN)), expected);
    }
    assert_eq!(steer(kernel, &Packet::udp(CLIENT, 4000, HOST, 80)), verdict(1, Reason::Default));
}

#[test]
fn without_destinations_a_filter_leaves_localnets_alone() {
    let kernel = &mut kernel();
    let local = Packet::tcp(CLIENT, 4000, "192.168.77.7", 80, SYN);
    assert_eq!(steer(kernel, &local), verdict(1, Reason::Default));
}

#[test]
fn nothing_is_marked_before_a_default_was_chosen() {
    let kernel = &mut Kernel::load(&config(MarkMask::default(), &[], two_wans()));
    let packet = Packet::udp(CLIENT, 4000, HOST, 53);
    assert_eq!(steer(kernel, &packet), verdict(0, Reason::NoDefault));
}

#[test]
fn filters_of_a_dead_wan_and_of_the_default_are_passed_over() {
    let all = || filter(Protocol::All);
    let kernel = &mut Kernel::load(&config(MarkMask::default(), &[], vec![vec![], vec![all()], vec![all()]]));
    let packet = Packet::udp(CLIENT, 4000, HOST, 53);
    for (default, usable, expected) in [
        (Some(1), vec![1, 2, 3], verdict(2, Reason::Filter)),
        (Some(1), vec![1, 3], verdict(3, Reason::Filter)),
        (Some(1), vec![1], verdict(1, Reason::Default)),
        (Some(2), vec![2, 3], verdict(3, Reason::Filter)),
        (Some(2), vec![2], verdict(2, Reason::Default)),
        (None, vec![3], verdict(3, Reason::Filter)),
    ] {
        kernel.steer(default, &usable);
        assert_eq!(steer(kernel, &packet), expected, "default {default:?}, usable {usable:?}");
    }
}

#[test]
fn bits_outside_the_mask_are_kept_and_marks_inside_it_respected() {
    let mask = MarkMask::new(0xff00).unwrap();
    let kernel = &mut Kernel::load(&config(mask, &[], two_wans()));
    kernel.steer(Some(1), &[1, 2]);
    let frame = Packet::tcp(CLIENT, 4000, HOST, 80, SYN).frame();
    let mut run = |mark| kernel.run(Program::Steer, &frame, Context { mark, ..Context::default() });
    assert_eq!(run(0), verdict(0x200, Reason::Filter));
    assert_eq!(run(0xabcd_00ef), verdict(0xabcd_02ef, Reason::Filter));
    assert_eq!(run(0x100), verdict(0x100, Reason::AlreadyMarked));
}

#[test]
fn an_answer_keeps_its_flow_on_its_wan() {
    let kernel = &mut kernel();
    // A connection from outside through WAN2 to an inside server's port 8080, while WAN1 is the default.
    let back = Packet::tcp(CLIENT, 8080, HOST, 5555, SYN_ACK);
    assert_eq!(steer(kernel, &back), verdict(1, Reason::Default));
    let request = Packet::tcp(HOST, 5555, CLIENT, 8080, SYN);
    assert_eq!(answer(kernel, 2, &request), verdict(2, Reason::FlowMade));
    assert_eq!(steer(kernel, &back), verdict(2, Reason::Flow));
    // Only this flow.
    assert_eq!(steer(kernel, &Packet::tcp(CLIENT, 8080, HOST, 5556, SYN_ACK)), verdict(1, Reason::Default));
}

#[test]
fn a_syn_starts_a_new_flow_on_an_old_tuple() {
    let kernel = &mut kernel();
    answer(kernel, 2, &Packet::tcp(HOST, 443, CLIENT, 4000, SYN_ACK));
    assert_eq!(steer(kernel, &Packet::tcp(CLIENT, 4000, HOST, 443, ACK)), verdict(2, Reason::Flow));
    assert_eq!(steer(kernel, &Packet::tcp(CLIENT, 4000, HOST, 443, SYN)), verdict(1, Reason::Default));
}

#[test]
fn a_wan_that_goes_voids_its_flows_for_good() {
    let kernel = &mut kernel();
    answer(kernel, 2, &Packet::udp(HOST, 53, CLIENT, 4000));
    let packet = Packet::udp(CLIENT, 4000, HOST, 53);
    assert_eq!(steer(kernel, &packet), verdict(2, Reason::Flow));
    kernel.steer(Some(1), &[1]);
    assert_eq!(steer(kernel, &packet), verdict(1, Reason::Default));
    kernel.steer(Some(1), &[1, 2]);
    assert_eq!(steer(kernel, &packet), verdict(1, Reason::Default), "a flow that moved does not jump back");
    answer(kernel, 1, &Packet::udp(HOST, 53, CLIENT, 4000));
    assert_eq!(steer(kernel, &packet), verdict(1, Reason::Flow));
}

#[test]
fn another_wans_failure_does_not_touch_a_flow() {
    let kernel = &mut kernel();
    answer(kernel, 2, &Packet::udp(HOST, 53, CLIENT, 4000));
    kernel.steer(Some(2), &[2]);
    assert_eq!(steer(kernel, &Packet::udp(CLIENT, 4000, HOST, 53)), verdict(2, Reason::Flow));
}

#[test]
fn packets_between_inside_networks_teach_nothing() {
    let kernel = &mut kernel();
    place_wans(kernel);
    let frame = Packet::udp("192.168.60.3", 53, CLIENT, 4000).frame();
    for (mark, ingress_ifindex) in [(2, 7), (2, 101), (0, 102), (9, 102)] {
        let context = Context { mark, ingress_ifindex, ..Context::default() };
        assert_eq!(kernel.run(Program::Learn, &frame, context), verdict(mark, Reason::NotAnAnswer));
    }
}

#[test]
fn seeded_flows_stay_where_they_were() {
    let kernel = &mut kernel();
    let tuple = Tuple {
        source: CLIENT.parse().unwrap(),
        destination: HOST.parse().unwrap(),
        protocol: 6,
        source_port: 4000,
        destination_port: 22,
    };
    let session = SeedFlow { tuple, wan: mark(2), lasts: true, inbound: false, left: None };
    assert_eq!(kernel.datapath.seed(&[session]), 1);
    assert_eq!(steer(kernel, &Packet::tcp(CLIENT, 4000, HOST, 22, ACK)), verdict(2, Reason::Flow));
}

#[test]
fn icmp_queries_are_flows_by_their_identifier() {
    let kernel = &mut kernel();
    assert_eq!(answer(kernel, 2, &Packet::icmp(HOST, CLIENT, 0, 0x1234)), verdict(2, Reason::FlowMade));
    assert_eq!(steer(kernel, &Packet::icmp(CLIENT, HOST, 8, 0x1234)), verdict(2, Reason::Flow));
    assert_eq!(steer(kernel, &Packet::icmp(CLIENT, HOST, 8, 0x1235)), verdict(1, Reason::Default));
}

#[test]
fn an_icmp_error_follows_the_flow_it_quotes() {
    let kernel = &mut kernel();
    let inbound = Packet::udp(HOST, 53, CLIENT, 4000);
    answer(kernel, 2, &inbound);
    let error = Packet::icmp_error(CLIENT, HOST, &inbound);
    assert_eq!(steer(kernel, &error), verdict(2, Reason::Flow));
    // Inbound errors make no flow.
    let outbound = Packet::udp(CLIENT, 4001, HOST, 53);
    let error = Packet::icmp_error("198.51.100.1", CLIENT, &outbound);
    assert_eq!(answer(kernel, 2, &error), verdict(2, Reason::NotAnAnswer));
}

#[test]
fn all_fragments_of_a_datagram_get_one_mark() {
    let kernel = &mut kernel();
    let first = Packet { fragment: MORE_FRAGMENTS, ..Packet::tcp(CLIENT, 4000, HOST, 80, ACK) };
    let later = Packet { fragment: 185, ..Packet::new(CLIENT, HOST, 6, vec![0; 64]) };
    assert_eq!(steer(kernel, &later), verdict(1, Reason::FragmentUnknown));
    assert_eq!(steer(kernel, &first), verdict(2, Reason::Filter));
    assert_eq!(steer(kernel, &later), verdict(2, Reason::Fragment));
    let other = Packet { identification: 8, ..later };
    assert_eq!(steer(kernel, &other), verdict(1, Reason::FragmentUnknown));
}

#[test]
fn options_and_truncation() {
    let kernel = &mut kernel();
    let options = Packet { options: vec![1; 40], ..Packet::tcp(CLIENT, 4000, HOST, 80, SYN) };
    assert_eq!(steer(kernel, &options), verdict(2, Reason::Filter));

    let short = Packet::new(CLIENT, HOST, 17, vec![0, 1]);
    assert_eq!(steer(kernel, &short), verdict(0, Reason::Malformed));
    let mut lying = Packet::udp(CLIENT, 4000, HOST, 53).frame();
    lying[14] = 0x44; // a header of 16 bytes
    assert_eq!(kernel.run(Program::Steer, &lying, Context::default()), verdict(0, Reason::Malformed));
    let mut total = Packet::udp(CLIENT, 4000, HOST, 53).frame();
    total[16..18].copy_from_slice(&[0, 19]); // shorter than its own header
    assert_eq!(kernel.run(Program::Steer, &total, Context::default()), verdict(0, Reason::Malformed));
}

#[test]
fn what_is_not_unicast_ipv4_for_this_host_passes_untouched() {
    let kernel = &mut kernel();
    for destination in ["224.0.0.251", "255.255.255.255", "240.0.0.1", "0.0.0.0"] {
        let packet = Packet::udp(CLIENT, 68, destination, 67);
        assert_eq!(steer(kernel, &packet), verdict(0, Reason::NotUnicast), "{destination}");
    }
    let mut other = Packet::udp(CLIENT, 4000, HOST, 53).frame();
    other[0] = 2; // another host's link-layer address
    assert_eq!(kernel.run(Program::Steer, &other, Context::default()), verdict(0, Reason::NotUnicast));
    let arp = ethernet(0x0806, &[0; 28]);
    assert_eq!(kernel.run(Program::Steer, &arp, Context::default()), verdict(0, Reason::NotIpv4));
}

#[test]
fn what_comes_from_outside_carries_its_wan_except_tunnels() {
    let kernel = &mut kernel();
    // A test run takes place on the loopback, interface 1.
    let roles = BTreeMap::from([(
        multiwans::types::IfIndex(1),
        (multiwans::types::IfName::new("mwnone").unwrap(), Role::Wan(mark(2))),
    )]);
    assert_eq!(kernel.datapath.attach(&roles).len(), 1);
    let mut run = |packet: &Packet, mark| {
        kernel.run(Program::Wan, &packet.frame(), Context { mark, ..Context::default() })
    };
    assert_eq!(run(&Packet::tcp(HOST, 80, CLIENT, 4000, ACK), 0), verdict(2, Reason::FromWan));
    assert_eq!(run(&Packet::tcp(HOST, 80, CLIENT, 4000, ACK), 0x1_0000), verdict(0x1_0002, Reason::FromWan));
    assert_eq!(run(&Packet::tcp(HOST, 80, CLIENT, 4000, ACK), 1), verdict(1, Reason::AlreadyMarked));
    for tunnel in [
        Packet::new(HOST, CLIENT, 50, vec![0; 16]),
        Packet::new(HOST, CLIENT, 51, vec![0; 16]),
        Packet::udp(HOST, 500, CLIENT, 500),
        Packet::udp(HOST, 33_000, CLIENT, 4500),
    ] {
        assert_eq!(run(&tunnel, 0), verdict(0, Reason::Tunnel), "{tunnel:?}");
    }
}

#[test]
fn two_hundred_and_fifty_six_filters_and_more() {
    // Filter n of each WAN takes port 1000 + n; later WANs repeat the ports and never see them.
    let filters = |count: u16| -> Vec<Filter> {
        (0..count).map(|n| Filter { dports: vec![port(1000 + n)], ..filter(Protocol::Udp) }).collect()
    };
    let kernel = &mut Kernel::load(&config(
        MarkMask::default(),
        &[],
        vec![vec![], filters(2048), filters(2047), vec![filter(Protocol::Udp)]],
    ));
    for (usable, expected) in [
        (vec![1, 2, 3, 4], [2, 2, 2, 4]),
        (vec![1, 3, 4], [3, 3, 4, 4]),
        (vec![1, 4], [4, 4, 4, 4]),
        (vec![1], [1, 1, 1, 1]),
    ] {
        kernel.steer(Some(1), &usable);
        let marks = [1000, 3046, 3047, 3048]
            .map(|destination_port| steer(kernel, &Packet::udp(CLIENT, 4000, HOST, destination_port)).mark);
        assert_eq!(marks, expected, "usable {usable:?}");
    }
}

#[test]
fn a_new_policy_replaces_the_old_one_again_and_again() {
    let kernel = &mut kernel();
    let packet = Packet::udp(CLIENT, 4000, HOST, 5000);
    for round in 0..5 {
        let taken = if round % 2 == 0 { 5000 } else { 5001 };
        let udp = Filter { dports: vec![port(taken)], ..filter(Protocol::Udp) };
        let config = config(MarkMask::default(), &[], vec![vec![], vec![udp]]);
        kernel.datapath.install(PolicySet::Forwarding, &Compiled::new(&config).unwrap()).unwrap();
        let expected = if round % 2 == 0 { verdict(2, Reason::Filter) } else { verdict(1, Reason::Default) };
        assert_eq!(steer(kernel, &packet), expected);
    }
}

/// The log stands on the stack together with what calls it, and that is short: 512 bytes.
#[test]
fn the_programs_load_with_their_log_too() {
    let config = config(MarkMask::default(), &["192.168.0.0/16"], two_wans());
    let options = LoadOptions { log_decisions: true, ..LoadOptions::default() };
    Datapath::load(&config, &Policies::new(&config).unwrap(), options).unwrap();
}

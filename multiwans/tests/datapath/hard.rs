//! Packets that are hard to read: what they are given, and under which name they are counted.

use multiwans::datapath::Program;
use multiwans_common::{Reason, Traffic};

use crate::config::Kernel;
use crate::frame::{Context, Packet, ethernet};
use crate::table::{ACK, CLIENT, HOST, MORE_FRAGMENTS, SYN, SYN_ACK, answer, kernel, steer, verdict};

/// Where the IP header begins in a frame.
const IP: usize = 14;

fn run(kernel: &mut Kernel, frame: &[u8]) -> crate::config::Verdict {
    kernel.run(Program::Steer, frame, Context::default())
}

/// A TCP frame with other lengths than it has.
fn lying(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut frame = Packet::tcp(CLIENT, 4000, HOST, 80, SYN).frame();
    change(&mut frame);
    frame
}

fn set_total(frame: &mut [u8], total: u16) {
    frame[IP + 2..IP + 4].copy_from_slice(&total.to_be_bytes());
}

#[test]
fn lengths_that_lie() {
    let kernel = &mut kernel();
    // What is true passes.
    assert_eq!(run(kernel, &lying(|_| ())), verdict(2, Reason::Filter));
    // Ethernet pads short packets.
    assert_eq!(run(kernel, &lying(|frame| frame.extend([0; 20]))), verdict(2, Reason::Filter));
    let malformed = verdict(0, Reason::Malformed);
    for (name, frame) in [
        ("a version that is not 4", lying(|frame| frame[IP] = 0x65)),
        ("a header of 16 bytes", lying(|frame| frame[IP] = 0x44)),
        ("a header of 60 bytes in a packet of 40", lying(|frame| frame[IP] = 0x4f)),
        ("a total of nothing", lying(|frame| set_total(frame, 0))),
        ("a total shorter than the header", lying(|frame| set_total(frame, 19))),
        ("a total that ends in the TCP header", lying(|frame| set_total(frame, 39))),
        ("a total of one byte more than there is", lying(|frame| set_total(frame, 41))),
        ("a total of far more than there is", lying(|frame| set_total(frame, 65_535))),
        ("cut off in the ports", lying(|frame| frame.truncate(IP + 22))),
        ("cut off before the transport header", lying(|frame| frame.truncate(IP + 20))),
    ] {
        assert_eq!(run(kernel, &frame), malformed, "{name}");
    }
    for (protocol, length) in [(17, 7), (136, 7), (132, 11), (1, 7), (6, 19)] {
        let short = Packet::new(CLIENT, HOST, protocol, vec![0; length]);
        assert_eq!(steer(kernel, &short), malformed, "protocol {protocol} with {length} bytes");
        let long = Packet::new(CLIENT, HOST, protocol, vec![0; length + 1]);
        assert_eq!(steer(kernel, &long), verdict(1, Reason::Default), "protocol {protocol}");
    }
    // A protocol that is not looked into may be empty.
    assert_eq!(steer(kernel, &Packet::new(CLIENT, HOST, 47, vec![])), verdict(1, Reason::Default));
}

#[test]
fn every_length_of_options() {
    let kernel = &mut kernel();
    for length in (0..=40).step_by(4) {
        let options = vec![1; length];
        let packet = Packet { options, ..Packet::tcp(CLIENT, 4000, HOST, 80, SYN) };
        assert_eq!(steer(kernel, &packet), verdict(2, Reason::Filter), "{length} bytes");
    }
}

#[test]
fn vlan_tags_in_the_packet_are_left_to_the_vlan_s_interface() {
    let kernel = &mut kernel();
    let packet = Packet::tcp(CLIENT, 4000, HOST, 80, SYN);
    let mut tagged = vec![0, 5];
    tagged.extend(&packet.frame()[12..]);
    for ethertype in [0x8100, 0x88a8] {
        assert_eq!(run(kernel, &ethernet(ethertype, &tagged)), verdict(0, Reason::VlanTagged));
    }
}

#[test]
fn a_fragment_before_its_first_one_is_classified_without_ports() {
    let kernel = &mut kernel();
    let first = Packet { fragment: MORE_FRAGMENTS, ..Packet::tcp(CLIENT, 4000, HOST, 80, ACK) };
    let later = Packet { fragment: 185, ..Packet::new(CLIENT, HOST, 6, vec![0; 64]) };
    assert_eq!(steer(kernel, &later), verdict(1, Reason::FragmentUnknown));
    // It binds nobody: where datagrams are put together before routing, the first one's mark counts.
    assert_eq!(steer(kernel, &first), verdict(2, Reason::Filter));
    assert_eq!(steer(kernel, &later), verdict(2, Reason::Fragment));
    // A first fragment too short for its own header.
    let tiny = Packet { fragment: MORE_FRAGMENTS, ..Packet::new(CLIENT, HOST, 6, vec![0; 8]) };
    assert_eq!(steer(kernel, &tiny), verdict(0, Reason::Malformed));
}

#[test]
fn the_first_fragment_of_a_flow_s_datagram_takes_the_others_along() {
    let kernel = &mut kernel();
    answer(kernel, 2, &Packet::udp(HOST, 53, CLIENT, 4000));
    let first = Packet { fragment: MORE_FRAGMENTS, ..Packet::udp(CLIENT, 4000, HOST, 53) };
    let later = Packet { fragment: 185, ..Packet::new(CLIENT, HOST, 17, vec![0; 64]) };
    assert_eq!(steer(kernel, &first), verdict(2, Reason::Flow));
    assert_eq!(steer(kernel, &later), verdict(2, Reason::Fragment));
}

#[test]
fn errors_about_odd_packets() {
    let kernel = &mut kernel();
    let inbound = Packet::tcp(HOST, 443, CLIENT, 4000, SYN_ACK);
    answer(kernel, 2, &inbound);
    let error = |quoted: &Packet, length: usize| {
        let mut payload = vec![3, 4, 0, 0, 0, 0, 5, 0];
        payload.extend(&quoted.ip()[..length]);
        Packet::new(CLIENT, HOST, 1, payload)
    };
    // Eight bytes of the transport header are all that must be there (RFC 792).
    assert_eq!(steer(kernel, &error(&inbound, 28)), verdict(2, Reason::Flow));
    assert_eq!(steer(kernel, &error(&inbound, 22)), verdict(0, Reason::Malformed));
    assert_eq!(steer(kernel, &error(&inbound, 12)), verdict(0, Reason::Malformed));
    let with_options = Packet { options: vec![1; 40], ..inbound.clone() };
    assert_eq!(steer(kernel, &error(&with_options, 68)), verdict(2, Reason::Flow));
    // It neither keeps a flow alive nor changes its state: what it quotes has TCP's flags of its own.
    let swept = kernel.datapath.flow_keeper().unwrap().sweep().unwrap();
    assert_eq!(swept.census.count(multiwans::datapath::Family::Tcp, multiwans_common::FlowState::Opening), 1);
}

#[test]
fn what_the_kernel_handles_at_once_counts_as_what_is_on_the_wire() {
    let kernel = &mut kernel();
    let mut tcp = Packet::tcp(CLIENT, 4000, HOST, 80, SYN);
    tcp.payload.extend([0; 2500]);
    let mut udp = Packet::udp(CLIENT, 4000, HOST, 53);
    udp.payload.extend([0; 2500]);
    for (packet, gso_segs, gso_size, packets, bytes) in [
        (&tcp, 0, 0, 1, 2540),
        (&tcp, 1, 0, 1, 2540),
        // Three packets, each with its headers.
        (&tcp, 3, 1000, 3, 2500 + 3 * 40),
        (&udp, 3, 1000, 3, 2500 + 3 * 28),
        // Not counted yet by who made it.
        (&tcp, 0, 1000, 3, 2500 + 3 * 40),
        (&tcp, 0, 2500, 1, 2540),
    ] {
        let context = Context { gso_segs, gso_size, ..Context::default() };
        let (_, traffic) = kernel.run_counted(Program::Steer, &packet.frame(), context);
        assert_eq!(traffic, Traffic { packets, bytes }, "{gso_segs} of {gso_size}");
    }
    // More than an IP header can say: the length is 0 then, and the frame's counts.
    let mut frame = tcp.frame();
    set_total(&mut frame, 0);
    let context = Context { gso_segs: 3, gso_size: 1000, ..Context::default() };
    let (big, traffic) = kernel.run_counted(Program::Steer, &frame, context);
    assert_eq!(big, verdict(2, Reason::Filter));
    assert_eq!(traffic, Traffic { packets: 3, bytes: 14 + 2500 + 3 * 40 });
}

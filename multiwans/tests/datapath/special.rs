//! What is special about a packet, counted beside what it was given.

use std::time::Duration;

use multiwans::datapath::{Program, SeedFlow};
use multiwans::policy::Tuple;
use multiwans_common::{Reason, Special, Traffic};

use crate::config::{Kernel, Verdict, mark};
use crate::flows::the_clock_goes_on;
use crate::frame::{Context, Packet, ethernet};
use crate::table::{
    ACK, CLIENT, HOST, MORE_FRAGMENTS, SYN, SYN_ACK, answer, kernel, place_wans, steer, verdict,
};

const FIN_ACK: u8 = 0x11;
const RST: u8 = 0x04;
const FIN_RST: u8 = 0x05;

/// What `act` did, and what was special about the packets that `program` saw meanwhile.
fn noted<T>(
    kernel: &mut Kernel,
    program: Program,
    act: impl FnOnce(&mut Kernel) -> T,
) -> (T, Vec<(Special, Traffic)>) {
    let before = kernel.special(program);
    let result = act(kernel);
    let mut after = kernel.special(program);
    for (special, traffic) in &mut after {
        if let Some((_, old)) = before.iter().find(|(old, _)| old == special) {
            *traffic = crate::config::difference(*old, *traffic);
        }
    }
    after.retain(|(_, traffic)| *traffic != Traffic::default());
    (result, after)
}

/// A frame through steer: what it was given, and what was special about it, each counted once with its bytes.
fn run(kernel: &mut Kernel, frame: &[u8], bytes: u64) -> (Verdict, Vec<Special>) {
    let (verdict, special) =
        noted(kernel, Program::Steer, |kernel| kernel.run(Program::Steer, frame, Context::default()));
    for (special, traffic) in &special {
        assert_eq!(*traffic, Traffic { packets: 1, bytes }, "{special:?}");
    }
    (verdict, special.into_iter().map(|(special, _)| special).collect())
}

/// The same of a packet; its bytes are those of the IP packet.
fn special(kernel: &mut Kernel, packet: &Packet) -> (Verdict, Vec<Special>) {
    run(kernel, &packet.frame(), packet.ip().len() as u64)
}

#[test]
fn nothing_is_special_about_an_ordinary_packet() {
    let kernel = &mut kernel();
    for flags in [SYN, SYN_ACK, ACK] {
        assert_eq!(special(kernel, &Packet::tcp(CLIENT, 4000, HOST, 443, flags)).1, []);
    }
    assert_eq!(special(kernel, &Packet::udp(CLIENT, 4000, HOST, 53)).1, []);
    assert_eq!(special(kernel, &Packet::icmp(CLIENT, HOST, 8, 1)).1, []);
    answer(kernel, 2, &Packet::tcp(HOST, 443, CLIENT, 4000, SYN_ACK));
    answer(kernel, 2, &Packet::tcp(HOST, 443, CLIENT, 4000, SYN_ACK));
    assert_eq!(steer(kernel, &Packet::tcp(CLIENT, 4000, HOST, 443, ACK)), verdict(2, Reason::Flow));
    answer(kernel, 2, &Packet::tcp(HOST, 443, CLIENT, 4000, ACK));
    assert_eq!((kernel.special(Program::Steer), kernel.special(Program::Learn)), (vec![], vec![]));
}

#[test]
fn the_ends_of_connections() {
    let kernel = &mut kernel();
    for (flags, expected) in
        [(FIN_ACK, &[Special::Fin][..]), (RST, &[Special::Rst]), (FIN_RST, &[Special::Fin, Special::Rst])]
    {
        let port = 4000 + u16::from(flags);
        let packet = Packet::tcp(CLIENT, port, HOST, 80, flags);
        assert_eq!(special(kernel, &packet), (verdict(2, Reason::Filter), expected.to_vec()));
        let back = Packet::tcp(HOST, 80, CLIENT, port, flags);
        let (_, learned) = noted(kernel, Program::Learn, |kernel| answer(kernel, 2, &back));
        let learned: Vec<Special> = learned.into_iter().map(|(special, _)| special).collect();
        assert_eq!(learned, expected);
    }
}

#[test]
fn options_and_fragments() {
    let kernel = &mut kernel();
    let options = Packet { options: vec![1; 4], ..Packet::tcp(CLIENT, 4000, HOST, 80, SYN) };
    assert_eq!(special(kernel, &options), (verdict(2, Reason::Filter), vec![Special::Options]));
    let first = Packet { fragment: MORE_FRAGMENTS, ..Packet::tcp(CLIENT, 4000, HOST, 80, ACK) };
    let later = Packet { fragment: 185, ..Packet::new(CLIENT, HOST, 6, vec![0; 64]) };
    let is_later = vec![Special::LaterFragment];
    assert_eq!(special(kernel, &later), (verdict(1, Reason::FragmentUnknown), is_later.clone()));
    assert_eq!(special(kernel, &first), (verdict(2, Reason::Filter), vec![Special::FirstFragment]));
    assert_eq!(special(kernel, &later), (verdict(2, Reason::Fragment), is_later));
    // Several things at once.
    let all = Packet { options: vec![1; 8], ..Packet::tcp(CLIENT, 4000, HOST, 80, RST) };
    let all = Packet { fragment: MORE_FRAGMENTS, ..all };
    let expected = vec![Special::Rst, Special::FirstFragment, Special::Options];
    assert_eq!(special(kernel, &all), (verdict(2, Reason::Filter), expected));
}

#[test]
fn a_buffer_of_several_packets_counts_as_those() {
    let kernel = &mut kernel();
    let mut packet = Packet::tcp(CLIENT, 4000, HOST, 80, FIN_ACK);
    packet.payload.extend([0; 2500]);
    let context = Context { gso_segs: 3, gso_size: 1000, ..Context::default() };
    let (_, noted) =
        noted(kernel, Program::Steer, |kernel| kernel.run(Program::Steer, &packet.frame(), context));
    let traffic = Traffic { packets: 3, bytes: 2500 + 3 * 40 };
    assert_eq!(noted, [(Special::Fin, traffic), (Special::Gso, traffic)]);
}

#[test]
fn lengths_that_lie_and_what_is_cut_off() {
    let kernel = &mut kernel();
    let frame = Packet::tcp(CLIENT, 4000, HOST, 80, SYN).frame();
    let with = |place: usize, bytes: &[u8]| {
        let mut frame = frame.clone();
        frame[place..place + bytes.len()].copy_from_slice(bytes);
        frame
    };
    let (lying, truncated) = (vec![Special::LyingLength], vec![Special::Truncated]);
    for (name, frame, expected) in [
        ("a version that is not 4", with(14, &[0x65]), vec![]),
        ("a header of 16 bytes", with(14, &[0x44]), lying.clone()),
        ("a total shorter than the header", with(16, &[0, 19]), lying.clone()),
        ("a total that ends in the TCP header", with(16, &[0, 39]), lying),
        ("a total of one byte more than there is", with(16, &[0, 41]), truncated.clone()),
        ("a total of far more than there is", with(16, &[255, 255]), truncated.clone()),
        ("cut off in the ports", frame[..14 + 22].to_vec(), truncated.clone()),
        ("cut off before the transport header", frame[..14 + 20].to_vec(), truncated.clone()),
    ] {
        // What was not read counts as the frame.
        let bytes = frame.len() as u64;
        assert_eq!(run(kernel, &frame, bytes), (verdict(0, Reason::Malformed), expected), "{name}");
    }
    let mut error = Packet::icmp_error(CLIENT, HOST, &Packet::udp(HOST, 53, CLIENT, 4000));
    error.payload.truncate(8 + 20 + 3);
    let bytes = error.frame().len() as u64;
    assert_eq!(run(kernel, &error.frame(), bytes), (verdict(0, Reason::Malformed), truncated));
}

#[test]
fn tags_in_the_packet_and_what_is_not_for_us() {
    let kernel = &mut kernel();
    let frame = Packet::udp(CLIENT, 4000, HOST, 80).frame();
    let tagged = [&[0, 5], &frame[12..]].concat();
    for ethertype in [0x8100, 0x88a8] {
        let frame = ethernet(ethertype, &tagged);
        let expected = (verdict(0, Reason::VlanTagged), vec![Special::TagInPacket]);
        // The kernel takes the tag's header for the link layer's last.
        assert_eq!(run(kernel, &frame, frame.len() as u64), expected);
    }
    // The loopback has no address for broadcasts.
    let to = |mac: [u8; 6]| [&mac, &frame[6..]].concat();
    for (mac, expected) in
        [([1, 0, 0x5e, 0, 0, 251], Special::Multicast), ([2, 0, 0, 0, 0, 1], Special::OtherHost)]
    {
        let expected = (verdict(0, Reason::NotUnicast), vec![expected]);
        assert_eq!(run(kernel, &to(mac), frame.len() as u64), expected);
    }
    for (destination, expected) in [
        ("255.255.255.255", vec![Special::Broadcast]),
        ("224.0.0.251", vec![Special::Multicast]),
        ("239.255.255.255", vec![Special::Multicast]),
        ("240.0.0.1", vec![]),
        ("127.0.0.1", vec![]),
    ] {
        let packet = Packet::udp(CLIENT, 68, destination, 67);
        let bytes = packet.frame().len() as u64;
        let expected = (verdict(0, Reason::NotUnicast), expected);
        assert_eq!(run(kernel, &packet.frame(), bytes), expected, "{destination}");
    }
}

#[test]
fn errors_and_whether_their_flow_is_known() {
    let kernel = &mut kernel();
    let inbound = Packet::udp(HOST, 53, CLIENT, 4000);
    let error = Packet::icmp_error(CLIENT, HOST, &inbound);
    assert_eq!(special(kernel, &error), (verdict(1, Reason::Default), vec![Special::IcmpError]));
    answer(kernel, 2, &inbound);
    let related = vec![Special::IcmpError, Special::Related];
    assert_eq!(special(kernel, &error), (verdict(2, Reason::Flow), related));
}

fn seed(kernel: &mut Kernel, left: Duration) {
    let tuple = Tuple {
        source: CLIENT.parse().unwrap(),
        destination: HOST.parse().unwrap(),
        protocol: 17,
        source_port: 4000,
        destination_port: 53,
    };
    let flow = SeedFlow { tuple, wan: mark(2), lasts: true, inbound: false, left: Some(left) };
    assert_eq!(kernel.datapath.seed(&[flow]), 1);
}

/// What was special about an answer by WAN `number`.
fn learned(kernel: &mut Kernel, number: u8, packet: &Packet) -> Vec<Special> {
    let (verdict, special) = noted(kernel, Program::Learn, |kernel| answer(kernel, number, packet));
    assert_eq!(verdict.reason, Reason::Learned);
    special.into_iter().map(|(special, _)| special).collect()
}

#[test]
fn a_flow_that_was_idle_and_comes_back() {
    let kernel = &mut kernel();
    let (out, back) = (Packet::udp(CLIENT, 4000, HOST, 53), Packet::udp(HOST, 53, CLIENT, 4000));
    place_wans(kernel);
    seed(kernel, Duration::from_secs(60));
    assert_eq!(special(kernel, &out), (verdict(2, Reason::Flow), vec![]));
    // By either side.
    for _ in 0..2 {
        seed(kernel, Duration::ZERO);
        the_clock_goes_on();
        assert_eq!(special(kernel, &out), (verdict(1, Reason::Default), vec![Special::Expired]));
        assert_eq!(learned(kernel, 2, &back), [Special::Expired]);
        assert_eq!(special(kernel, &out), (verdict(2, Reason::Flow), vec![]));
        assert_eq!(learned(kernel, 2, &back), []);
    }
}

#[test]
fn a_flow_whose_wan_went_and_that_moved() {
    let kernel = &mut kernel();
    let (out, back) = (Packet::udp(CLIENT, 4000, HOST, 53), Packet::udp(HOST, 53, CLIENT, 4000));
    answer(kernel, 2, &back);
    assert_eq!(special(kernel, &out), (verdict(2, Reason::Flow), vec![]));
    kernel.steer(Some(1), &[1]);
    assert_eq!(special(kernel, &out), (verdict(1, Reason::Default), vec![Special::Stale]));
    assert_eq!(learned(kernel, 1, &back), [Special::Moved]);
    assert_eq!(special(kernel, &out), (verdict(1, Reason::Flow), vec![]));
    assert_eq!(learned(kernel, 1, &back), []);
}

#[test]
fn a_new_connection_on_a_tuple_that_is_known() {
    let kernel = &mut kernel();
    let out = |flags| Packet::tcp(CLIENT, 4000, HOST, 443, flags);
    let back = |flags| Packet::tcp(HOST, 443, CLIENT, 4000, flags);
    answer(kernel, 2, &back(SYN_ACK));
    assert_eq!(learned(kernel, 2, &back(SYN_ACK)), [], "the same one, said again");
    for end in [ACK, FIN_ACK, RST] {
        steer(kernel, &out(end));
        // Opened from inside, and from outside.
        for flags in [SYN_ACK, SYN] {
            steer(kernel, &out(ACK));
            assert_eq!(learned(kernel, 2, &back(flags)), [Special::Reopened], "{end:x} {flags:x}");
        }
    }
    assert_eq!(special(kernel, &out(SYN)), (verdict(1, Reason::Default), vec![]));
}

//! Random policies and packets: the programs against the plain reading of the filters.

use std::net::Ipv4Addr;
use std::sync::{LazyLock, Mutex, MutexGuard};

use ipnet::Ipv4Net;
use multiwans::config::{Filter, PortRange, Protocol};
use multiwans::datapath::Program;
use multiwans::policy::{Compiled, Tuple, decide};
use multiwans::types::MarkMask;
use multiwans_common::PolicySet;
use proptest::prelude::*;

use crate::config::{Kernel, config, filter, mark};
use crate::frame::{Context, Packet};

/// Few distinct values, so that prefixes nest and packets hit them.
fn an_address() -> impl Strategy<Value = Ipv4Addr> {
    let last = prop_oneof![Just(1u8), Just(127), Just(128), 1u8..255];
    (prop_oneof![Just(10u8), Just(11), Just(130)], 0u8..3, 0u8..3, last)
        .prop_map(|(a, b, c, d)| Ipv4Addr::new(a, b, c, d))
}

fn a_net() -> impl Strategy<Value = Ipv4Net> {
    (an_address(), prop_oneof![Just(0u8), Just(1), 7u8..=9, 15u8..=17, 23u8..=25, 30u8..=32])
        .prop_map(|(address, length)| Ipv4Net::new(address, length).unwrap().trunc())
}

fn a_port() -> impl Strategy<Value = u16> {
    prop_oneof![Just(0u16), 1u16..6, Just(65_534), Just(65_535)]
}

fn a_filter() -> impl Strategy<Value = Filter> {
    let protocol = prop_oneof![
        Just(Protocol::All),
        Just(Protocol::Tcp),
        Just(Protocol::Udp),
        Just(Protocol::Icmp),
        Just(Protocol::Gre)
    ];
    let nets = || prop::collection::vec(a_net(), 0..4);
    let ranges = || {
        let range = (a_port(), a_port()).prop_map(|(a, b)| PortRange { first: a.min(b), last: a.max(b) });
        prop::collection::vec(range, 0..3)
    };
    (protocol, nets(), nets(), ranges(), ranges()).prop_map(|(protocol, src, dst, sports, dports)| {
        let ported = protocol.has_ports();
        Filter {
            src,
            dst,
            sports: if ported { sports } else { Vec::new() },
            dports: if ported { dports } else { Vec::new() },
            ..filter(protocol)
        }
    })
}

/// Filters of four WANs. Many overlap in many ways; of a few, none makes a packet find what another one should.
fn filters() -> impl Strategy<Value = Vec<Vec<Filter>>> {
    let wans = |most| prop::collection::vec(prop::collection::vec(a_filter(), 0..most), 4);
    prop_oneof![wans(2), wans(70)]
}

fn a_packet() -> impl Strategy<Value = Tuple> {
    let protocol = prop_oneof![Just(6u8), Just(17), Just(47), Just(132)];
    (an_address(), an_address(), protocol, a_port(), a_port()).prop_map(
        |(source, destination, protocol, source_port, destination_port)| {
            let ported = protocol != 47;
            Tuple {
                source,
                destination,
                protocol,
                source_port: if ported { source_port } else { 0 },
                destination_port: if ported { destination_port } else { 0 },
            }
        },
    )
}

fn frame(tuple: &Tuple) -> Vec<u8> {
    let (source, destination) = (tuple.source.to_string(), tuple.destination.to_string());
    let mut payload = Vec::new();
    payload.extend(tuple.source_port.to_be_bytes());
    payload.extend(tuple.destination_port.to_be_bytes());
    payload.extend([0; 20]);
    Packet::new(&source, &destination, tuple.protocol, payload).frame()
}

/// One loaded data path for all cases: installing a policy is part of what is tested, loading the programs
/// anew each time would only take time.
fn shared_kernel() -> MutexGuard<'static, Kernel> {
    static KERNEL: LazyLock<Mutex<Kernel>> =
        LazyLock::new(|| Mutex::new(Kernel::load(&config(MarkMask::default(), &[], vec![vec![]; 4]))));
    KERNEL.lock().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_programs_do_what_the_filters_say(
        filters in filters(),
        localnets in prop::collection::vec(a_net().prop_map(|net| net.to_string()), 0..4),
        packets in prop::collection::vec(a_packet(), 200),
        usable in prop::collection::btree_set(1u8..5, 0..5),
        default in prop::option::of(1u8..5),
    ) {
        let localnets: Vec<&str> = localnets.iter().map(String::as_str).collect();
        let config = config(MarkMask::default(), &localnets, filters);
        let mut kernel = shared_kernel();
        kernel.datapath.install(PolicySet::Forwarding, &Compiled::new(&config).unwrap()).unwrap();
        let numbers: Vec<u8> = usable.iter().copied().collect();
        kernel.steer(default, &numbers);
        let usable = usable.into_iter().map(mark).collect();
        for packet in packets {
            let wanted = decide(&config, &packet, &usable, default.map(mark));
            let got = kernel.run(Program::Steer, &frame(&packet), Context::default()).mark;
            prop_assert_eq!(got, wanted.map_or(0, |wan| u32::from(wan.get())), "{:?}", packet);
        }
    }
}

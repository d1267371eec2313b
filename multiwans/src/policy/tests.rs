//! The compiled policy against the plain reading of the filters.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use ipnet::Ipv4Net;
use proptest::prelude::*;

use super::*;
use crate::config::*;
use crate::types::{FwMark, IfName, MarkMask, WanMark};

fn config(wans: Vec<Wan>, localnets: Vec<Ipv4Net>) -> Config {
    Config {
        company: Company::default(),
        daemon: Daemon {
            run_interval: Duration::from_secs(20),
            status_file: PathBuf::from("/tmp/status"),
            control_socket: PathBuf::from("/run/control"),
            mark_mask: MarkMask::default(),
            log_level: LogLevel::default(),
            rule_priority: 30_000,
        },
        flows: Flows { max: 4_096 },
        alerts: Alerts { max: 2, interval: Duration::from_secs(1800) },
        ping: Ping { count: 1, timeout: Duration::from_secs(3), targets: Vec::new() },
        probe: Probe { interval: Duration::from_secs(1) },
        hooks: Hooks { dir: PathBuf::new(), timeout: Duration::from_secs(30) },
        dns: Dns { retry: 1, timeout: Duration::from_secs(2), servers: Vec::new() },
        localnets,
        email: None,
        wans,
    }
}

fn mark(number: u8) -> WanMark {
    WanMark::new(number).unwrap()
}

/// WAN `number`, which is also its place in the failover order; WANs above 200 have none.
fn wan(number: u8, filters: Vec<Filter>) -> Wan {
    Wan {
        description: format!("WAN{number}"),
        note: None,
        mark: mark(number),
        fwmark: FwMark(u32::from(number)),
        order_failover: (number <= 200).then_some(number),
        iface: IfName::new(&format!("eth{number}")).unwrap(),
        ip: Ipv4Addr::new(10, 0, number, 2),
        prefix_len: 24,
        gateway: Ipv4Addr::new(10, 0, number, 1),
        dns: Vec::new(),
        targets: Vec::new(),
        filters,
    }
}

fn filter(chain: Chain, protocol: Protocol) -> Filter {
    Filter {
        description: "filter".into(),
        note: None,
        chain,
        protocol,
        src: Vec::new(),
        src_files: Vec::new(),
        dst: Vec::new(),
        dst_files: Vec::new(),
        sports: Vec::new(),
        dports: Vec::new(),
    }
}

fn net(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

fn packet(destination: &str, protocol: u8, destination_port: u16) -> Tuple {
    Tuple {
        source: Ipv4Addr::new(192, 168, 50, 2),
        destination: destination.parse().unwrap(),
        protocol,
        source_port: 40_000,
        destination_port,
    }
}

fn port(number: u16) -> PortRange {
    PortRange { first: number, last: number }
}

fn usable(numbers: &[u8]) -> BTreeSet<WanMark> {
    numbers.iter().copied().map(mark).collect()
}

#[test]
fn first_match_is_by_wan_order_then_filter_order() {
    let web = Filter { dports: vec![port(80)], ..filter(Chain::Prerouting, Protocol::Tcp) };
    let all = filter(Chain::Prerouting, Protocol::All);
    let config = config(vec![wan(1, vec![]), wan(2, vec![web]), wan(3, vec![all])], vec![]);
    let up = usable(&[1, 2, 3]);
    assert_eq!(decide(&config, &packet("1.1.1.1", 6, 80), &up, Some(mark(1))), Some(mark(2)));
    assert_eq!(decide(&config, &packet("1.1.1.1", 6, 81), &up, Some(mark(1))), Some(mark(3)));
}

#[test]
fn filters_of_the_first_wan_the_default_and_a_dead_one_steer_nothing() {
    let all = filter(Chain::Prerouting, Protocol::All);
    let wans = vec![wan(1, vec![all.clone()]), wan(2, vec![all.clone()]), wan(3, vec![all])];
    let config = config(wans, vec![]);
    let packet = packet("1.1.1.1", 17, 53);
    assert_eq!(decide(&config, &packet, &usable(&[1, 2, 3]), Some(mark(1))), Some(mark(2)));
    assert_eq!(decide(&config, &packet, &usable(&[1, 3]), Some(mark(1))), Some(mark(3)));
    assert_eq!(decide(&config, &packet, &usable(&[2, 3]), Some(mark(2))), Some(mark(3)));
    assert_eq!(decide(&config, &packet, &usable(&[2]), Some(mark(2))), Some(mark(2)));
    assert_eq!(decide(&config, &packet, &usable(&[]), None), None);
}

#[test]
fn no_destination_means_anything_but_localnets() {
    let all = filter(Chain::Prerouting, Protocol::All);
    let config =
        config(vec![wan(1, vec![]), wan(2, vec![all])], vec![net("192.0.2.0/24"), net("10.0.0.0/8")]);
    let up = usable(&[1, 2]);
    assert_eq!(decide(&config, &packet("192.0.2.9", 6, 1), &up, Some(mark(1))), Some(mark(1)));
    assert_eq!(decide(&config, &packet("192.0.3.9", 6, 1), &up, Some(mark(1))), Some(mark(2)));
}

#[test]
fn output_filters_are_not_of_the_forwarding_policy() {
    let without = config(vec![wan(1, vec![]), wan(2, vec![])], vec![]);
    let output = config(vec![wan(1, vec![]), wan(2, vec![filter(Chain::Output, Protocol::All)])], vec![]);
    assert_eq!(Compiled::new(&output).unwrap(), Compiled::new(&without).unwrap());
    assert_ne!(Compiled::of(&output, Chain::Output).unwrap(), Compiled::of(&without, Chain::Output).unwrap());
}

#[test]
fn more_filters_than_the_programs_hold_are_refused() {
    let filters = vec![filter(Chain::Prerouting, Protocol::All); 4097];
    let error = Compiled::new(&config(vec![wan(1, vec![]), wan(2, filters)], vec![])).unwrap_err();
    assert_eq!(error.to_string(), "filters (4097) must be at most 4096");
}

/// Few distinct values, so that prefixes nest and packets hit them.
fn an_address() -> impl Strategy<Value = Ipv4Addr> {
    (
        prop_oneof![Just(10u8), Just(11), Just(128)],
        prop_oneof![Just(0u8), 1u8..3, Just(255)],
        prop_oneof![Just(0u8), Just(15), Just(16), Just(127), Just(128), Just(255)],
        prop_oneof![0u8..4, 63u8..66, Just(127), Just(128), Just(255)],
    )
        .prop_map(|(a, b, c, d)| Ipv4Addr::new(a, b, c, d))
}

fn a_net() -> impl Strategy<Value = Ipv4Net> {
    (an_address(), prop_oneof![Just(0u8), Just(1), 7u8..=9, 15u8..=17, 19u8..=21, 23u8..=27, 30u8..=32])
        .prop_map(|(address, length)| Ipv4Net::new(address, length).unwrap().trunc())
}

/// One of a few files, which filters therefore share; one of them is empty.
fn a_file() -> impl Strategy<Value = ListFile> {
    static FILES: LazyLock<Vec<ListFile>> = LazyLock::new(|| {
        let lists: [&[&str]; 4] = [
            &[],
            &["10.0.0.0/8", "10.0.127.1/32", "10.0.127.2/31"],
            &["128.0.0.0/1", "11.0.0.0/25", "11.0.0.128/25", "10.0.127.2/32"],
            // Neighbours of every kind: of slots, of nodes, of what the root divides.
            &[
                "10.0.0.0/26",
                "10.0.0.64/26",
                "10.0.15.255/32",
                "10.0.16.0/32",
                "10.255.255.255/32",
                "11.0.0.0/32",
            ],
        ];
        let read = |nets: &&[&str]| ListFile {
            path: PathBuf::from("list"),
            nets: nets.iter().map(|text| net(text)).collect(),
        };
        lists.iter().map(read).collect()
    });
    (0..FILES.len()).prop_map(|number| FILES[number].clone())
}

fn a_port() -> impl Strategy<Value = u16> {
    prop_oneof![Just(0u16), 1u16..6, Just(65_534), Just(65_535)]
}

fn a_range() -> impl Strategy<Value = PortRange> {
    (a_port(), a_port()).prop_map(|(a, b)| PortRange { first: a.min(b), last: a.max(b) })
}

fn a_filter() -> impl Strategy<Value = Filter> {
    let protocol =
        prop_oneof![Just(Protocol::All), Just(Protocol::Tcp), Just(Protocol::Udp), Just(Protocol::Icmp)];
    let nets = || prop::collection::vec(a_net(), 0..4);
    let files = || prop::collection::vec(a_file(), 0..2);
    let ranges = || prop::collection::vec(a_range(), 0..3);
    let addresses = (nets(), files(), nets(), files());
    (protocol, addresses, ranges(), ranges()).prop_map(|(protocol, addresses, sports, dports)| {
        let ported = protocol.has_ports();
        let (src, src_files, dst, dst_files) = addresses;
        Filter {
            src,
            src_files,
            dst,
            dst_files,
            sports: if ported { sports } else { Vec::new() },
            dports: if ported { dports } else { Vec::new() },
            ..filter(Chain::Prerouting, protocol)
        }
    })
}

/// Filters of four WANs. Many overlap in many ways; of a few, none makes a packet find what another one should.
fn filters() -> impl Strategy<Value = Vec<Vec<Filter>>> {
    let wans = |most| prop::collection::vec(prop::collection::vec(a_filter(), 0..most), 4);
    prop_oneof![3 => wans(2), 1 => wans(50)]
}

fn a_packet() -> impl Strategy<Value = Tuple> {
    let protocol = prop_oneof![Just(6u8), Just(17), Just(1), Just(47)];
    (an_address(), an_address(), protocol, a_port(), a_port()).prop_map(
        |(source, destination, protocol, source_port, destination_port)| Tuple {
            source,
            destination,
            protocol,
            source_port,
            destination_port,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn compiled_is_what_the_filters_say(
        filters in filters(),
        localnets in prop::collection::vec(a_net(), 0..4),
        packets in prop::collection::vec(a_packet(), 40),
        up in prop::collection::btree_set(1u8..5, 0..5),
        default in prop::option::of(1u8..5),
    ) {
        let wans = filters.into_iter().zip(1u8..).map(|(filters, number)| wan(number, filters)).collect();
        let config = config(wans, localnets);
        let compiled = Compiled::new(&config).unwrap();
        let up: BTreeSet<WanMark> = up.into_iter().map(mark).collect();
        let default = default.map(mark);
        for packet in packets {
            prop_assert_eq!(
                compiled.first_match(&packet, &up, default).or(default),
                decide(&config, &packet, &up, default),
                "{:?}", packet
            );
        }
    }
}

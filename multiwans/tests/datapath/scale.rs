//! Policies of every size: what they cost, and that large ones are right.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use multiwans::config::{Config, Filter, ListFile, PortRange, Protocol, read_list};
use multiwans::datapath::{Program, Written};
use multiwans::policy::{Compiled, Tuple, decide};
use multiwans::types::MarkMask;
use multiwans_common::PolicySet;

use crate::config::{Kernel, config, filter, mark};
use crate::frame::{CONTEXT_LEN, Context, Packet};
use crate::policies::{Flow, Lengths, Numbers, flows, prefixes};
use crate::support::Netns;

/// WANs 2 to 8 have filters.
const WANS: usize = 7;

fn net((address, length): (u32, u8)) -> Ipv4Net {
    Ipv4Net::new(address.into(), length).unwrap()
}

/// So many filters with every mix of selectors, and among them so many prefixes of destinations.
fn policy(filters: usize, prefixes: &[(u32, u8)]) -> Config {
    let mut numbers = Numbers::new(7);
    let mut wans: Vec<Vec<Filter>> = vec![Vec::new(); WANS + 1];
    // Every fourth filter, or the only ones there are, share the prefixes among them.
    let with_lists = filters.div_ceil(4).max(1);
    let share = prefixes.len().div_ceil(with_lists).max(1);
    let mut shares = prefixes.chunks(share);
    for number in 0..filters {
        let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::All][number % 3];
        let mut filter = filter(protocol);
        match number % 4 {
            0 => filter.dst = shares.next().unwrap_or_default().iter().copied().map(net).collect(),
            1 => filter.src = vec![net(((10 << 24) | (numbers.word() >> 8), 32))],
            2 => filter.src = vec![net(((10 << 24) | (numbers.word() >> 8 & 0xffff00), 24))],
            _ => {}
        }
        if protocol.has_ports() && number % 4 != 1 {
            let first = u16::try_from(1024 + numbers.below(60_000)).unwrap();
            filter.dports = vec![PortRange { first, last: first + 100 }];
        }
        // Those without anything but a protocol would take everything.
        if number % 4 == 3 && filter.dports.is_empty() {
            filter.src = vec![net(((10 << 24) | (numbers.word() >> 8), 32))];
        }
        wans[1 + number * WANS / filters].push(filter);
    }
    config(MarkMask::default(), &["10.0.0.0/8", "192.168.0.0/16"], wans)
}

fn frame((source, destination, source_port, destination_port): Flow) -> Vec<u8> {
    let (source, destination) = (Ipv4Addr::from(source).to_string(), Ipv4Addr::from(destination).to_string());
    Packet::tcp(&source, source_port, &destination, destination_port, 0x02).frame()
}

fn tuple((source, destination, source_port, destination_port): Flow) -> Tuple {
    Tuple {
        source: source.into(),
        destination: destination.into(),
        protocol: 6,
        source_port,
        destination_port,
    }
}

fn duration(kernel: &mut Kernel, frame: &[u8]) -> Duration {
    let mut out = [0; CONTEXT_LEN];
    kernel.datapath.test_run(Program::Steer, frame, &Context::default().bytes(), &mut out).unwrap().1
}

/// Nanoseconds a packet, over packets that all differ.
fn cold(kernel: &mut Kernel, frames: &[Vec<u8>]) -> f64 {
    let total: Duration = frames.iter().map(|frame| duration(kernel, frame)).sum();
    total.as_secs_f64() * 1e9 / frames.len() as f64
}

/// Nanoseconds a packet of a few, again and again.
fn warm(kernel: &mut Kernel, frames: &[Vec<u8>]) -> f64 {
    let few = &frames[..16.min(frames.len())];
    let total: Duration = (0..2000).flat_map(|_| few).map(|frame| duration(kernel, frame)).sum();
    total.as_secs_f64() * 1e9 / (2000 * few.len()) as f64
}

/// The arrays of this process, by number, and the bytes of the kernel's memory that each takes as it accounts them.
fn maps() -> BTreeMap<u32, u64> {
    let number = |text: &str, key: &str| -> Option<u64> {
        text.lines().find_map(|line| line.strip_prefix(key))?.trim().parse().ok()
    };
    std::fs::read_dir("/proc/self/fdinfo")
        .unwrap()
        .flatten()
        .filter_map(|entry| {
            let text = std::fs::read_to_string(entry.path()).ok()?;
            // BPF_MAP_TYPE_ARRAY
            (number(&text, "map_type:")? == 2).then_some(())?;
            Some((u32::try_from(number(&text, "map_id:")?).unwrap(), number(&text, "memlock:")?))
        })
        .collect()
}

fn map_memory() -> u64 {
    maps().values().sum()
}

fn all_usable(kernel: &mut Kernel) {
    kernel.steer(Some(1), &[1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn a_large_policy_is_judged_as_its_filters_say() {
    let prefixes = prefixes(20_000, Lengths::Mixed, 3);
    let policy = policy(4_096, &prefixes);
    let mut kernel = Kernel::load(&policy);
    all_usable(&mut kernel);
    let usable = (1..=8).map(mark).collect();
    let mut seen = BTreeSet::new();
    for flow in flows(400, &prefixes, 4) {
        let wanted = decide(&policy, &tuple(flow), &usable, Some(mark(1))).unwrap();
        let got = kernel.run(Program::Steer, &frame(flow), Context::default()).mark;
        assert_eq!(got, u32::from(wanted.get()), "{:?}", tuple(flow));
        let in_force = kernel.datapath.in_force().unwrap();
        let filtered = in_force.first_match(&tuple(flow), &usable, Some(mark(1)));
        assert_eq!(filtered.unwrap_or(mark(1)), wanted, "{:?}", tuple(flow));
        seen.insert(wanted);
    }
    assert!(seen.len() > 4, "these packets try little: {seen:?}");
}

#[test]
fn only_what_a_change_concerns_is_written() {
    let before = policy(200, &prefixes(1_000, Lengths::Mixed, 5));
    let mut kernel = Kernel::load(&before);
    all_usable(&mut kernel);
    let install = |kernel: &mut Kernel, policy| {
        kernel.datapath.install(PolicySet::Forwarding, &Compiled::new(policy).unwrap()).unwrap()
    };
    assert_eq!(install(&mut kernel, &before), Written::default());

    // One filter's ports: their dimension, and nothing else.
    let flow = ((10 << 24) | 1, 0xcb00_710a, 40_000, 7);
    let mut after = before.clone();
    let bare = |filter: &&mut Filter| {
        filter.protocol == Protocol::Tcp && filter.src.is_empty() && filter.dst.is_empty()
    };
    after.wans.iter_mut().flat_map(|wan| &mut wan.filters).find(bare).unwrap().dports =
        vec![PortRange { first: 7, last: 7 }];
    for round in 0..3 {
        for (taken, policy) in [(false, &before), (true, &after)] {
            let written = install(&mut kernel, policy);
            if round > 0 || taken {
                assert_eq!(written.maps, 1, "{written:?}");
                assert!(written.bytes < 400_000, "{written:?}");
            }
            assert_eq!(kernel.run(Program::Steer, &frame(flow), Context::default()).mark != 1, taken);
        }
    }
}

#[test]
fn a_policy_that_was_replaced_is_released() {
    const LARGE: u64 = 6 << 20; // larger than any other array of these tests
    let large = policy(10, &prefixes(100_000, Lengths::Hosts, 6));
    let mut kernel = Kernel::load(&large);
    let held: Vec<u32> = maps().into_iter().filter(|(_, bytes)| *bytes > LARGE).map(|(id, _)| id).collect();
    assert!(!held.is_empty(), "no large map was made");
    let none = config(MarkMask::default(), &[], vec![vec![]; WANS + 1]);
    kernel.datapath.install(PolicySet::Forwarding, &Compiled::new(&none).unwrap()).unwrap();
    // The kernel frees maps a moment after the last one let go of them.
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let alive: BTreeSet<u32> = aya::maps::loaded_maps().flatten().map(|map| map.id()).collect();
        if !held.iter().any(|id| alive.contains(id)) {
            break;
        }
        assert!(Instant::now() < deadline, "the replaced policy's maps are still there");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
#[ignore = "measures: run it alone, and better with --release"]
fn what_size_costs() {
    let mut kernel = Kernel::load(&config(MarkMask::default(), &[], vec![vec![]; WANS + 1]));
    all_usable(&mut kernel);
    let empty = map_memory();
    let mut table = String::new();
    for (filters, count, lengths) in [
        (0, 0, Lengths::Mixed),
        (10, 10, Lengths::Mixed),
        (100, 1_000, Lengths::Mixed),
        (1_000, 100_000, Lengths::Mixed),
        (4_096, 10, Lengths::Mixed),
        (10, 1_000_000, Lengths::Mixed),
        (4_096, 1_000_000, Lengths::Mixed),
        (4_096, 1_000_000, Lengths::Hosts),
    ] {
        let prefixes = prefixes(count, lengths, 1);
        let policy = policy(filters, &prefixes);
        let started = Instant::now();
        let compiled = Compiled::new(&policy).unwrap();
        let compile = started.elapsed();
        let started = Instant::now();
        let written = kernel.datapath.install(PolicySet::Forwarding, &compiled).unwrap();
        let install = started.elapsed();
        let frames: Vec<Vec<u8>> = flows(200_000, &prefixes, 2).into_iter().map(frame).collect();
        cold(&mut kernel, &frames[..10_000]);
        let (cold, warm) = (cold(&mut kernel, &frames), warm(&mut kernel, &frames));
        writeln!(
            table,
            "{filters:5} filters {count:7} {lengths:?}: cold {cold:4.0} ns, warm {warm:4.0} ns; compiled {compile:.0?}, \
             installed {install:.0?} ({} maps, {:.1} MiB); all maps {:.1} MiB more than with none",
            written.maps,
            written.bytes as f64 / f64::from(1 << 20),
            (map_memory() - empty) as f64 / f64::from(1 << 20),
        )
        .unwrap();
    }
    println!("{table}");
}

#[test]
#[ignore = "measures: run it alone, and better with --release"]
fn what_a_list_of_a_million_costs_against_ipset() {
    let netns = Netns::new();
    let dir = tempfile::tempdir().unwrap();
    let mut table = String::new();
    for lengths in [Lengths::Mixed, Lengths::Hosts] {
        let nets: Vec<Ipv4Net> = prefixes(1_000_000, lengths, 1).into_iter().map(net).collect();
        let (list, commands) = (dir.path().join("list"), dir.path().join("commands"));
        let lines = |before: &str| {
            nets.iter().fold(String::new(), |text, net| text + before + &net.to_string() + "\n")
        };
        std::fs::write(&list, lines("")).unwrap();
        let create = "create mwscale hash:net hashsize 524288 maxelem 2000000\n";
        std::fs::write(&commands, create.to_owned() + &lines("add mwscale ")).unwrap();
        let mut policy = config(MarkMask::default(), &[], vec![vec![], vec![filter(Protocol::All)]]);
        let mut kernel = Kernel::load(&policy);
        let mut times = Vec::new();
        for _ in 0..3 {
            let started = Instant::now();
            let read = read_list(&std::fs::read(&list).unwrap(), "list").unwrap();
            let nets = read.nets.into();
            policy.wans[1].filters[0].dst_files = vec![ListFile { path: list.clone(), nets }];
            let read = started.elapsed();
            let compiled = Compiled::new(&policy).unwrap();
            let compiled_in = started.elapsed();
            let written = kernel.datapath.install(PolicySet::Forwarding, &compiled).unwrap();
            let ours = started.elapsed();
            assert!(written.maps > 0);
            let none = config(MarkMask::default(), &[], vec![vec![], vec![filter(Protocol::All)]]);
            kernel.datapath.install(PolicySet::Forwarding, &Compiled::new(&none).unwrap()).unwrap();

            let started = Instant::now();
            netns.command("ipset", &format!("restore -f {}", commands.display()));
            let theirs = started.elapsed();
            netns.command("ipset", "destroy mwscale");
            times.push((theirs, ours, read, compiled_in - read, ours - compiled_in));
        }
        for (theirs, ours, read, compile, install) in times {
            writeln!(
                table,
                "{lengths:?}: ipset restore {theirs:.0?}; ours {ours:.0?} (read {read:.0?}, compile {compile:.0?}, \
                 put in force {install:.0?}): {:.1} times as fast",
                theirs.as_secs_f64() / ours.as_secs_f64()
            )
            .unwrap();
        }
    }
    println!("{table}");
}

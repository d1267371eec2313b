//! The filter in front of the flow table: steer asks it, and it never hides a flow that the table has.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use aya::maps::{HashMap, Map, MapData, MapInfo, loaded_maps};
use multiwans::config::{Config, Flows};
use multiwans::datapath::{FlowKeeper, Program, SeedFlow};
use multiwans::policy::Tuple;
use multiwans::types::MarkMask;
use multiwans_common::{FlowKey4, FlowValue, Reason};

use crate::config::{Kernel, Verdict, config, mark};
use crate::flows::the_clock_goes_on;
use crate::frame::{CONTEXT_LEN, Context, Packet};
use crate::table::{CLIENT, HOST, answer, place_wans, steer, verdict};

/// A data path whose flow table is told from those of other tests by its size.
fn kernel(max: u32) -> Kernel {
    let config = Config { flows: Flows { max }, ..config(MarkMask::default(), &[], vec![vec![], vec![]]) };
    let mut kernel = Kernel::load(&config);
    kernel.steer(Some(1), &[1, 2]);
    place_wans(&mut kernel);
    kernel
}

/// The flow table itself.
fn table(max: u32) -> MapData {
    let is_it = |info: &MapInfo| info.name_as_str() == Some("MW_FLOWS") && info.max_entries() == max;
    let ids: Vec<u32> = loaded_maps().flatten().filter(is_it).map(|info| info.id()).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    MapData::from_id(ids[0]).unwrap()
}

fn key(source_port: u16) -> FlowKey4 {
    let address = |text: &str| u32::from_ne_bytes(text.parse::<std::net::Ipv4Addr>().unwrap().octets());
    FlowKey4 {
        source: address(CLIENT),
        destination: address(HOST),
        source_port: source_port.to_be(),
        destination_port: 53u16.to_be(),
        protocol: 17,
        zero: [0; 3],
    }
}

/// A datagram of the flow from this port, and its answer.
fn out(source_port: u16) -> Packet {
    Packet::udp(CLIENT, source_port, HOST, 53)
}

fn back(source_port: u16) -> Packet {
    Packet::udp(HOST, 53, CLIENT, source_port)
}

fn seed(source_port: u16, left: Option<Duration>) -> SeedFlow {
    let tuple = Tuple {
        source: CLIENT.parse().unwrap(),
        destination: HOST.parse().unwrap(),
        protocol: 17,
        source_port,
        destination_port: 53,
    };
    SeedFlow { tuple, wan: mark(2), lasts: true, inbound: false, left }
}

fn keeper(kernel: &Kernel) -> FlowKeeper {
    kernel.datapath.flow_keeper().unwrap()
}

fn known() -> Verdict {
    verdict(2, Reason::Flow)
}

#[test]
fn an_entry_without_its_bit_is_not_looked_for_until_a_walk_sets_it() {
    const MAX: u32 = 5_001;
    let kernel = &mut kernel(MAX);
    let mut table: HashMap<MapData, FlowKey4, FlowValue> =
        HashMap::try_from(Map::HashMap(table(MAX))).unwrap();
    assert_eq!(answer(kernel, 2, &back(4000)), verdict(2, Reason::FlowMade));
    let value = table.get(&key(4000), 0).unwrap();
    // Past the filter, as nobody does.
    table.insert(key(4001), value, 0).unwrap();
    assert_eq!(steer(kernel, &out(4001)), verdict(1, Reason::Default));
    assert_eq!(steer(kernel, &out(4000)), known());
    keeper(kernel).sweep().unwrap();
    for port in [4000, 4001] {
        assert_eq!(steer(kernel, &out(port)), known(), "{port}");
    }
}

#[test]
fn flows_are_noted_in_both_halves_however_they_come() {
    const MAX: u32 = 5_002;
    let kernel = &mut kernel(MAX);
    let mut keeper = keeper(kernel);
    let mut flows = Vec::new();
    for round in 0..6u16 {
        let (learned, seeded) = (4000 + round, 5000 + round);
        assert_eq!(answer(kernel, 2, &back(learned)), verdict(2, Reason::FlowMade));
        assert_eq!(kernel.datapath.seed(&[seed(seeded, None)]).unwrap(), 1);
        flows.extend([learned, seeded]);
        for port in &flows {
            assert_eq!(steer(kernel, &out(*port)), known(), "round {round}, port {port}");
        }
        assert_eq!(steer(kernel, &out(6000 + round)), verdict(1, Reason::Default));
        assert_eq!(keeper.sweep().unwrap().census.total(), flows.len() as u64);
    }
}

#[test]
fn a_walk_that_is_broken_off_hides_no_flow() {
    const MAX: u32 = 5_003;
    const LIVE: u16 = 3_000;
    const ENDED: u16 = 500;
    let kernel = &mut kernel(MAX);
    let seeds: Vec<SeedFlow> = (0..LIVE)
        .map(|port| seed(1000 + port, None))
        .chain((0..ENDED).map(|port| seed(10_000 + port, Some(Duration::ZERO))))
        .collect();
    assert_eq!(kernel.datapath.seed(&seeds).unwrap(), usize::from(LIVE + ENDED));
    the_clock_goes_on();
    // From here on the daemon cannot remove anything.
    freeze(&table(MAX));
    for _ in 0..2 {
        keeper(kernel).sweep().unwrap_err();
        for port in 0..LIVE {
            assert_eq!(mark_of(kernel, 1000 + port), 2, "{port}");
        }
    }
}

/// `BPF_MAP_FREEZE` (Linux 5.2): no system call writes the map any more; programs do.
fn freeze(map: &MapData) {
    const BPF_MAP_FREEZE: libc::c_long = 22;
    let fd = map.fd().as_fd().as_raw_fd();
    // SAFETY: the call reads one descriptor's number.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_FREEZE, &raw const fd, size_of_val(&fd)) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// The mark that steer gives, and nothing else: this is asked often.
fn mark_of(kernel: &mut Kernel, source_port: u16) -> u32 {
    let mut after = [0; CONTEXT_LEN];
    let before = Context::default().bytes();
    kernel.datapath.test_run(Program::Steer, &out(source_port).frame(), &before, &mut after).unwrap();
    Context::mark_of(&after)
}

#[test]
fn flows_that_are_made_while_the_table_is_walked_through_are_found_at_once_and_for_good() {
    const MAX: u32 = 65_537;
    const FIRST: u16 = 1_000;
    const FLOWS: u16 = 40_000;
    const WALKS: u32 = 60;
    let kernel = &mut kernel(MAX);
    let mut keeper = keeper(kernel);
    let (over, walks) = (AtomicBool::new(false), AtomicU32::new(0));
    let deadline = Instant::now() + Duration::from_secs(120);
    thread::scope(|scope| {
        let walker = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let swept = keeper.sweep().unwrap();
                assert_eq!((swept.expired, swept.evicted_passing, swept.evicted_lasting), (0, 0, 0));
                walks.fetch_add(1, Ordering::Relaxed);
            }
        });
        let context = Context { mark: 2, ingress_ifindex: 102, ..Context::default() }.bytes();
        let mut lost = Vec::new();
        let (mut made, mut look) = (0, 0);
        // A flow at each step, and all along a look at it and at two that are older.
        while lost.is_empty() && (made < FLOWS || walks.load(Ordering::Relaxed) < WALKS) {
            assert!(Instant::now() < deadline, "{made} flows, {walks:?} walks");
            if made < FLOWS {
                let answer = back(FIRST + made).frame();
                kernel.datapath.test_run(Program::Learn, &answer, &context, &mut [0; CONTEXT_LEN]).unwrap();
                made += 1;
            }
            look = (look + 7919) % made;
            for number in [made - 1, look, made / 2] {
                if mark_of(kernel, FIRST + number) != 2 {
                    lost.push((number, made, walks.load(Ordering::Relaxed)));
                }
            }
        }
        let last = (0..made).filter(|number| mark_of(kernel, FIRST + number) != 2).count();
        over.store(true, Ordering::Relaxed);
        walker.join().unwrap();
        assert!(lost.is_empty(), "(flow, flows, walks): {lost:?}");
        assert_eq!(last, 0);
    });
}

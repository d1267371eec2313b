//! The flow table over the life of its flows, and whom they count for.

use std::time::{Duration, Instant};

use multiwans::config::{Config, Filter, Flows, Protocol};
use multiwans::datapath::{Family, FlowKeeper, Program, SeedFlow, Version};
use multiwans::policy::{Compiled, Tuple};
use multiwans::types::MarkMask;
use multiwans_common::{Direction, FlowState, PolicySet, Reason, TICK_NS, Traffic};
use nix::time::{ClockId, clock_gettime};

use crate::config::{Kernel, config, difference, filter, mark, port};
use crate::frame::{Context, Packet};
use crate::table::{
    ACK, CLIENT, HOST, MORE_FRAGMENTS, SYN, SYN_ACK, answer, kernel, place_wans, steer, verdict,
};

const FIN_ACK: u8 = 0x11;
const RST: u8 = 0x04;
const RST_ACK: u8 = 0x14;

/// From the inside to the internet, and back.
#[derive(Clone, Copy, Debug)]
enum Step {
    Out(u8),
    In(u8),
}
use Step::{In, Out};

/// A TCP life on WAN2, which classification would not choose.
fn live(kernel: &mut Kernel, source_port: u16, steps: &[Step]) {
    for step in steps {
        match step {
            Out(flags) => drop(steer(kernel, &Packet::tcp(CLIENT, source_port, HOST, 443, *flags))),
            In(flags) => drop(answer(kernel, 2, &Packet::tcp(HOST, 443, CLIENT, source_port, *flags))),
        }
    }
}

fn keeper(kernel: &Kernel) -> FlowKeeper {
    kernel.datapath.flow_keeper().unwrap()
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn tcp_flows_live_as_long_as_conntrack_s() {
    use FlowState::*;
    let kernel = &mut kernel();
    let mut keeper = keeper(kernel);
    for (steps, state, life) in [
        (&[Out(SYN), In(SYN_ACK)][..], Opening, 60),
        (&[In(SYN), Out(SYN_ACK)], Answering, 60),
        (&[In(SYN), Out(SYN_ACK), In(ACK)], Established, 432_000),
        (&[Out(SYN), In(SYN_ACK), Out(ACK)], Established, 432_000),
        (&[Out(SYN), In(SYN_ACK), Out(ACK), In(FIN_ACK)], Closing, 120),
        (&[Out(SYN), In(SYN_ACK), Out(ACK), Out(RST)], Reset, 10),
        (&[In(ACK), In(ACK), In(ACK)], Opening, 60),
    ] {
        live(kernel, 4000, steps);
        let now = keeper.sweep_in(seconds(life - 1)).unwrap();
        assert_eq!(now.census.count(Family::Tcp, state), 1, "{steps:?} {now:?}");
        assert_eq!((now.census.total(), now.expired), (1, 0), "{steps:?}");
        let then = keeper.sweep_in(seconds(life + 1)).unwrap();
        assert_eq!((then.census.total(), then.expired), (0, 1), "{steps:?}");
        assert_eq!(
            steer(kernel, &Packet::tcp(CLIENT, 4000, HOST, 443, ACK)),
            verdict(1, Reason::Default),
            "{steps:?}"
        );
    }
}

#[test]
fn a_refused_connection_makes_no_flow() {
    let kernel = &mut kernel();
    for port in 1..200 {
        steer(kernel, &Packet::tcp(CLIENT, 4000, HOST, port, SYN));
        let refused = Packet::tcp(HOST, port, CLIENT, 4000, RST_ACK);
        assert_eq!(answer(kernel, 1, &refused), verdict(1, Reason::Refusal));
    }
    assert_eq!(keeper(kernel).sweep().unwrap().census.total(), 0);
}

#[test]
fn a_datagram_and_its_answer_live_shorter_than_a_stream() {
    let kernel = &mut kernel();
    let mut keeper = keeper(kernel);
    let (out, back) = (Packet::udp(CLIENT, 4000, HOST, 53), Packet::udp(HOST, 53, CLIENT, 4000));
    let begin = Instant::now();
    assert_eq!(answer(kernel, 2, &back), verdict(2, Reason::FlowMade));
    let single = keeper.sweep_in(seconds(29)).unwrap().census;
    assert_eq!(single.count(Family::Udp, FlowState::Single), 1);
    // It goes on for more than a second.
    while keeper.sweep().unwrap().census.count(Family::Udp, FlowState::Stream) == 0 {
        assert!(begin.elapsed() < seconds(20), "it never became a stream");
        assert_eq!(steer(kernel, &out), verdict(2, Reason::Flow));
        assert_eq!(answer(kernel, 2, &back), verdict(2, Reason::Learned));
    }
    assert!(begin.elapsed() > seconds(1));
    assert_eq!(keeper.sweep_in(seconds(119)).unwrap().census.total(), 1);
    assert_eq!(keeper.sweep_in(seconds(121)).unwrap().expired, 1);
}

fn tuple(protocol: u8, source_port: u16, destination_port: u16) -> Tuple {
    Tuple {
        source: CLIENT.parse().unwrap(),
        destination: HOST.parse().unwrap(),
        protocol,
        source_port,
        destination_port,
    }
}

/// Waits for the table's clock to be a tick or more later. It goes by jiffies, of up to ten milliseconds.
pub(crate) fn the_clock_goes_on() {
    let now = || Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).unwrap());
    let (begin, deadline) = (now(), Instant::now() + seconds(5));
    while now() < begin + Duration::from_nanos(2 * TICK_NS) {
        assert!(Instant::now() < deadline, "the clock stands still");
        std::thread::yield_now();
    }
}

#[test]
fn who_is_idle_for_too_long_begins_anew() {
    let kernel = &mut kernel();
    let seed = |port, left| SeedFlow {
        tuple: tuple(17, port, 53),
        wan: mark(2),
        lasts: true,
        inbound: false,
        left: Some(left),
    };
    kernel.datapath.seed(&[seed(4000, seconds(60)), seed(4001, Duration::ZERO)]);
    the_clock_goes_on();
    assert_eq!(steer(kernel, &Packet::udp(CLIENT, 4000, HOST, 53)), verdict(2, Reason::Flow));
    assert_eq!(steer(kernel, &Packet::udp(CLIENT, 4001, HOST, 53)), verdict(1, Reason::Default));
    // The first was refreshed by its packet, the second is removed.
    let swept = keeper(kernel).sweep_in(seconds(100)).unwrap();
    assert_eq!((swept.expired, swept.census.total()), (1, 1));
    // An answer makes it known again, where it is now.
    answer(kernel, 1, &Packet::udp(HOST, 53, CLIENT, 4001));
    assert_eq!(steer(kernel, &Packet::udp(CLIENT, 4001, HOST, 53)), verdict(1, Reason::Flow));
}

#[test]
fn flows_of_a_wan_that_went_leave_the_table() {
    let kernel = &mut kernel();
    answer(kernel, 2, &Packet::udp(HOST, 53, CLIENT, 4000));
    answer(kernel, 1, &Packet::udp(HOST, 53, CLIENT, 4001));
    kernel.steer(Some(1), &[1]);
    let swept = keeper(kernel).sweep().unwrap();
    assert_eq!((swept.expired, swept.census.total()), (1, 1));
}

fn table_for(max: u32) -> Kernel {
    let web = Filter { dports: vec![port(80)], ..filter(Protocol::Tcp) };
    let config = Config { flows: Flows { max }, ..config(MarkMask::default(), &[], vec![vec![], vec![web]]) };
    let mut kernel = Kernel::load(&config);
    kernel.steer(Some(1), &[1, 2]);
    kernel
}

#[test]
fn a_flood_of_answers_neither_moves_a_flow_nor_keeps_new_ones_out() {
    const ESTABLISHED: u16 = 100;
    const FLOOD: u16 = 6000;
    let kernel = &mut table_for(1024);
    let mut keeper = keeper(kernel);
    assert_eq!(keeper.max(), 1024);
    for port in 0..ESTABLISHED {
        live(kernel, 4000 + port, &[Out(SYN), In(SYN_ACK), Out(ACK)]);
    }
    let mut refused = 0;
    for flood in 0..FLOOD {
        let spoofed = format!("192.168.{}.{}", 100 + flood / 250, 1 + flood % 250);
        match answer(kernel, 1, &Packet::tcp(HOST, 443, &spoofed, 5000, SYN_ACK)).reason {
            Reason::FlowMade => {}
            Reason::LearnFailed => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    // The table has four places for each flow that it is to hold; a flood takes nearly all of them.
    let flows = u64::from(ESTABLISHED) + u64::from(FLOOD);
    assert!((flows - 4096..flows - 3072).contains(&refused), "{refused}");
    assert_eq!(keeper.refused().unwrap(), refused);

    let swept = keeper.sweep().unwrap();
    assert_eq!((swept.evicted_passing, swept.evicted_lasting), (flows - refused - 768, 0), "{swept:?}");
    assert_eq!(swept.census.total(), 768);
    assert_eq!(swept.census.count(Family::Tcp, FlowState::Established), u64::from(ESTABLISHED));
    live(kernel, 9000, &[Out(SYN), In(SYN_ACK), Out(ACK)]);
    for port in (4000..4000 + ESTABLISHED).chain([9000]) {
        let packet = Packet::tcp(CLIENT, port, HOST, 443, ACK);
        assert_eq!(steer(kernel, &packet), verdict(2, Reason::Flow), "port {port}");
    }
}

/// Nobody looks after the table here: the programs themselves take more of it than is in use at the start.
#[test]
fn a_burst_finds_room_before_the_daemon_makes_it() {
    const FLOWS: u16 = 20_000;
    let kernel = &mut table_for(262_144);
    place_wans(kernel);
    let answers = (0..FLOWS).map(|number| Packet::udp(HOST, 53, CLIENT, 1024 + number));
    let by_wan2 = Context { mark: 2, ingress_ifindex: 102, ..Context::default() };
    let flows = u64::from(FLOWS);
    assert_eq!(kernel.run_many(Program::Learn, answers.clone(), by_wan2), [(Reason::FlowMade, flows)]);
    let questions = (0..FLOWS).map(|number| Packet::udp(CLIENT, 1024 + number, HOST, 53));
    let seen = kernel.run_many(Program::Steer, questions, Context::default());
    assert_eq!(seen, [(Reason::Flow, flows)]);
    // What came before the table grew is still found when its answers come again: nothing is made twice.
    assert_eq!(kernel.run_many(Program::Learn, answers, by_wan2), [(Reason::Learned, flows)]);
    assert_eq!(keeper(kernel).sweep().unwrap().census.total(), flows);
}

#[test]
fn of_too_many_established_flows_the_longest_idle_go() {
    let kernel = &mut table_for(1024);
    let flows: Vec<SeedFlow> = (0..1024)
        .map(|number| SeedFlow {
            tuple: tuple(6, 10_000 + number, 443),
            wan: mark(2),
            lasts: true,
            inbound: false,
            left: Some(seconds(if number < 200 { 1000 } else { 400_000 })),
        })
        .collect();
    // Of a thousand, one may find no place.
    let stored = kernel.datapath.seed(&flows) as u64;
    assert!((1020..=1024).contains(&stored), "{stored}");
    let swept = keeper(kernel).sweep().unwrap();
    assert_eq!((swept.evicted_passing, swept.evicted_lasting), (0, stored - 960));
    let mut moved = 0;
    for number in 200..1024 {
        let packet = Packet::tcp(CLIENT, 10_000 + number, HOST, 443, ACK);
        moved += u64::from(steer(kernel, &packet) != verdict(2, Reason::Flow));
    }
    assert!(moved <= 1024 - stored, "{moved} of {stored}");
}

/// Of each filter, since the last call.
fn counted(kernel: &mut Kernel, count: u32, before: &mut Vec<Traffic>) -> Vec<u64> {
    let now = kernel.datapath.filter_traffic(Version::InForce, count).unwrap();
    before.resize(now.len(), Traffic::default());
    let packets = before.iter().zip(&now).map(|(before, now)| difference(*before, *now).packets).collect();
    *before = now;
    packets
}

fn udp_to(ports: &[u16]) -> Vec<Filter> {
    ports.iter().map(|number| Filter { dports: vec![port(*number)], ..filter(Protocol::Udp) }).collect()
}

#[test]
fn filters_count_their_established_flows_too() {
    let policy = |ports: &[u16]| config(MarkMask::default(), &[], vec![vec![], udp_to(ports)]);
    let kernel = &mut Kernel::load(&policy(&[53, 54, 55]));
    kernel.steer(Some(1), &[1, 2]);
    let counts = &mut Vec::new();
    let (out, back) = (Packet::udp(CLIENT, 4000, HOST, 54), Packet::udp(HOST, 54, CLIENT, 4000));
    assert_eq!(steer(kernel, &out).reason, Reason::Filter);
    assert_eq!(counted(kernel, 3, counts), [0, 1, 0]);
    answer(kernel, 2, &back);
    assert_eq!(counted(kernel, 3, counts), [0, 0, 0], "answers are not what a filter chose");
    for _ in 0..3 {
        assert_eq!(steer(kernel, &out).reason, Reason::Flow);
    }
    assert_eq!(counted(kernel, 3, counts), [0, 3, 0]);
    let traffic = kernel.datapath.wan_traffic(mark(2), Direction::Out).unwrap();
    assert_eq!(traffic, Traffic { packets: 4, bytes: 4 * 28 });

    // The same filter under another number, and then none; the flow stays where it is.
    for (ports, expected) in
        [(&[50, 51, 54][..], [0, 0, 2]), (&[50, 51, 52], [0, 0, 0]), (&[54, 55, 56], [2, 0, 0])]
    {
        kernel.datapath.install(PolicySet::Forwarding, &Compiled::new(&policy(ports)).unwrap()).unwrap();
        let before = kernel.datapath.filter_traffic(Version::Replaced, 3).unwrap();
        assert_eq!(&before, counts, "what the policy before counted is still there");
        counts.clear();
        assert_eq!(counted(kernel, 3, counts), [0, 0, 0], "a policy begins at zero");
        for _ in 0..2 {
            assert_eq!(steer(kernel, &out), verdict(2, Reason::Flow));
        }
        assert_eq!(counted(kernel, 3, counts), expected, "{ports:?}");
    }

    // Fragments without ports count with their first one.
    let first = Packet { fragment: MORE_FRAGMENTS, ..out.clone() };
    let later = Packet { fragment: 185, ..Packet::new(CLIENT, HOST, 17, vec![0; 64]) };
    assert_eq!(steer(kernel, &first).reason, Reason::Flow);
    assert_eq!(steer(kernel, &later).reason, Reason::Fragment);
    assert_eq!(counted(kernel, 3, counts), [2, 0, 0]);
}

#[test]
fn sessions_that_no_filter_chose_count_for_none() {
    let web = Filter { sports: vec![port(8080)], ..filter(Protocol::Tcp) };
    let kernel = &mut Kernel::load(&config(MarkMask::default(), &[], vec![vec![], vec![web], vec![]]));
    kernel.steer(Some(1), &[1, 2, 3]);
    place_wans(kernel);
    let counts = &mut Vec::new();
    // Opened from outside by WAN2, where the filter would send it as well.
    answer(kernel, 2, &Packet::tcp(HOST, 5555, CLIENT, 8080, SYN));
    for _ in 0..3 {
        assert_eq!(steer(kernel, &Packet::tcp(CLIENT, 8080, HOST, 5555, SYN_ACK)), verdict(2, Reason::Flow));
    }
    // On another WAN than the filter's.
    answer(kernel, 1, &Packet::tcp(HOST, 5556, CLIENT, 8080, SYN_ACK));
    assert_eq!(steer(kernel, &Packet::tcp(CLIENT, 8080, HOST, 5556, ACK)), verdict(1, Reason::Flow));
    assert_eq!(counted(kernel, 1, counts), [0]);
    // The filter's own.
    assert_eq!(steer(kernel, &Packet::tcp(CLIENT, 8080, HOST, 5557, SYN)), verdict(2, Reason::Filter));
    assert_eq!(counted(kernel, 1, counts), [1]);
}

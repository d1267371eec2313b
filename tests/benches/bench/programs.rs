//! Nanoseconds a packet of each program: the running daemon's own, on packets put to them one by one.
//!
//! `BPF_PROG_TEST_RUN` with one repetition (more would give a program a packet that it has marked already). *Cold*:
//! each packet is another flow, drawn at random, so what is looked up is in no near cache. *Warm*: the same one again
//! and again. What an empty program takes in the same way, mostly the reading of the clock, is taken off. As a
//! cross-check the kernel's own count (`bpf_stats`) while real packets are forwarded.

use crate::asm::{exit, set};
use crate::bpf::{Context, Kind, Program, Statistics};
use crate::forwarding::Traffic;
use crate::frame::{Cable, Datagram, FRAME_LEN, append};
use crate::generator::{Way, pin};
use crate::options::Options;
use crate::policy::{DEFAULT_WAN, Policy, Size, WANS};
use crate::process;
use crate::router::{Plane, Router, Site, answer_inside, mac};
use crate::stats::Spread;
use anyhow::{Context as _, Result, bail};
use multiwans_tests::Ns;
use multiwans_tests::topology::wan_iface;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// Packets of one measurement. A call takes a few microseconds.
const PACKETS: usize = 20_000;
/// Each learns flows of its own, and the table holds 262 144.
const MOST_ROUNDS: usize = 10;
/// `TC_ACT_UNSPEC`
const GO_ON: i32 = -1;
/// Of a measurement's times these are left out at the long end, of a hundred: an interrupt came in between.
const INTERRUPTED: usize = 2;

/// One line of the table: nanoseconds, an empty program's taken off.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    pub(crate) filters: usize,
    pub(crate) prefixes: usize,
    pub(crate) what: &'static str,
    pub(crate) cold: Spread,
    pub(crate) warm: Spread,
}

/// One line of the cross-check: the kernel's mean while forwarding, in nanoseconds, its own reading of the clock
/// included.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Forwarding {
    pub(crate) filters: usize,
    pub(crate) prefixes: usize,
    pub(crate) traffic: &'static str,
    pub(crate) program: String,
    pub(crate) ns: f64,
}

/// What [`run`] measures.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Programs {
    pub(crate) test_runs: Vec<Row>,
    pub(crate) forwarding: Vec<Forwarding>,
}

/// The smallest policy and the largest, side by side.
pub(crate) fn run(options: &Options, cpu: usize) -> Result<Programs> {
    let large =
        Size { filters: if options.quick { 1_000 } else { 4_096 }, prefixes: options.most_prefixes() };
    let sizes = [Size { filters: 10, prefixes: 10 }, large];
    let sites = [Site::build(Plane::Multiwans)?, Site::build(Plane::Multiwans)?];
    let mut benches = Vec::new();
    for (site, size) in sites.iter().zip(sizes) {
        eprintln!("programs: {} filters, {} prefixes", size.filters, size.prefixes);
        benches.push(Bench::new(site.install(&Policy::new(size))?, Policy::new(size))?);
    }
    let empty = Program::load(Kind::Classifier, "mwbench_empty", &[set(0, GO_ON), exit()])?;

    let mut samples: BTreeMap<(usize, usize), Vec<Pair>> = BTreeMap::new();
    for round in 0..=options.rounds().min(MOST_ROUNDS) {
        for (index, bench) in benches.iter().enumerate() {
            for (case, kind) in Case::ALL.iter().enumerate() {
                let pair = bench.measure(*kind, round, &empty, cpu)?;
                // The first round makes the flows that are known from then on.
                if round > 0 {
                    samples.entry((index, case)).or_default().push(pair);
                }
            }
        }
    }
    let mut result = Programs::default();
    for ((index, case), pairs) in samples {
        let size = benches[index].policy.size;
        let spread = |get: fn(&Pair) -> f64| Spread::of(pairs.iter().map(get)).context("no rounds");
        result.test_runs.push(Row {
            filters: size.filters,
            prefixes: size.prefixes,
            what: Case::ALL[case].as_str(),
            cold: spread(|pair| pair.cold)?,
            warm: spread(|pair| pair.warm)?,
        });
    }
    for bench in &benches {
        result.forwarding.extend(bench.forward(options, cpu)?);
    }
    benches.into_iter().try_for_each(|bench| bench.router.remove())?;
    Ok(result)
}

/// What a program is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Case {
    SteerFresh,
    SteerLearned,
    SteerKnown,
    Wan,
    LearnNew,
    LearnKnown,
}

impl Case {
    /// What is learned as new in a round is known to the cases after it.
    const ALL: [Self; 6] =
        [Self::SteerFresh, Self::Wan, Self::LearnNew, Self::SteerLearned, Self::SteerKnown, Self::LearnKnown];

    const fn as_str(self) -> &'static str {
        match self {
            Self::SteerFresh => "steer, fresh flow",
            Self::SteerLearned => "steer, first packet of a known flow",
            Self::SteerKnown => "steer, known flow",
            Self::Wan => "wan",
            Self::LearnNew => "learn, new flow",
            Self::LearnKnown => "learn, known flow",
        }
    }

    const fn program(self) -> &'static str {
        match self {
            Self::SteerFresh | Self::SteerLearned | Self::SteerKnown => "multiwans_steer",
            Self::Wan => "multiwans_wan",
            Self::LearnNew | Self::LearnKnown => "multiwans_learn",
        }
    }
}

/// One round of a case.
#[derive(Debug, Clone, Copy)]
struct Pair {
    cold: f64,
    warm: f64,
}

/// A packet for a program, and the mark it must leave with.
struct Given {
    frame: Vec<u8>,
    context: Context,
    mark: u32,
}

/// A running daemon under one policy.
struct Bench<'a> {
    router: Router<'a>,
    policy: Policy,
    programs: BTreeMap<String, Program>,
    lan: Cable,
    lan_index: u32,
    /// By WAN, from 1.
    wans: Vec<(Cable, u32)>,
    /// Fresh in all rounds: nothing answers them.
    packets: Vec<Datagram>,
}

impl<'a> Bench<'a> {
    fn new(router: Router<'a>, policy: Policy) -> Result<Self> {
        let daemon = router.daemon.as_ref().context("no daemon")?;
        let programs = process::programs(daemon.pid())?;
        let lab = &router.site.lab;
        let place = lab.namespace(Ns::Router);
        let index = |iface: &str| place.run(|| nix::net::if_::if_nametoindex(iface));
        let mut wans = Vec::new();
        for k in 1..=WANS {
            let cable =
                Cable { from: mac(lab.namespace(Ns::Isp(k)), "cust")?, to: mac(place, &wan_iface(k))? };
            wans.push((cable, index(&wan_iface(k))?));
        }
        let lan = router.site.inward();
        let packets = policy.packets(PACKETS);
        Ok(Self { lan, lan_index: index("eth0")?, wans, packets, programs, router, policy })
    }

    /// The packets of a case. Each round learns flows of its own.
    fn given(&self, case: Case, round: usize) -> Vec<Given> {
        // A round's own destination port keeps its flows apart from another's.
        let port = 61_000 + u16::try_from(round).unwrap_or(0);
        let learned = |packet: &Datagram| Datagram { destination_port: port, ..*packet };
        self.packets
            .iter()
            .map(|packet| {
                let mut frame = Vec::with_capacity(FRAME_LEN);
                let (cable, index) = self.wans[usize::from(packet.wan - 1)];
                let mark = u32::from(packet.wan);
                let (cable, datagram, context, mark) = match case {
                    Case::SteerFresh => (self.lan, *packet, Context::default(), mark),
                    Case::SteerLearned | Case::SteerKnown => {
                        (self.lan, learned(packet), Context::default(), mark)
                    }
                    Case::Wan => {
                        (cable, answer_inside(packet), Context { ifindex: index, ..Context::default() }, mark)
                    }
                    Case::LearnNew | Case::LearnKnown => {
                        let context = Context { mark, ingress_ifindex: index, ..Context::default() };
                        (self.lan, answer_inside(&learned(packet)), context, mark)
                    }
                };
                append(&mut frame, cable, &datagram, packet.wan);
                let ifindex = if context.ifindex == 0 { self.lan_index } else { context.ifindex };
                Given { frame, context: Context { ifindex, ..context }, mark }
            })
            .collect()
    }

    fn measure(&self, case: Case, round: usize, empty: &Program, cpu: usize) -> Result<Pair> {
        let program = self.programs.get(case.program());
        let program = program.with_context(|| format!("the daemon has no {}", case.program()))?;
        let given = self.given(case, round);
        self.router.site.lab.in_ns(Ns::Router, || {
            pin(cpu)?;
            let idle = mean(&given, |given| Ok(empty.test_run(&given.frame, given.context)?.ns))?;
            let cold = mean(&given, |given| judged(program, given, case))?;
            // One whose WAN is not the default's, so that a filter is looked for and found.
            let one = given.iter().find(|given| given.mark != u32::from(DEFAULT_WAN));
            let one = one.context("no filter has packets")?;
            let warm = mean(&given, |_| judged(program, one, case))?;
            Ok(Pair { cold: cold - idle, warm: warm - idle })
        })
    }

    /// Forwards fresh and established flows with the kernel counting.
    fn forward(&self, options: &Options, cpu: usize) -> Result<Vec<Forwarding>> {
        let mut rows = Vec::new();
        for traffic in [Traffic::Fresh, Traffic::Established] {
            let mut packets = traffic.packets(&self.policy);
            if traffic == Traffic::Established {
                packets.truncate(self.router.establish(&packets, cpu)?);
            }
            let mut generator = self.router.generator(Way::Lan, &packets)?;
            let mut most = packets.len();
            if traffic == Traffic::Established {
                // The first packet of a known flow is not like those that follow.
                self.router.pass(&mut generator, Way::Lan, cpu, most, Duration::from_secs(10))?;
                most = usize::MAX;
            }
            let statistics = Statistics::on()?;
            let before = self.run_times()?;
            self.router.pass(&mut generator, Way::Lan, cpu, most, options.burst())?;
            let after = self.run_times()?;
            drop(statistics);
            for (name, (time, runs)) in after {
                let (time_before, runs_before) = before[&name];
                // The router's own probes pass, too; they are no measurement.
                if name.starts_with("multiwans_") && runs - runs_before > 1_000 {
                    rows.push(Forwarding {
                        filters: self.policy.size.filters,
                        prefixes: self.policy.size.prefixes,
                        traffic: traffic.as_str(),
                        ns: (time - time_before) as f64 / (runs - runs_before) as f64,
                        program: name,
                    });
                }
            }
        }
        Ok(rows)
    }

    fn run_times(&self) -> Result<BTreeMap<String, (u64, u64)>> {
        self.programs.iter().map(|(name, program)| Ok((name.clone(), program.run_time()?))).collect()
    }
}

/// The time of a run that came to what it should.
fn judged(program: &Program, given: &Given, case: Case) -> Result<u32> {
    let run = program.test_run(&given.frame, given.context)?;
    if run.mark != given.mark {
        bail!("{} gave mark {} for {}", case.as_str(), run.mark, given.mark);
    }
    Ok(run.ns)
}

/// The mean time, without the longest ones.
fn mean(given: &[Given], mut run: impl FnMut(&Given) -> Result<u32>) -> Result<f64> {
    let mut times: Vec<u32> = given.iter().map(&mut run).collect::<Result<_>>()?;
    times.sort_unstable();
    let kept = &times[..times.len() * (100 - INTERRUPTED) / 100];
    Ok(kept.iter().map(|ns| f64::from(*ns)).sum::<f64>() / kept.len() as f64)
}

//! How long a failover takes in the data path: from the engine's command to the first packet that is judged by it,
//! with a million flows in the table, and with none.

use crate::bpf::Context as Skb;
use crate::frame::{Cable, Datagram, append};
use crate::generator::pin;
use crate::options::Options;
use crate::policy::{DEFAULT_WAN, PORT_WAN, Policy, Size, WANS};
use crate::router::configuration_file;
use crate::stats::Spread;
use anyhow::{Context, Result, bail};
use multiwans::cli::load::load;
use multiwans::datapath::{Datapath, LoadOptions, Program, SeedFlow};
use multiwans::engine::Steering;
use multiwans::policy::{Policies, Tuple};
use multiwans::types::{IfIndex, WanMark};
use multiwans_tests::{Lab, Ns};
use serde::Serialize;
use std::path::Path;
use std::time::Instant;

/// Flows in a table that is nearly full of them.
const FLOWS: usize = 1_000_000;
/// The configuration's key for that.
const TABLE: &str = "flows: {max: 1048576}";
/// `UDP`
const UDP: u8 = 17;

/// One line of the table, in microseconds.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    /// Entries in the flow table, all on the WAN that goes.
    pub(crate) flows: usize,
    /// The command carried out.
    pub(crate) command_us: Spread,
    /// The first packet after it, judged, by a test run; a system call for the most part.
    pub(crate) packet_us: Spread,
}

pub(crate) fn run(options: &Options, cpu: usize) -> Result<Vec<Row>> {
    let lab = Lab::builder().wans(WANS).build()?;
    let rounds = options.rounds() * 3;
    let folder = options.out.canonicalize()?.join("files/flip");
    [0, FLOWS]
        .into_iter()
        .map(|flows| lab.in_ns(Ns::Router, || measure(&lab, &folder, flows, rounds, cpu)))
        .collect()
}

fn measure(lab: &Lab, folder: &Path, flows: usize, rounds: usize, cpu: usize) -> Result<Row> {
    pin(cpu)?;
    let policy = Policy::new(Size { filters: 10, prefixes: 1_000 });
    let config = load(&configuration_file(lab, &policy, folder, TABLE)?)?.config;
    let mut datapath = Datapath::load(&config, &Policies::new(&config)?, LoadOptions::default())?;
    let mark = |k: u8| WanMark::new(k).context("a WAN's number");
    let usable = |wans: &[u8]| -> Result<Steering> {
        let usable =
            wans.iter().map(|k| Ok((mark(*k)?, IfIndex(100 + u32::from(*k))))).collect::<Result<_>>()?;
        Ok(Steering { default: Some(mark(DEFAULT_WAN)?), usable })
    };
    // The WAN with the ports' filters goes; its flows and its filters' packets take the default.
    let (with, without) = (usable(&[1, 2, 3])?, usable(&[1, 3])?);
    datapath.steer(&with)?;
    let stored = datapath.seed(&seeds(flows)?);
    eprintln!("flip: {stored} flows");
    // Of a table that is full, one of thousands finds no place.
    if stored < flows - flows / 1000 {
        bail!("the table took {stored} of {flows} flows");
    }

    let one = tuple(0)?;
    let sample = Datagram {
        source: one.source,
        source_port: one.source_port,
        destination: one.destination,
        destination_port: one.destination_port,
        wan: PORT_WAN,
    };
    // A test run takes place on the loopback, whose address is all zero.
    let mut frame = Vec::new();
    append(&mut frame, Cable { from: [0; 6], to: [0; 6] }, &sample, 0);
    let (mut command_us, mut packet_us) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        datapath.steer(&with)?;
        // Flows are void since the round before; this one at least goes by its WAN again.
        datapath.seed(&[lasting(one, mark(PORT_WAN)?)]);
        expect(&mut datapath, &frame, PORT_WAN)?;
        let start = Instant::now();
        datapath.steer(&without)?;
        let steered = start.elapsed();
        expect(&mut datapath, &frame, DEFAULT_WAN)?;
        let judged = start.elapsed();
        command_us.push(steered.as_secs_f64() * 1e6);
        packet_us.push((judged - steered).as_secs_f64() * 1e6);
    }
    let spread = |values| Spread::of(values).context("no rounds");
    Ok(Row { flows: stored, command_us: spread(command_us)?, packet_us: spread(packet_us)? })
}

/// So many flows on the WAN with the ports' filters.
pub(crate) fn seeds(count: usize) -> Result<Vec<SeedFlow>> {
    let wan = WanMark::new(PORT_WAN).context("a WAN's number")?;
    (0..count).map(|number| Ok(lasting(tuple(number)?, wan))).collect()
}

fn lasting(tuple: Tuple, wan: WanMark) -> SeedFlow {
    SeedFlow { tuple, wan, lasts: true, inbound: false, left: None }
}

/// Flows that no filter wants, so that only their entry says where they go.
fn tuple(number: usize) -> Result<Tuple> {
    let number = u32::try_from(number)?;
    let ([_, a, b, c], low) = (number.to_be_bytes(), u16::try_from(number & 0x3fff)?);
    Ok(Tuple {
        source: [192, 168, 50, 10].into(),
        destination: [223, a, b, c].into(),
        protocol: UDP,
        source_port: 1024 + low,
        destination_port: 60_000,
    })
}

fn expect(datapath: &mut Datapath, frame: &[u8], wan: u8) -> Result<()> {
    let (context, mut out) = (Skb::default().bytes(), Skb::default().bytes());
    datapath.test_run(Program::Steer, frame, &context, &mut out)?;
    let mark = Skb::mark_in(&out);
    if mark != u32::from(wan) {
        bail!("a packet was given WAN {mark} and not {wan}");
    }
    Ok(())
}

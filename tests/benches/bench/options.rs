//! What to measure, and how long.

use crate::generator::Way;
use crate::policy::Size;
use crate::router::Plane;
use clap::{Parser, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// Compares multiwans with nothing, the Bash tool's rules and nftables on this machine: everything in rounds that
/// take turns, medians and spread, in namespaces without a link to the machine's network. A quarter of an hour; needs
/// root and a machine that does nothing else.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
pub(crate) struct Options {
    /// What to measure; all but `profile` unless told
    #[arg(value_enum)]
    parts: Vec<Part>,
    /// Fewer sizes, rounds and less time: under two minutes, for a first look
    #[arg(long)]
    pub(crate) quick: bool,
    /// Numbers of filters, each with each number of prefixes: 10,1000
    #[arg(long, value_delimiter = ',', value_name = "N,…")]
    filters: Vec<usize>,
    /// Numbers of prefixes over all lists: 1000,1000000
    #[arg(long, value_delimiter = ',', value_name = "N,…")]
    prefixes: Vec<usize>,
    /// Data planes to compare in forwarding
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PLANE,…")]
    planes: Vec<Plane>,
    /// How packets come into the router
    #[arg(long, value_enum, value_delimiter = ',', value_name = "WAY,…")]
    ways: Vec<Way>,
    /// Rounds of each measurement
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: Option<u16>,
    /// Milliseconds of sending in each round
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(20..=10_000))]
    burst: Option<u64>,
    /// The CPU of generator and router; the last one unless told
    #[arg(long)]
    pub(crate) cpu: Option<usize>,
    /// Where report.md and report.json go
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    pub(crate) out: PathBuf,
    /// Put the results into docs/performance.md, too
    #[arg(long)]
    pub(crate) record: bool,
    /// What `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Packets a second through a router, fresh and established flows
    Forwarding,
    /// Nanoseconds a packet of each program
    Programs,
    /// Time from a file to active, and memory
    Load,
    /// From the engine's command to the first packet on another WAN
    Flip,
    /// Deleting 100 000 conntrack entries
    Conntrack,
    /// Where a router's time goes (perf)
    Profile,
}

const fn size(filters: usize, prefixes: usize) -> Size {
    Size { filters, prefixes }
}

/// All combinations that the project's targets name, and the smallest policy for cold classification to be measured against.
const SIZES: [Size; 16] = [
    size(1, 1_000),
    size(1, 100_000),
    size(1, 1_000_000),
    size(10, 10),
    size(10, 1_000),
    size(10, 100_000),
    size(10, 1_000_000),
    size(100, 1_000),
    size(100, 100_000),
    size(100, 1_000_000),
    size(1_000, 1_000),
    size(1_000, 100_000),
    size(1_000, 1_000_000),
    size(4_096, 1_000),
    size(4_096, 100_000),
    size(4_096, 1_000_000),
];
/// Those that targets are set for.
const PROFILED_SIZES: [Size; 2] = [size(10, 1_000), size(4_096, 1_000_000)];
const QUICK_SIZES: [Size; 3] = [size(10, 1_000), size(1_000, 1_000), size(4_096, 100_000)];

impl Options {
    pub(crate) fn has(&self, part: Part) -> bool {
        if self.parts.is_empty() { part != Part::Profile } else { self.parts.contains(&part) }
    }

    /// Sizes for forwarding.
    pub(crate) fn sizes(&self) -> Vec<Size> {
        if self.filters.is_empty() && self.prefixes.is_empty() {
            return if self.quick { QUICK_SIZES.to_vec() } else { SIZES.to_vec() };
        }
        let or = |list: &[usize], default| if list.is_empty() { vec![default] } else { list.to_vec() };
        let prefixes = or(&self.prefixes, 1_000);
        let filters = or(&self.filters, 10);
        filters.iter().flat_map(|f| prefixes.iter().map(|p| size(*f, *p))).collect()
    }

    /// Sizes for `profile`.
    pub(crate) fn profiled_sizes(&self) -> Vec<Size> {
        if self.filters.is_empty() && self.prefixes.is_empty() {
            PROFILED_SIZES.to_vec()
        } else {
            self.sizes()
        }
    }

    /// The largest number of prefixes, for what is measured at one size.
    pub(crate) fn most_prefixes(&self) -> usize {
        let largest = self.prefixes.iter().max().copied();
        largest.unwrap_or(if self.quick { 100_000 } else { 1_000_000 })
    }

    /// Unless told, `profile` looks at those that show what ours consists of.
    pub(crate) fn planes(&self) -> Vec<Plane> {
        match self.planes.as_slice() {
            [] if self.has(Part::Profile) => {
                vec![Plane::Nothing, Plane::Nft, Plane::Oracle, Plane::Multiwans]
            }
            [] => Plane::ALL.to_vec(),
            planes => planes.to_vec(),
        }
    }

    pub(crate) fn ways(&self) -> Vec<Way> {
        match self.ways.as_slice() {
            [] if self.quick => vec![Way::Lan],
            [] => vec![Way::Lan, Way::Driver],
            ways => ways.to_vec(),
        }
    }

    /// `profile`: one way.
    pub(crate) fn way(&self) -> Way {
        self.ways.first().copied().unwrap_or(Way::Lan)
    }

    pub(crate) fn rounds(&self) -> usize {
        usize::from(self.rounds.unwrap_or(if self.quick { 3 } else { 7 }))
    }

    pub(crate) fn burst(&self) -> Duration {
        Duration::from_millis(self.burst.unwrap_or(if self.quick { 100 } else { 150 }))
    }
}

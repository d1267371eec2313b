//! From a file on disk to active in the kernel, and the kernel's memory: a list of prefixes for one filter.
//!
//! Ours by the library's own steps, as at a start or a reload: read and check the configuration, compile, fill the
//! maps, switch. The others by their programs: `ipset restore` and `nft -f`. Memory three ways: what the kernel says
//! it took (BPF maps' accounting; `ipset`'s "Size in memory"), and for all the same the growth of slab, vmalloc and
//! per-CPU memory, which is exact only on a quiet machine.

use crate::options::Options;
use crate::policy::{Policy, Size, text};
use crate::router::{Plane, Site, configuration_file};
use crate::seed_plane::set;
use crate::stats::Spread;
use crate::{flip, nft_plane, process};
use anyhow::{Context, Result, bail};
use multiwans::cli::load::load;
use multiwans::datapath::{Datapath, LoadOptions};
use multiwans::policy::Policies;
use multiwans_common::PolicySet;
use multiwans_tests::Ns;
use multiwans_tests::wait::pause;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Flows in the table when its memory is looked at.
const FLOWS: usize = 262_144;

/// Up to here nft has its turn in every round, beyond it in one: a million takes it a quarter of a minute.
const MOST_TIMES_NFT: usize = 100_000;

/// Memory is at rest when it changes by less than this in a step; it is waited for three seconds at most.
const REST_BYTES: i64 = 256 * 1024;
const REST_STEP: Duration = Duration::from_millis(300);
const REST_TRIES: usize = 10;

/// One line of the table.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    pub(crate) prefixes: usize,
    pub(crate) how: &'static str,
    pub(crate) ms: Spread,
    /// What of it was reading, compiling, and filling; ours only.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) steps_ms: BTreeMap<&'static str, f64>,
    /// What the kernel says it took, in MiB.
    pub(crate) stated_mib: Option<f64>,
    /// How much kernel memory grew, in MiB.
    pub(crate) grown_mib: f64,
}

/// What the daemon's maps take, at the largest policy and with a flow table that is full.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Memory {
    pub(crate) filters: usize,
    pub(crate) prefixes: usize,
    pub(crate) flows: usize,
    pub(crate) total_mib: f64,
    pub(crate) maps: Vec<process::MapMemory>,
}

/// What [`run`] measures.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Load {
    pub(crate) rows: Vec<Row>,
    pub(crate) memory: Memory,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum How {
    Multiwans,
    Ipset,
    Nft,
}

impl How {
    const ALL: [Self; 3] = [Self::Multiwans, Self::Ipset, Self::Nft];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Multiwans => "multiwans",
            Self::Ipset => "ipset restore",
            Self::Nft => "nft -f",
        }
    }
}

/// A load's time, and the memory that was there afterwards and not before.
struct Sample {
    time: Duration,
    steps: BTreeMap<&'static str, Duration>,
    stated: Option<u64>,
    grown: i64,
}

pub(crate) fn run(options: &Options) -> Result<Load> {
    let site = Site::build(Plane::Multiwans)?;
    let sizes: Vec<usize> =
        [1_000, 100_000, 1_000_000].into_iter().filter(|size| *size <= options.most_prefixes()).collect();
    let mut rows = Vec::new();
    for prefixes in sizes {
        eprintln!("load: {prefixes} prefixes");
        let files = Files::write(&site, prefixes, options)?;
        let mut samples: BTreeMap<How, Vec<Sample>> = BTreeMap::new();
        for round in 0..options.rounds().min(3) {
            for how in How::ALL {
                if round > 0 && how == How::Nft && prefixes > MOST_TIMES_NFT {
                    continue;
                }
                samples.entry(how).or_default().push(sample(&site, how, &files)?);
            }
        }
        for (how, samples) in samples {
            rows.push(row(prefixes, how, &samples)?);
        }
    }
    let size = Size { filters: if options.quick { 1_000 } else { 4_096 }, prefixes: options.most_prefixes() };
    let memory = memory(&site, options, size)?;
    Ok(Load { rows, memory })
}

fn row(prefixes: usize, how: How, samples: &[Sample]) -> Result<Row> {
    let median = |values: Vec<f64>| Spread::of(values).map_or(0.0, |spread| spread.median);
    let ms = Spread::of(samples.iter().map(|sample| sample.time.as_secs_f64() * 1e3)).context("no rounds")?;
    let mut steps_ms = BTreeMap::new();
    for name in samples.iter().flat_map(|sample| sample.steps.keys()) {
        let step = samples.iter().filter_map(|sample| sample.steps.get(name));
        steps_ms.insert(*name, median(step.map(|time| time.as_secs_f64() * 1e3).collect()));
    }
    let stated: Vec<f64> = samples.iter().filter_map(|sample| Some(mib(sample.stated? as f64))).collect();
    Ok(Row {
        prefixes,
        how: how.as_str(),
        ms,
        steps_ms,
        stated_mib: (!stated.is_empty()).then(|| median(stated)),
        grown_mib: median(samples.iter().map(|sample| mib(sample.grown as f64)).collect()),
    })
}

/// The same prefixes in each tool's language, and a policy with hardly any.
struct Files {
    config: PathBuf,
    empty: PathBuf,
    ipset: PathBuf,
    nft: PathBuf,
}

impl Files {
    fn write(site: &Site, prefixes: usize, options: &Options) -> Result<Self> {
        let directory = options.out.canonicalize()?.join("files");
        fs::create_dir_all(&directory)?;
        let policy = Policy::new(Size { filters: 1, prefixes });
        let empty = Policy::new(Size { filters: 1, prefixes: 1 });
        let files = Self {
            config: configuration_file(&site.lab, &policy, &directory, "")?,
            empty: configuration_file(&site.lab, &empty, &directory.join("empty"), "")?,
            ipset: directory.join("ipset"),
            nft: directory.join("nft"),
        };
        let nets = || policy.lists[0].iter().map(|net| text(*net));
        let mut sets = String::new();
        set(&mut sets, "bench", nets())?;
        fs::write(&files.ipset, sets)?;
        let mut rules = "table ip bench {\n".to_owned();
        nft_plane::interval_map(&mut rules, "bench", nets())?;
        rules.push_str("}\n");
        fs::write(&files.nft, rules)?;
        Ok(files)
    }
}

fn sample(site: &Site, how: How, files: &Files) -> Result<Sample> {
    match how {
        How::Multiwans => ours(site, files),
        How::Ipset => {
            let sample = theirs(site, "ipset", "ipset restore -file", &files.ipset, || {
                let list = site.lab.sh(Ns::Router, "ipset list -terse bench")?;
                let size = list.lines().find_map(|line| line.strip_prefix("Size in memory:"));
                Ok(Some(size.context("ipset states no size")?.trim().parse()?))
            });
            site.lab.sh(Ns::Router, "ipset destroy bench")?;
            sample
        }
        How::Nft => {
            let sample = theirs(site, "nft", "nft -f", &files.nft, || Ok(None));
            site.lab.sh(Ns::Router, "nft delete table ip bench")?;
            sample
        }
    }
}

fn theirs(
    site: &Site,
    step: &'static str,
    command: &str,
    file: &Path,
    stated: impl FnOnce() -> Result<Option<u64>>,
) -> Result<Sample> {
    let before = settled_kernel_memory()?;
    let start = Instant::now();
    site.lab.sh(Ns::Router, &format!("{command} {}", file.display()))?;
    let time = start.elapsed();
    let grown = kernel_memory()? - before;
    let steps = BTreeMap::from([(step, time)]);
    Ok(Sample { time, steps, stated: stated()?, grown })
}

fn ours(site: &Site, files: &Files) -> Result<Sample> {
    site.lab.in_ns(Ns::Router, || {
        let empty = load(&files.empty)?.config;
        let mut datapath = Datapath::load(&empty, &Policies::new(&empty)?, LoadOptions::default())?;
        let before = settled_kernel_memory()?;
        let start = Instant::now();
        let config = load(&files.config)?.config;
        let read = start.elapsed();
        let policies = Policies::new(&config)?;
        let compiled = start.elapsed();
        let written = datapath.install(PolicySet::Forwarding, &policies.forwarding)?;
        let time = start.elapsed();
        let grown = kernel_memory()? - before;
        if written.bytes == 0 {
            bail!("nothing was written");
        }
        let steps = BTreeMap::from([("read", read), ("compile", compiled - read), ("fill", time - compiled)]);
        Ok(Sample { time, steps, stated: Some(written.bytes as u64), grown })
    })
}

/// The maps as the daemon makes them, in this process.
fn memory(site: &Site, options: &Options, size: Size) -> Result<Memory> {
    site.lab.in_ns(Ns::Router, || {
        let process = std::process::id();
        let others = process::map_numbers(process)?;
        let folder = options.out.canonicalize()?.join("files/memory");
        let config = load(&configuration_file(&site.lab, &Policy::new(size), &folder, "")?)?.config;
        let mut datapath = Datapath::load(&config, &Policies::new(&config)?, LoadOptions::default())?;
        let flows = datapath.seed(&flip::seeds(FLOWS)?);
        let maps = process::maps(process, &others)?;
        let total: u64 = maps.iter().map(|map| map.bytes).sum();
        Ok(Memory {
            filters: size.filters,
            prefixes: size.prefixes,
            flows,
            total_mib: mib(total as f64),
            maps,
        })
    })
}

/// The same once it has come to rest: what was given back is free a moment later.
fn settled_kernel_memory() -> Result<i64> {
    let (mut last, mut still) = (kernel_memory()?, 0);
    for _ in 0..REST_TRIES {
        pause(REST_STEP)?;
        let now = kernel_memory()?;
        still = if (now - last).abs() < REST_BYTES { still + 1 } else { 0 };
        if still == 2 {
            return Ok(now);
        }
        last = now;
    }
    // Others are at work on the machine; the spread will show it.
    Ok(last)
}

/// Slab, vmalloc and per-CPU memory, in bytes.
fn kernel_memory() -> Result<i64> {
    let info = fs::read_to_string("/proc/meminfo")?;
    let field = |key: &str| -> Result<i64> {
        let line = info.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        let kib = line.with_context(|| format!("/proc/meminfo has no {key}"))?;
        Ok(kib.trim().trim_end_matches(" kB").parse::<i64>()? * 1024)
    };
    Ok(field("SUnreclaim")? + field("VmallocUsed")? + field("Percpu")?)
}

fn mib(bytes: f64) -> f64 {
    bytes / 1024.0 / 1024.0
}

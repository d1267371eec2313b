//! `cargo xtask bench`: this project's numbers, measured beside what it replaces.

mod asm;
mod bpf;
mod conntrack;
mod flip;
mod forwarding;
mod frame;
mod generator;
mod load;
mod machine;
mod nft_plane;
mod options;
mod oracle_plane;
mod policy;
mod process;
mod profile;
mod programs;
mod report;
mod router;
mod seed_plane;
mod sink;
mod stats;
mod targets;

use anyhow::{Context, Result};
use clap::Parser;
use machine::Machine;
use options::{Options, Part};
use report::Report;
use std::fs;
use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Starts of a daemon with a million prefixes are waited for this many times as long as those of the tests.
const PATIENCE: &str = "8";

fn run(options: &Options) -> Result<()> {
    // cargo starts it in its package's directory; paths on the command line are meant from the workspace's.
    std::env::set_current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))?;
    // SAFETY: there is no other thread yet.
    unsafe { std::env::set_var("MULTIWANS_TEST_PATIENCE", PATIENCE) };
    // What was built is removed on the way out.
    ctrlc::set_handler(multiwans_tests::wait::interrupt)?;
    fs::create_dir_all(&options.out).with_context(|| format!("cannot create {}", options.out.display()))?;
    let cpu = options.cpu.map_or_else(generator::last_cpu, Ok)?;
    if options.has(Part::Profile) {
        return profile::run(options, cpu);
    }
    let start = Instant::now();
    let mut report = Report {
        machine: Machine::look()?,
        rounds: options.rounds(),
        burst_ms: options.burst().as_millis(),
        cpu,
        seconds: 0,
        targets: Vec::new(),
        forwarding: Vec::new(),
        programs: None,
        load: None,
        flip: Vec::new(),
        conntrack: Vec::new(),
    };
    let measured = measure(&mut report, options, cpu);
    report.seconds = start.elapsed().as_secs();
    // What was measured before something went wrong took its time, too.
    let markdown = report.write(&options.out)?;
    println!("{markdown}");
    measured?;
    if options.record {
        report::record(report::MEASURED, &markdown)?;
    }
    eprintln!("written to {}/report.md and report.json", options.out.display());
    Ok(())
}

fn measure(report: &mut Report, options: &Options, cpu: usize) -> Result<()> {
    if options.has(Part::Forwarding) {
        report.forwarding = forwarding::run(options, cpu)?;
    }
    if options.has(Part::Programs) {
        report.programs = Some(programs::run(options, cpu)?);
    }
    if options.has(Part::Load) {
        report.load = Some(load::run(options)?);
    }
    if options.has(Part::Flip) {
        report.flip = flip::run(options, cpu)?;
    }
    if options.has(Part::Conntrack) {
        report.conntrack = conntrack::run(options, cpu)?;
    }
    Ok(())
}

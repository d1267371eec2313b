//! `cargo xtask vm`: the tests on another kernel, in an emulated machine with nothing on it but them.
//!
//! The kernel is one of Debian's packages, unpacked and not installed. The machine's whole file system is
//! its initial ramdisk; it has no disk and no network. It is emulated in software, so that this works in
//! a virtual machine and a container too; a kernel is up in ten seconds and verifies the packet programs
//! in as many.

mod image;
mod kernel;

use crate::setup::packages;
use crate::{build, setup, workspace};
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

/// What runs when no test is named: what the kernel has a say in, the most telling first.
const TESTS: [&str; 12] = [
    "datapath",
    "steering",
    "lifecycle",
    "coexistence",
    "net",
    "inbound",
    "interfaces",
    "routes",
    "failover",
    "probe",
    "status",
    "refusals",
];

/// Starts the machine's report of a test program; see `init.sh`.
const RESULT: &str = "=== result of ";
/// Its last words.
const END: &str = "=== end";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which kernel: Debian's newest of this version
    #[arg(long, default_value = "6.1")]
    kernel: String,
    /// A test program and what it is to be called with: steering, 'lifecycle sigterm'
    #[arg(value_name = "TEST")]
    tests: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    setup::ensure_lab_tools()?;
    let missing = packages::missing(packages::VM_TOOLS);
    if !missing.is_empty() {
        packages::install(&missing)?;
    }
    build::run(&build::Args::default())?;
    let directory = workspace::target().join("vm");
    let kernel = kernel::unpack(&args.kernel, &directory)?;
    let tests = if args.tests.is_empty() { TESTS.map(str::to_owned).to_vec() } else { args.tests.clone() };
    let ramdisk = image::build(&kernel, &tests)?;
    boot(&kernel.vmlinuz, &ramdisk, tests.len())
}

/// Runs the machine and shows what it says.
fn boot(vmlinuz: &Path, ramdisk: &Path, tests: usize) -> Result<()> {
    let mut machine = Command::new("qemu-system-x86_64")
        .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "2048"])
        .args(["-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"])
        .arg("-kernel")
        .arg(vmlinuz)
        .arg("-initrd")
        .arg(ramdisk)
        .args(["-append", "console=ttyS0 quiet panic=-1"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run qemu-system-x86_64")?;
    let console = machine.stdout.take().context("the machine has no console")?;
    let mut results = Vec::new();
    let mut ended = false;
    for line in BufReader::new(console).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end();
        println!("{line}");
        results.extend(line.strip_prefix(RESULT).map(str::to_owned));
        ended |= line == END;
    }
    machine.wait()?;
    let failed: Vec<&String> = results.iter().filter(|result| !result.ends_with(": 0")).collect();
    if !failed.is_empty() {
        bail!("failed, with their exit code: {failed:?}");
    }
    if !ended || results.len() != tests {
        bail!("the machine ended after {} of {tests} test programs", results.len());
    }
    Ok(())
}

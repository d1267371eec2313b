//! `cargo xtask setup`: installs what the machine lacks, and nothing twice.

mod mail_server;
pub(crate) mod packages;
pub(crate) mod toolchain;

use crate::command::is_root;
use anyhow::{Result, bail};
use packages::{BENCH_TOOLS, LAB_TOOLS, PROFILE_TOOLS};
use toolchain::EbpfToolchain;

pub(crate) fn run() -> Result<()> {
    ensure_lab_tools()?;
    ensure_bench_tools(false)?;
    let toolchain = ensure_ebpf_toolchain()?;
    eprintln!("setup: nothing is missing; the packet programs are built with {toolchain}");
    Ok(())
}

/// What builds the packet programs, installed first when this machine has no such thing.
pub(crate) fn ensure_ebpf_toolchain() -> Result<EbpfToolchain> {
    match EbpfToolchain::find() {
        Some(toolchain) => Ok(toolchain),
        None => toolchain::install(),
    }
}

/// The programs that the lab and the tests call, installed first where missing.
pub(crate) fn ensure_lab_tools() -> Result<()> {
    let missing = packages::missing(LAB_TOOLS);
    if missing.is_empty() {
        return mail_server::ensure();
    }
    eprintln!("setup: the lab and the tests need {}", missing.join(", "));
    packages::install(&missing)?;
    let still = packages::missing(LAB_TOOLS);
    if !still.is_empty() {
        bail!("the packages {} are installed, but their programs are not to be found", still.join(", "));
    }
    mail_server::ensure()
}

/// The programs that `cargo xtask bench` measures beside ours, installed first where missing; for a profile perf too.
pub(crate) fn ensure_bench_tools(profile: bool) -> Result<()> {
    let mut missing = packages::missing(BENCH_TOOLS);
    if profile {
        missing.extend(packages::missing(PROFILE_TOOLS));
    }
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("setup: measuring needs {}", missing.join(", "));
    packages::install(&missing)
}

/// Fails for an ordinary user, saying why it matters.
pub(crate) fn require_root(why: &str) -> Result<()> {
    if !is_root() {
        bail!("this needs root: {why}");
    }
    Ok(())
}

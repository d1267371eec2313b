//! `cargo xtask build`: the packet programs, then the daemon that embeds them.

use crate::command::{cargo, run as run_command};
use crate::{build_ebpf, workspace};
use anyhow::Result;
use std::path::PathBuf;

#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Build the daemon with optimisations
    #[arg(long)]
    pub(crate) release: bool,
}

/// Returns the path of the daemon's binary.
pub(crate) fn run(args: &Args) -> Result<PathBuf> {
    build_ebpf::run()?;
    let mut command = cargo();
    command.args(["build", "--package", "multiwans"]);
    if args.release {
        command.arg("--release");
    }
    run_command(&mut command)?;
    let profile = if args.release { "release" } else { "debug" };
    Ok(workspace::target().join(profile).join("multiwans"))
}

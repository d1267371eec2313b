//! `cargo xtask demo`: the daemon at work on real packets, told as it happens.

mod story;
mod table;
mod timeline;
mod traffic;

use crate::{build, setup};
use anyhow::{Context, Result};
use multiwans_tests::{daemon, wait};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Build the daemon with optimisations
    #[arg(long)]
    release: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    setup::require_root("the demo builds network namespaces")?;
    setup::ensure_lab_tools()?;
    daemon::set_binary(build::run(&build::Args { release: args.release })?);
    // From here on there is something to remove: a signal ends the waiting, not the process, and what
    // exists is removed on the way out.
    ctrlc::set_handler(wait::interrupt).context("cannot handle signals")?;
    story::tell()
}

//! `cargo xtask test`: every test there is, on the real binary and real packets.

use crate::command::{cargo, run as run_command};
use crate::{build, setup};
use anyhow::Result;
use std::ffi::OsString;
use std::process::Command;

/// End-to-end tests are mostly waiting for packets; more of them at once than this makes two cores
/// miss the deadlines that the tests are about.
const TEST_THREADS: &str = "2";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What cargo test gets: `cargo xtask test -- --package multiwans`
    #[arg(last = true)]
    cargo_test: Vec<OsString>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    setup::ensure_lab_tools()?;
    setup::require_root("the end-to-end tests build network namespaces")?;
    build::run(&build::Args::default())?;
    if !args.cargo_test.is_empty() {
        return run_command(cargo_test().args(&args.cargo_test));
    }
    // Examples in the documentation first: what stands last is then a summary of tests that were run.
    run_command(cargo_test().arg("--doc"))?;
    run_command(cargo_test().args(["--lib", "--bins", "--tests"]))
}

fn cargo_test() -> Command {
    let mut command = cargo();
    // With --no-fail-fast one run shows everything that is broken.
    command.args(["test", "--workspace", "--no-fail-fast"]);
    if std::env::var_os("RUST_TEST_THREADS").is_none() {
        command.env("RUST_TEST_THREADS", TEST_THREADS);
    }
    command
}

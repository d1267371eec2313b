//! `cargo xtask bench`: builds what is measured and what measures, and runs it.

use crate::command::{cargo, run as run_command};
use crate::{build, setup};
use anyhow::Result;
use std::ffi::OsString;

#[derive(Debug, clap::Args)]
// The program that measures has the options, and explains them.
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// What to measure and how: `cargo xtask bench --help`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let asks = |word: &str| args.arguments.iter().any(|argument| argument == word);
    let mut command = cargo();
    if !asks("--help") && !asks("-h") {
        setup::require_root("what is measured runs in network namespaces")?;
        setup::ensure_lab_tools()?;
        setup::ensure_bench_tools(asks("profile"))?;
        command.env("MULTIWANS_BIN", build::run(&build::Args { release: true })?);
    }
    command.args(["bench", "--quiet", "--package", "multiwans-tests", "--bench", "bench", "--"]);
    run_command(command.args(&args.arguments))
}

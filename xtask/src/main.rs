//! `cargo xtask`: everything a developer of multiwans runs, from a bare clone.

mod bench;
mod build;
mod build_ebpf;
mod command;
mod demo;
mod install;
mod lab;
mod lint;
mod setup;
mod systemd;
mod test;
mod vm;
mod workspace;

use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};
use std::process::ExitCode;

/// What a developer of multiwans runs. Each command first installs what it finds missing.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    task: Option<Task>,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Install what this machine lacks to build, test and run the lab; does nothing when nothing is missing
    Setup,
    /// Compile the packet programs into target/multiwans-ebpf.o
    BuildEbpf,
    /// Compile the packet programs, then the daemon that embeds them
    Build(build::Args),
    /// Build everything and run every test, end to end included (needs root)
    Test(test::Args),
    /// Run tests on another kernel, in an emulated machine (slow: one or two minutes a test program and more)
    Vm(vm::Args),
    /// Run the installed unit under a real systemd, in a Debian of its own (needs root; the first time makes it)
    Systemd(systemd::Args),
    /// Check formatting, clippy, and the project's own rules about its source
    Lint,
    /// Watch the daemon steer and fail over real traffic in namespaces (under a minute; needs root)
    Demo(demo::Args),
    /// Measure this project beside what it replaces (a quarter of an hour on a quiet machine; needs root)
    Bench(bench::Args),
    /// Build with optimisations and install program, systemd unit and example configuration
    Install(install::Args),
    /// Remove what install put in place, except the configuration
    Uninstall(install::Places),
    /// The network of namespaces that tests and demo run in, to play in by hand (needs root)
    #[command(subcommand)]
    Lab(lab::Task),
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    match cli.task {
        None => Ok(Cli::command().print_help()?),
        Some(Task::Setup) => setup::run(),
        Some(Task::BuildEbpf) => build_ebpf::run(),
        Some(Task::Build(args)) => build::run(&args).map(drop),
        Some(Task::Test(args)) => test::run(&args),
        Some(Task::Vm(args)) => vm::run(&args),
        Some(Task::Systemd(args)) => systemd::run(&args),
        Some(Task::Lint) => lint::run(),
        Some(Task::Demo(args)) => demo::run(&args),
        Some(Task::Bench(args)) => bench::run(&args),
        Some(Task::Install(args)) => install::install(&args),
        Some(Task::Uninstall(places)) => install::uninstall(&places),
        Some(Task::Lab(task)) => lab::run(&task),
    }
}

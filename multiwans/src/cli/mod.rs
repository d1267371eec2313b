//! The command line, one file per subcommand.

mod args;
pub mod check;
pub mod lists;
pub mod load;
mod locate;
mod logging;
mod mail_test;
mod reload;
mod run;
pub mod status;

use std::process::ExitCode;

use clap::Parser as _;

pub use args::{Cli, Command, LogLevel};

/// Parses the command line and does what it says. Exit code 1: it could not; 2: the command line is wrong.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        None => run::run(cli.run),
        Some(Command::Run(args)) => run::run(args),
        Some(Command::Check(args)) => match locate::config(args.config) {
            Ok(path) => check::run(&path),
            Err(error) => fail(&error),
        },
        Some(Command::MailTest(args)) => match locate::config(args.config) {
            Ok(path) => mail_test::run(&path),
            Err(error) => fail(&error),
        },
        Some(Command::Reload(args)) => reload::run(args.socket, args.config),
        Some(Command::Status(args)) => match locate::socket(args.socket, args.config) {
            Ok(path) => status::run(&path, args.json),
            Err(error) => fail(&error),
        },
    }
}

/// One line on stderr, exit code 1.
fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("multiwans: {error}");
    ExitCode::FAILURE
}

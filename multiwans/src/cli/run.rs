//! `multiwans run`: the daemon in the foreground.

use std::process::ExitCode;

use super::args::Run;
use super::load::load;
use super::{fail, locate, logging};
use crate::config::LogLevel;
use crate::daemon;

/// Loads the configuration and runs the daemon. Nothing is changed where either is not possible.
pub(super) fn run(args: Run) -> ExitCode {
    let path = match locate::config(args.config) {
        Ok(path) => path,
        Err(error) => return fail(&error),
    };
    let parsed = match load(&path) {
        Ok(parsed) => parsed,
        Err(error) => return fail(&error),
    };
    let level = args.log_level.map_or(parsed.config.daemon.log_level, LogLevel::from);
    logging::init(level);
    for warning in &parsed.warnings {
        tracing::warn!("{warning}");
    }
    let mut config = parsed.config;
    if let Some(socket) = args.socket {
        config.daemon.control_socket = socket;
    }
    let options = daemon::Options { log_decisions: level >= LogLevel::Debug };
    match daemon::run(config, options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("{error:#}")),
    }
}

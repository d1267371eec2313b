//! `multiwans run`: the daemon in the foreground.

use std::io;
use std::path::{Path, PathBuf};
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
    let mut config = parsed.config;
    let level = args.log_level.map_or(config.daemon.log_level, LogLevel::from);
    config.hooks.dir = match beside(&path, &config.hooks.dir) {
        Ok(dir) => dir,
        Err(error) => return fail(&format!("{}: {error}", path.display())),
    };
    let (_logging, for_mail) = match logging::init(level) {
        Ok(logging) => logging,
        Err(error) => return fail(&format!("no thread for the log: {error}")),
    };
    for warning in &parsed.warnings {
        tracing::warn!("{warning}");
    }
    if let Some(socket) = args.socket {
        config.daemon.control_socket = socket;
    }
    let options = daemon::Options { log_decisions: level >= LogLevel::Debug, for_mail };
    match daemon::run(config, options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A path of the configuration that is relative to the folder of its file.
fn beside(file: &Path, path: &Path) -> io::Result<PathBuf> {
    let file = std::path::absolute(file)?;
    Ok(file.parent().unwrap_or(Path::new("/")).join(path))
}

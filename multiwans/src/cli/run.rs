//! `multiwans run`: the daemon in the foreground.

use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use super::args::Run;
use super::load::{Origin, open_password};
use super::{fail, locate, logging};
use crate::config::{LogLevel, Parsed};
use crate::daemon;

/// Loads the configuration and runs the daemon. Nothing is changed where either is not possible.
pub(super) fn run(args: Run) -> ExitCode {
    let path = match locate::config(args.config) {
        Ok(path) => path,
        Err(error) => return fail(&error),
    };
    let origin = Origin {
        path,
        socket: args.socket,
        log_level: args.log_level.map(LogLevel::from),
        lists: Mutex::default(),
    };
    let parsed = match origin.load() {
        Ok(parsed) => parsed,
        Err(error) => return fail(&error),
    };
    let level = parsed.config.daemon.log_level;
    let (logging, for_mail) = match logging::init(level) {
        Ok(logging) => logging,
        Err(error) => return fail(&format!("no thread for the log: {error}")),
    };
    for warning in &parsed.warnings {
        tracing::warn!("{warning}");
    }
    if let Some(warning) = open_password(&origin.path, &parsed.config) {
        tracing::warn!("{warning}");
    }
    let options = daemon::Options { log_decisions: level >= LogLevel::Debug, for_mail };
    let source = Arc::new(Source { origin, log: logging.filter() });
    match daemon::run(parsed.config, options, source) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What the daemon reloads from.
struct Source {
    origin: Origin,
    log: logging::Filter,
}

impl daemon::Source for Source {
    fn file(&self) -> &Path {
        &self.origin.path
    }

    fn load(&self) -> Result<Parsed, String> {
        let parsed = self.origin.load().map_err(|error| error.to_string())?;
        if let Some(warning) = open_password(&self.origin.path, &parsed.config) {
            tracing::warn!("{warning}");
        }
        Ok(parsed)
    }

    fn set_log_level(&self, level: LogLevel) {
        self.log.set(level);
    }
}

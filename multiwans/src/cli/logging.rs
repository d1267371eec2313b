//! Where log lines go: stderr, one a line, with time and level.

use std::io::{IsTerminal as _, stderr};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

use super::LogLevel;

/// Starts logging. At `debug` only our own modules and programs tell more; libraries stay at warnings.
pub(super) fn init(level: LogLevel) {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    };
    // The prefix covers `multiwans_ebpf`, whose lines come through the programs' log.
    let filter = Targets::new().with_default(level.min(LevelFilter::WARN)).with_target("multiwans", level);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal())
        .with_target(false);
    tracing_subscriber::registry().with(lines).with(filter).init();
}

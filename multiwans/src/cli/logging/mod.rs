//! Where log lines go.
//!
//! * Under systemd: to the journal, in its own protocol, and nowhere else.
//! * Otherwise: to stderr, readable on a terminal, as syslog writes them elsewhere. Where stderr is no place
//!   that anybody reads live or collects (a file, `/dev/null`: a daemon of an init script), to the local
//!   syslog as well, under the facility `daemon`, as the Bash tool did with `logger`.

mod lines;
mod syslog;

use std::env;
use std::fs::File;
use std::io::{self, IsTerminal as _, stderr};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

use tracing::level_filters::LevelFilter;
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;
use tracing_subscriber::registry::Registry;

use crate::config::LogLevel;
use lines::{Lines, Style};
use syslog::Syslog;

/// What lines are found by, in the journal and in syslog.
const IDENTIFIER: &str = "multiwans";
/// `LOG_DAEMON` (RFC 5424, 6.2.1).
const FACILITY_DAEMON: u8 = 3;

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
    tracing_subscriber::registry().with(outputs()).with(filter).init();
}

fn outputs() -> Vec<Box<dyn Layer<Registry> + Send + Sync>> {
    let stderr_is = stderr_metadata();
    if is_journal(stderr_is.as_ref())
        && let Ok(journal) = tracing_journald::layer()
    {
        return vec![
            journal
                .with_syslog_identifier(IDENTIFIER.to_owned())
                .with_custom_fields([("SYSLOG_FACILITY", FACILITY_DAEMON.to_string())])
                // The crate's own makes every change of state a `notice`.
                .with_priority_mappings(PriorityMappings {
                    info: Priority::Informational,
                    debug: Priority::Debug,
                    ..PriorityMappings::new()
                })
                .boxed(),
        ];
    }
    let is_terminal = stderr().is_terminal();
    let style = if is_terminal { Style::Terminal } else { Style::File };
    let mut outputs = vec![
        tracing_subscriber::fmt::layer()
            .with_ansi(is_terminal)
            .event_format(Lines::new(style))
            .with_writer(stderr)
            .boxed(),
    ];
    // A pipe or socket has a collector at its other end, and each line would reach it twice.
    let is_collected =
        stderr_is.is_some_and(|stderr| stderr.file_type().is_fifo() || stderr.file_type().is_socket());
    if !is_terminal
        && !is_collected
        && let Ok(syslog) = Syslog::connect(syslog::PATH)
    {
        outputs.push(
            tracing_subscriber::fmt::layer()
                .with_ansi(false)
                .event_format(Lines::new(Style::Syslog))
                .with_writer(syslog)
                .boxed(),
        );
    }
    outputs
}

/// systemd tells by device and inode which of our outputs leads to the journal: an inherited variable alone
/// does not mean that this one does.
fn is_journal(stderr: Option<&std::fs::Metadata>) -> bool {
    let named = env::var("JOURNAL_STREAM").ok();
    stderr.zip(named).is_some_and(|(stderr, named)| named == format!("{}:{}", stderr.dev(), stderr.ino()))
}

/// `None` where stderr is closed.
fn stderr_metadata() -> Option<std::fs::Metadata> {
    let duplicate: io::Result<_> = stderr().as_fd().try_clone_to_owned();
    File::from(duplicate.ok()?).metadata().ok()
}

//! How a line looks.

use std::fmt::Write as _;
use std::fs;

use tracing::Level;

use super::record::Record;
use super::{FACILITY_DAEMON, IDENTIFIER};

/// For whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// A person who looks on: `11:02:31 WARN  text`, in colour.
    Terminal,
    /// A file, as syslog writes one: `Nov 22 11:02:31 router multiwans[4711]: WARN: text`.
    File,
    /// The local syslog: `<28>Nov 22 11:02:31 multiwans[4711]: text` (RFC 3164 without the host, which the
    /// local daemon adds).
    Syslog,
    /// The journal: a field in each line (systemd.io/JOURNAL_NATIVE_PROTOCOL; no value of ours has a line
    /// break in it).
    Journal,
}

/// Makes lines of one style.
#[derive(Debug)]
pub(super) struct Lines {
    style: Style,
    host: String,
}

impl Lines {
    pub(super) fn new(style: Style) -> Self {
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = match host.trim() {
            "" => "localhost",
            host => host,
        };
        Self { style, host: host.to_owned() }
    }

    /// The line, with its line break where the reader wants one.
    pub(super) fn line(&self, record: &Record) -> String {
        let Record { time, level, text, .. } = record;
        let pid = std::process::id();
        match self.style {
            Style::Terminal => {
                format!("{} {}{:<5}\x1b[0m {text}\n", time.strftime("%T"), colour(*level), level.as_str())
            }
            Style::File => format!(
                "{} {} {IDENTIFIER}[{pid}]: {}: {text}\n",
                time.strftime("%b %e %T"),
                self.host,
                level.as_str()
            ),
            Style::Syslog => {
                let priority = FACILITY_DAEMON << 3 | severity(*level);
                format!("<{priority}>{} {IDENTIFIER}[{pid}]: {text}", time.strftime("%b %e %T"))
            }
            Style::Journal => journal(record),
        }
    }
}

fn journal(record: &Record) -> String {
    let mut fields = format!(
        "MESSAGE={}\nPRIORITY={}\nSYSLOG_IDENTIFIER={IDENTIFIER}\nSYSLOG_FACILITY={FACILITY_DAEMON}\n",
        record.text,
        severity(record.level)
    );
    let origin = record.origin;
    let target = origin.map(|origin| ("TARGET", origin.target().to_owned()));
    let file = origin.and_then(|origin| Some(("CODE_FILE", origin.file()?.to_owned())));
    let line = origin.and_then(|origin| Some(("CODE_LINE", origin.line()?.to_string())));
    for (name, value) in [target, file, line].into_iter().flatten() {
        // Writing to a string cannot fail.
        let _ = writeln!(fields, "{name}={value}");
    }
    fields
}

/// RFC 5424, 6.2.1.
fn severity(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

fn colour(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[1;31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG | Level::TRACE => "\x1b[2m",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(style: Style, level: Level) -> String {
        let lines = Lines { style, host: "router".into() };
        let time = "2026-11-02T11:02:31-03:00[America/Sao_Paulo]".parse().unwrap();
        let record = Record { time, level, text: "WAN1: ON".into(), ..Record::missing(1) };
        lines.line(&record).replace(&std::process::id().to_string(), "4711")
    }

    #[test]
    fn each_reader_gets_its_form() {
        let file = "Nov  2 11:02:31 router multiwans[4711]: WARN: WAN1: ON\n";
        assert_eq!(line(Style::File, Level::WARN), file);
        assert_eq!(line(Style::Syslog, Level::ERROR), "<27>Nov  2 11:02:31 multiwans[4711]: WAN1: ON");
        assert_eq!(line(Style::Syslog, Level::INFO), "<30>Nov  2 11:02:31 multiwans[4711]: WAN1: ON");
        assert_eq!(line(Style::Terminal, Level::ERROR), "11:02:31 \x1b[1;31mERROR\x1b[0m WAN1: ON\n");
        assert_eq!(
            line(Style::Journal, Level::INFO),
            "MESSAGE=WAN1: ON\nPRIORITY=6\nSYSLOG_IDENTIFIER=multiwans\nSYSLOG_FACILITY=3\n"
        );
    }
}

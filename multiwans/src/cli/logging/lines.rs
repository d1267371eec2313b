//! How a line looks.

use std::fmt;
use std::fs;

use jiff::Zoned;
use tracing::{Event, Level, Subscriber};
use tracing_log::NormalizeEvent as _;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::{FACILITY_DAEMON, IDENTIFIER};

/// For whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// A person who looks on: `11:02:31 WARN  text`.
    Terminal,
    /// A file, as syslog writes one: `Nov 22 11:02:31 router multiwans[4711]: WARN: text`.
    File,
    /// The local syslog: `<28>Nov 22 11:02:31 multiwans[4711]: text` (RFC 3164 without the host, which the
    /// local daemon adds).
    Syslog,
}

/// Writes lines of one style.
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

    fn prefix(&self, to: &mut dyn fmt::Write, level: Level, ansi: bool, now: &Zoned) -> fmt::Result {
        let pid = std::process::id();
        match self.style {
            Style::Terminal => {
                let (colour, plain) = if ansi { (colour(level), "\x1b[0m") } else { ("", "") };
                write!(to, "{} {colour}{:<5}{plain} ", now.strftime("%T"), level.as_str())
            }
            Style::File => write!(
                to,
                "{} {} {IDENTIFIER}[{pid}]: {}: ",
                now.strftime("%b %e %T"),
                self.host,
                level.as_str()
            ),
            Style::Syslog => {
                let priority = FACILITY_DAEMON << 3 | severity(level);
                write!(to, "<{priority}>{} {IDENTIFIER}[{pid}]: ", now.strftime("%b %e %T"))
            }
        }
    }
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

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        // A line of a library that uses `log` has its level in here.
        let level = event.normalized_metadata().map_or(*event.metadata().level(), |bridged| *bridged.level());
        let ansi = writer.has_ansi_escapes();
        self.prefix(&mut writer, level, ansi, &Zoned::now())?;
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(style: Style, level: Level, ansi: bool) -> String {
        let lines = Lines { style, host: "router".into() };
        let now: Zoned = "2026-11-02T11:02:31-03:00[America/Sao_Paulo]".parse().unwrap();
        let mut text = String::new();
        lines.prefix(&mut text, level, ansi, &now).unwrap();
        text.replace(&std::process::id().to_string(), "4711")
    }

    #[test]
    fn each_reader_gets_its_form() {
        assert_eq!(line(Style::File, Level::WARN, false), "Nov  2 11:02:31 router multiwans[4711]: WARN: ");
        assert_eq!(line(Style::Syslog, Level::ERROR, false), "<27>Nov  2 11:02:31 multiwans[4711]: ");
        assert_eq!(line(Style::Syslog, Level::INFO, false), "<30>Nov  2 11:02:31 multiwans[4711]: ");
        assert_eq!(line(Style::Terminal, Level::INFO, false), "11:02:31 INFO  ");
        assert_eq!(line(Style::Terminal, Level::ERROR, true), "11:02:31 \x1b[1;31mERROR\x1b[0m ");
    }
}

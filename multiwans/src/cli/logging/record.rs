//! What was logged, apart from how it looks.

use std::fmt::{self, Write as _};

use jiff::Zoned;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata};
use tracing_log::NormalizeEvent as _;

use crate::engine;
use crate::engine::alerts::Entry;
use crate::types::WanMark;

/// Bytes of a line: what every log takes in one piece. The longest of ours tells why each of 252 links is
/// down.
const MAX_BYTES: usize = 32_768;

/// The field that says which link a line is about; it is for mails and not part of the text.
const WAN: &str = "wan";

/// Whose lines are not for mails: the engine's come to them as notices, and a mail about mails that cannot
/// be sent would be one more of them.
const NOT_FOR_MAIL: [&str; 2] = ["multiwans::engine", "multiwans::notify::email"];

/// One line.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) time: Zoned,
    pub(super) level: Level,
    pub(super) text: String,
    pub(super) wan: Option<WanMark>,
    /// Where in the code; `None` for what this module says itself.
    pub(super) origin: Option<&'static Metadata<'static>>,
}

impl Record {
    /// What an event says, now.
    pub(super) fn of(event: &Event<'_>) -> Self {
        let mut parts = Parts::default();
        event.record(&mut parts);
        // A line of a library that uses `log` has its level in here.
        let level = event.normalized_metadata().map_or(*event.metadata().level(), |bridged| *bridged.level());
        let mut text = (parts.message + &parts.fields).replace(char::is_control, " ");
        text.truncate(text.floor_char_boundary(MAX_BYTES));
        let text = text.trim_end().to_owned();
        Self { time: Zoned::now(), level, text, wan: parts.wan, origin: Some(event.metadata()) }
    }

    /// In place of lines that are lost.
    pub(super) fn missing(lines: u64) -> Self {
        let text =
            format!("{lines} lines of the log are missing here: they came faster than they were taken in");
        Self { time: Zoned::now(), level: Level::WARN, text, wan: None, origin: None }
    }

    /// What mails are to tell of it; `None`: nothing.
    pub(super) fn for_mail(&self) -> Option<Entry> {
        let level = match self.level {
            Level::ERROR => engine::Level::Error,
            Level::WARN => engine::Level::Warn,
            _ => return None,
        };
        let target = self.origin?.target();
        if !target.starts_with("multiwans") || NOT_FOR_MAIL.iter().any(|not| target.starts_with(not)) {
            return None;
        }
        let at = u64::try_from(self.time.timestamp().as_second()).unwrap_or_default();
        Some(Entry { at, level, wan: self.wan, text: self.text.clone() })
    }
}

/// An event's fields.
#[derive(Debug, Default)]
struct Parts {
    message: String,
    fields: String,
    wan: Option<WanMark>,
}

impl Visit for Parts {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == WAN {
            self.wan = u8::try_from(value).ok().and_then(WanMark::new);
        } else {
            self.record_debug(field, &value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            // What the bridge from `log` adds.
            name if name.starts_with("log.") => Ok(()),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

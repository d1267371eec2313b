//! A mail's content before it is text or HTML.

/// What a mail says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// The subject line.
    pub subject: String,
    /// The parts, from top to bottom.
    pub(super) blocks: Vec<Block>,
}

/// One part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Block {
    /// Names with their values, which may have several lines.
    Facts { title: String, rows: Vec<(&'static str, Vec<String>)> },
    /// Lines of the log.
    Log { title: String, lines: Vec<Line> },
    /// A table.
    Table { title: String, head: Vec<&'static str>, rows: Vec<Vec<String>> },
    /// Lines at the end.
    Footer(Vec<String>),
}

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) time: String,
    pub(super) weight: Weight,
    pub(super) text: String,
}

/// How a line is to stand out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weight {
    Error,
    Warning,
    Info,
}

impl Weight {
    /// The word before the line.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Error => "ERROR: ",
            Self::Warning => "WARNING: ",
            Self::Info => "",
        }
    }
}

/// Text of a configuration or a system, without what would move a terminal's cursor.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

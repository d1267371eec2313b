//! What is wrong with a configuration, and the collection that gathers it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::node::Position;
use super::path::Path;

/// How bad a [`Problem`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    /// Nothing may start with it.
    Error,
    /// It starts, but probably not as meant.
    Warning,
}

/// One thing wrong in the file.
///
/// Printed as `config.yaml:41:13: WANS[1].mark (300) must be an integer 1..252 [WAN "WAN2"]`, a warning
/// with `warning: ` before the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file as the caller named it.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// How bad it is.
    pub severity: Severity,
    /// Path of the key (`WANS[1].mark`); empty where the whole file is meant.
    pub path: String,
    /// Path, value, rule and owner in one line.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let warning = if self.severity == Severity::Warning { "warning: " } else { "" };
        write!(f, "{}:{}:{}: {warning}{}", self.file, self.line, self.column, self.message)
    }
}

/// All problems of an invalid file, warnings too, by position. Printed one a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// These, in this order.
    pub fn new(problems: Vec<Problem>) -> Self {
        Self(problems)
    }

    /// The problems by position, warnings included.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Text out of the file made fit for a one-line message: control characters escaped, long ones cut.
pub(super) struct Shown<'t>(pub(super) &'t str);

impl Shown<'_> {
    /// Enough for any address, name or path one would mistype.
    const MAX_CHARS: usize = 80;
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        for (count, char) in self.0.chars().enumerate() {
            if count == Self::MAX_CHARS {
                return f.write_char('…');
            }
            // U+2028 and U+2029 end a line too, and the direction overrides can hide what follows.
            let hidden = matches!(char, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
            if char.is_control() || hidden {
                write!(f, "{}", char.escape_default())?;
            } else {
                f.write_char(char)?;
            }
        }
        Ok(())
    }
}

/// Where a value stands that only who reads files can judge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    file: Arc<str>,
    at: Position,
    path: String,
    value: String,
    owners: String,
}

impl Place {
    /// `path (value) must be rule [owners]`.
    pub fn must_be(&self, rule: &str) -> Problem {
        self.problem(Severity::Error, &format!("must be {rule}"))
    }

    /// `path (value) text [owners]`, but not an error.
    pub fn warning(&self, text: &str) -> Problem {
        self.problem(Severity::Warning, text)
    }

    fn problem(&self, severity: Severity, text: &str) -> Problem {
        let Self { file, at, path, value, owners } = self;
        Problem {
            file: Arc::clone(file),
            line: at.line,
            column: at.column,
            severity,
            path: path.clone(),
            message: format!("{path} ({}) {text}{owners}", Shown(value)),
        }
    }
}

/// Gathers the problems of one file.
pub(super) struct Report {
    file: Arc<str>,
    problems: Vec<Problem>,
    lists: Vec<(PathBuf, Place)>,
}

impl Report {
    pub(super) fn new(file: &str) -> Self {
        Self { file: file.into(), problems: Vec::new(), lists: Vec::new() }
    }

    /// An error that is about the file rather than about one key.
    pub(super) fn file_error(&mut self, at: Position, message: &str) {
        self.push(Severity::Error, at, &Path::ROOT, message.to_owned());
    }

    /// `path: text [owners]`.
    pub(super) fn error(&mut self, at: Position, path: &Path<'_>, text: fmt::Arguments<'_>) {
        self.push(Severity::Error, at, path, format!("{path}: {text}{}", path.owners()));
    }

    /// `path (value) must be rule [owners]`.
    pub(super) fn must_be(&mut self, at: Position, path: &Path<'_>, value: &str, rule: &str) {
        let value = if value.is_empty() { "\"\"" } else { value };
        let message = format!("{path} ({}) must be {rule}{}", Shown(value), path.owners());
        self.push(Severity::Error, at, path, message);
    }

    /// `path: text [owners]`, but not an error.
    pub(super) fn warning(&mut self, at: Position, path: &Path<'_>, text: fmt::Arguments<'_>) {
        self.push(Severity::Warning, at, path, format!("{path}: {text}{}", path.owners()));
    }

    /// A value that names a list.
    pub(super) fn list(&mut self, file: PathBuf, at: Position, path: &Path<'_>, value: &str) {
        let place = Place {
            file: Arc::clone(&self.file),
            at,
            path: path.to_string(),
            value: value.to_owned(),
            owners: path.owners(),
        };
        self.lists.push((file, place));
    }

    /// The lists that the file names, in order.
    pub(super) fn take_lists(&mut self) -> Vec<(PathBuf, Place)> {
        std::mem::take(&mut self.lists)
    }

    /// The problems by position; those of one position stay in the order they were found.
    pub(super) fn into_sorted(mut self) -> Vec<Problem> {
        self.problems.sort_by_key(|problem| (problem.line, problem.column));
        self.problems
    }

    fn push(&mut self, severity: Severity, at: Position, path: &Path<'_>, message: String) {
        self.problems.push(Problem {
            file: Arc::clone(&self.file),
            line: at.line,
            column: at.column,
            severity,
            path: path.to_string(),
            message,
        });
    }
}

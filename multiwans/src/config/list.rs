//! Lists of prefixes: one address or prefix a line. Text in, prefixes or every problem out.

use std::sync::Arc;

use ipnet::Ipv4Net;

use super::net::prefix;
use super::problem::{Problem, Severity, Shown};

/// Problems of one list that are told one by one.
const TOLD: usize = 20;

/// A list that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    /// The prefixes, as they come; there may be none.
    pub nets: Vec<Ipv4Net>,
    /// What is odd about them.
    pub warnings: Vec<Problem>,
}

/// How some editors begin a text in UTF-8.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Reads a list's text. Each line has an address or a prefix, or nothing; what follows `#` or `;` is a comment.
///
/// `file_name` is what the problems call it.
///
/// # Errors
/// The problems by line; the first twenty, and how many more there are.
pub fn read_list(text: &[u8], file_name: &str) -> Result<List, Vec<Problem>> {
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    // A prefix is some fourteen bytes with its line's end.
    let mut nets = Vec::with_capacity(text.len() / 14);
    let (mut errors, mut warnings) = (Told::new(file_name), Told::new(file_name));
    for (line, text) in (1u32..).zip(text.split(|byte| *byte == b'\n')) {
        let (before, value) = entry(text);
        if value.is_empty() {
            continue;
        }
        let shown = || String::from_utf8_lossy(value);
        match std::str::from_utf8(value).ok().and_then(|value| prefix(value).ok()) {
            Some((net, false)) => nets.push(net),
            Some((net, true)) => {
                let text = format!("{} has host bits set and is taken as {net}", shown());
                warnings.tell(Severity::Warning, line, before, &text);
                nets.push(net);
            }
            None => {
                let rule = "must be an IPv4 address or a prefix in CIDR notation, one a line";
                errors.tell(Severity::Error, line, before, &format!("prefix ({}) {rule}", Shown(&shown())));
            }
        }
    }
    let errors = errors.all();
    if errors.is_empty() { Ok(List { nets, warnings: warnings.all() }) } else { Err(errors) }
}

/// The bytes before a line's entry, and the entry; empty where the line has none.
fn entry(line: &[u8]) -> (usize, &[u8]) {
    let value = line.trim_ascii_start();
    let before = line.len() - value.len();
    // A comment begins the line or follows white space, so that a stray character in an entry is not one.
    let mut start = true;
    let end = value.iter().position(|byte| {
        let comment = start && matches!(byte, b'#' | b';');
        start = byte.is_ascii_whitespace();
        comment
    });
    (before, value[..end.unwrap_or(value.len())].trim_ascii_end())
}

/// Problems of one kind, as many as one reads.
struct Told {
    file: Arc<str>,
    problems: Vec<Problem>,
    more: usize,
    last: u32,
}

impl Told {
    fn new(file_name: &str) -> Self {
        Self { file: file_name.into(), problems: Vec::new(), more: 0, last: 0 }
    }

    fn tell(&mut self, severity: Severity, line: u32, before: usize, message: &str) {
        self.last = line;
        if self.problems.len() == TOLD {
            self.more += 1;
            return;
        }
        // A line is no longer than its file, which fits.
        let column = u32::try_from(before + 1).unwrap_or(u32::MAX);
        let (file, message) = (Arc::clone(&self.file), message.to_owned());
        self.problems.push(Problem { file, line, column, severity, path: String::new(), message });
    }

    fn all(mut self) -> Vec<Problem> {
        if let Some(last) = self.problems.last().filter(|_| self.more > 0) {
            let message = format!("and {} more like these up to here", self.more);
            let last = Problem { line: self.last, column: 1, message, ..last.clone() };
            self.problems.push(last);
        }
        self.problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(problems: &[Problem]) -> Vec<String> {
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn comments_blanks_and_line_ends_of_all_kinds() {
        let text = b"# head\r\n\n10.0.0.0/8\r\n  192.0.2.1\t; a host\n\t\n;x\n203.0.113.0/24 # net # more\n0.0.0.0/0";
        let list = read_list(text, "l").unwrap();
        let nets: Vec<String> = list.nets.iter().map(ToString::to_string).collect();
        assert_eq!(nets, ["10.0.0.0/8", "192.0.2.1/32", "203.0.113.0/24", "0.0.0.0/0"]);
        assert_eq!(list.warnings, []);
        let marked = read_list("\u{feff}192.0.2.1\r\n".as_bytes(), "l").unwrap();
        assert_eq!(marked.nets, ["192.0.2.1/32".parse().unwrap()], "some editors begin a text so");
        for empty in ["", "\u{feff}", "\n\n", "# only\n"] {
            assert_eq!(read_list(empty.as_bytes(), "l").unwrap().nets, []);
        }
    }

    #[test]
    fn host_bits_are_cut_off_and_told() {
        let list = read_list(b"\n 10.1.2.3/8\n", "l").unwrap();
        assert_eq!(list.nets, ["10.0.0.0/8".parse().unwrap()]);
        assert_eq!(
            texts(&list.warnings),
            ["l:2:2: warning: 10.1.2.3/8 has host bits set and is taken as 10.0.0.0/8"]
        );
    }

    #[test]
    fn every_problem_has_its_line_and_value() {
        let text = b"10.0.0.0/33\n10.0.0.0/8\n::1\n10.0.0.0/8 10.1.0.0/16\n10.0.0.0/8#x\n\xff\n";
        let problems = texts(&read_list(text, "dir/l").unwrap_err());
        let rule = "must be an IPv4 address or a prefix in CIDR notation, one a line";
        assert_eq!(
            problems,
            [
                format!("dir/l:1:1: prefix (10.0.0.0/33) {rule}"),
                format!("dir/l:3:1: prefix (::1) {rule}"),
                format!("dir/l:4:1: prefix (10.0.0.0/8 10.1.0.0/16) {rule}"),
                format!("dir/l:5:1: prefix (10.0.0.0/8#x) {rule}"),
                format!("dir/l:6:1: prefix (\u{fffd}) {rule}"),
            ]
        );
    }

    #[test]
    fn of_many_problems_the_first_are_told_and_the_rest_counted() {
        let problems = texts(&read_list(&b"x\n".repeat(1000), "l").unwrap_err());
        assert_eq!(problems.len(), 21);
        assert_eq!(problems[20], "l:1000:1: and 980 more like these up to here");
    }
}

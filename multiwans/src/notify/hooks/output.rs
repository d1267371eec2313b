//! A hook's output, line by line and within bounds: it may print without end, and the log must not fill.

use std::mem;

/// The longest line that is logged whole, in bytes: what fits a classic syslog message (RFC 3164 §4.1,
/// 1024 bytes) beside its header.
pub(super) const LINE_MAX: usize = 900;
/// Lines logged of one run: more than a person reads, and at [`LINE_MAX`] each at most 180 kB.
pub(super) const LINES_MAX: u32 = 200;

/// Splits what comes out of the pipe. Holds one line at most.
#[derive(Debug, Default)]
pub(super) struct Lines {
    line: Vec<u8>,
    /// Bytes of the line that did not fit.
    cut: u64,
    logged: u32,
    omitted: u64,
}

impl Lines {
    /// Takes in what was read; `log` gets each whole line.
    pub(super) fn push(&mut self, bytes: &[u8], mut log: impl FnMut(&str)) {
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.is_full() {
                self.omitted += rest.len() as u64;
                return;
            }
            let end = rest.iter().position(|byte| *byte == b'\n');
            let text = &rest[..end.unwrap_or(rest.len())];
            let fits = text.len().min(LINE_MAX - self.line.len());
            self.line.extend_from_slice(&text[..fits]);
            self.cut += (text.len() - fits) as u64;
            if end.is_some() {
                self.end_line(&mut log);
            }
            rest = end.map_or(&[], |end| &rest[end + 1..]);
        }
    }

    /// Whether nothing more will be logged.
    pub(super) fn is_full(&self) -> bool {
        self.logged == LINES_MAX
    }

    /// Logs the last line where it has no end, and says how many bytes were left out in all.
    pub(super) fn finish(mut self, mut log: impl FnMut(&str)) -> u64 {
        if !self.line.is_empty() {
            self.end_line(&mut log);
        }
        self.omitted
    }

    fn end_line(&mut self, log: &mut impl FnMut(&str)) {
        self.logged += 1;
        let cut = mem::take(&mut self.cut);
        self.omitted += cut;
        let line = mem::take(&mut self.line);
        let mut text = printable(&line);
        if cut > 0 {
            text.push_str(" […]");
        }
        // An empty line tells nothing.
        if !text.trim().is_empty() {
            log(&text);
        }
    }
}

/// A line as text that cannot move a terminal's cursor or begin another line in the log.
fn printable(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end();
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c == '\t' {
            shown.push(' ');
        } else if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines logged, and the bytes left out.
    fn lines(chunks: &[&[u8]]) -> (Vec<String>, u64) {
        let mut lines = Lines::default();
        let mut logged = Vec::new();
        for chunk in chunks {
            lines.push(chunk, |line| logged.push(line.to_owned()));
        }
        let omitted = lines.finish(|line| logged.push(line.to_owned()));
        (logged, omitted)
    }

    #[test]
    fn lines_are_put_together_from_what_is_read() {
        let (logged, omitted) = lines(&[b"on", b"e\ntwo\r\n\n", b"\nthree"]);
        assert_eq!(logged, ["one", "two", "three"]);
        assert_eq!(omitted, 0);
    }

    #[test]
    fn a_long_line_is_cut_and_the_next_one_is_whole() {
        let long = vec![b'x'; 5_000];
        let (logged, omitted) = lines(&[&long, &long, b"\nnext\n"]);
        assert_eq!(logged[0], format!("{} […]", "x".repeat(LINE_MAX)));
        assert_eq!(logged[1..], ["next"]);
        assert_eq!(omitted, 10_000 - LINE_MAX as u64);
    }

    #[test]
    fn what_is_too_much_is_counted() {
        let all = b"y\n".repeat(100_000);
        let (logged, omitted) = lines(&[&all]);
        assert_eq!(logged.len(), LINES_MAX as usize);
        assert_eq!(omitted, 200_000 - 2 * u64::from(LINES_MAX));
    }

    #[test]
    fn nothing_can_forge_a_line_or_paint_a_terminal() {
        let (logged, _) = lines(&[b"\x1b[31mred\rERROR fake\ttab \xff\n"]);
        assert_eq!(logged, ["\\u{1b}[31mred\\rERROR fake tab \u{fffd}"]);
    }
}

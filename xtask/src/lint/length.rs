//! A file that has outgrown its subject.

use super::{Source, Violation};

/// Files are 100 to 400 lines here; past this one a reader has lost the thread.
const MAX_LINES: usize = 600;

pub(super) fn check(source: &Source) -> Option<Violation> {
    let lines = source.text.lines().count();
    (lines > MAX_LINES).then(|| Violation {
        file: source.file.clone(),
        line: MAX_LINES + 1,
        rule: format!("lines ({lines}) must be at most {MAX_LINES}: split the file by subject"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(lines: usize) -> Source {
        Source { file: "a.rs".into(), text: "//\n".repeat(lines) }
    }

    #[test]
    fn the_longest_allowed_file_passes_and_one_line_more_does_not() {
        assert_eq!(check(&source(MAX_LINES)), None);
        assert!(check(&source(MAX_LINES + 1)).is_some());
    }
}

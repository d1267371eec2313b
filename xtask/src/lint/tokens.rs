//! Just enough of Rust's lexical grammar to tell code from comments and literals.

/// An identifier, or a single character of punctuation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) text: &'a str,
    /// Counted from 1.
    pub(super) line: usize,
}

/// The identifiers and punctuation of a source text. Comments, literals and lifetimes are left out.
pub(super) fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut lexer = Lexer { text, at: 0, line: 1 };
    std::iter::from_fn(|| lexer.next_token()).collect()
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    line: usize,
}

impl<'a> Lexer<'a> {
    fn next_token(&mut self) -> Option<Token<'a>> {
        loop {
            let rest = self.rest();
            let first = rest.chars().next()?;
            if rest.starts_with("//") {
                self.advance(rest.find('\n').unwrap_or(rest.len()));
            } else if rest.starts_with("/*") {
                self.advance(block_comment(rest));
            } else if let Some(length) = literal(rest) {
                self.advance(length);
            } else if is_word(first) {
                return Some(self.take(rest.find(|c| !is_word(c)).unwrap_or(rest.len())));
            } else if first.is_whitespace() {
                self.advance(first.len_utf8());
            } else {
                return Some(self.take(first.len_utf8()));
            }
        }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn take(&mut self, length: usize) -> Token<'a> {
        let token = Token { text: &self.rest()[..length], line: self.line };
        self.advance(length);
        token
    }

    fn advance(&mut self, length: usize) {
        self.line += self.rest()[..length].matches('\n').count();
        self.at += length;
    }
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// The length of the (nested) block comment at the start of the text.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// The length of the string, character or lifetime at the start of the text.
fn literal(text: &str) -> Option<usize> {
    let unprefixed = text.trim_start_matches(['b', 'c']);
    let prefix = text.len() - unprefixed.len();
    if let Some(raw) = unprefixed.strip_prefix('r')
        && prefix <= 1
    {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let body = &raw[hashes + 1..];
            let length = body.find(&end).map_or(body.len(), |found| found + end.len());
            return Some(prefix + 1 + hashes + 1 + length);
        }
    }
    if prefix <= 1 && unprefixed.starts_with('"') {
        return Some(prefix + quoted(unprefixed, '"'));
    }
    let quote = text.strip_prefix('\'')?;
    let mut characters = quote.chars();
    let (first, second) = (characters.next()?, characters.next());
    if first == '\\' || second == Some('\'') {
        return Some(quoted(text, '\''));
    }
    // A lifetime or a loop's label.
    Some(1 + quote.find(|c| !is_word(c)).unwrap_or(quote.len()))
}

/// The length of a literal that starts and ends with the quote and escapes with a backslash.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if c == quote {
            return at + c.len_utf8();
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<&str> {
        tokens(text).into_iter().map(|token| token.text).collect()
    }

    #[test]
    fn comments_and_literals_are_not_code() {
        assert_eq!(words("a // tokio::spawn\nb /* aya /* nested */ nix */ c"), ["a", "b", "c"]);
        assert_eq!(words(r#"f("std::fs \" libc", b"x", 'y', '\'', '\u{1}')"#).concat(), "f(,,,,)");
        assert_eq!(words(r####"r#"a " tokio"# br"x" end"####), ["end"]);
    }

    #[test]
    fn lifetimes_are_not_characters() {
        assert_eq!(words("&'a str; 'x: loop").concat(), "&str;:loop");
    }

    #[test]
    fn lines_are_counted_through_comments_and_strings() {
        let found = tokens("a\n/*\n\n*/ \"\n\" b");
        assert_eq!(found.last(), Some(&Token { text: "b", line: 5 }));
    }

    #[test]
    fn words_that_begin_like_a_literal_are_words() {
        assert_eq!(words("break run b r bar"), ["break", "run", "b", "r", "bar"]);
    }
}

//! YAML text to a tree whose every node knows where it stands.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_yaml::options::{DuplicateKeyPolicy, NonFiniteFloatPolicy};
use serde_yaml::{Error, Location, MessageFormatter, Options, Spanned, UserMessageFormatter};

use super::problem::Shown;

/// A place in the file, both numbers from 1. For a value reached through an alias or a merge key, the
/// place of the anchored original: that is the text to be corrected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Position {
    /// Line.
    pub(super) line: u32,
    /// Column, in characters.
    pub(super) column: u32,
}

/// A value and its place.
#[derive(Debug)]
pub(super) struct Node {
    /// Where its text begins.
    pub(super) at: Position,
    /// The value.
    pub(super) value: Value,
}

impl Node {
    /// Whether it is `null`, `~` or nothing at all.
    pub(super) fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }
}

/// What a node holds.
#[derive(Debug)]
pub(super) enum Value {
    /// `null`, `~` or nothing.
    Null,
    /// A scalar as it is written, unquoted. Types are the rules' business: `mark: "2"` is 2, and the
    /// password `1.10` must not become 1.1.
    Scalar(String),
    /// A list.
    List(Vec<Node>),
    /// A mapping in the order of the file, repeated keys included.
    Mapping(Vec<Entry>),
}

/// One key of a mapping.
#[derive(Debug)]
pub(super) struct Entry {
    /// The key.
    pub(super) key: String,
    /// Where the key stands.
    pub(super) at: Position,
    /// Its value.
    pub(super) node: Node,
}

/// Why a text is not one YAML document.
#[derive(Debug)]
pub(super) struct SyntaxError {
    /// Where.
    pub(super) at: Position,
    /// What is wrong.
    pub(super) message: String,
}

/// Reads one YAML document.
pub(super) fn read(text: &str) -> Result<Node, SyntaxError> {
    match serde_yaml::from_str_with_options::<Spanned<Raw<'_>>>(text, options()) {
        Ok(raw) => Ok(place(raw, text)),
        Err(error) => Err(explain(&error)),
    }
}

fn options() -> Options {
    serde_yaml::options! {
        budget: serde_yaml::budget! {
            // A policy of a million prefixes is a valid configuration; the defaults stop at 250 000 nodes.
            max_events: 8_000_000,
            max_nodes: 4_000_000,
            // A filter's port is 6 deep. Each level costs stack, and 64, the default, overflow a thread's 2 MiB.
            max_depth: 16,
        },
        alias_limits: serde_yaml::alias_limits! {
            // Room for long lists that filters share through an anchor, refused soon when it is a bomb.
            max_total_replayed_events: 250_000,
        },
        // Reported by ourselves, all of them.
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        // A description may be `1e999`; numbers are read from the text anyway.
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        with_snippet: false,
    }
}

fn explain(error: &Error) -> SyntaxError {
    let message = UserMessageFormatter.format_message(error.without_snippet());
    let at = error.location().map_or(Position { line: 1, column: 1 }, position);
    SyntaxError { at, message: format!("not valid YAML: {}", Shown(&message)) }
}

/// The tree as serde builds it. Plain scalars arrive parsed (`1.10` as a float), so their text is taken
/// from the source afterwards.
enum Raw<'de> {
    Null,
    Text(Cow<'de, str>),
    Parsed(String),
    List(Vec<Spanned<Raw<'de>>>),
    Mapping(Vec<(Spanned<String>, Spanned<Raw<'de>>)>),
}

impl<'de> Deserialize<'de> for Raw<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Raw::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Raw::Parsed(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Raw::Parsed(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Raw::Parsed(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Raw::Parsed(value.to_string()))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
        Ok(Raw::Text(Cow::Borrowed(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Raw::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_string<E>(self, value: String) -> Result<Self::Value, E> {
        Ok(Raw::Text(Cow::Owned(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = seq.next_element()? {
            list.push(item);
        }
        Ok(Raw::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Mapping(entries))
    }
}

fn place(raw: Spanned<Raw<'_>>, source: &str) -> Node {
    let at = position(raw.defined);
    let value = match raw.value {
        Raw::Null => Value::Null,
        Raw::Text(text) => Value::Scalar(text.into_owned()),
        Raw::Parsed(canonical) => {
            Value::Scalar(written(raw.defined, source).map_or(canonical, str::to_owned))
        }
        Raw::List(items) => Value::List(items.into_iter().map(|item| place(item, source)).collect()),
        Raw::Mapping(entries) => Value::Mapping(
            entries
                .into_iter()
                .map(|(key, node)| Entry {
                    at: position(key.defined),
                    key: key.value,
                    node: place(node, source),
                })
                .collect(),
        ),
    };
    Node { at, value }
}

/// The text of a plain scalar as the file has it.
fn written(location: Location, source: &str) -> Option<&str> {
    let span = location.span();
    let start = usize::try_from(span.byte_offset()?).ok()?;
    let len = usize::try_from(span.byte_len()?).ok()?;
    source.get(start..start.checked_add(len)?)
}

fn position(location: Location) -> Position {
    // The library counts in u32 and only hands them out wider; an unknown place is line 0 there.
    let number = |value: u64| u32::try_from(value).unwrap_or(u32::MAX).max(1);
    Position { line: number(location.line()), column: number(location.column()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(text: &str) -> Vec<Entry> {
        match read(text).unwrap().value {
            Value::Mapping(entries) => entries,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn scalars_keep_the_text_they_were_written_with() {
        for (yaml, expected) in [
            ("1.10", "1.10"),
            ("007", "007"),
            ("0x1F", "0x1F"),
            ("1_000", "1_000"),
            ("1e999", "1e999"),
            ("12345678901234567890123", "12345678901234567890123"),
            ("1024:65535", "1024:65535"),
            ("1:30", "1:30"),
            ("yes", "yes"),
            ("True", "True"),
            ("-5", "-5"),
            ("\"5\"", "5"),
            ("'~'", "~"),
            ("!!str 5", "5"),
            ("&anchor 1.10 # comment", "1.10"),
            ("\"\\u00e9\"", "é"),
            (".nan", ".nan"),
        ] {
            let entries = entries(&format!("key: {yaml}\n"));
            assert!(matches!(&entries[0].node.value, Value::Scalar(text) if text == expected), "{yaml}");
        }
    }

    #[test]
    fn null_has_three_spellings() {
        for yaml in ["null", "~", ""] {
            assert!(entries(&format!("key: {yaml}\n"))[0].node.is_null(), "{yaml:?}");
        }
    }

    #[test]
    fn an_alias_and_a_merge_stand_where_the_original_stands() {
        let entries = entries("base: &b\n  x: 1.50\nuse: *b\nmerged:\n  <<: *b\n  y: 2\n");
        for (index, count) in [(1, 1), (2, 2)] {
            let Value::Mapping(inner) = &entries[index].node.value else { panic!("mapping") };
            assert_eq!(inner.len(), count);
            let x = inner.iter().find(|entry| entry.key == "x").unwrap();
            assert_eq!(x.node.at, Position { line: 2, column: 6 });
            assert!(matches!(&x.node.value, Value::Scalar(text) if text == "1.50"));
        }
    }

    #[test]
    fn a_byte_order_mark_and_crlf_do_not_shift_positions() {
        let entries = entries("\u{feff}a: 1\r\nb: 2\r\n");
        assert_eq!(entries[0].at, Position { line: 1, column: 1 });
        assert_eq!(entries[1].node.at, Position { line: 2, column: 4 });
        assert!(matches!(&entries[1].node.value, Value::Scalar(text) if text == "2"));
    }

    #[test]
    fn repeated_keys_are_all_kept() {
        let keys: Vec<_> = entries("a: 1\nb: 2\na: 3\n").into_iter().map(|entry| entry.key).collect();
        assert_eq!(keys, ["a", "b", "a"]);
    }

    #[test]
    fn bombs_are_refused() {
        let mut billion_laughs = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for (name, previous) in ('b'..='j').zip('a'..) {
            let aliases = vec![format!("*{previous}"); 10].join(", ");
            billion_laughs.push_str(&format!("{name}: &{name} [{aliases}]\n"));
        }
        assert!(read(&billion_laughs).is_err());
        assert!(read(&"[".repeat(100_000)).is_err());
        assert!(read(&format!("a: {}{}", "[".repeat(200), "]".repeat(200))).is_err());
        assert!(read("a: &a [*a]\n").is_err());
    }
}

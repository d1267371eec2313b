//! Mappings and lists of the tree, read key by key; whatever is wrong goes into the report.

use std::collections::{HashMap, hash_map};
use std::fmt;

use super::node::{Entry, Node, Position, Value};
use super::path::Path;
use super::problem::Report;
use super::scalar::Rule;

/// A value in the file: what, where, and under which path.
#[derive(Clone, Copy)]
pub(super) struct Found<'p> {
    /// Path of its key.
    pub(super) path: Path<'p>,
    /// Where to point: at the value, or at the key where the value is a block below it.
    pub(super) at: Position,
    /// The value.
    pub(super) node: &'p Node,
}

impl<'p> Found<'p> {
    /// The scalar after its rule; a problem and `None` where it breaks it.
    pub(super) fn read<T>(&self, rule: impl Fn(&str) -> Rule<T>, report: &mut Report) -> Option<T> {
        let text = self.text();
        match rule(text.unwrap_or_default()) {
            Ok(value) if text.is_some() => Some(value),
            Err(expected) => {
                self.must_be(&expected, report);
                None
            }
            Ok(_) => {
                self.must_be("a single value", report);
                None
            }
        }
    }

    /// The same value, known as `kind "description"` from here on where it has a description.
    pub(super) fn named(self, kind: &'static str) -> Self {
        Self { path: self.path.named(kind, self.description()), ..self }
    }

    /// Its `description` as it stands, right or wrong: what people know the entry by.
    pub(super) fn description(&self) -> Option<&'p str> {
        let Value::Mapping(entries) = &self.node.value else { return None };
        match &entries.iter().find(|entry| entry.key == "description")?.node.value {
            Value::Scalar(text) if !text.trim().is_empty() => Some(text),
            _ => None,
        }
    }

    /// The scalar's text.
    pub(super) fn text(&self) -> Option<&'p str> {
        match &self.node.value {
            Value::Scalar(text) => Some(text),
            _ => None,
        }
    }

    /// Reports the value as breaking a rule.
    pub(super) fn must_be(&self, rule: &str, report: &mut Report) {
        let value = match &self.node.value {
            Value::Null => "null",
            Value::Scalar(text) => text,
            Value::List(_) => "a list",
            Value::Mapping(_) => "a mapping",
        };
        report.must_be(self.at, &self.path, value, rule);
    }

    /// The entries of a list. A single scalar counts as a list of one and keeps its own path, as the
    /// tools that read the seed's files treat it; a mapping is a problem.
    pub(super) fn items<'s>(&'s self, report: &mut Report) -> impl Iterator<Item = Found<'s>> + use<'s, 'p> {
        let (nodes, listed): (&[Node], bool) = match &self.node.value {
            Value::List(nodes) => (nodes, true),
            Value::Mapping(_) => {
                self.must_be("a list", report);
                (&[], true)
            }
            Value::Null | Value::Scalar(_) => (std::slice::from_ref(self.node), false),
        };
        nodes.iter().enumerate().map(move |(index, node)| Found {
            path: if listed { self.path.index(index) } else { self.path },
            at: node.at,
            node,
        })
    }

    /// Whether it is a mapping.
    pub(super) fn is_mapping(&self) -> bool {
        matches!(self.node.value, Value::Mapping(_))
    }

    /// Whether it is `[]`.
    pub(super) fn is_empty_list(&self) -> bool {
        matches!(&self.node.value, Value::List(nodes) if nodes.is_empty())
    }
}

/// A mapping being read.
pub(super) struct Section<'p> {
    /// Its path.
    pub(super) path: Path<'p>,
    /// Where a missing key is reported.
    pub(super) at: Position,
    entries: &'p [Entry],
}

impl<'p> Section<'p> {
    /// Opens a mapping and reports its repeated keys, of which the first counts. `None`, with a problem,
    /// where the value is none.
    pub(super) fn open(found: Found<'p>, report: &mut Report) -> Option<Self> {
        let Value::Mapping(entries) = &found.node.value else {
            if found.path.is_root() {
                report.file_error(found.at, "the file must be a mapping of keys");
            } else {
                found.must_be("a mapping of keys", report);
            }
            return None;
        };
        let section = Self { path: found.path, at: found.at, entries };
        let mut first_lines = HashMap::new();
        for entry in entries {
            match first_lines.entry(entry.key.as_str()) {
                hash_map::Entry::Vacant(new) => {
                    new.insert(entry.at.line);
                }
                hash_map::Entry::Occupied(first) => report.error(
                    entry.at,
                    &section.path.key(&entry.key),
                    format_args!("duplicate key; it is first given on line {}", first.get()),
                ),
            }
        }
        Some(section)
    }

    /// Reports the keys that are none of `known`, with the nearest of them where one is near.
    pub(super) fn check_keys(&self, known: &[&str], report: &mut Report) {
        for entry in self.entries.iter().filter(|entry| !known.contains(&entry.key.as_str())) {
            let path = self.path.key(&entry.key);
            match nearest(&entry.key, known) {
                Some(meant) => {
                    report.error(entry.at, &path, format_args!("unknown key; did you mean \"{meant}\"?"))
                }
                None => report.error(entry.at, &path, format_args!("unknown key")),
            }
        }
    }

    /// A section below this one, its keys checked. One that is absent or wrong reads as empty.
    pub(super) fn section(&'p self, key: &'p str, known: &[&str], report: &mut Report) -> Section<'p> {
        let opened = self.find(key).and_then(|found| {
            let section = Section::open(found, report)?;
            section.check_keys(known, report);
            Some(section)
        });
        opened.unwrap_or_else(|| {
            let at = self.entry(key).map_or(self.at, |entry| entry.at);
            Section { path: self.path.key(key), at, entries: &[] }
        })
    }

    /// The value of a key; `null` counts as absent.
    pub(super) fn find<'s>(&'s self, key: &'s str) -> Option<Found<'s>> {
        let entry = self.entry(key).filter(|entry| !entry.node.is_null())?;
        let at = match entry.node.value {
            Value::Mapping(_) | Value::List(_) => entry.at,
            Value::Null | Value::Scalar(_) => entry.node.at,
        };
        Some(Found { path: self.path.key(key), at, node: &entry.node })
    }

    /// An optional scalar.
    pub(super) fn optional<T>(
        &self,
        key: &str,
        rule: impl Fn(&str) -> Rule<T>,
        report: &mut Report,
    ) -> Option<T> {
        self.find(key)?.read(rule, report)
    }

    /// A scalar with a default.
    pub(super) fn with_default<T>(
        &self,
        key: &str,
        rule: impl Fn(&str) -> Rule<T>,
        default: T,
        report: &mut Report,
    ) -> T {
        self.optional(key, rule, report).unwrap_or(default)
    }

    /// A scalar that must be there.
    pub(super) fn required<T>(
        &self,
        key: &str,
        rule: impl Fn(&str) -> Rule<T>,
        report: &mut Report,
    ) -> Option<T> {
        match self.find(key) {
            Some(found) => found.read(rule, report),
            None => {
                self.missing(key, report);
                None
            }
        }
    }

    /// Reports a key that must be there; points at the key where it is there without a value.
    pub(super) fn missing(&self, key: &str, report: &mut Report) {
        let at = self.entry(key).map_or(self.at, |entry| entry.at);
        report.error(at, &self.path.key(key), format_args!("required key is missing"));
    }

    /// Reports a key that must be in the section `section` below this one.
    pub(super) fn missing_below(
        &self,
        section: &str,
        key: &str,
        why: fmt::Arguments<'_>,
        report: &mut Report,
    ) {
        let at = self.entry(section).map_or(self.at, |entry| entry.at);
        report.error(at, &self.path.key(section).key(key), why);
    }

    fn entry(&self, key: &str) -> Option<&'p Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }
}

/// The known key that was probably meant: at most one letter in three differs, case aside.
fn nearest<'k>(key: &str, known: &[&'k str]) -> Option<&'k str> {
    let lower = key.to_lowercase();
    known
        .iter()
        .map(|known| (strsim::damerau_levenshtein(&lower, &known.to_lowercase()), *known))
        .filter(|(distance, known)| distance * 3 <= known.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_near_key_is_suggested_a_far_one_is_not() {
        let known = ["gateway", "iface", "ip", "mask", "mark", "dports", "dport", "orderFailover"];
        for (typed, meant) in [
            ("gatway", Some("gateway")),
            ("Gateway", Some("gateway")),
            ("getaway", Some("gateway")),
            ("iFace", Some("iface")),
            ("dprots", Some("dports")),
            ("order_failover", Some("orderFailover")),
            ("weight", None),
            // Two letters from "mask" and "mark": half the word is no typing mistake.
            ("hash", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(typed, &known), meant, "{typed}");
        }
    }
}

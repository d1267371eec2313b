//! The configuration, the policy and the engine decide; they neither do input and output nor ask the
//! time. That is what makes a recorded run replay as a test, and it is lost one convenient import at a
//! time, so it is checked.

use super::tokens::{Token, tokens};
use super::{Source, Violation};
use std::path::Path;

const PURE: [&str; 3] = ["config", "policy", "engine"];

/// Whatever lies below one of these paths is out of bounds. A last part ending in `*` is a prefix.
const FORBIDDEN: &[&[&str]] = &[
    &["aya"],
    &["aya_*"],
    &["libc"],
    &["netlink_*"],
    &["nix"],
    &["rtnetlink"],
    &["socket2"],
    &["tokio"],
    &["std", "env"],
    &["std", "fs"],
    &["std", "net", "TcpListener"],
    &["std", "net", "TcpStream"],
    &["std", "net", "ToSocketAddrs"],
    &["std", "net", "UdpSocket"],
    &["std", "os"],
    &["std", "process"],
    &["std", "thread"],
    &["std", "time", "Instant"],
    &["std", "time", "SystemTime"],
    // The same, one module away.
    &["crate", "cli"],
    &["crate", "control"],
    &["crate", "daemon"],
    &["crate", "datapath"],
    &["crate", "net"],
    &["crate", "notify"],
    &["crate", "probe"],
];

/// Words that `::name` can follow without belonging to the path.
const KEYWORDS_BEFORE_A_PATH: [&str; 10] =
    ["as", "dyn", "else", "for", "impl", "in", "match", "mut", "return", "use"];

pub(super) fn check(source: &Source) -> Vec<Violation> {
    if !is_pure(&source.file) {
        return Vec::new();
    }
    let tokens = without_tests(&tokens(&source.text));
    let mut uses = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let is_keyword = KEYWORDS_BEFORE_A_PATH.contains(&tokens[at].text);
        let next = if is_keyword { at } else { read_path(&tokens, at, &mut Vec::new(), &mut uses) };
        at = next.max(at + 1);
    }
    let mut violations: Vec<Violation> = uses
        .into_iter()
        .filter(|used| FORBIDDEN.iter().any(|forbidden| reaches(&used.path, forbidden)))
        .map(|used| Violation {
            file: source.file.clone(),
            line: used.line,
            rule: format!("`{}` must not be used here: this code is pure", used.path.join("::")),
        })
        .collect();
    violations.dedup();
    violations
}

/// Tests may read files; the rule is about what runs on routers.
fn is_pure(file: &Path) -> bool {
    let Ok(inside) = file.strip_prefix("multiwans/src") else { return false };
    let mut parts = inside.iter().filter_map(|part| part.to_str());
    let top = parts.next().unwrap_or_default();
    let is_test = |part: &str| part == "tests" || part.trim_end_matches(".rs").ends_with("tests");
    PURE.contains(&top.trim_end_matches(".rs")) && !parts.any(is_test)
}

/// A path as written out in full, and where.
struct Used<'a> {
    path: Vec<&'a str>,
    line: usize,
}

/// Reads the path or `use` tree that starts at a token, and returns the token after it.
fn read_path<'a>(
    tokens: &[Token<'a>],
    mut at: usize,
    prefix: &mut Vec<&'a str>,
    uses: &mut Vec<Used<'a>>,
) -> usize {
    let depth = prefix.len();
    // `::std::fs` names the same as `std::fs`.
    if is_path_separator(tokens, at) {
        at += 2;
    }
    let start = at;
    while let Some(token) = tokens.get(at) {
        match token.text {
            "{" if at > start || depth > 0 => {
                at += 1;
                while let Some(token) = tokens.get(at).filter(|token| token.text != "}") {
                    at = if token.text == "," {
                        at + 1
                    } else {
                        read_path(tokens, at, prefix, uses).max(at + 1)
                    };
                }
                prefix.truncate(depth);
                return at + 1;
            }
            "self" if !prefix.is_empty() => {}
            word if word == "*" || word.chars().all(|c| c == '_' || c.is_alphanumeric()) => prefix.push(word),
            _ => break,
        }
        at += 1;
        if !is_path_separator(tokens, at) {
            break;
        }
        at += 2;
    }
    let line = tokens.get(start).map_or(0, |token| token.line);
    let is_path = prefix.len() > 1 || (start > 0 && tokens[start - 1].text == "use");
    if is_path {
        uses.push(Used { path: prefix.clone(), line });
    }
    prefix.truncate(depth);
    // `as name` inside a group is not another path.
    if depth > 0 && tokens.get(at).is_some_and(|token| token.text == "as") { at + 2 } else { at }
}

fn is_path_separator(tokens: &[Token<'_>], at: usize) -> bool {
    tokens.get(at..at + 2).is_some_and(|pair| pair.iter().all(|token| token.text == ":"))
}

/// True when the path lies below the forbidden one, or brings it in with its parent: after `use
/// std::time;` nothing tells `time::Instant` from a name of our own.
fn reaches(path: &[&str], forbidden: &[&str]) -> bool {
    let glob = path.last() == Some(&"*");
    let path = path.strip_suffix(&["*"]).unwrap_or(path);
    let same = path.iter().zip(forbidden).all(|(part, wanted)| match wanted.strip_suffix('*') {
        Some(start) => part.starts_with(start),
        None => part == wanted,
    });
    // A whole crate's name alone (`std::{…}` was expanded before) brings nothing in.
    same && (path.len() >= forbidden.len() || path.len() > 1 || glob)
}

/// Drops every item under `#[cfg(test)]`.
fn without_tests<'a>(tokens: &[Token<'a>]) -> Vec<Token<'a>> {
    const CFG_TEST: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let here = tokens[at..].iter().map(|token| token.text);
        if here.take(CFG_TEST.len()).eq(CFG_TEST) {
            at = end_of_item(tokens, at + CFG_TEST.len());
        } else {
            kept.push(tokens[at]);
            at += 1;
        }
    }
    kept
}

/// The token after the item that starts here: after its `;`, or its block.
fn end_of_item(tokens: &[Token<'_>], mut at: usize) -> usize {
    let mut depth = 0;
    while let Some(token) = tokens.get(at) {
        at += 1;
        match token.text {
            "{" => depth += 1,
            "}" if depth == 1 => return at,
            "}" => depth -= 1,
            ";" if depth == 0 => return at,
            _ => {}
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<usize> {
        let source = Source { file: "multiwans/src/engine/state.rs".into(), text: text.to_owned() };
        check(&source).into_iter().map(|violation| violation.line).collect()
    }

    #[track_caller]
    fn forbidden(text: &str) {
        let lines = lines(text);
        assert!(!lines.is_empty() && lines.iter().all(|&line| line == 1), "{text}: {lines:?}");
    }

    #[track_caller]
    fn allowed(text: &str) {
        assert_eq!(lines(text), [0; 0], "{text}");
    }

    #[test]
    fn imports_of_io_and_clocks_are_found() {
        forbidden("use tokio::sync::mpsc;");
        forbidden("use tokio;");
        forbidden("pub use ::libc::c_int;");
        forbidden("use netlink_packet_route::RouteMessage;");
        forbidden("use aya_log::EbpfLogger;");
        forbidden("use std::time::Instant;");
        forbidden("use std::net::{IpAddr, UdpSocket};");
        forbidden("use std::{fmt, fs::{self, File as F}};");
        forbidden("use crate::datapath::Maps;");
    }

    #[test]
    fn paths_in_expressions_are_found() {
        forbidden("fn f() { let now = std::time::SystemTime::now(); }");
        forbidden("fn f() -> Vec<nix::Error> { Vec::new() }");
        assert_eq!(lines("fn f() {\n\n  std::thread::sleep(d)\n}"), [3]);
    }

    #[test]
    fn a_module_that_hides_what_comes_with_it_is_found() {
        forbidden("use std::time;");
        forbidden("use std::time::*;");
        forbidden("use std::net::{self};");
    }

    #[test]
    fn pure_code_is_left_alone() {
        allowed("use std::time::Duration;");
        allowed("use std::net::{IpAddr, Ipv4Addr};");
        allowed("use std::{collections::BTreeMap, fmt::{self, Display}};");
        allowed("use crate::types::{FwMark, Instant};");
        allowed("fn f(aya: u8, libc: u8) -> u8 { aya + libc }");
        allowed("// std::fs\nfn f() -> &'static str { \"tokio::spawn\" }");
        allowed("struct S { env: std::collections::HashMap<u8, u8> }");
    }

    #[test]
    fn tests_may_read_files() {
        allowed("#[cfg(test)]\nmod tests { use std::fs; fn f() { {} } }\nstruct S;");
        allowed("#[cfg(test)]\nmod tests;");
        assert_eq!(lines("#[cfg(test)]\nmod tests { fn f() {} }\nuse std::fs;"), [3]);
        assert!(!is_pure(Path::new("multiwans/src/config/golden_tests.rs")));
        assert!(!is_pure(Path::new("multiwans/src/config/tests/golden.rs")));
    }

    #[test]
    fn only_the_pure_modules_are_checked() {
        assert!(is_pure(Path::new("multiwans/src/policy/diff.rs")));
        assert!(is_pure(Path::new("multiwans/src/policy.rs")));
        assert!(!is_pure(Path::new("multiwans/src/net/policy.rs")));
        assert!(!is_pure(Path::new("xtask/src/engine/a.rs")));
    }
}

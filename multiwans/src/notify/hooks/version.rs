//! The order hooks run in: that of `sort -V`, which the Bash tool used.
//!
//! "Version sort ordering" in the manual of GNU coreutils has the rules: runs of digits compare as
//! numbers, `~` comes before everything, the end of a name included, then come letters, then all else;
//! file name extensions count only where everything before them is equal.

use std::cmp::Ordering;

/// Compares two absolute paths as `sort -V` does in the C locale, last resort included: those that differ
/// only in leading zeros are in the order of their bytes.
///
/// Whole paths, because `find … | sort -V` had these: of bare names, `sort -V` puts hidden ones apart.
pub(super) fn compare(a: &[u8], b: &[u8]) -> Ordering {
    parts(stem(a), stem(b)).then_with(|| parts(a, b)).then_with(|| a.cmp(b))
}

/// A name without its extensions: parts after a dot that begin with a letter or `~` and hold only those
/// and digits, as many as there are at the end.
fn stem(name: &[u8]) -> &[u8] {
    let mut stem = name;
    while let Some(dot) = stem.iter().rposition(|byte| *byte == b'.') {
        let extension = &stem[dot + 1..];
        let begins = extension.first().is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'~');
        let whole = extension.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'~');
        if !begins || !whole {
            break;
        }
        stem = &stem[..dot];
    }
    stem
}

/// Compares a run of text, a run of digits, a run of text… until one differs.
fn parts(mut a: &[u8], mut b: &[u8]) -> Ordering {
    while !a.is_empty() || !b.is_empty() {
        while is_text(a) || is_text(b) {
            let order = rank(a.first()).cmp(&rank(b.first()));
            if order != Ordering::Equal {
                return order;
            }
            // Equal ranks of which one is text: both have this byte.
            (a, b) = (&a[1..], &b[1..]);
        }
        let (number_a, number_b);
        (number_a, a) = number(a);
        (number_b, b) = number(b);
        let order = number_a.len().cmp(&number_b.len()).then_with(|| number_a.cmp(number_b));
        if order != Ordering::Equal {
            return order;
        }
    }
    Ordering::Equal
}

fn is_text(rest: &[u8]) -> bool {
    rest.first().is_some_and(|byte| !byte.is_ascii_digit())
}

/// Where a byte of text stands beside others; `None` is the end of the name.
fn rank(byte: Option<&u8>) -> u16 {
    match byte {
        Some(b'~') => 0,
        None => 1,
        Some(byte) if byte.is_ascii_digit() => 2,
        Some(byte) if byte.is_ascii_alphabetic() => 0x100 | u16::from(*byte),
        Some(byte) => 0x200 | u16::from(*byte),
    }
}

/// The digits it begins with, without leading zeros, and the rest.
fn number(text: &[u8]) -> (&[u8], &[u8]) {
    let zeros = text.iter().take_while(|byte| **byte == b'0').count();
    let digits = text[zeros..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    text[zeros..].split_at(digits)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use proptest::prelude::*;

    use super::*;

    fn sorted_by_us(names: &[String]) -> Vec<String> {
        let mut names = names.to_vec();
        names.sort_by(|a, b| compare(a.as_bytes(), b.as_bytes()));
        names
    }

    fn sorted_by_coreutils(names: &[String]) -> Vec<String> {
        let mut sort = Command::new("sort")
            .arg("-V")
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut text = names.join("\n");
        text.push('\n');
        sort.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = sort.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.strip_suffix('\n').unwrap_or_default().split('\n').map(str::to_owned).collect()
    }

    #[test]
    fn numbers_count_as_numbers() {
        let paths = |names: [&str; 11]| names.map(|name| format!("/etc/multiwans/scripts/eth0/up/{name}"));
        let order = paths([
            "~a",
            ".hidden",
            "00_script0.sh",
            "1",
            "1.9",
            "1.10",
            "01_script1.sh",
            "99_script99.sh",
            "100-last",
            "a",
            "b",
        ]);
        let names = paths([
            "99_script99.sh",
            "100-last",
            "1.10",
            "01_script1.sh",
            ".hidden",
            "1.9",
            "00_script0.sh",
            "1",
            "b",
            "~a",
            "a",
        ]);
        assert_eq!(sorted_by_us(&names), order);
        assert_eq!(sorted_by_coreutils(&names), order);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_order_is_that_of_sort(
            names in prop::collection::vec(
                "[a-bAZ0-20-2019.~_ é-]{0,7}|[0-9]{1,3}[-_.][a-z0]{0,3}\\.sh|\\.{0,2}[a1~]{0,2}",
                2..24,
            ),
        ) {
            let names: Vec<String> = names.into_iter().map(|name| format!("/etc/up.d/{name}")).collect();
            prop_assert_eq!(sorted_by_us(&names), sorted_by_coreutils(&names));
        }
    }
}

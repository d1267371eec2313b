//! Rules for plain values: numbers, booleans, texts, durations, paths.
//!
//! A rule takes the text and gives the value, or what the value "must be".

use std::borrow::Cow;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::model::LogLevel;
use crate::types::{MarkMask, WanMark};

/// A value, or the end of the sentence "… must be …".
pub(super) type Rule<T> = Result<T, Cow<'static, str>>;

/// The longest description, in characters.
const MAX_DESCRIPTION: usize = 100;

/// An integer within a range, in plain decimal. A leading zero is refused: YAML 1.1 reads `010` as 8,
/// YAML 1.2 as 10.
pub(super) fn integer<T>(range: RangeInclusive<T>) -> impl Fn(&str) -> Rule<T>
where
    T: FromStr + PartialOrd + Display,
{
    move |text| {
        decimal(text).filter(|value| range.contains(value)).ok_or_else(|| {
            // `0x14`, `020`, `20.0`: a number, so the range alone would not tell what is wrong.
            let odd = text.starts_with(|c: char| c.is_ascii_digit()) && !is_plain(text);
            let form = if odd { " in plain decimal" } else { "" };
            format!("an integer {}..{}{form}", range.start(), range.end()).into()
        })
    }
}

/// Plain decimal digits without a leading zero that fit the type.
pub(super) fn decimal<T: FromStr>(text: &str) -> Option<T> {
    if is_plain(text) { text.parse().ok() } else { None }
}

fn is_plain(text: &str) -> bool {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits && (text.len() == 1 || !text.starts_with('0'))
}

/// `true` or `false`.
pub(super) fn boolean(text: &str) -> Rule<bool> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("true or false".into()),
    }
}

/// Any text.
pub(super) fn free_text(text: &str) -> Rule<String> {
    Ok(text.to_owned())
}

/// A description: one line, because it ends up in a mail's subject.
pub(super) fn description(text: &str) -> Rule<String> {
    let one_line = !text.chars().any(char::is_control);
    if one_line && !text.trim().is_empty() && text.chars().count() <= MAX_DESCRIPTION {
        Ok(text.to_owned())
    } else {
        Err(format!("one line of 1 to {MAX_DESCRIPTION} characters").into())
    }
}

/// A WAN's mark.
pub(super) fn mark(text: &str) -> Rule<WanMark> {
    decimal(text).and_then(WanMark::new).ok_or_else(|| format!("an integer 1..{}", WanMark::MAX).into())
}

/// A mark mask, in hexadecimal with `0x` or in decimal.
pub(super) fn mark_mask(text: &str) -> Rule<MarkMask> {
    let bits = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        // `from_str_radix` alone would take a sign.
        Some(hex) if hex.bytes().all(|byte| byte.is_ascii_hexdigit()) => u32::from_str_radix(hex, 16).ok(),
        Some(_) => None,
        None => decimal(text),
    };
    bits.and_then(MarkMask::new).ok_or_else(|| "one run of set bits within 32, such as 0xff or 0xff00".into())
}

/// `daemon.logLevel`.
pub(super) fn log_level(text: &str) -> Rule<LogLevel> {
    match text.to_ascii_lowercase().as_str() {
        "error" => Ok(LogLevel::Error),
        "warn" => Ok(LogLevel::Warn),
        "info" => Ok(LogLevel::Info),
        "debug" => Ok(LogLevel::Debug),
        _ => Err("error, warn, info or debug".into()),
    }
}

/// The units of durations and what one of each is, in milliseconds. None is the end of a later one.
const UNITS: [(&str, u64); 6] =
    [("ms", 1), ("s", 1_000), ("min", 60_000), ("m", 60_000), ("h", 3_600_000), ("", 1_000)];

/// `500ms`, `1.5s`, `5m`, `5min`, `1h`, or a plain number of seconds; whole milliseconds within a range.
pub(super) fn duration(
    range: RangeInclusive<Duration>,
    bounds: &'static str,
) -> impl Fn(&str) -> Rule<Duration> {
    move |text| {
        milliseconds(text).map(Duration::from_millis).filter(|value| range.contains(value)).ok_or_else(|| {
            format!("a duration {bounds} (a number with ms, s, m, min or h, or of seconds)").into()
        })
    }
}

fn milliseconds(text: &str) -> Option<u64> {
    let (number, unit) = UNITS.iter().find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, *unit)))?;
    let (whole, fraction) = match number.trim_end().split_once('.') {
        // `1.` and `1.2345s` (finer than a millisecond) are mistakes rather than numbers.
        Some((whole, fraction)) if !fraction.is_empty() && fraction.len() <= 3 => (whole, fraction),
        Some(_) => return None,
        None => (number.trim_end(), ""),
    };
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let thousandths: u64 = format!("{fraction:0<3}").parse().ok()?;
    let fraction = thousandths * unit;
    if !fraction.is_multiple_of(1_000) {
        return None;
    }
    decimal::<u64>(whole)?.checked_mul(unit)?.checked_add(fraction / 1_000)
}

/// An absolute path to a file: the daemon's working directory is nobody's choice.
pub(super) fn file_path(text: &str) -> Rule<PathBuf> {
    let file = text.starts_with('/') && !text.ends_with('/') && !text.chars().any(char::is_control);
    if file { Ok(PathBuf::from(text)) } else { Err("an absolute path to a file".into()) }
}

/// A path to a folder, absolute or relative to what its key says.
pub(super) fn folder_path(text: &str) -> Rule<PathBuf> {
    let path = !text.is_empty() && !text.chars().any(char::is_control);
    if path { Ok(PathBuf::from(text)) } else { Err("a path to a folder".into()) }
}

/// A path to a file, absolute or relative to what its key says.
pub(super) fn list_path(text: &str) -> Rule<PathBuf> {
    let path = !text.is_empty() && !text.ends_with('/') && !text.chars().any(char::is_control);
    if path { Ok(PathBuf::from(text)) } else { Err("a path to a file".into()) }
}

/// `sun_path` of `sockaddr_un` has 108 bytes with the terminating zero (unix(7)).
const MAX_SOCKET_PATH: usize = 107;

/// An absolute path that fits a Unix socket's address.
pub(super) fn socket_path(text: &str) -> Rule<PathBuf> {
    file_path(text)
        .ok()
        .filter(|_| text.len() <= MAX_SOCKET_PATH)
        .ok_or_else(|| format!("an absolute path to a file, at most {MAX_SOCKET_PATH} bytes").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_plain_decimal_within_their_range() {
        let rule = integer(10u32..=60);
        for good in ["10", "20", "60"] {
            assert!(rule(good).is_ok(), "{good}");
        }
        for bad in [
            "9",
            "61",
            "-10",
            "+10",
            "010",
            "10.0",
            "1e1",
            "0x10",
            "",
            " 10",
            "10 ",
            "1_0",
            "ten",
            "99999999999999999999",
        ] {
            assert!(rule(bad).is_err(), "{bad:?}");
        }
        assert_eq!(rule("61"), Err("an integer 10..60".into()));
        assert_eq!(rule("020"), Err("an integer 10..60 in plain decimal".into()));
        assert_eq!(integer(0u8..=32)("0"), Ok(0));
        assert!(integer(0u8..=32)("00").is_err());
        assert!(integer(0u8..=255)("256").is_err());
    }

    #[test]
    fn marks_end_below_the_kernels_tables() {
        for (text, good) in
            [("1", true), ("252", true), ("0", false), ("253", false), ("256", false), ("-1", false)]
        {
            assert_eq!(mark(text).is_ok(), good, "{text}");
        }
    }

    #[test]
    fn booleans_are_true_and_false_only() {
        assert_eq!(boolean("true"), Ok(true));
        assert_eq!(boolean("false"), Ok(false));
        for bad in ["True", "yes", "no", "on", "1", "0", ""] {
            assert!(boolean(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn descriptions_have_1_to_100_characters_not_bytes() {
        assert!(description(&"é".repeat(100)).is_ok());
        assert!(description(&"é".repeat(101)).is_err());
        assert!(description("").is_err());
        assert!(description("  ").is_err());
        assert!(description("a\nb").is_err());
    }

    #[test]
    fn durations_take_a_unit_or_seconds() {
        let rule = duration(Duration::from_millis(100)..=Duration::from_secs(60), "100ms..60s");
        for (text, millis) in [
            ("100ms", 100),
            ("500ms", 500),
            ("500 ms", 500),
            ("1s", 1_000),
            ("1.5s", 1_500),
            ("0.1", 100),
            ("2", 2_000),
            ("60s", 60_000),
            ("60000ms", 60_000),
            ("1m", 60_000),
            ("1min", 60_000),
            ("0.5 min", 30_000),
            ("0.005h", 18_000),
        ] {
            assert_eq!(rule(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in [
            "99ms",
            "60001ms",
            "61",
            "0",
            "",
            "s",
            "ms",
            "2m",
            "1h",
            "1d",
            "1M",
            "1mins",
            "1m30s",
            "m",
            "h",
            "-1s",
            "1.s",
            ".5s",
            "1.2345s",
            "0.5ms",
            "1e3ms",
            "1 0s",
            "18446744073709551615s",
            "1.-5s",
            "é",
        ] {
            assert!(rule(bad).is_err(), "{bad}");
        }
        let told = "a duration 100ms..60s (a number with ms, s, m, min or h, or of seconds)";
        assert_eq!(rule("1h"), Err(told.into()));
    }

    /// Who is told of `1h` may write it.
    #[test]
    fn the_bounds_of_durations_are_durations() {
        for (first, last) in [("100ms", "60s"), ("1s", "1h")] {
            let (from, to) = (milliseconds(first).unwrap(), milliseconds(last).unwrap());
            let rule = duration(Duration::from_millis(from)..=Duration::from_millis(to), "");
            assert!(rule(first).is_ok() && rule(last).is_ok());
        }
        assert_eq!(
            ["1h", "60m", "60min", "3600s", "3600", "3600000ms"].map(milliseconds),
            [Some(3_600_000); 6]
        );
    }

    #[test]
    fn masks_are_hexadecimal_or_decimal_and_one_run() {
        for (text, bits) in [("0xff", 0xff), ("0XFF00", 0xff00), ("255", 255), ("0xffffffff", u32::MAX)] {
            assert_eq!(mark_mask(text).map(MarkMask::bits), Ok(bits), "{text}");
        }
        for bad in ["0", "0x0", "5", "0xf0f", "0x1ffffffff", "ff", "0x", "0x+f", "-1", ""] {
            assert!(mark_mask(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_sockets_path_is_absolute_and_fits_its_address() {
        assert!(socket_path("/run/multiwans/control.sock").is_ok());
        assert!(socket_path(&format!("/{}", "a".repeat(106))).is_ok());
        assert!(socket_path(&format!("/{}", "a".repeat(107))).is_err());
        for bad in ["", "control.sock", "/run/", "/", "/a\0b"] {
            assert!(socket_path(bad).is_err(), "{bad:?}");
        }
    }
}

//! `multiwans status`: what a running daemon says of its links.

#[path = "status_traffic.rs"]
mod traffic;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde_json::Value;

use crate::control::{Request, client};
use crate::engine::{Status, WanStatus};

/// Asks the daemon behind `socket` and prints its answer: as it came with `json`, as a table without.
/// What went wrong is one line on stderr and exit code 1.
pub fn run(socket: &Path, json: bool) -> ExitCode {
    match answer(socket, json).and_then(|text| print(&text).map_err(|error| error.to_string())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("multiwans: {why}");
            ExitCode::FAILURE
        }
    }
}

fn answer(socket: &Path, json: bool) -> Result<String, String> {
    let answer = client::request(socket, &Request::Status).map_err(|error| error.to_string())?;
    if json {
        return Ok(format!("{answer:#}\n"));
    }
    let status = Status::deserialize(&answer).map_err(|error| {
        format!("the daemon's answer is not understood, is it of another version? {error}")
    })?;
    // A clock before 1970 makes every duration 0.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Ok(table(&status, now) + &kept(&answer["kept"]) + &traffic::summary(&status, &answer["datapath"]))
}

/// A reader that has seen enough (`| head`) is no error.
fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// The table; `now` in Unix seconds. The default has a `*` before it.
fn table(status: &Status, now: u64) -> String {
    const HEADER: [&str; 6] = ["  WAN", "IFACE", "MARK", "STATE", "SINCE", "REASON"];
    let row = |wan: &WanStatus| {
        let is_default = status.default.as_deref() == Some(&wan.description);
        [
            format!("{} {}", if is_default { '*' } else { ' ' }, plain(&wan.description)),
            wan.iface.to_string(),
            wan.mark.to_string(),
            wan.state.to_string(),
            format!("for {}", duration(now.saturating_sub(wan.since))),
            plain(&wan.reason),
        ]
    };
    let rows: Vec<_> =
        std::iter::once(HEADER.map(str::to_owned)).chain(status.wans.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 6] = std::array::from_fn(width);

    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    if status.default.is_none() {
        text += "No link is the default.\n";
    }
    text
}

/// Lists that are not what their files say.
fn kept(kept: &Value) -> String {
    let problems = kept.as_array().into_iter().flatten().filter_map(Value::as_str);
    problems.map(|problem| format!("A list stays as it was: {}\n", plain(problem))).collect()
}

/// Text from a configuration or a system, without what would move a terminal's cursor.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// The two largest units: `45 s`, `2 h 3 m`, `12 d 0 h`.
fn duration(seconds: u64) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    match seconds {
        0..MINUTE => format!("{seconds} s"),
        MINUTE..HOUR => format!("{} m {} s", seconds / MINUTE, seconds % MINUTE),
        HOUR..DAY => format!("{} h {} m", seconds / HOUR, seconds % HOUR / MINUTE),
        DAY.. => format!("{} d {} h", seconds / DAY, seconds % DAY / HOUR),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_that_are_not_what_their_files_say_are_told() {
        let problems = json!(["a:1:1: one\u{1b}", "b:2:1: two"]);
        let text = "A list stays as it was: a:1:1: one\u{fffd}\nA list stays as it was: b:2:1: two\n";
        assert_eq!(kept(&problems), text);
        assert_eq!(kept(&Value::Null), "");
    }

    #[test]
    fn durations_have_two_units() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 m 0 s"),
            (3599, "59 m 59 s"),
            (2 * 3600 + 3 * 60 + 59, "2 h 3 m"),
            (86_399, "23 h 59 m"),
            (12 * 86_400, "12 d 0 h"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }

    /// Also holds the answer's form: what monitoring was built on.
    #[test]
    fn the_table_shows_what_the_daemon_said() {
        let wan = |description, iface, mark: u8, state, reason, since: u64| {
            json!({ "description": description, "iface": iface, "mark": mark, "state": state,
                    "reason": reason, "since": since, "order": 1, "address": "10.0.1.2/24",
                    "usable": true, "last_rtt_ms": null, "last_target": null, "later": "version's" })
        };
        let answer = json!({
            "default": "Fibre – João",
            "wans": [
                wan("Fibre – João", "eth1", 1, "ON", "", 1000),
                wan("LTE", "wwan0", 252, "OFF", "no target answers\u{1b}[2J", 8000),
                wan("New", "eth3", 3, "UNKNOW", "", 9999),
            ],
        });
        let status = Status::deserialize(&answer).unwrap();
        assert_eq!(
            table(&status, 8400),
            "  WAN           IFACE  MARK  STATE   SINCE         REASON\n\
             * Fibre – João  eth1   1     ON      for 2 h 3 m\n  \
               LTE           wwan0  252   OFF     for 6 m 40 s  no target answers\u{fffd}[2J\n  \
               New           eth3   3     UNKNOW  for 0 s\n"
        );
        let nobody = Status { default: None, ..status };
        assert!(!table(&nobody, 8400).contains('*'));
        assert!(table(&nobody, 8400).ends_with("No link is the default.\n"));
    }

    #[test]
    fn not_running_is_a_clear_line() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("control.sock");
        let why = answer(&socket, true).unwrap_err();
        assert_eq!(why, format!("not running (nothing listens on {})", socket.display()));
    }
}

//! `multiwans reload`: the running daemon reads its configuration anew.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::Value;

use super::{fail, locate};
use crate::control::client::{self, ClientError};
use crate::control::{Request, canonical};

/// Not all of it was taken over: a list stays as it was. A script that fetches lists is to notice.
const LIST_KEPT: u8 = 3;

/// Asks, waits, and prints what changed (warnings on stderr), exit code 0, or [`LIST_KEPT`]; or why nothing did, exit code 1.
pub(super) fn run(socket: Option<PathBuf>, config: Option<PathBuf>) -> ExitCode {
    let request = Request::Reload { config: config.as_deref().map(canonical) };
    let places = locate::sockets(socket, config);
    let (places, unreadable) = match &places {
        Ok(places) => (places.clone(), None),
        // The daemon's own word on it is better: it knows what stays in force.
        Err(error) => (vec![locate::default_socket()], Some(error)),
    };
    let mut result = Err(ClientError::NotRunning(locate::default_socket()));
    for place in places {
        result = client::request(&place, &request);
        if !matches!(result, Err(ClientError::NotRunning(_))) {
            break;
        }
    }
    match result {
        Ok(answer) => {
            listed(&answer, "warnings").for_each(|warning| eprintln!("{warning}"));
            let changes: Vec<&str> = listed(&answer, "changes").collect();
            if changes.is_empty() {
                println!("reloaded: nothing changed");
            }
            changes.iter().for_each(|change| println!("reloaded: {change}"));
            let kept: Vec<&str> = listed(&answer, "kept").collect();
            kept.iter().for_each(|problem| eprintln!("a list stays as it was: {problem}"));
            if kept.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(LIST_KEPT) }
        }
        Err(ClientError::Refused(why)) => {
            eprintln!("{why}");
            fail(&"not reloaded")
        }
        Err(error) => {
            if let Some(unreadable) = unreadable {
                eprintln!("{unreadable}");
            }
            fail(&error)
        }
    }
}

fn listed<'a>(answer: &'a Value, key: &str) -> impl Iterator<Item = &'a str> {
    answer.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

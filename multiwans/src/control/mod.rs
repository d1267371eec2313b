//! The control socket: how `multiwans status` and later commands reach a running daemon.
//!
//! A Unix stream socket. The client writes one line, a JSON object such as `{"cmd":"status"}`, and reads
//! one line back, a JSON value; then the connection is closed. An answer `{"error": TEXT}` says why there
//! is no other.

pub mod client;
pub mod server;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use server::{Call, Server};

/// What a daemon can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cmd", rename_all = "lowercase")]
pub enum Request {
    /// The links and the default; the answer is an [`engine::Status`](crate::engine::Status) and, beside it, `datapath`.
    Status,
    /// Read the configuration anew and put it in force. The answer comes once that is done: `changes` and
    /// `warnings`, each a list of texts.
    Reload {
        /// The file whoever asks means, as [`canonical`] has it: refused where the daemon was started with
        /// another one, and so would read that.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        config: Option<PathBuf>,
    },
}

/// A file by the one name that all ways to it have in common, where there is such a file.
pub fn canonical(file: &Path) -> PathBuf {
    let absolute = || std::path::absolute(file);
    fs::canonicalize(file).or_else(|_| absolute()).unwrap_or_else(|_| file.to_owned())
}

impl Request {
    /// How long the daemon may take for its answer: a configuration may refer to long lists.
    const fn patience(&self) -> Duration {
        match self {
            Self::Status => Duration::from_secs(5),
            Self::Reload { .. } => Duration::from_secs(120),
        }
    }
}

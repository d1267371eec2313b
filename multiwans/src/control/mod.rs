//! The control socket: how `multiwans status` and later commands reach a running daemon.
//!
//! A Unix stream socket. The client writes one line, a JSON object such as `{"cmd":"status"}`, and reads
//! one line back, a JSON value; then the connection is closed. An answer `{"error": TEXT}` says why there
//! is no other.

pub mod client;
pub mod server;

use serde::{Deserialize, Serialize};

pub use server::{Call, Server};

/// What a daemon can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cmd", rename_all = "lowercase")]
pub enum Request {
    /// The links and the default; the answer is an [`engine::Status`](crate::engine::Status) and, beside it, `datapath`.
    Status,
}

//! The CLI's end of the control socket. Blocking, and never for long.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use socket2::{Domain, SockAddr, Socket, Type};

use super::Request;

/// For each step: connecting, writing, reading. This much more than the daemon gives itself, so that its own
/// word on a timeout arrives.
const GRACE: Duration = Duration::from_secs(1);
/// Far more than the status of 252 WANs; a bound so that whatever listens there cannot fill the memory.
const RESPONSE_MAX: u64 = 16 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No socket, or nobody behind it.
    #[error("not running (nothing listens on {path})", path = .0.display())]
    NotRunning(PathBuf),
    /// The socket is root's.
    #[error("control socket ({path}) must be opened as root: permission denied", path = .0.display())]
    PermissionDenied(PathBuf),
    /// It listens but does not answer.
    #[error("the daemon behind {path} does not answer", path = .0.display())]
    TimedOut(PathBuf),
    /// It closed the connection: it was stopping.
    #[error("the daemon behind {path} went away before it answered", path = .0.display())]
    Gone(PathBuf),
    /// It answered that it cannot.
    #[error("the daemon refused: {0}")]
    Refused(String),
    /// It answered with something that is no answer.
    #[error("what listens on {path} is not multiwans: {why}", path = path.display())]
    NotOurs {
        /// The socket.
        path: PathBuf,
        /// What was wrong with the answer.
        why: String,
    },
    /// Something else.
    #[error("control socket ({path}): {source}", path = path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Asks the daemon that listens on `path`, and gives its answer as it came.
///
/// # Errors
///
/// See [`ClientError`]; an answer `{"error": TEXT}` is [`Refused`](ClientError::Refused).
pub fn request(path: &Path, request: &Request) -> Result<Value, ClientError> {
    let line = exchange(path, request).map_err(|source| sort_out(path, source))?;
    if line.is_empty() {
        return Err(ClientError::Gone(path.to_owned()));
    }
    let answer: Value = serde_json::from_slice(&line)
        .map_err(|error| ClientError::NotOurs { path: path.to_owned(), why: error.to_string() })?;
    match answer.get("error").and_then(Value::as_str) {
        Some(text) => Err(ClientError::Refused(text.to_owned())),
        None => Ok(answer),
    }
}

fn exchange(path: &Path, request: &Request) -> io::Result<Vec<u8>> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    let patience = request.patience() + GRACE;
    // Before connecting: on Linux it bounds that, too, should the daemon not accept any more.
    socket.set_write_timeout(Some(patience))?;
    socket.set_read_timeout(Some(patience))?;
    socket.connect(&SockAddr::unix(path)?)?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    (&socket).write_all(&line)?;
    let mut answer = Vec::new();
    BufReader::new(&socket).take(RESPONSE_MAX).read_until(b'\n', &mut answer)?;
    Ok(answer)
}

fn sort_out(path: &Path, error: io::Error) -> ClientError {
    let path = path.to_owned();
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NotRunning(path),
        io::ErrorKind::PermissionDenied => ClientError::PermissionDenied(path),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ClientError::TimedOut(path),
        _ => ClientError::Io { path, source: error },
    }
}

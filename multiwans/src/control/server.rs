//! The daemon's end of the control socket.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::stat::{Mode, fchmod};
use serde_json::{Value, json};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Request;

/// Connections served at a time; more wait in the kernel's queue. The clients are a few people and a
/// monitoring agent.
const CONNECTIONS_MAX: usize = 16;
/// The kernel's queue of connections that wait.
const BACKLOG: i32 = 64;
/// Longest request line without its newline, in bytes.
const REQUEST_MAX: usize = 64 << 10;
/// For each step of a connection: reading the request, writing the answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after a failed accept: the process is out of descriptors, and trying at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// One request that waits for its answer.
#[derive(Debug)]
pub struct Call {
    /// What is asked.
    pub request: Request,
    /// Where the answer goes, to be sent to the client as it is. Dropping it tells the client that the
    /// daemon is stopping.
    pub reply: oneshot::Sender<Value>,
}

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A daemon listens there.
    #[error("daemon.controlSocket ({path}) must be free: another multiwans listens on it", path = .0.display())]
    InUse(PathBuf),
    /// Something stands there that is no socket, and is not ours to remove.
    #[error("daemon.controlSocket ({path}) must not be an existing file", path = .0.display())]
    NotASocket(PathBuf),
    /// Something else.
    #[error("daemon.controlSocket ({path}): {source}", path = path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// A bound control socket. Its path is removed when it is dropped.
#[derive(Debug)]
pub struct Server {
    listener: StdListener,
    _path: OwnedPath,
}

impl Server {
    /// Listens on `path`, for root only (mode 0600). Creates its directory (0755) where that is missing,
    /// and replaces the socket of a daemon that was killed.
    ///
    /// # Errors
    ///
    /// See [`BindError`].
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let io_error = |source| BindError::Io { path: path.to_owned(), source };
        create_parent(path).map_err(io_error)?;
        make_way(path)?;
        let listener = listen(path).map_err(|source| match source.kind() {
            // Taken since it was looked at.
            io::ErrorKind::AddrInUse => BindError::InUse(path.to_owned()),
            _ => io_error(source),
        })?;
        let path = OwnedPath::new(path).map_err(io_error)?;
        Ok(Self { listener, _path: path })
    }

    /// Serves clients until `calls` is closed or the future is dropped; each request goes into `calls`.
    ///
    /// # Errors
    ///
    /// Only at the start, where the runtime refuses the socket.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with IO and time.
    pub async fn serve(self, calls: mpsc::Sender<Call>) -> io::Result<()> {
        let Self { listener, _path } = self;
        let listener = UnixListener::from_std(listener)?;
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        // Dropped, and with it every connection, when this future is.
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return Ok(()) };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = calls.closed() => return Ok(()),
            };
            match accepted {
                Ok((stream, _)) => {
                    let calls = calls.clone();
                    connections.spawn(async move {
                        converse(stream, calls).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "control socket cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// One connection: a line in, a line out. A client that goes away or dawdles is its own loss, so nothing
/// here is an error of the daemon.
async fn converse(mut stream: UnixStream, calls: mpsc::Sender<Call>) {
    let answer = match timeout(TIMEOUT, read_request(&mut stream)).await {
        Ok(Ok(Some(request))) => ask(request, calls).await,
        // Gone without a word.
        Ok(Ok(None)) => return,
        Ok(Err(why)) => refusal(&why),
        Err(_) => refusal(&format!("the request must arrive within {TIMEOUT:?}")),
    };
    let mut line = answer.to_string();
    line.push('\n');
    let written = timeout(TIMEOUT, async {
        stream.write_all(line.as_bytes()).await?;
        stream.shutdown().await
    });
    match written.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "control client went away before its answer"),
        Err(_) => tracing::debug!("control client does not read its answer"),
    }
}

/// `Ok(None)` where the client closed without sending anything; `Err` is for the client.
async fn read_request(stream: &mut UnixStream) -> Result<Option<Request>, String> {
    let mut line = Vec::new();
    // One byte more than allowed, newline included, tells too long from just fitting.
    let mut reader = BufReader::new(stream).take(REQUEST_MAX as u64 + 1);
    reader.read_until(b'\n', &mut line).await.map_err(|error| error.to_string())?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() > REQUEST_MAX {
        return Err(format!("the request must be one line of at most {REQUEST_MAX} bytes"));
    }
    serde_json::from_slice(&line).map(Some).map_err(|error| format!("the request must be a command: {error}"))
}

/// Puts a request to the daemon.
async fn ask(request: Request, calls: mpsc::Sender<Call>) -> Value {
    let patience = request.patience();
    let answered = timeout(patience, async {
        let (reply, answer) = oneshot::channel();
        calls.send(Call { request, reply }).await.ok()?;
        answer.await.ok()
    });
    match answered.await {
        Ok(Some(answer)) => answer,
        Ok(None) => refusal("the daemon is stopping"),
        Err(_) => refusal(&format!("the daemon did not answer within {patience:?}")),
    }
}

fn refusal(why: &str) -> Value {
    json!({ "error": why })
}

fn create_parent(path: &Path) -> io::Result<()> {
    let Some(parent) = path.parent().filter(|parent| *parent != Path::new("")) else { return Ok(()) };
    if parent.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
    // The umask may have taken from it.
    fs::set_permissions(parent, Permissions::from_mode(0o755))
}

/// Removes the socket of a daemon that is no more; refuses for anything else that stands there.
fn make_way(path: &Path) -> Result<(), BindError> {
    let io_error = |source| BindError::Io { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_error(error)),
        Ok(found) if !found.file_type().is_socket() => return Err(BindError::NotASocket(path.to_owned())),
        Ok(_) => {}
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None).map_err(io_error)?;
    match SockAddr::unix(path).and_then(|address| probe.connect(&address)) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(io_error)
        }
        // Its daemon removed it just now.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // EAGAIN: its queue is full. It lives.
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(io_error(error)),
        _ => Err(BindError::InUse(path.to_owned())),
    }
}

fn listen(path: &Path) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    // The kernel gives the path the mode of the unbound socket (net/unix/af_unix.c, unix_bind_bsd), so
    // there is no moment at which others could connect.
    fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The path of a socket we bound, removed on drop if it still is that socket.
#[derive(Debug)]
struct OwnedPath {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl OwnedPath {
    fn new(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), identity: identity(path)? })
    }
}

impl Drop for OwnedPath {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(%error, path = %self.path.display(), "control socket could not be removed");
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;

use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream as StdStream;
use std::thread;
use std::time::Instant;

use tempfile::TempDir;

use super::*;
use crate::control::client::{self, ClientError};

/// A server on its own thread whose daemon answers every call with `{"ok":true}`, except where `answer`
/// says otherwise. Stops when dropped.
struct Running {
    dir: TempDir,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Running {
    fn new(answer: impl Fn(Call) + Send + 'static) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::bind(&dir.path().join("control.sock")).unwrap();
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (tx, mut rx) = mpsc::channel(1);
                tokio::select! {
                    served = server.serve(tx) => served.unwrap(),
                    () = async { while let Some(call) = rx.recv().await { answer(call) } } => {}
                    _ = stopped => {}
                }
            });
        });
        Self { dir, stop: Some(stop), thread: Some(thread) }
    }

    fn obliging() -> Self {
        Self::new(|call| {
            assert_eq!(call.request, Request::Status);
            call.reply.send(json!({ "ok": true })).unwrap();
        })
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("control.sock")
    }

    fn connect(&self) -> StdStream {
        let stream = StdStream::connect(self.path()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// What comes back for these bytes.
    fn send(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        // It may be refused before all was written.
        let _ = stream.write_all(bytes);
        response(&mut stream)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.stop.take().map(|stop| stop.send(()));
        let joined = self.thread.take().map(thread::JoinHandle::join);
        if !thread::panicking() {
            joined.unwrap().unwrap();
        }
    }
}

/// What is read until the end, an abrupt one included.
fn response(stream: &mut StdStream) -> String {
    let mut text = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(len @ 1..) = stream.read(&mut buffer) {
        text.extend_from_slice(&buffer[..len]);
    }
    String::from_utf8(text).unwrap()
}

#[test]
fn a_line_in_a_line_out() {
    let running = Running::obliging();
    for request in ["{\"cmd\":\"status\"}\n", " { \"cmd\" : \"status\", \"later\": 1 } \r\n"] {
        assert_eq!(running.send(request.as_bytes()), "{\"ok\":true}\n");
    }
    assert_eq!(client::request(&running.path(), &Request::Status).unwrap(), json!({ "ok": true }));
}

#[test]
fn a_client_that_closes_its_half_is_answered_too() {
    let running = Running::obliging();
    let mut stream = running.connect();
    stream.write_all(b"{\"cmd\":\"status\"}").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(response(&mut stream), "{\"ok\":true}\n");
}

#[test]
fn garbage_is_told_so() {
    let running = Running::obliging();
    for (garbage, says) in [
        (&b"hello\n"[..], "must be a command"),
        (b"\n", "must be a command"),
        (b"{}\n", "cmd"),
        (b"{\"cmd\":\"reboot\"}\n", "reboot"),
        (b"[1]\n", "must be a command"),
        (b"\xff\xfe\n", "must be a command"),
        (b"{\"cmd\":\"status\"}{\n", "must be a command"),
    ] {
        let answer: Value = serde_json::from_str(&running.send(garbage)).unwrap();
        let error = answer["error"].as_str().unwrap();
        assert!(error.contains(says), "{error}");
    }
    // And it goes on.
    assert!(client::request(&running.path(), &Request::Status).is_ok());
}

#[test]
fn a_line_is_bounded() {
    let running = Running::obliging();
    let mut request = b"{\"cmd\":\"status\"}".to_vec();
    request.resize(REQUEST_MAX, b' ');
    let mut just = request.clone();
    just.push(b'\n');
    assert_eq!(running.send(&just), "{\"ok\":true}\n");
    request.extend(b" \n");
    assert!(running.send(&request).contains("at most 65536 bytes"));
    assert!(running.send(&vec![b'x'; 10 << 20]).contains("at most 65536 bytes"));
}

#[test]
fn idle_clients_are_dropped_and_hold_up_nobody_for_long() {
    let running = Running::obliging();
    let mut idle: Vec<_> = (0..CONNECTIONS_MAX).map(|_| running.connect()).collect();
    // Let them be accepted.
    thread::sleep(Duration::from_millis(100));
    let start = Instant::now();
    let mut queued = running.connect();
    queued.write_all(b"{\"cmd\":\"status\"}\n").unwrap();
    assert_eq!(response(&mut queued), "{\"ok\":true}\n");
    let waited = start.elapsed();
    assert!(waited > TIMEOUT - Duration::from_secs(1) && waited < TIMEOUT * 2, "{waited:?}");
    assert!(response(&mut idle[0]).contains("must arrive within 5s"));
}

#[test]
fn a_daemon_that_does_not_answer_is_told_of() {
    let held = std::sync::Mutex::new(Vec::new());
    let running = Running::new(move |call| held.lock().unwrap().push(call));
    let error = client::request(&running.path(), &Request::Status).unwrap_err();
    assert!(matches!(&error, ClientError::Refused(why) if why.contains("did not answer within")), "{error}");

    let dropping = Running::new(drop);
    let error = client::request(&dropping.path(), &Request::Status).unwrap_err();
    assert!(matches!(&error, ClientError::Refused(why) if why == "the daemon is stopping"), "{error}");
}

#[test]
fn only_its_owner_may_connect_and_the_directory_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run/multiwans/control.sock");
    let server = Server::bind(&path).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(path.parent().unwrap()), 0o755);
    drop(server);
    assert!(!path.exists());
    assert!(matches!(client::request(&path, &Request::Status), Err(ClientError::NotRunning(_))));
}

#[test]
fn a_dead_daemons_socket_is_replaced_a_live_ones_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.sock");
    // What a killed daemon leaves: std removes no path.
    drop(StdListener::bind(&path).unwrap());
    assert!(matches!(client::request(&path, &Request::Status), Err(ClientError::NotRunning(_))));

    let live = Server::bind(&path).unwrap();
    let error = Server::bind(&path).unwrap_err();
    assert!(matches!(error, BindError::InUse(_)), "{error}");
    assert!(error.to_string().contains("another multiwans listens on it"));
    // Alive also while it accepts nobody and its queue is full; one place has the attempt above.
    let _queue: Vec<_> = (0..BACKLOG).map(|_| StdStream::connect(&path).unwrap()).collect();
    assert!(matches!(Server::bind(&path), Err(BindError::InUse(_))));
    assert!(path.exists());
    drop(live);
}

#[test]
fn what_is_no_socket_stays() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.sock");
    let precious = dir.path().join("precious");
    fs::write(&precious, "x").unwrap();

    fs::write(&path, "x").unwrap();
    assert!(matches!(Server::bind(&path), Err(BindError::NotASocket(_))));
    fs::remove_file(&path).unwrap();
    symlink(&precious, &path).unwrap();
    assert!(matches!(Server::bind(&path), Err(BindError::NotASocket(_))));
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(matches!(Server::bind(&path), Err(BindError::NotASocket(_))));
    assert_eq!(fs::read_to_string(&precious).unwrap(), "x");

    let below_a_file = precious.join("control.sock");
    let error = Server::bind(&below_a_file).unwrap_err().to_string();
    assert!(error.contains("daemon.controlSocket") && error.contains("control.sock"), "{error}");
    let long = dir.path().join("x".repeat(120));
    assert!(matches!(Server::bind(&long), Err(BindError::Io { .. })));
}

#[test]
fn another_ones_socket_is_not_removed_on_drop() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.sock");
    let old = Server::bind(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let _new = StdListener::bind(&path).unwrap();
    drop(old);
    assert!(path.exists());
}

#[test]
fn what_is_no_daemon_is_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.sock");
    let other = StdListener::bind(&path).unwrap();
    let speaker = thread::spawn(move || {
        for words in [&b"SSH-2.0\n"[..], b""] {
            let (mut stream, _) = other.accept().unwrap();
            let mut line = [0; 64];
            let _ = stream.read(&mut line).unwrap();
            stream.write_all(words).unwrap();
        }
    });
    assert!(matches!(client::request(&path, &Request::Status), Err(ClientError::NotOurs { .. })));
    assert!(matches!(client::request(&path, &Request::Status), Err(ClientError::Gone(_))));
    speaker.join().unwrap();
}

#[test]
fn others_are_told_that_it_is_roots() {
    let running = Running::obliging();
    fs::set_permissions(running.dir.path(), Permissions::from_mode(0o755)).unwrap();
    let path = running.path();
    // The user of this thread alone: the system call, unlike libc's wrapper, does not change the others'.
    let refused = thread::spawn(move || {
        const NOBODY: libc::uid_t = 65534;
        // SAFETY: takes integers only; -1 leaves the real user as it is.
        let done = unsafe { libc::syscall(libc::SYS_setresuid, -1, NOBODY, NOBODY) };
        assert_eq!(done, 0);
        client::request(&path, &Request::Status)
    });
    let error = refused.join().unwrap().unwrap_err();
    assert!(matches!(error, ClientError::PermissionDenied(_)), "{error}");
}

//! The journal and syslog: sockets that take a line in each datagram.

use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

/// Where the journal listens (systemd-journald.service(8)).
pub(super) const JOURNAL: &str = "/run/systemd/journal/socket";
/// Where every syslog daemon listens.
pub(super) const SYSLOG: &str = "/dev/log";

/// A connection to one of them. Waits while the other side's queue is full, so it belongs on a thread of
/// its own.
#[derive(Debug)]
pub(super) struct Datagrams {
    path: PathBuf,
    socket: UnixDatagram,
}

impl Datagrams {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens there.
    pub(super) fn connect(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref().to_owned();
        let socket = open(&path)?;
        Ok(Self { path, socket })
    }
}

fn open(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    Ok(socket)
}

impl Write for Datagrams {
    /// One datagram.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.socket.send(line).or_else(|_| {
            // The daemon was started anew: its old socket is gone.
            self.socket = open(&self.path)?;
            self.socket.send(line)
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[test]
    fn each_line_is_one_datagram_and_a_restarted_daemon_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        assert!(Datagrams::connect(&path).is_err(), "nobody listens");
        let daemon = UnixDatagram::bind(&path).unwrap();
        let mut log = Datagrams::connect(&path).unwrap();
        log.write_all(b"one").unwrap();
        log.write_all(b"two").unwrap();
        assert_eq!((received(&daemon), received(&daemon)), ("one".into(), "two".into()));

        drop(daemon);
        assert!(log.write_all(b"lost").is_err());
        std::fs::remove_file(&path).unwrap();
        let daemon = UnixDatagram::bind(&path).unwrap();
        log.write_all(b"found").unwrap();
        assert_eq!(received(&daemon), "found");
    }
}

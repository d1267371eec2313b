//! The local syslog.

use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::fmt::MakeWriter;

/// Where every syslog daemon listens.
pub(super) const PATH: &str = "/dev/log";

/// A connection to it. Never waits: a log that is not taken is lost, a failover that waits for a log is
/// worse.
#[derive(Debug, Clone)]
pub(super) struct Syslog {
    path: PathBuf,
    socket: Arc<Mutex<UnixDatagram>>,
}

impl Syslog {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens there.
    pub(super) fn connect(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref().to_owned();
        let socket = Arc::new(Mutex::new(open(&path)?));
        Ok(Self { path, socket })
    }

    fn send(&self, line: &[u8]) {
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        match socket.send(line) {
            // The daemon's queue is full.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // It was started anew: its old socket is gone.
            Err(_) => {
                if let Ok(fresh) = open(&self.path) {
                    let _ = fresh.send(line);
                    *socket = fresh;
                }
            }
            Ok(_) => {}
        }
    }
}

fn open(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect(path)?;
    Ok(socket)
}

impl Write for Syslog {
    /// One datagram: the formatter hands over whole lines.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.send(line.trim_ascii_end());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Syslog {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::prelude::*;

    use super::super::lines::{Lines, Style};
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
        assert!(Syslog::connect(&path).is_err(), "nobody listens");
        let daemon = UnixDatagram::bind(&path).unwrap();
        let layer = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .event_format(Lines::new(Style::Syslog))
            .with_writer(Syslog::connect(&path).unwrap());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::warn!("WAN1 (eth1): OFF: no carrier");
            tracing::error!(count = 3, "two");
            let line = received(&daemon);
            assert!(line.starts_with("<28>") && line.ends_with("]: WAN1 (eth1): OFF: no carrier"), "{line}");
            assert!(received(&daemon).ends_with("]: two count=3"));

            drop(daemon);
            tracing::info!("lost");
            std::fs::remove_file(&path).unwrap();
            let daemon = UnixDatagram::bind(&path).unwrap();
            tracing::info!("found");
            assert!(received(&daemon).ends_with("]: found"));

            // Its queue (`net.unix.max_dgram_qlen`, 10 to 512) full, nothing waits.
            (0..5_000).for_each(|n| tracing::info!("{n}"));
            assert!(received(&daemon).ends_with("]: 0"));
        });
    }
}

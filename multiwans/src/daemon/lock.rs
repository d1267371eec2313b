//! One daemon per network namespace: two would take each other's routes and programs for leftovers.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Where the lock files are: gone with a reboot, as the daemons are.
const DIRECTORY: &str = "/run/multiwans";

/// The lock of this network namespace, held until dropped. The kernel lets go of it when the process
/// ends, however it ends, so a killed daemon leaves a file but no lock.
#[derive(Debug)]
pub struct InstanceLock {
    path: PathBuf,
    /// Locked for as long as it is open.
    _file: File,
}

/// Why the lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another daemon holds it.
    #[error("already running in this network namespace (pid {pid})")]
    AlreadyRunning {
        /// Its process id, `unknown` where it has not written it yet.
        pid: String,
    },
    /// Something else.
    #[error("lock file ({path}): {source}", path = path.display())]
    Io {
        /// The lock file, or what it needs.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl InstanceLock {
    /// Takes the lock of the network namespace the process is in.
    ///
    /// # Errors
    ///
    /// See [`LockError`].
    pub fn acquire() -> Result<Self, LockError> {
        let netns = Path::new("/proc/self/ns/net");
        let inode =
            fs::metadata(netns).map_err(|source| LockError::Io { path: netns.to_owned(), source })?.ino();
        Self::acquire_in(Path::new(DIRECTORY), inode)
    }

    fn acquire_in(directory: &Path, netns: u64) -> Result<Self, LockError> {
        let path = directory.join(format!("netns-{netns}.lock"));
        let io_error = |source| LockError::Io { path: path.clone(), source };
        DirBuilder::new().recursive(true).mode(0o755).create(directory).map_err(io_error)?;
        loop {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o644)
                .custom_flags(libc::O_NOFOLLOW)
                .open(&path)
                .map_err(io_error)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(LockError::AlreadyRunning { pid: pid(file) }),
                Err(TryLockError::Error(source)) => return Err(io_error(source)),
            }
            // Its last holder may have removed it between our opening and our locking; then this is a
            // file that nobody else will find.
            if !is_at(&file, &path).map_err(io_error)? {
                continue;
            }
            file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(io_error)?;
            return Ok(Self { path, _file: file });
        }
    }
}

impl Drop for InstanceLock {
    fn drop(&mut self) {
        // Before the lock goes with the descriptor: afterwards it could be another one's.
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "lock file could not be removed");
        }
    }
}

/// Whether the file's name still names it.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let open = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (open.dev(), open.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The holder's process id as it wrote it.
fn pid(file: File) -> String {
    // A pid has at most 7 digits (PID_MAX_LIMIT, 4 194 304).
    let mut text = String::new();
    let read = file.take(16).read_to_string(&mut text);
    match text.trim() {
        digits if read.is_ok() && digits.parse::<u32>().is_ok() => digits.to_owned(),
        _ => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn the_second_is_refused_with_the_firsts_pid() {
        let dir = tempfile::tempdir().unwrap();
        let first = InstanceLock::acquire_in(dir.path(), 4_026_531_840).unwrap();
        let error = InstanceLock::acquire_in(dir.path(), 4_026_531_840).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("already running in this network namespace (pid {})", std::process::id())
        );
        // Another namespace has another lock.
        let _other = InstanceLock::acquire_in(dir.path(), 4_026_532_001).unwrap();
        drop(first);
        assert!(!dir.path().join("netns-4026531840.lock").exists());
        InstanceLock::acquire_in(dir.path(), 4_026_531_840).unwrap();
    }

    #[test]
    fn a_killed_daemons_file_is_no_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("netns-1.lock");
        fs::write(&path, "4194303 and more text than the next pid\n").unwrap();
        let _lock = InstanceLock::acquire_in(dir.path(), 1).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
    }

    #[test]
    fn a_holder_that_has_not_written_its_pid_yet_holds_it_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let file = File::create(dir.path().join("netns-1.lock")).unwrap();
        file.lock().unwrap();
        let error = InstanceLock::acquire_in(dir.path(), 1).unwrap_err();
        assert!(error.to_string().ends_with("(pid unknown)"), "{error}");
    }

    #[test]
    fn a_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        symlink(&victim, dir.path().join("netns-1.lock")).unwrap();
        assert!(matches!(InstanceLock::acquire_in(dir.path(), 1), Err(LockError::Io { .. })));
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    }

    #[test]
    fn a_file_that_lost_its_name_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("netns-1.lock");
        let file = File::create(&path).unwrap();
        assert!(is_at(&file, &path).unwrap());
        fs::remove_file(&path).unwrap();
        assert!(!is_at(&file, &path).unwrap());
        File::create(&path).unwrap();
        assert!(!is_at(&file, &path).unwrap());
    }

    /// Takers that come and go: never two at a time, though the file is removed each time.
    #[test]
    fn there_is_one_holder_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let (holders, taken, start) = (AtomicU32::new(0), AtomicU32::new(0), Barrier::new(4));
        // By what was taken, not by what was tried: on a busy machine a holder may sleep while the others
        // try in vain.
        let deadline = Instant::now() + Duration::from_secs(60);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    start.wait();
                    while taken.load(Ordering::SeqCst) < 500 && Instant::now() < deadline {
                        let Ok(lock) = InstanceLock::acquire_in(dir.path(), 1) else { continue };
                        assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0);
                        taken.fetch_add(1, Ordering::SeqCst);
                        // Long enough for the others to meet.
                        thread::sleep(Duration::from_micros(20));
                        holders.fetch_sub(1, Ordering::SeqCst);
                        drop(lock);
                    }
                });
            }
        });
        assert!(taken.load(Ordering::SeqCst) >= 500);
    }
}

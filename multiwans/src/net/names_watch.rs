//! Tells when the file with our tables' names was changed or removed.
//!
//! Its directory is watched, not the file: that one is replaced as a whole whenever it is written.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A watch on one file, wherever its directory comes from and goes.
pub(super) struct NamesWatch {
    inotify: AsyncFd<Descriptor>,
    directory: PathBuf,
    file: OsString,
}

/// For [`AsyncFd`], which wants to know its number.
struct Descriptor(Inotify);

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl NamesWatch {
    /// Watches nothing before [`NamesWatch::arm`]. Needs a tokio runtime.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        // SAFETY: the descriptor is its own, and nothing here takes it out of the `AsyncFd`.
        let inotify = unsafe { AsyncFd::register_with_interest(Descriptor(inotify), Interest::READABLE) }?;
        Ok(Self {
            inotify,
            directory: path.parent().unwrap_or(path).to_owned(),
            file: path.file_name().unwrap_or_default().to_owned(),
        })
    }

    /// Watches the directory that stands there now; doing it again is fine.
    pub(super) fn arm(&self) {
        let events = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        // Without a directory there are no names, which is told where they are written.
        let _ = self.inotify.get_ref().0.add_watch(&self.directory, events);
    }

    /// Waits for a change. May be dropped and called again without losing one.
    pub(super) async fn changed(&self) {
        loop {
            let events = match self.inotify.async_io(Interest::READABLE, |i| Ok(i.0.read_events()?)).await {
                Ok(events) => events,
                // The runtime ends, or it is no inotify any more.
                Err(_) => return std::future::pending().await,
            };
            // An event without a name is about the directory itself, or says that some were lost.
            if events.iter().any(|event| event.name.as_ref().is_none_or(|name| *name == self.file)) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    async fn is_told(watch: &NamesWatch) -> bool {
        let told = timeout(Duration::from_millis(200), watch.changed()).await.is_ok();
        // What else belongs to the same act.
        while timeout(Duration::from_millis(20), watch.changed()).await.is_ok() {}
        told
    }

    #[tokio::test]
    async fn each_way_to_change_the_file_is_told_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("rt_tables.d");
        let (ours, other) = (directory.join("multiwans.conf"), directory.join("other.conf"));
        let watch = NamesWatch::open(&ours).unwrap();
        watch.arm();
        fs::create_dir(&directory).unwrap();
        watch.arm();
        watch.arm();
        fs::write(&other, "9 nine\n").unwrap();
        assert!(!is_told(&watch).await, "others' files are their business");
        fs::write(&ours, "1 WAN1\n").unwrap();
        assert!(is_told(&watch).await, "created");
        fs::write(&ours, "1 mine\n").unwrap();
        assert!(is_told(&watch).await, "written");
        fs::rename(&other, &ours).unwrap();
        assert!(is_told(&watch).await, "replaced");
        fs::rename(&ours, root.path().join("away")).unwrap();
        assert!(is_told(&watch).await, "moved away");
        fs::write(&ours, "1 WAN1\n").unwrap();
        assert!(is_told(&watch).await, "created again");
        fs::remove_file(&ours).unwrap();
        assert!(is_told(&watch).await, "removed");
        fs::remove_dir(&directory).unwrap();
        assert!(is_told(&watch).await, "its directory removed");
        fs::create_dir(&directory).unwrap();
        watch.arm();
        fs::write(&ours, "1 WAN1\n").unwrap();
        assert!(is_told(&watch).await, "in the new directory");
    }
}

//! Whom a hook may come from. Hooks run as root: whoever can write to one, or to a folder on the way to
//! it, is root too.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Write permission of the group and of all others. An ACL's show in the group's as well (acl(5)).
const WRITABLE_BY_OTHERS: u32 = 0o022;
/// The sticky bit: in such a directory, only its owner can replace a file (`/tmp`).
const STICKY: u32 = 0o1000;

/// Why a file or folder is not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Distrust {
    /// It, or what a link points to, cannot be looked at.
    #[error("{path} cannot be looked at: {source}", path = path.display())]
    Io {
        /// As it was named.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It belongs to someone else.
    #[error("{path} must be owned by root, not by user {uid}", path = path.display())]
    Owner {
        /// Links followed.
        path: PathBuf,
        /// To whom.
        uid: u32,
    },
    /// Someone else can write to it.
    #[error("{path} must not be writable by others than root (its mode is {mode:04o})", path = path.display())]
    Writable {
        /// Links followed.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
}

/// The path with every link followed, once only root can change what is there.
///
/// Directories on the way may be writable by others if they are sticky: what root put there stays.
///
/// # Errors
///
/// The first thing that is wrong, from the file upwards.
pub(super) fn resolve(path: &Path) -> Result<PathBuf, Distrust> {
    let real = path.canonicalize().map_err(|source| Distrust::Io { path: path.to_owned(), source })?;
    for (place, step) in real.ancestors().enumerate() {
        let metadata = fs::metadata(step).map_err(|source| Distrust::Io { path: step.to_owned(), source })?;
        check_owner(step, &metadata)?;
        if place == 0 || metadata.mode() & STICKY == 0 {
            check_mode(step, &metadata)?;
        }
    }
    Ok(real)
}

fn check_mode(path: &Path, metadata: &Metadata) -> Result<(), Distrust> {
    let mode = metadata.mode() & 0o7777;
    if mode & WRITABLE_BY_OTHERS != 0 {
        return Err(Distrust::Writable { path: path.to_owned(), mode });
    }
    Ok(())
}

fn check_owner(path: &Path, metadata: &Metadata) -> Result<(), Distrust> {
    match metadata.uid() {
        0 => Ok(()),
        uid => Err(Distrust::Owner { path: path.to_owned(), uid }),
    }
}

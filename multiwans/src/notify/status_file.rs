//! The status file: one line `iface:STATE` per WAN, for monitoring templates.
//!
//! Its default place, `/tmp`, is one where everybody may put files and links. So it is never opened under
//! its own name: each version is written to a new file with an unpredictable name beside it and renamed
//! over it. A reader sees the old version or the new one, whole; a link planted under its name is replaced,
//! not followed.

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::types::{IfName, LinkState};

/// Monitoring runs as some other user.
const MODE: u32 = 0o644;

/// The file of `daemon.statusFile`.
#[derive(Debug, Clone)]
pub struct StatusFile {
    path: PathBuf,
}

/// Why the status file could not be written or removed.
#[derive(Debug, thiserror::Error)]
pub enum StatusFileError {
    /// There is nowhere to put it.
    #[error("daemon.statusFile ({path}) must be in a directory that exists", path = path.display())]
    NoDirectory {
        /// The file.
        path: PathBuf,
    },
    /// Something else.
    #[error("daemon.statusFile ({path}) could not be {action}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// `written` or `removed`.
        action: &'static str,
        /// What the system says.
        source: io::Error,
    },
}

impl StatusFile {
    /// Names the file; touches nothing.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Replaces the file's content. Readable by all whatever the umask is.
    ///
    /// # Errors
    ///
    /// Where its directory is missing or cannot be written to, or the path is a directory. The old version is left
    /// as it was then.
    pub fn write(&self, states: &[(IfName, LinkState)]) -> Result<(), StatusFileError> {
        let mut text = String::new();
        for (iface, state) in states {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{iface}:{state}");
        }
        self.replace(text.as_bytes()).map_err(|source| {
            if source.kind() == io::ErrorKind::NotFound {
                StatusFileError::NoDirectory { path: self.path.clone() }
            } else {
                self.error("written", source)
            }
        })
    }

    /// Removes the file. One that is already gone is fine.
    ///
    /// # Errors
    ///
    /// Where its directory cannot be written to, or the path is a directory.
    pub fn remove(&self) -> Result<(), StatusFileError> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.error("removed", error)),
            _ => Ok(()),
        }
    }

    fn replace(&self, content: &[u8]) -> io::Result<()> {
        // A bare name has the empty path for its parent.
        let directory = match self.path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        // Created with O_EXCL, which follows no link; removed again should anything below fail.
        let mut file = tempfile::Builder::new().prefix(".multiwans.").tempfile_in(directory)?;
        file.write_all(content)?;
        // Through the descriptor: whatever happens to the name, it is this file.
        file.as_file().set_permissions(Permissions::from_mode(MODE))?;
        file.persist(&self.path)?;
        Ok(())
    }

    fn error(&self, action: &'static str, source: io::Error) -> StatusFileError {
        StatusFileError::Io { path: self.path.clone(), action, source }
    }
}

#[cfg(test)]
#[path = "status_file_tests.rs"]
mod tests;

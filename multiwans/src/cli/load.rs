//! Reads a configuration file from the disk: the only IO the configuration needs.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use thiserror::Error;

use super::lists::Lists;
use crate::config::{self, Config, LogLevel, Parsed, PasswordSource, Problems};

/// A million prefixes, one a line with a comment, take about 40 MiB; whatever is larger is not a
/// configuration (a log, a disk image, `/dev/zero`).
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The file cannot be opened or read.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The path is a directory.
    #[error("{}: must be a file, not a directory", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
    },
    /// The file is too large to be a configuration.
    #[error("{}: must be at most {MAX_BYTES} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file is not UTF-8.
    #[error("{}:{line}:{column}: must be UTF-8 text", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// Line of the first wrong byte, from 1.
        line: usize,
        /// Its column in characters, from 1.
        column: usize,
    },
    /// The text is no valid configuration.
    #[error(transparent)]
    Invalid(#[from] Problems),
}

/// The configuration of a daemon: its file, and what the command line has to say about it. Can be loaded
/// again and again.
#[derive(Debug)]
pub struct Origin {
    /// The file.
    pub path: PathBuf,
    /// `--socket`.
    pub socket: Option<PathBuf>,
    /// `--log-level`.
    pub log_level: Option<LogLevel>,
    /// The lists that the file names, as they were last read: what a list that cannot be read anew stays.
    pub lists: Mutex<Lists>,
}

impl Origin {
    /// Reads and validates it and its lists, with the command line's values in the place of the file's, and paths that are
    /// relative to the file's folder made absolute.
    ///
    /// # Errors
    /// As [`load`].
    pub fn load(&self) -> Result<Parsed, LoadError> {
        let mut parsed = load_without_lists(&self.path)?;
        let folder = folder(&self.path)?;
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        lists.read(&mut parsed, &folder)?;
        let config = &mut parsed.config;
        if let Some(socket) = &self.socket {
            config.daemon.control_socket.clone_from(socket);
        }
        if let Some(level) = self.log_level {
            config.daemon.log_level = level;
        }
        config.hooks.dir = folder.join(&config.hooks.dir);
        Ok(parsed)
    }
}

/// Reads and validates a configuration file, and the lists it names. Messages call it as `path` is written.
///
/// # Errors
/// One for a file that cannot be read as text; all problems at once of one that can, then of its lists.
pub fn load(path: &Path) -> Result<Parsed, LoadError> {
    let mut parsed = load_without_lists(path)?;
    // A list that was never read has nothing to keep, so all problems are errors.
    Lists::default().read(&mut parsed, &folder(path)?)?;
    Ok(parsed)
}

/// As [`load`], but the lists stay empty: for who wants other things of the configuration.
pub(super) fn load_without_lists(path: &Path) -> Result<Parsed, LoadError> {
    let text = read(path)?;
    Ok(config::parse(&text, &path.display().to_string())?)
}

/// A warning where anybody may read a file with a password in it. Its group may: it is the one of those who
/// look after the router.
pub(super) fn open_password(path: &Path, config: &Config) -> Option<String> {
    let login = config.email.as_ref()?.login.as_ref()?;
    let inline = matches!(login.password, PasswordSource::Inline(_));
    let metadata = fs::metadata(path).ok().filter(|file| inline && file.is_file())?;
    let mode = metadata.permissions().mode() & 0o777;
    (mode & 0o004 != 0).then(|| {
        format!(
            "{}: must not be readable by others, it holds email.password; its mode is {mode:04o}",
            path.display()
        )
    })
}

/// The folder that paths in the configuration are relative to.
fn folder(path: &Path) -> Result<PathBuf, LoadError> {
    let file = std::path::absolute(path)
        .map_err(|source| LoadError::Unreadable { path: path.to_owned(), source })?;
    Ok(file.parent().unwrap_or(Path::new("/")).to_owned())
}

fn read(path: &Path) -> Result<String, LoadError> {
    let unreadable = |source| LoadError::Unreadable { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    if file.metadata().map_err(unreadable)?.is_dir() {
        return Err(LoadError::Directory { path: path.to_owned() });
    }
    // A pipe (`-c <(generate)`) has no size beforehand, so the limit is on what is read.
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if u64::try_from(bytes.len()).is_ok_and(|len| len > MAX_BYTES) {
        return Err(LoadError::TooLarge { path: path.to_owned() });
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let valid = String::from_utf8_lossy(valid);
        let last_line = valid.rsplit('\n').next().unwrap_or_default();
        LoadError::NotUtf8 {
            path: path.to_owned(),
            line: valid.matches('\n').count() + 1,
            column: last_line.chars().count() + 1,
        }
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn error(path: &Path) -> String {
        load(path).unwrap_err().to_string()
    }

    #[test]
    fn what_is_not_a_readable_text_gets_one_clear_line() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("none.yaml");
        assert_eq!(
            error(&missing),
            format!("{}: cannot be read: No such file or directory (os error 2)", missing.display())
        );
        assert_eq!(error(dir.path()), format!("{}: must be a file, not a directory", dir.path().display()));

        let binary = dir.path().join("binary.yaml");
        fs::write(&binary, b"company:\n  name: caf\xc3\xa9 \xe9\n").unwrap();
        assert_eq!(error(&binary), format!("{}:2:14: must be UTF-8 text", binary.display()));

        let empty = dir.path().join("empty.yaml");
        fs::write(&empty, "").unwrap();
        let line =
            format!("{}:1:1: the file is empty: at least one entry in WANS is required", empty.display());
        assert_eq!(error(&empty), line);
    }

    #[test]
    fn a_password_that_anybody_can_read_is_warned_of() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.yaml");
        let example = include_str!("../../../config.example.yaml");
        let elsewhere = example.replace(
            "
  password: ",
            "
  passwordFile: /etc/",
        );
        for (text, mode, odd) in [
            (example, 0o600, false),
            (example, 0o640, false),
            (example, 0o644, true),
            (&*elsewhere, 0o644, false),
        ] {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let told = open_password(&path, &load(&path).unwrap().config);
            let expected = format!(
                "{}: must not be readable by others, it holds email.password; its mode is 0644",
                path.display()
            );
            assert_eq!(told, odd.then_some(expected), "{mode:o}");
        }
    }

    #[test]
    fn an_endless_file_is_refused() {
        assert_eq!(error(Path::new("/dev/zero")), format!("/dev/zero: must be at most {MAX_BYTES} bytes"));
    }
}

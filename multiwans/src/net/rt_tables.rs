//! The names of our tables, for people who read `ip rule` and `ip route show table WAN2`.
//!
//! iproute2 reads every `*.conf` in `rt_tables.d`; one file there is ours, and nobody else's is touched.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use super::Error;
use super::netns::Namespace;
use super::undo::write_atomically;
use crate::types::WanMark;

/// Our file.
#[derive(Debug, Clone)]
pub(super) struct TableNames {
    path: PathBuf,
}

impl TableNames {
    /// `multiwans.conf`; a daemon in another namespace than process 1 shares the directory with that one and has a
    /// file of its own.
    pub(super) fn new(directory: &Path, namespace: &Namespace) -> Self {
        let name = match namespace.init {
            true => "multiwans.conf".to_owned(),
            false => format!("multiwans-{}.conf", namespace.inode),
        };
        Self { path: directory.join(name) }
    }

    /// The file's path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The directories that have to be made for it, outermost first.
    pub(super) fn missing_directories(&self) -> Vec<PathBuf> {
        let mut missing: Vec<_> = self
            .path
            .ancestors()
            .skip(1)
            .take_while(|directory| !directory.as_os_str().is_empty() && !directory.exists())
            .map(Path::to_owned)
            .collect();
        missing.reverse();
        missing
    }

    /// Writes the names; `false`: they were right.
    pub(super) fn ensure(&self, wans: impl Iterator<Item = WanMark>) -> Result<bool, Error> {
        let mut text = String::from("# Written by multiwans; removed when it stops.\n");
        for wan in wans {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{}\t{}", wan.table(), wan.table_name());
        }
        if std::fs::read_to_string(&self.path).is_ok_and(|standing| standing == text) {
            return Ok(false);
        }
        if let Some(directory) = self.path.parent() {
            std::fs::create_dir_all(directory).map_err(|e| Error::file("create", directory, e))?;
        }
        write_atomically(&self.path, text.as_bytes(), 0o644)?;
        Ok(true)
    }

    /// Removes the file, and of `directories` (those we made) the ones that are empty now.
    pub(super) fn remove(&self, directories: &[PathBuf]) -> Result<(), Error> {
        match std::fs::remove_file(&self.path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(Error::file("remove", &self.path, e));
            }
            _ => {}
        }
        for directory in directories.iter().rev() {
            // Somebody else's file in it by now: it stays.
            let _ = std::fs::remove_dir(directory);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path, init: bool) -> TableNames {
        TableNames::new(directory, &Namespace { inode: 77, cookie: 1, init })
    }

    #[test]
    fn written_once_and_removed_with_its_directories() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("iproute2/rt_tables.d");
        let names = names(&directory, true);
        let made = names.missing_directories();
        assert_eq!(made, [root.path().join("iproute2"), directory.clone()]);
        let wans = || [1, 7].into_iter().filter_map(WanMark::new);
        assert!(names.ensure(wans()).unwrap());
        assert!(!names.ensure(wans()).unwrap());
        let text = std::fs::read_to_string(directory.join("multiwans.conf")).unwrap();
        assert!(text.ends_with("\n1\tWAN1\n7\tWAN7\n"), "{text}");
        names.remove(&made).unwrap();
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
        names.remove(&made).unwrap();
    }

    #[test]
    fn other_files_keep_the_directory() {
        let root = tempfile::tempdir().unwrap();
        let names = names(&root.path().join("d"), false);
        let made = names.missing_directories();
        names.ensure(std::iter::empty()).unwrap();
        std::fs::write(root.path().join("d/other.conf"), "9 nine\n").unwrap();
        assert!(names.path().ends_with("multiwans-77.conf"));
        names.remove(&made).unwrap();
        assert_eq!(std::fs::read_dir(root.path().join("d")).unwrap().count(), 1);
    }
}

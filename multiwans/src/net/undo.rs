//! What has to be put back at stop and cannot carry a mark of ours, kept in a file so that it survives a crash.
//!
//! Written before the change it undoes: a crash in between costs an undo of something that never happened, and every
//! undo looks first whether it still applies.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use netlink_packet_core::{Emitable, Parseable};
use netlink_packet_route::route::RouteMessage;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Error;
use super::netns::Namespace;
use crate::types::IfName;

/// The contents of the journal.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Journal {
    /// [`Namespace::cookie`]: the file of a namespace that is gone says nothing about the one that has its inode now.
    namespace: u64,
    /// The main table's default route that ours stands in for.
    #[serde(default)]
    pub(super) default_route: Option<Original>,
    /// `rp_filter` values before ours.
    #[serde(default)]
    pub(super) rp_filter: BTreeMap<IfName, u8>,
    /// Where rule ranges of ours began; more than one after a crash and a new configuration.
    #[serde(default)]
    pub(super) rule_priorities: BTreeSet<u32>,
    /// Directories made for the table names, outermost first.
    #[serde(default)]
    pub(super) directories: Vec<PathBuf>,
}

/// A route as the kernel dumped it: in the file, the message's bytes in hexadecimal.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Original(pub(super) RouteMessage);

impl Serialize for Original {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut bytes = vec![0; self.0.buffer_len()];
        self.0.emit(&mut bytes);
        serializer.serialize_str(&bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    }
}

impl<'de> Deserialize<'de> for Original {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let byte = |pair: &[u8]| {
            let digit = |c: u8| char::from(c).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            match pair {
                [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
                _ => None,
            }
        };
        let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(byte).collect();
        let bytes = bytes.ok_or_else(|| serde::de::Error::custom("default_route must be hexadecimal"))?;
        RouteMessage::parse(bytes.as_slice()).map(Self).map_err(serde::de::Error::custom)
    }
}

/// The journal and its file.
#[derive(Debug)]
pub(super) struct Undo {
    path: PathBuf,
    journal: Journal,
    /// The file says what `journal` says.
    written: bool,
}

impl Undo {
    /// Takes up what an earlier run left.
    pub(super) fn open(directory: &Path, namespace: &Namespace) -> Self {
        let path = directory.join(format!("undo-{}.json", namespace.inode));
        let found = match std::fs::read(&path) {
            Ok(bytes) => match serde_json::from_slice::<Journal>(&bytes) {
                Ok(journal) if journal.namespace == namespace.cookie => Some(journal),
                Ok(_) => None,
                Err(e) => {
                    tracing::warn!("{}: unreadable, so an earlier run's changes stay: {e}", path.display());
                    None
                }
            },
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => {
                tracing::warn!("{}: unreadable, so an earlier run's changes stay: {e}", path.display());
                None
            }
        };
        let written = found.is_some();
        let journal = found.unwrap_or_else(|| Journal { namespace: namespace.cookie, ..Journal::default() });
        Self { path, journal, written }
    }

    pub(super) fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Changes the journal, and its file where that made a difference.
    pub(super) fn update(&mut self, change: impl FnOnce(&mut Journal)) -> Result<(), Error> {
        let mut journal = self.journal.clone();
        change(&mut journal);
        if self.written && journal == self.journal {
            return Ok(());
        }
        if let Some(directory) = self.path.parent() {
            let made = std::fs::DirBuilder::new().recursive(true).mode(0o755).create(directory);
            made.map_err(|e| Error::file("create", directory, e))?;
        }
        let text =
            serde_json::to_vec_pretty(&journal).map_err(|e| Error::file("write", &self.path, e.into()))?;
        write_atomically(&self.path, &text, 0o600)?;
        self.journal = journal;
        self.written = true;
        Ok(())
    }

    /// Everything is undone: removes the file, and its directory where nobody else uses it.
    pub(super) fn discard(&mut self) -> Result<(), Error> {
        match std::fs::remove_file(&self.path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(Error::file("remove", &self.path, e));
            }
            _ => {}
        }
        if let Some(directory) = self.path.parent() {
            let _ = std::fs::remove_dir(directory);
        }
        self.journal = Journal { namespace: self.journal.namespace, ..Journal::default() };
        self.written = false;
        Ok(())
    }
}

/// Puts a whole new file in the place of `path`, never through a link that stands there.
pub(super) fn write_atomically(path: &Path, contents: &[u8], mode: u32) -> Result<(), Error> {
    let failed = |e| Error::file("write", path, e);
    let directory = path.parent().unwrap_or(Path::new("/"));
    let mut file = tempfile::Builder::new().prefix(".multiwans-").tempfile_in(directory).map_err(failed)?;
    io::Write::write_all(&mut file, contents).map_err(failed)?;
    // Set here rather than at creation: the umask has no say.
    file.as_file().set_permissions(std::fs::Permissions::from_mode(mode)).map_err(failed)?;
    file.persist(path).map_err(|e| failed(e.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteProtocol};

    use super::*;

    const HERE: Namespace = Namespace { inode: 77, cookie: 5, init: false };

    fn original() -> Original {
        let mut message = RouteMessage::default();
        message.header.protocol = RouteProtocol::Dhcp;
        message.attributes =
            vec![RouteAttribute::Gateway(RouteAddress::Inet([10, 0, 0, 1].into())), RouteAttribute::Oif(7)];
        // An address is only read as one in a message of its family.
        message.header.address_family = netlink_packet_route::AddressFamily::Inet;
        Original(message)
    }

    #[test]
    fn what_is_written_is_found_again_in_the_same_namespace_only() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("multiwans");
        let mut undo = Undo::open(&directory, &HERE);
        let change = |journal: &mut Journal| {
            journal.default_route = Some(original());
            journal.rp_filter.insert(IfName::new("eth0").unwrap(), 1);
        };
        undo.update(change).unwrap();
        let file = directory.join("undo-77.json");
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(directory.metadata().unwrap().permissions().mode() & 0o777, 0o755);

        let mut again = Undo::open(&directory, &HERE);
        assert_eq!(again.journal(), undo.journal());
        assert_eq!(again.journal().default_route, Some(original()));
        let elsewhere = Undo::open(&directory, &Namespace { cookie: 6, ..HERE });
        assert_eq!(elsewhere.journal().default_route, None);

        again.discard().unwrap();
        assert!(!directory.exists());
        again.discard().unwrap();
    }

    #[test]
    fn a_broken_file_is_no_reason_not_to_start() {
        let root = tempfile::tempdir().unwrap();
        for text in ["", "{", r#"{"namespace":5,"default_route":"xyz"}"#] {
            std::fs::write(root.path().join("undo-77.json"), text).unwrap();
            let mut undo = Undo::open(root.path(), &HERE);
            assert_eq!(undo.journal().default_route, None);
            undo.update(|_| {}).unwrap();
        }
    }

    #[test]
    fn a_link_in_the_place_of_the_file_is_replaced() {
        let root = tempfile::tempdir().unwrap();
        let victim = root.path().join("victim");
        std::fs::write(&victim, "untouched").unwrap();
        let path = root.path().join("file");
        std::os::unix::fs::symlink(&victim, &path).unwrap();
        write_atomically(&path, b"new", 0o644).unwrap();
        assert_eq!(std::fs::read_to_string(victim).unwrap(), "untouched");
        assert_eq!(std::fs::read_to_string(path).unwrap(), "new");
    }
}

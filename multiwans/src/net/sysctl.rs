//! `rp_filter`: strict reverse-path filtering drops what comes in on a link that is not the default route's.
//!
//! Loose mode is enough (any route back will do), so nothing is switched off. The kernel takes the larger of `all`'s
//! and the interface's value (`IN_DEV_RPFILTER`): one write to the interface does it.

use std::io;
use std::path::{Path, PathBuf};

use super::Error;
use crate::types::IfName;

/// The source must be reachable through the interface the packet came in on.
const STRICT: u8 = 1;
/// The source must be reachable through some interface.
pub(super) const LOOSE: u8 = 2;

/// The `rp_filter` files of the calling thread's namespace.
#[derive(Debug, Clone)]
pub(super) struct RpFilter {
    /// `/proc/sys/net/ipv4/conf`.
    root: PathBuf,
}

impl RpFilter {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    fn path(&self, name: &str) -> PathBuf {
        // A path, not a sysctl's name: the dots of `eth0.100` are just letters here.
        self.root.join(name).join("rp_filter")
    }

    /// The interface's own value, where it is strict now; `None` where nothing is to be done.
    pub(super) fn strict(&self, iface: &IfName) -> Result<Option<u8>, Error> {
        let Some(own) = self.read(iface.as_str())? else { return Ok(None) };
        let all = self.read("all")?.unwrap_or(0);
        Ok((own.max(all) == STRICT).then_some(own))
    }

    /// Makes the interface loose.
    pub(super) fn loosen(&self, iface: &IfName) -> Result<(), Error> {
        self.write(iface.as_str(), LOOSE)
    }

    /// Writes `previous` back, if the value is still ours. `false`: it was left alone.
    pub(super) fn restore(&self, iface: &IfName, previous: u8) -> Result<bool, Error> {
        if self.read(iface.as_str())? != Some(LOOSE) {
            return Ok(false);
        }
        self.write(iface.as_str(), previous)?;
        Ok(true)
    }

    /// `None`: there is no such interface (any more).
    fn read(&self, name: &str) -> Result<Option<u8>, Error> {
        let path = self.path(name);
        match std::fs::read_to_string(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::file("read", path, e)),
            // Anything the kernel might show beside 0, 1 and 2 is not strict.
            Ok(text) => Ok(Some(text.trim().parse().unwrap_or(0))),
        }
    }

    fn write(&self, name: &str, value: u8) -> Result<(), Error> {
        let path = self.path(name);
        std::fs::write(&path, value.to_string()).map_err(|e| Error::file("write", path, e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(values: &[(&str, &str)]) -> (tempfile::TempDir, RpFilter) {
        let root = tempfile::tempdir().unwrap();
        for (name, value) in values {
            std::fs::create_dir(root.path().join(name)).unwrap();
            std::fs::write(root.path().join(name).join("rp_filter"), format!("{value}\n")).unwrap();
        }
        let filter = RpFilter::new(root.path());
        (root, filter)
    }

    fn iface(name: &str) -> IfName {
        IfName::new(name).unwrap()
    }

    #[test]
    fn strict_is_what_the_larger_value_says() {
        for (all, own, wanted) in [
            ("0", "0", None),
            ("0", "1", Some(1)),
            ("1", "0", Some(0)),
            ("1", "1", Some(1)),
            ("2", "1", None),
            ("1", "2", None),
        ] {
            let (_root, filter) = conf(&[("all", all), ("eth0.100", own)]);
            assert_eq!(filter.strict(&iface("eth0.100")).unwrap(), wanted, "{all} {own}");
        }
    }

    #[test]
    fn only_our_own_value_is_taken_back() {
        let (root, filter) = conf(&[("all", "0"), ("eth0", "1")]);
        filter.loosen(&iface("eth0")).unwrap();
        assert!(filter.restore(&iface("eth0"), 1).unwrap());
        std::fs::write(root.path().join("eth0/rp_filter"), "0\n").unwrap();
        assert!(!filter.restore(&iface("eth0"), 1).unwrap());
        assert!(!filter.restore(&iface("gone"), 1).unwrap());
        assert_eq!(filter.strict(&iface("gone")).unwrap(), None);
    }
}

//! What can go wrong between us and the kernel.

use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use super::Change;
use crate::types::{IfName, WanMark};

/// One thing that could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No netlink socket could be had.
    #[error("cannot open a netlink socket: {0}")]
    Socket(#[source] io::Error),
    /// The kernel refused a request.
    #[error("cannot {doing}: {source}")]
    Refused {
        /// What was asked for.
        doing: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A WAN's route could not be set because its interface is down or gone.
    #[error("cannot route through WAN {wan}: its interface {iface} is down or gone")]
    InterfaceDown {
        /// Whose route.
        wan: WanMark,
        /// Its interface.
        iface: IfName,
    },
    /// A WAN's route could not be set because its address is on no interface.
    #[error("cannot route through WAN {wan}: its address {ip} is not on interface {iface}")]
    NoAddress {
        /// Whose route.
        wan: WanMark,
        /// The address its route would prefer.
        ip: Ipv4Addr,
        /// Its interface.
        iface: IfName,
    },
    /// A WAN's route could not be set because the kernel knows no way to its gateway.
    #[error("cannot route through WAN {wan}: its gateway {gateway} cannot be reached on interface {iface}")]
    GatewayUnreachable {
        /// Whose route.
        wan: WanMark,
        /// Its gateway.
        gateway: Ipv4Addr,
        /// Its interface.
        iface: IfName,
    },
    /// A file could not be read or written.
    #[error("cannot {doing} {}: {source}", path.display())]
    File {
        /// `read`, `write`, …
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Error {
    pub(super) fn refused(doing: impl Into<String>, source: io::Error) -> Self {
        Self::Refused { doing: doing.into(), source }
    }

    pub(super) fn file(doing: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::File { doing, path: path.into(), source }
    }
}

/// Some of the kernel's state could not be brought to what it should be. The rest was: one dead interface does not
/// keep the other links from being routed.
#[derive(Debug)]
pub struct ApplyError {
    /// What was changed nevertheless.
    pub done: Vec<Change>,
    /// What could not be, at least one.
    pub failures: Vec<Error>,
}

impl fmt::Display for ApplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, failure) in self.failures.iter().enumerate() {
            write!(f, "{}{failure}", if n == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

impl std::error::Error for ApplyError {}

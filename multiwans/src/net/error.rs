//! What can go wrong between us and the kernel.

use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use super::Change;
use crate::engine::WanLabel;

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
    #[error("cannot route through {wan}: its interface is down or gone")]
    InterfaceDown {
        /// Whose route.
        wan: WanLabel,
    },
    /// A WAN's route could not be set because its address is on no interface.
    #[error("cannot route through {wan}: its interface lacks the address {ip}")]
    NoAddress {
        /// Whose route.
        wan: WanLabel,
        /// The address its route would prefer.
        ip: Ipv4Addr,
    },
    /// A WAN's route could not be set because the kernel knows no way to its gateway.
    #[error("cannot route through {wan}: its gateway {gateway} cannot be reached on its interface")]
    GatewayUnreachable {
        /// Whose route.
        wan: WanLabel,
        /// Its gateway.
        gateway: Ipv4Addr,
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

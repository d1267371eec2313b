//! The lab's map: which namespaces there are, and their addresses.
//!
//! ```text
//!  client 192.168.50.2 ── eth0 ┐                ┌ eth1 10.0.1.2/24 ── 10.0.1.1 isp1 100.64.1.1 ── 100.64.1.2 ┐
//!                              ├── router ──────┤                                                            ├ internet
//!  lan2   192.168.60.2 ── lan2 ┘ (masquerades)  └ eth2 10.0.2.2/24 ── 10.0.2.1 isp2 100.64.2.1 ── 100.64.2.2 ┘
//! ```
//! An ISP forwards only what comes from its own customer's addresses, as real ones do: an answer that
//! leaves by the wrong link does not arrive.

use std::fmt;
use std::net::Ipv4Addr;

/// The client's address in the LAN.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 168, 50, 2);
/// Another address of the client, for filters on sources.
pub const CLIENT_SECOND: Ipv4Addr = Ipv4Addr::new(192, 168, 50, 3);
/// The router's address in the LAN.
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 168, 50, 1);
/// The host in the second LAN.
pub const LAN2_HOST: Ipv4Addr = Ipv4Addr::new(192, 168, 60, 2);
/// The router's address in the second LAN.
pub const LAN2_ROUTER: Ipv4Addr = Ipv4Addr::new(192, 168, 60, 1);

/// The internet host's main address.
pub const INTERNET: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// The internet host's other addresses, in three networks.
pub const INTERNET_OTHERS: [Ipv4Addr; 4] = [
    Ipv4Addr::new(203, 0, 113, 11),
    Ipv4Addr::new(198, 51, 100, 10),
    Ipv4Addr::new(198, 51, 100, 11),
    Ipv4Addr::new(192, 0, 2, 10),
];

/// A place in the lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ns {
    /// The host in the LAN.
    Client,
    /// The host in the second LAN; only with [`second_lan`](crate::LabBuilder::second_lan).
    Lan2,
    /// Where the daemon runs.
    Router,
    /// The provider of the WAN of this number, from 1.
    Isp(u8),
    /// The host that everyone talks to.
    Internet,
}

impl fmt::Display for Ns {
    /// The end of the namespace's name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client => write!(f, "cli"),
            Self::Lan2 => write!(f, "lan2"),
            Self::Router => write!(f, "rtr"),
            Self::Isp(k) => write!(f, "isp{k}"),
            Self::Internet => write!(f, "inet"),
        }
    }
}

/// The router's interface to an ISP.
#[must_use]
pub fn wan_iface(k: u8) -> String {
    format!("eth{k}")
}

/// The router's address at an ISP; what the internet sees of flows that leave there.
#[must_use]
pub fn wan_ip(k: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, k, 2)
}

/// The ISP's gateway.
#[must_use]
pub fn gateway(k: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, k, 1)
}

/// The ISP's address towards the internet host.
pub(crate) fn isp_uplink(k: u8) -> Ipv4Addr {
    Ipv4Addr::new(100, 64, k, 1)
}

/// The internet host's address towards the ISP.
pub(crate) fn internet_link(k: u8) -> Ipv4Addr {
    Ipv4Addr::new(100, 64, k, 2)
}

/// The internet host's own addresses.
pub fn internet_addresses() -> impl Iterator<Item = Ipv4Addr> {
    std::iter::once(INTERNET).chain(INTERNET_OTHERS)
}

//! What a mail tells of the router it comes from.

use std::fs;
use std::time::Duration;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

/// The router, at the moment a mail is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Router {
    /// Its host name.
    pub hostname: String,
    /// `interface: address/prefix length` of every IPv4 address on an interface that is up.
    pub addresses: Vec<String>,
    /// Since it was started; `None`: not known.
    pub uptime: Option<Duration>,
}

impl Router {
    /// Looks. What cannot be found out is left out: a mail without it is still a mail.
    pub fn look() -> Self {
        Self { hostname: hostname(), addresses: addresses(), uptime: uptime() }
    }
}

/// The host name; `localhost` where it has none.
pub(super) fn hostname() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    // "(none)" is the kernel's name for a host that nobody named.
    match name.trim() {
        "" | "(none)" => "localhost".to_owned(),
        name => name.chars().filter(|c| !c.is_control()).collect(),
    }
}

fn addresses() -> Vec<String> {
    let mut addresses: Vec<String> = getifaddrs()
        .into_iter()
        .flatten()
        .filter(|entry| {
            entry.flags.contains(InterfaceFlags::IFF_UP)
                && !entry.flags.contains(InterfaceFlags::IFF_LOOPBACK)
        })
        .filter_map(|entry| {
            let address = entry.address?.as_sockaddr_in()?.ip();
            let mask = entry.netmask?.as_sockaddr_in()?.ip();
            Some(format!("{}: {address}/{}", entry.interface_name, mask.to_bits().count_ones()))
        })
        .collect();
    addresses.sort();
    addresses
}

fn uptime() -> Option<Duration> {
    let text = fs::read_to_string("/proc/uptime").ok()?;
    let seconds: f64 = text.split_whitespace().next()?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

//! What netlink says of a WAN's interface, held against what the configuration wants of it.

use std::fmt;
use std::net::Ipv4Addr;

use super::event::{Binding, Interface};
use crate::types::IfName;

/// What of the configuration an interface has to meet before a link is worth probing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Requirement {
    /// `WANS[].iface`.
    pub(super) iface: IfName,
    /// `WANS[].ip`.
    pub(super) address: Ipv4Addr,
    /// `WANS[].mask`.
    pub(super) prefix_len: u8,
}

impl Requirement {
    /// The interface of that name, where there is one.
    pub(super) fn find<'a>(&self, interfaces: &'a [Interface]) -> Option<&'a Interface> {
        interfaces.iter().find(|interface| interface.name == self.iface)
    }

    /// What the probes bind to, or the first thing that is wrong, from the ground up: a missing address
    /// is not worth telling of an interface without a carrier.
    pub(super) fn check(&self, interface: Option<&Interface>) -> Result<Binding, Fault> {
        let Some(interface) = interface else {
            return Err(Fault::Missing);
        };
        if !interface.up {
            return Err(Fault::Down);
        }
        if !interface.carrier {
            return Err(Fault::NoCarrier);
        }
        // Primary or secondary: the source address of our packets is ours to choose, so either works.
        if !interface.addresses.contains(&(self.address, self.prefix_len)) {
            return Err(Fault::Address {
                wanted: (self.address, self.prefix_len),
                found: interface.addresses.clone(),
            });
        }
        Ok(Binding { index: interface.index, iface: interface.name.clone(), source: self.address })
    }
}

/// Why an interface cannot carry its link, whatever the probes would say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// No interface of that name.
    Missing,
    /// Not `IFF_UP`.
    Down,
    /// Not `IFF_LOWER_UP`.
    NoCarrier,
    /// Without the configured address.
    Address {
        /// As configured.
        wanted: (Ipv4Addr, u8),
        /// What is there instead.
        found: Vec<(Ipv4Addr, u8)>,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("the interface does not exist"),
            Self::Down => f.write_str("the interface is down"),
            Self::NoCarrier => f.write_str("no carrier"),
            Self::Address { wanted: (address, prefix_len), found } => {
                write!(f, "the interface lacks the address {address}/{prefix_len}; it has ")?;
                let mut separator = "";
                for (address, prefix_len) in found {
                    write!(f, "{separator}{address}/{prefix_len}")?;
                    separator = ", ";
                }
                if found.is_empty() { f.write_str("none") } else { Ok(()) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::IfIndex;

    fn requirement() -> Requirement {
        Requirement {
            iface: IfName::new("eth1").unwrap(),
            address: Ipv4Addr::new(10, 0, 1, 2),
            prefix_len: 24,
        }
    }

    fn interface() -> Interface {
        Interface {
            index: IfIndex(4),
            name: IfName::new("eth1").unwrap(),
            up: true,
            carrier: true,
            loopback: false,
            port: false,
            addresses: vec![(Ipv4Addr::new(10, 0, 1, 9), 24), (Ipv4Addr::new(10, 0, 1, 2), 24)],
        }
    }

    fn check(change: impl FnOnce(&mut Interface)) -> Result<Binding, String> {
        let mut interface = interface();
        change(&mut interface);
        let interfaces = [interface];
        let requirement = requirement();
        requirement.check(requirement.find(&interfaces)).map_err(|fault| fault.to_string())
    }

    #[test]
    fn a_secondary_address_will_do() {
        let binding = check(|_| ()).unwrap();
        assert_eq!(binding.index, IfIndex(4));
        assert_eq!(binding.iface.as_str(), "eth1");
        assert_eq!(binding.source, Ipv4Addr::new(10, 0, 1, 2));
    }

    #[test]
    fn the_first_fault_from_the_ground_up_is_told() {
        let told = |change: fn(&mut Interface)| check(change).unwrap_err();
        assert_eq!(told(|i| i.name = IfName::new("eth2").unwrap()), "the interface does not exist");
        assert_eq!(
            told(|i| {
                i.up = false;
                i.carrier = false;
                i.addresses.clear();
            }),
            "the interface is down"
        );
        assert_eq!(
            told(|i| {
                i.carrier = false;
                i.addresses.clear();
            }),
            "no carrier"
        );
        assert_eq!(told(|i| i.addresses.clear()), "the interface lacks the address 10.0.1.2/24; it has none");
        assert_eq!(
            told(|i| i.addresses[1].1 = 30),
            "the interface lacks the address 10.0.1.2/24; it has 10.0.1.9/24, 10.0.1.2/30"
        );
    }
}

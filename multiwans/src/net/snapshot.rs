//! The interfaces as the engine wants to see them, from a dump of links and one of addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::rtnl::Rtnl;
use crate::engine::event::Interface;
use crate::types::{IfIndex, IfName};

/// Every interface of the namespace, by index.
pub(super) async fn interfaces(rtnl: &mut Rtnl) -> io::Result<Vec<Interface>> {
    let mut query = LinkMessage::default();
    // Counters are half of a link's message, and nobody reads them here.
    query.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    let links = rtnl.dump(RouteNetlinkMessage::GetLink(query)).await?;
    let mut query = AddressMessage::default();
    query.header.family = AddressFamily::Inet;
    let addresses = rtnl.dump(RouteNetlinkMessage::GetAddress(query)).await?;
    let links = links.into_iter().filter_map(|m| match m {
        RouteNetlinkMessage::NewLink(link) => Some(link),
        _ => None,
    });
    let addresses = addresses.into_iter().filter_map(|m| match m {
        RouteNetlinkMessage::NewAddress(address) => Some(address),
        _ => None,
    });
    Ok(assemble(links.collect(), addresses.collect()))
}

fn assemble(links: Vec<LinkMessage>, addresses: Vec<AddressMessage>) -> Vec<Interface> {
    let vrfs: BTreeSet<u32> =
        links.iter().filter(|l| kind(l) == Some(&InfoKind::Vrf)).map(|l| l.header.index).collect();

    // The kernel lists an interface's addresses in their order, but those of several prefixes mixed: all primary ones
    // come before all secondary ones here. The sort is stable.
    let mut by_link: BTreeMap<u32, Vec<(bool, Ipv4Addr, u8)>> = BTreeMap::new();
    for message in &addresses {
        if let Some(ip) = own_address(message) {
            let secondary = message.header.flags.contains(AddressHeaderFlags::Secondary);
            by_link.entry(message.header.index).or_default().push((secondary, ip, message.header.prefix_len));
        }
    }

    let mut interfaces: Vec<_> = links
        .iter()
        .filter_map(|link| {
            let name = link.attributes.iter().find_map(|a| match a {
                LinkAttribute::IfName(name) => IfName::new(name),
                _ => None,
            })?;
            let master = link.attributes.iter().find_map(|a| match a {
                LinkAttribute::Controller(index) if *index != 0 => Some(*index),
                _ => None,
            });
            let flags = link.header.flags;
            let mut own = by_link.remove(&link.header.index).unwrap_or_default();
            own.sort_by_key(|(secondary, ..)| *secondary);
            Some(Interface {
                index: IfIndex(link.header.index),
                name,
                up: flags.contains(LinkFlags::Up),
                carrier: flags.contains(LinkFlags::LowerUp),
                loopback: flags.contains(LinkFlags::Loopback),
                // Every kind of master but a VRF (bridge, bond, team, Open vSwitch, HSR, …) takes the packets of its ports
                // before layer 3 sees them.
                port: master.is_some_and(|master| !vrfs.contains(&master)),
                addresses: own.into_iter().map(|(_, ip, prefix)| (ip, prefix)).collect(),
            })
        })
        .collect();
    interfaces.sort_by_key(|interface| interface.index);
    interfaces
}

fn kind(link: &LinkMessage) -> Option<&InfoKind> {
    link.attributes.iter().find_map(|a| match a {
        LinkAttribute::LinkInfo(infos) => infos.iter().find_map(|info| match info {
            LinkInfo::Kind(kind) => Some(kind),
            _ => None,
        }),
        _ => None,
    })
}

/// On a point-to-point link IFA_ADDRESS is the peer's; IFA_LOCAL is ours on every kind of link.
fn own_address(message: &AddressMessage) -> Option<Ipv4Addr> {
    let find = |local: bool| {
        message.attributes.iter().find_map(|a| match a {
            AddressAttribute::Local(IpAddr::V4(ip)) if local => Some(*ip),
            AddressAttribute::Address(IpAddr::V4(ip)) if !local => Some(*ip),
            _ => None,
        })
    };
    find(true).or_else(|| find(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, more: Vec<LinkAttribute>) -> LinkMessage {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.attributes = vec![LinkAttribute::IfName(name.into())];
        link.attributes.extend(more);
        link
    }

    fn of_kind(kind: InfoKind) -> LinkAttribute {
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)])
    }

    fn address(index: u32, ip: &str, prefix: u8, secondary: bool) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.index = index;
        message.header.prefix_len = prefix;
        if secondary {
            message.header.flags = AddressHeaderFlags::Secondary;
        }
        message.attributes = vec![AddressAttribute::Local(ip.parse().unwrap())];
        message
    }

    #[test]
    fn a_port_is_what_has_a_master_that_is_no_vrf() {
        let links = vec![
            link(5, "br0", vec![of_kind(InfoKind::Bridge)]),
            link(6, "red", vec![of_kind(InfoKind::Vrf)]),
            link(1, "eth0", vec![LinkAttribute::Controller(5)]),
            link(2, "eth1", vec![LinkAttribute::Controller(6)]),
            link(3, "eth2", vec![]),
            link(4, "eth3", vec![LinkAttribute::Controller(99)]),
        ];
        let ports: Vec<_> =
            assemble(links, vec![]).into_iter().map(|i| (i.name.to_string(), i.port)).collect();
        let wanted = [
            ("eth0", true),
            ("eth1", false),
            ("eth2", false),
            ("eth3", true),
            ("br0", false),
            ("red", false),
        ];
        assert_eq!(ports, wanted.map(|(name, port)| (name.to_owned(), port)));
    }

    #[test]
    fn primary_addresses_come_first_and_the_local_end_counts() {
        let mut peer = address(1, "10.9.9.1", 32, false);
        peer.attributes.insert(0, AddressAttribute::Address("10.9.9.2".parse().unwrap()));
        let addresses = vec![address(1, "10.0.0.2", 24, false), address(1, "10.0.0.3", 24, true), peer];
        let found = assemble(vec![link(1, "eth0", vec![])], addresses);
        let ip = |s: &str| s.parse::<Ipv4Addr>().unwrap();
        assert_eq!(found[0].addresses, [(ip("10.0.0.2"), 24), (ip("10.9.9.1"), 32), (ip("10.0.0.3"), 24)]);
    }
}

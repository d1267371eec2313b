//! Default routes: ours as a type, anybody's as netlink messages.

use std::fmt;
use std::io;
use std::net::Ipv4Addr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteNextHopFlags, RouteProtocol, RouteScope,
    RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::rtnl::Rtnl;
use super::{PROTOCOL, first_leaf};
use crate::types::{IfIndex, TableId};

/// A WAN's default route, as we write it: metric 0, type of service 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Via {
    /// The table it is in.
    pub table: TableId,
    /// The next hop.
    pub gateway: Ipv4Addr,
    /// The interface.
    pub oif: IfIndex,
    /// The source address it prefers.
    pub source: Ipv4Addr,
    /// The gateway is in no prefix of the interface and is to be taken as a neighbour all the same.
    pub onlink: bool,
}

impl fmt::Display for Via {
    /// As `ip route` prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let onlink = if self.onlink { " onlink" } else { "" };
        let Self { gateway, oif, source, .. } = self;
        let (dev, table) = (name(*oif), self.table.name());
        write!(f, "default via {gateway} dev {dev} src {source}{onlink} table {table}")
    }
}

impl Via {
    /// The netlink message that adds it.
    pub(super) fn message(&self) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.protocol = RouteProtocol::from(PROTOCOL);
        message.header.scope = RouteScope::Universe;
        message.header.kind = RouteType::Unicast;
        if self.onlink {
            message.header.flags = RouteFlags::Onlink;
        }
        message.attributes = vec![
            RouteAttribute::Table(self.table.0),
            RouteAttribute::Gateway(RouteAddress::Inet(self.gateway)),
            RouteAttribute::Oif(self.oif.0),
            RouteAttribute::PrefSource(RouteAddress::Inet(self.source)),
        ];
        message
    }

    /// Whether `message` is this route, written by us.
    pub(super) fn is(&self, message: &RouteMessage) -> bool {
        let source = message.attributes.iter().find_map(|a| match a {
            RouteAttribute::PrefSource(RouteAddress::Inet(ip)) => Some(*ip),
            _ => None,
        });
        is_ours(message)
            && table(message) == self.table
            && metric(message) == 0
            && leads(message, self) == Leads::There
            && source == Some(self.source)
            && (!self.onlink || message.header.flags.contains(RouteFlags::Onlink))
    }
}

/// Where a default route goes, compared with a WAN's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leads {
    /// Through its gateway on its interface, and nowhere else.
    There,
    /// Partly there (one of several next hops), or on its interface without a gateway.
    Along,
    /// Elsewhere.
    Elsewhere,
}

/// Compares where `message` goes with `wanted`.
pub(super) fn leads(message: &RouteMessage, wanted: &Via) -> Leads {
    if message.header.kind != RouteType::Unicast {
        return Leads::Elsewhere;
    }
    let hop = |attributes: &[RouteAttribute], oif: Option<u32>| {
        let gateway = attributes.iter().find_map(|a| match a {
            RouteAttribute::Gateway(RouteAddress::Inet(ip)) => Some(Some(*ip)),
            // A next hop of another family is somewhere else.
            RouteAttribute::Via(_) | RouteAttribute::Gateway(_) => Some(None),
            _ => None,
        });
        match gateway {
            _ if oif != Some(wanted.oif.0) => Leads::Elsewhere,
            None => Leads::Along,
            Some(gateway) if gateway == Some(wanted.gateway) => Leads::There,
            Some(_) => Leads::Elsewhere,
        }
    };
    for attribute in &message.attributes {
        if let RouteAttribute::MultiPath(hops) = attribute {
            let one = hops.iter().any(|h| hop(&h.attributes, Some(h.interface_index)) != Leads::Elsewhere);
            return if one { Leads::Along } else { Leads::Elsewhere };
        }
    }
    let oif = message.attributes.iter().find_map(|a| match a {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    });
    hop(&message.attributes, oif)
}

/// Whether we wrote it.
pub(super) fn is_ours(message: &RouteMessage) -> bool {
    u8::from(message.header.protocol) == PROTOCOL
}

/// Its metric.
pub(super) fn metric(message: &RouteMessage) -> u32 {
    let metric = message.attributes.iter().find_map(|a| match a {
        RouteAttribute::Priority(metric) => Some(*metric),
        _ => None,
    });
    metric.unwrap_or(0)
}

/// Its table.
pub(super) fn table(message: &RouteMessage) -> TableId {
    let table = message.attributes.iter().find_map(|a| match a {
        RouteAttribute::Table(table) => Some(TableId(*table)),
        _ => None,
    });
    table.unwrap_or(TableId(u32::from(message.header.table)))
}

/// Whether the interface it names is still there; one that names none has its own ways to tell.
pub(super) fn has_interface(message: &RouteMessage) -> bool {
    message.attributes.iter().all(|a| match a {
        RouteAttribute::Oif(index) => existing_name(IfIndex(*index)).is_some(),
        _ => true,
    })
}

/// For the log.
pub(super) fn describe(message: &RouteMessage) -> String {
    let mut text = String::from("default");
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Gateway(RouteAddress::Inet(ip)) => text += &format!(" via {ip}"),
            RouteAttribute::Oif(index) => text += &format!(" dev {}", name(IfIndex(*index))),
            RouteAttribute::Priority(metric) => text += &format!(" metric {metric}"),
            RouteAttribute::NhId(id) => text += &format!(" nhid {id}"),
            RouteAttribute::MultiPath(hops) => text += &format!(" over {} next hops", hops.len()),
            _ => {}
        }
    }
    // The crate's text for one that it does not know is `other(109)`.
    let protocol = match message.header.protocol {
        RouteProtocol::Other(number) => number.to_string(),
        known => known.to_string(),
    };
    text + &format!(" proto {protocol} table {}", table(message).name())
}

/// An interface's name, or, where it has none any more, its index.
fn name(index: IfIndex) -> String {
    existing_name(index).unwrap_or_else(|| index.to_string())
}

fn existing_name(index: IfIndex) -> Option<String> {
    let name = nix::net::if_::if_indextoname(index.0).ok().and_then(|name| name.into_string().ok());
    name.filter(|name| !name.is_empty())
}

/// The default routes of one table with type of service 0, in the order the kernel prefers them within a metric.
pub(super) fn defaults(wanted: TableId) -> io::Result<Vec<RouteMessage>> {
    let mut found = first_leaf::dump(wanted)?;
    found.retain(|m| is_default(m) && table(m) == wanted && m.header.tos == 0);
    Ok(found)
}

/// Our default routes in every table. The kernel looks at every route it has for that.
pub(super) async fn ours(rtnl: &mut Rtnl) -> io::Result<Vec<RouteMessage>> {
    let mut query = RouteMessage::default();
    query.header.address_family = AddressFamily::Inet;
    query.header.protocol = RouteProtocol::from(PROTOCOL);
    let answers = rtnl.dump(RouteNetlinkMessage::GetRoute(query)).await?;
    let ours = answers.into_iter().filter_map(|m| match m {
        RouteNetlinkMessage::NewRoute(route) if is_default(&route) && is_ours(&route) => Some(route),
        _ => None,
    });
    Ok(ours.collect())
}

fn is_default(message: &RouteMessage) -> bool {
    message.header.destination_prefix_length == 0 && message.header.address_family == AddressFamily::Inet
}

/// Adds a route before any other of the same metric, which stays: another program's route in one of our tables is
/// neither replaced nor in the way.
pub(super) async fn prepend(rtnl: &mut Rtnl, route: &Via) -> io::Result<()> {
    match rtnl.change(RouteNetlinkMessage::NewRoute(route.message()), NLM_F_CREATE).await {
        Err(e) if e.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        result => result,
    }
}

/// Puts a route in the place of the first one of its metric, or adds it where there is none.
pub(super) async fn replace(rtnl: &mut Rtnl, message: RouteMessage) -> io::Result<()> {
    rtnl.change(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_REPLACE).await
}

/// Deletes a route as it was dumped. That it is gone already is fine: the kernel takes an interface's routes with it.
pub(super) async fn delete(rtnl: &mut Rtnl, listed: &RouteMessage) -> io::Result<()> {
    match rtnl.change(RouteNetlinkMessage::DelRoute(writable(listed.clone())), 0).await {
        Err(e) if matches!(e.raw_os_error(), Some(libc::ESRCH | libc::ENODEV)) => Ok(()),
        result => result,
    }
}

/// A dumped route as the kernel takes it back: without the flags that tell the state of its link, and, where it uses a
/// nexthop object, without the copy of that object's contents.
pub(super) fn writable(mut message: RouteMessage) -> RouteMessage {
    message.header.flags &= RouteFlags::Onlink | RouteFlags::Pervasive;
    for attribute in &mut message.attributes {
        if let RouteAttribute::MultiPath(hops) = attribute {
            for hop in hops {
                hop.flags &= RouteNextHopFlags::Onlink | RouteNextHopFlags::Pervasive;
            }
        }
    }
    if message.attributes.iter().any(|a| matches!(a, RouteAttribute::NhId(_))) {
        message.header.flags = RouteFlags::empty();
        message.attributes.retain(|a| {
            !matches!(
                a,
                RouteAttribute::Oif(_)
                    | RouteAttribute::Gateway(_)
                    | RouteAttribute::Via(_)
                    | RouteAttribute::MultiPath(_)
                    | RouteAttribute::Encap(_)
                    | RouteAttribute::EncapType(_)
            )
        });
    }
    message.attributes.retain(|a| !matches!(a, RouteAttribute::CacheInfo(_)));
    message
}

//! Destinations that the kernel routes by a route of its own, before any of our rules for marks and
//! addresses is asked: the router itself, the main table without its default routes, and the tables of
//! rules that stand before ours.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::task::{Context, Poll};

use ipnet::Ipv4Net;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_proto::sys::{AsyncSocket, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};
use rtnetlink::MulticastGroup;

use super::rtnl::Rtnl;
use super::{Error, first_leaf, rules};
use crate::config::Config;
use crate::types::TableId;

/// `RT_TABLE_LOCAL`: the router's own addresses.
const LOCAL: TableId = TableId(255);

/// Where the kernel routes to without asking our rules for marks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Destinations {
    /// The router's own addresses, and the broadcast addresses of its networks.
    pub own: BTreeSet<Ipv4Addr>,
    /// All destinations, these among them; `None`: too many.
    pub specific: Option<BTreeSet<Ipv4Net>>,
}

/// Bytes of notifications the kernel keeps for us. None is looked at, so few will do.
const DATAGRAM: usize = 1 << 15;

/// A subscription to the routes and rules of the calling thread's network namespace.
pub struct SpecificRoutes {
    events: TokioSocket,
    rtnl: Rtnl,
    rule_priority: u32,
    buffer: Vec<u8>,
}

impl SpecificRoutes {
    /// Subscribes. Needs a tokio runtime.
    pub fn open(config: &Config) -> Result<Self, Error> {
        let mut events = <TokioSocket as AsyncSocket>::new(NETLINK_ROUTE).map_err(Error::Socket)?;
        let groups = [MulticastGroup::Ipv4Route, MulticastGroup::Ipv4Rule];
        let groups = groups.iter().fold(0, |mask, group| mask | 1 << (*group as u32 - 1));
        events.socket_mut().bind(&SocketAddr::new(0, groups)).map_err(Error::Socket)?;
        let rtnl = Rtnl::open().map_err(Error::Socket)?;
        let rule_priority = config.daemon.rule_priority;
        Ok(Self { events, rtnl, rule_priority, buffer: Vec::with_capacity(DATAGRAM) })
    }

    /// Reads them all; of `specific`, `None` where there are more than `limit`.
    pub async fn read(&mut self, limit: usize) -> Result<Destinations, Error> {
        let refused = |e| Error::refused("list the specific routes", e);
        let mut query = RuleMessage::default();
        query.header.family = AddressFamily::Inet;
        let rules = self.rtnl.dump(RouteNetlinkMessage::GetRule(query)).await.map_err(refused)?;
        let mut found = BTreeSet::new();
        let mut tables = BTreeSet::from([(LOCAL, false), (TableId::MAIN, false)]);
        for rule in rules {
            let RouteNetlinkMessage::NewRule(rule) = rule else { continue };
            if rules::priority(&rule) < self.rule_priority {
                match reach(&rule) {
                    Reach::Nothing => {}
                    Reach::Net(net) => drop(found.insert(net)),
                    Reach::Table(table) => drop(tables.insert((table, true))),
                }
            }
        }
        tables.retain(|(table, whole)| !(*whole && (*table == LOCAL || *table == TableId::MAIN)));
        let mut own = BTreeSet::new();
        // First, so that it is known however many routes the others have.
        let (local, others): (Vec<_>, Vec<_>) = tables.into_iter().partition(|(table, _)| *table == LOCAL);
        for (table, whole) in local.into_iter().chain(others) {
            // One more than the limit, so that too many are told from just enough.
            let routes = first_leaf::dump_while(table, |count, _| count <= limit).map_err(refused)?;
            if table == LOCAL {
                let hosts = routes.iter().filter_map(destination).filter(|net| net.prefix_len() == 32);
                own.extend(hosts.map(|net| net.addr()));
            }
            found.extend(routes.iter().filter_map(destination).filter(|net| whole || net.prefix_len() > 0));
            // Of equal destinations (several metrics) one counts; that they hide the end of a long table
            // is possible, hence the routes are counted, not the destinations.
            if routes.len() > limit || found.len() > limit {
                return Ok(Destinations { own, specific: None });
            }
        }
        Ok(Destinations { own, specific: Some(found) })
    }

    /// Waits for a change since the last call. A burst is told once.
    pub async fn changed(&mut self) -> Result<(), Error> {
        poll_fn(|cx| self.poll_changed(cx)).await.map_err(|e| Error::refused("listen to netlink", e))
    }

    fn poll_changed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut changed = false;
        loop {
            self.buffer.clear();
            match self.events.poll_recv(cx, &mut self.buffer) {
                Poll::Ready(Ok(())) => changed = true,
                // Notifications were dropped, so there were some.
                Poll::Ready(Err(e)) if e.raw_os_error() == Some(libc::ENOBUFS) => changed = true,
                Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                Poll::Pending if changed => return Poll::Ready(Ok(())),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// What a rule takes of the router's own packets that have neither source nor mark yet.
#[derive(Debug, PartialEq, Eq)]
enum Reach {
    Nothing,
    Net(Ipv4Net),
    Table(TableId),
}

fn reach(rule: &RuleMessage) -> Reach {
    let inverted = rule.header.flags.contains(RuleFlags::Invert);
    let (mut to, mut table, mut for_others) = (None, None, false);
    for attribute in &rule.attributes {
        match attribute {
            RuleAttribute::Destination(IpAddr::V4(ip)) => to = Ipv4Net::new(*ip, rule.header.dst_len).ok(),
            RuleAttribute::Table(value) => table = Some(TableId(*value)),
            RuleAttribute::FwMark(mark) => for_others |= *mark != 0,
            RuleAttribute::Iifname(name) => for_others |= name != "lo",
            RuleAttribute::Source(_) | RuleAttribute::Oifname(_) => for_others = true,
            RuleAttribute::L3MDev(on) => for_others |= on,
            _ => {}
        }
    }
    if for_others && !inverted || matches!(rule.header.action, RuleAction::Goto | RuleAction::Nop) {
        return Reach::Nothing;
    }
    match (to, table) {
        (Some(net), _) if !inverted => Reach::Net(net.trunc()),
        (_, Some(table)) if rule.header.action == RuleAction::ToTable && table.0 != 0 => Reach::Table(table),
        _ => Reach::Nothing,
    }
}

/// Its destination; a default route has none.
fn destination(route: &RouteMessage) -> Option<Ipv4Net> {
    let address = route.attributes.iter().find_map(|a| match a {
        RouteAttribute::Destination(RouteAddress::Inet(ip)) => Some(*ip),
        _ => None,
    });
    Ipv4Net::new(address.unwrap_or(Ipv4Addr::UNSPECIFIED), route.header.destination_prefix_length).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(attributes: Vec<RuleAttribute>, dst_len: u8, flags: RuleFlags) -> RuleMessage {
        let mut rule = RuleMessage::default();
        rule.header.action = RuleAction::ToTable;
        rule.header.dst_len = dst_len;
        rule.header.flags = flags;
        rule.attributes = attributes;
        rule
    }

    #[test]
    fn rules_of_others_reach_what_they_are_for() {
        let table = RuleAttribute::Table(52);
        let to = RuleAttribute::Destination(IpAddr::V4([100, 64, 0, 0].into()));
        let plain = RuleFlags::empty();
        let reached = |attributes, len, flags| reach(&rule(attributes, len, flags));
        assert_eq!(reached(vec![table.clone()], 0, plain), Reach::Table(TableId(52)));
        let net = "100.64.0.0/10".parse().unwrap();
        assert_eq!(reached(vec![table.clone(), to], 10, plain), Reach::Net(net));
        let marked = vec![table.clone(), RuleAttribute::FwMark(0xca6c)];
        assert_eq!(reached(marked.clone(), 0, plain), Reach::Nothing);
        assert_eq!(reached(marked, 0, RuleFlags::Invert), Reach::Table(TableId(52)));
        let forwarded = vec![table, RuleAttribute::Iifname("eth0".into())];
        assert_eq!(reached(forwarded, 0, plain), Reach::Nothing);
    }
}

//! Rules for what the router itself sends: ours as a type, and as netlink messages.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use netlink_packet_core::DefaultNla;
use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage, RulePortRange};
use netlink_packet_route::{AddressFamily, IpProtocol, RouteNetlinkMessage};

use super::PROTOCOL;
use super::rtnl::Rtnl;
use crate::config::PortRange;
use crate::types::TableId;

/// The kernel's name for where its own packets come in.
const LOOPBACK: &str = "lo";
/// What `suppress_prefixlength` is dumped as where a rule has none.
const NO_SUPPRESSION: u32 = u32::MAX;
/// `FRA_SPORT_MASK` and `FRA_DPORT_MASK` of linux/fib_rules.h, which the crate does not know yet. Kernels from 6.15 on
/// say one of all bits with each single port, asked for or not.
const PORT_MASKS: [u16; 2] = [28, 29];
const ALL_BITS: [u8; 2] = [0xff; 2];

/// One of these rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputRule {
    /// When the kernel asks it: lower first, equal ones in the order they were added.
    pub priority: u32,
    /// Which packets it is for.
    pub packets: Packets,
    /// What becomes of them.
    pub action: Action,
}

/// Which packets a rule is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packets {
    /// All but the router's own for which no application chose a source address or a mark.
    Decided,
    /// Those of all four.
    Of {
        /// Destination; `None`: any.
        to: Option<Ipv4Net>,
        /// IP protocol number; `None`: any.
        protocol: Option<u8>,
        /// Source port; `None`: any.
        sport: Option<PortRange>,
        /// Destination port; `None`: any.
        dport: Option<PortRange>,
    },
}

impl Packets {
    /// Every packet.
    pub const ALL: Self = Self::Of { to: None, protocol: None, sport: None, dport: None };

    /// Every packet to these destinations.
    pub const fn to(net: Ipv4Net) -> Self {
        Self::Of { to: Some(net), protocol: None, sport: None, dport: None }
    }
}

/// What becomes of a rule's packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// They are looked up there.
    Lookup(TableId),
    /// The rules up to this priority are not for them.
    Goto(u32),
    /// Nothing: a place to go to.
    Nop,
}

impl fmt::Display for OutputRule {
    /// As `ip rule` prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.priority)?;
        match &self.packets {
            Packets::Decided => write!(f, "not from 0.0.0.0 fwmark 0/0xffffffff iif lo")?,
            Packets::Of { to, protocol, sport, dport } => {
                write!(f, "from all")?;
                to.map_or(Ok(()), |net| write!(f, " to {net}"))?;
                protocol.map_or(Ok(()), |number| write!(f, " ipproto {number}"))?;
                sport.map_or(Ok(()), |ports| write!(f, " sport {}-{}", ports.first, ports.last))?;
                dport.map_or(Ok(()), |ports| write!(f, " dport {}-{}", ports.first, ports.last))?;
            }
        }
        match self.action {
            Action::Lookup(table) => write!(f, " lookup {}", table.name()),
            Action::Goto(priority) => write!(f, " goto {priority}"),
            Action::Nop => write!(f, " nop"),
        }
    }
}

impl OutputRule {
    /// The netlink message that adds it.
    fn message(&self) -> RuleMessage {
        let mut message = RuleMessage::default();
        message.header.family = AddressFamily::Inet;
        message.attributes = vec![
            RuleAttribute::Priority(self.priority),
            RuleAttribute::Protocol(RouteProtocol::from(PROTOCOL)),
        ];
        match self.action {
            Action::Lookup(table) => {
                message.header.action = RuleAction::ToTable;
                message.attributes.push(RuleAttribute::Table(table.0));
            }
            Action::Goto(priority) => {
                message.header.action = RuleAction::Goto;
                message.attributes.push(RuleAttribute::Goto(priority));
            }
            Action::Nop => message.header.action = RuleAction::Nop,
        }
        match &self.packets {
            Packets::Decided => {
                message.header.flags = RuleFlags::Invert;
                message.header.src_len = 32;
                message.attributes.extend([
                    RuleAttribute::Source(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
                    RuleAttribute::Iifname(LOOPBACK.to_owned()),
                    RuleAttribute::FwMask(u32::MAX), // of a mark of 0, which the kernel takes a missing one for
                ]);
            }
            Packets::Of { to, protocol, sport, dport } => {
                if let Some(net) = to {
                    message.header.dst_len = net.prefix_len();
                    message.attributes.push(RuleAttribute::Destination(IpAddr::V4(net.network())));
                }
                let ports = |range: &PortRange| RulePortRange { start: range.first, end: range.last };
                message.attributes.extend(protocol.map(|n| RuleAttribute::IpProtocol(IpProtocol::from(n))));
                message.attributes.extend(sport.as_ref().map(|r| RuleAttribute::SourcePortRange(ports(r))));
                message
                    .attributes
                    .extend(dport.as_ref().map(|r| RuleAttribute::DestinationPortRange(ports(r))));
            }
        }
        message
    }

    /// `None` for anything we would not have written.
    pub(super) fn parse(message: &RuleMessage) -> Option<Self> {
        let header = &message.header;
        // Whether an interface or the rule to go to is there changes nothing about the rule.
        let flags = header.flags - (RuleFlags::IifDetached | RuleFlags::OifDetached | RuleFlags::Unresolved);
        let (mut priority, mut table, mut goto) = (None, None, None);
        let (mut source, mut iif, mut mask) = (None, None, None);
        let (mut to, mut protocol, mut sport, mut dport) = (None, None, None, None);
        let ports = |range: &RulePortRange| PortRange { first: range.start, last: range.end };
        for attribute in &message.attributes {
            match attribute {
                RuleAttribute::Priority(value) => priority = Some(*value),
                RuleAttribute::Table(value) => table = Some(TableId(*value)),
                RuleAttribute::Goto(value) => goto = Some(*value),
                RuleAttribute::Protocol(_) | RuleAttribute::SuppressPrefixLen(NO_SUPPRESSION) => {}
                RuleAttribute::Source(IpAddr::V4(ip)) => source = Some((*ip, header.src_len)),
                RuleAttribute::Iifname(name) => iif = Some(name.as_str()),
                RuleAttribute::FwMask(value) => mask = Some(*value),
                RuleAttribute::Destination(IpAddr::V4(ip)) => {
                    to = Some(Ipv4Net::new(*ip, header.dst_len).ok()?);
                }
                RuleAttribute::IpProtocol(value) => protocol = Some(u8::from(*value)),
                RuleAttribute::SourcePortRange(range) => sport = Some(ports(range)),
                RuleAttribute::DestinationPortRange(range) => dport = Some(ports(range)),
                RuleAttribute::Other(other) if is_whole_port(other) => {}
                _ => return None,
            }
        }
        let action = match (header.action, goto) {
            (RuleAction::ToTable, None) => Action::Lookup(table?),
            (RuleAction::Goto, Some(priority)) => Action::Goto(priority),
            (RuleAction::Nop, None) => Action::Nop,
            _ => return None,
        };
        let packets = if flags == RuleFlags::Invert {
            let decided = source == Some((Ipv4Addr::UNSPECIFIED, 32))
                && iif == Some(LOOPBACK)
                && mask == Some(u32::MAX)
                && to.is_none()
                && protocol.is_none();
            decided.then_some(Packets::Decided)?
        } else {
            let plain = flags.is_empty() && source.is_none() && iif.is_none() && mask.is_none();
            plain.then_some(Packets::Of { to, protocol, sport, dport })?
        };
        Some(Self { priority: priority?, packets, action })
    }
}

/// Whether this says only that every bit of a port counts, as without it.
fn is_whole_port(attribute: &DefaultNla) -> bool {
    PORT_MASKS.iter().any(|kind| *attribute == DefaultNla::new(*kind, ALL_BITS.to_vec()))
}

/// Adds a rule behind all others of its priority, an equal one or not.
pub(super) async fn append(rtnl: &mut Rtnl, rule: &OutputRule) -> std::io::Result<()> {
    use netlink_packet_core::NLM_F_CREATE;
    rtnl.change(RouteNetlinkMessage::NewRule(rule.message()), NLM_F_CREATE).await
}

/// Deletes the first of our rules of a priority. The kernel takes what a request leaves out for "any", so
/// a rule cannot be told by its content from one that says more. That there is none is fine.
pub(super) async fn delete_first(rtnl: &mut Rtnl, priority: u32) -> std::io::Result<()> {
    let mut message = RuleMessage::default();
    message.header.family = AddressFamily::Inet;
    message.attributes =
        vec![RuleAttribute::Priority(priority), RuleAttribute::Protocol(RouteProtocol::from(PROTOCOL))];
    match rtnl.change(RouteNetlinkMessage::DelRule(message), 0).await {
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_survives_its_message() {
        let ports = |first, last| Some(PortRange { first, last });
        let packets = [
            Packets::Decided,
            Packets::ALL,
            Packets::to("10.0.0.0/8".parse().unwrap()),
            Packets::Of { to: None, protocol: Some(132), sport: ports(1, 9), dport: ports(80, 80) },
        ];
        for packets in packets {
            for action in [Action::Lookup(TableId(7)), Action::Goto(31_000), Action::Nop] {
                let rule = OutputRule { priority: 30_040, packets: packets.clone(), action };
                assert_eq!(OutputRule::parse(&rule.message()), Some(rule));
            }
        }
    }

    #[test]
    fn what_else_a_rule_says_makes_it_another_one() {
        let rule = OutputRule { priority: 30_040, packets: Packets::ALL, action: Action::Lookup(TableId(7)) };
        let mask = |kind, bytes: &[u8]| RuleAttribute::Other(DefaultNla::new(kind, bytes.to_vec()));
        let with = |extra| {
            let mut message = rule.message();
            message.attributes.push(extra);
            OutputRule::parse(&message)
        };
        for extra in [
            RuleAttribute::FwMark(1),
            RuleAttribute::Iifname("lo".into()),
            mask(28, &[0xff, 0]),
            mask(29, &[0xfe, 0xff]),
            mask(29, &[]),
            mask(25, &[0xff, 0xff]), // a DSCP
        ] {
            assert_eq!(with(extra), None);
        }
        for kind in PORT_MASKS {
            assert_eq!(with(mask(kind, &[0xff, 0xff])), Some(rule.clone()));
        }
    }
}

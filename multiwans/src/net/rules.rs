//! Policy routing rules: ours as a type, as netlink messages, and the difference between what is and what should be.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::rtnl::Rtnl;
use super::{PROTOCOL, RULE_PRIORITIES};
use crate::types::{FwMark, IfName, MarkMask, TableId};

/// One of our rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// When the kernel asks it: lower first.
    pub priority: u32,
    /// Which packets it is for.
    pub selector: Selector,
    /// Where they are looked up.
    pub table: TableId,
}

/// Which packets a rule is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// All, but default routes do not count as an answer (`suppress_prefixlength 0`).
    Specific,
    /// Those that came in on this interface, which need not exist.
    Iif(IfName),
    /// Those from this address.
    From(Ipv4Addr),
    /// The router's own whose socket is bound to this interface, which need not exist.
    Oif(IfName),
    /// Those that carry this mark under the mask.
    Mark {
        /// The mark.
        mark: FwMark,
        /// Its bits.
        mask: MarkMask,
    },
}

impl fmt::Display for Rule {
    /// As `ip rule` prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { priority, selector, .. } = self;
        let table = self.table.name();
        match selector {
            Selector::Specific => write!(f, "{priority}: from all lookup {table} suppress_prefixlength 0"),
            Selector::Iif(iface) => write!(f, "{priority}: from all iif {iface} lookup {table}"),
            Selector::From(ip) => write!(f, "{priority}: from {ip} lookup {table}"),
            Selector::Oif(iface) => write!(f, "{priority}: from all oif {iface} lookup {table}"),
            Selector::Mark { mark, mask } => {
                write!(f, "{priority}: from all fwmark {mark}/{mask} lookup {table}")
            }
        }
    }
}

/// What `suppress_prefixlength` is dumped as where a rule has none.
const NO_SUPPRESSION: u32 = u32::MAX;

impl Rule {
    /// The netlink message that adds it.
    fn message(&self) -> RuleMessage {
        let mut message = RuleMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.action = RuleAction::ToTable;
        message.attributes = vec![
            RuleAttribute::Priority(self.priority),
            RuleAttribute::Table(self.table.0),
            RuleAttribute::Protocol(RouteProtocol::from(PROTOCOL)),
        ];
        match &self.selector {
            Selector::Specific => message.attributes.push(RuleAttribute::SuppressPrefixLen(0)),
            Selector::Iif(iface) => message.attributes.push(RuleAttribute::Iifname(iface.to_string())),
            Selector::Oif(iface) => message.attributes.push(RuleAttribute::Oifname(iface.to_string())),
            Selector::From(ip) => {
                message.header.src_len = 32;
                message.attributes.push(RuleAttribute::Source(IpAddr::V4(*ip)));
            }
            Selector::Mark { mark, mask } => {
                message.attributes.extend([RuleAttribute::FwMark(mark.0), RuleAttribute::FwMask(mask.bits())])
            }
        }
        message
    }

    /// `None` for anything we would not have written: such a rule, if it is ours, is one of another version.
    fn parse(message: &RuleMessage) -> Option<Self> {
        let header = &message.header;
        // The kernel tells a missing interface in the flags; that changes nothing about the rule.
        let flags = header.flags - (RuleFlags::IifDetached | RuleFlags::OifDetached);
        if header.action != RuleAction::ToTable || !flags.is_empty() || header.tos != 0 || header.dst_len != 0
        {
            return None;
        }
        let (mut priority, mut table, mut selector) = (0, None, None);
        let (mut mark, mut mask) = (None, None);
        let mut select = |found| selector.replace(found).is_none();
        for attribute in &message.attributes {
            let understood = match attribute {
                RuleAttribute::Priority(value) => {
                    priority = *value;
                    true
                }
                RuleAttribute::Table(value) => table.replace(TableId(*value)).is_none(),
                RuleAttribute::Protocol(_) | RuleAttribute::SuppressPrefixLen(NO_SUPPRESSION) => true,
                RuleAttribute::SuppressPrefixLen(0) => select(Selector::Specific),
                RuleAttribute::Iifname(name) => select(Selector::Iif(IfName::new(name)?)),
                RuleAttribute::Oifname(name) => select(Selector::Oif(IfName::new(name)?)),
                RuleAttribute::Source(IpAddr::V4(ip)) if header.src_len == 32 => select(Selector::From(*ip)),
                RuleAttribute::FwMark(value) => mark.replace(FwMark(*value)).is_none(),
                RuleAttribute::FwMask(value) => mask.replace(MarkMask::new(*value)?).is_none(),
                _ => false,
            };
            if !understood {
                return None;
            }
        }
        if let (Some(mark), Some(mask)) = (mark, mask)
            && !select(Selector::Mark { mark, mask })
        {
            return None;
        }
        Some(Self { priority, selector: selector?, table: table? })
    }
}

/// Whether a rule is ours: by its protocol, and by its priority, so that another program that happens to use our
/// number loses nothing. `bases` are the first priorities of the ranges that are or were ours.
fn is_ours(message: &RuleMessage, bases: &[u32]) -> bool {
    let protocol = message
        .attributes
        .iter()
        .any(|a| matches!(a, RuleAttribute::Protocol(protocol) if u8::from(*protocol) == PROTOCOL));
    let in_range = |base: &u32| (*base..base.saturating_add(RULE_PRIORITIES)).contains(&priority(message));
    protocol && bases.iter().any(in_range)
}

/// Its priority.
pub(super) fn priority(message: &RuleMessage) -> u32 {
    let priority = message.attributes.iter().find_map(|a| match a {
        RuleAttribute::Priority(priority) => Some(*priority),
        _ => None,
    });
    priority.unwrap_or(0)
}

/// What to do to make the rules right.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) add: Vec<Rule>,
    pub(super) delete: Vec<RuleMessage>,
}

/// Compares `standing` (ours only) with `wanted`. Of equal rules one is kept.
pub(super) fn difference(standing: Vec<RuleMessage>, wanted: Vec<Rule>) -> Difference {
    let mut missing = wanted;
    let mut delete = Vec::new();
    for message in standing {
        let found = Rule::parse(&message).and_then(|rule| missing.iter().position(|w| *w == rule));
        match found {
            Some(n) => drop(missing.remove(n)),
            None => delete.push(message),
        }
    }
    Difference { add: missing, delete }
}

/// Our rules, as the kernel has them.
pub(super) async fn ours(rtnl: &mut Rtnl, bases: &[u32]) -> std::io::Result<Vec<RuleMessage>> {
    let mut query = RuleMessage::default();
    query.header.family = AddressFamily::Inet;
    let answers = rtnl.dump(RouteNetlinkMessage::GetRule(query)).await?;
    let rules = answers.into_iter().filter_map(|m| match m {
        RouteNetlinkMessage::NewRule(rule) if is_ours(&rule, bases) => Some(rule),
        _ => None,
    });
    Ok(rules.collect())
}

/// Adds a rule.
pub(super) async fn add(rtnl: &mut Rtnl, rule: &Rule) -> std::io::Result<()> {
    use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
    match rtnl.change(RouteNetlinkMessage::NewRule(rule.message()), NLM_F_CREATE | NLM_F_EXCL).await {
        Err(e) if e.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        result => result,
    }
}

/// Deletes one rule equal to `listed`, as it was dumped. That it is gone already is fine.
pub(super) async fn delete(rtnl: &mut Rtnl, listed: &RuleMessage) -> std::io::Result<()> {
    let mut message = listed.clone();
    message.header.flags &= RuleFlags::Invert;
    match rtnl.change(RouteNetlinkMessage::DelRule(message), 0).await {
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        result => result,
    }
}

/// For the log: as one of ours where it can be read as one.
pub(super) fn describe(message: &RuleMessage) -> String {
    match Rule::parse(message) {
        Some(rule) => rule.to_string(),
        None => format!("{}: (not as this version writes it)", priority(message)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(priority: u32, selector: Selector) -> Rule {
        Rule { priority, selector, table: TableId(7) }
    }

    fn all() -> Vec<Rule> {
        vec![
            rule(30000, Selector::Specific),
            rule(30010, Selector::Iif(IfName::new("eth1").unwrap())),
            rule(30020, Selector::From([10, 0, 1, 2].into())),
            rule(30025, Selector::Oif(IfName::new("eth1").unwrap())),
            rule(30015, Selector::Mark { mark: FwMark(0x700), mask: MarkMask::new(0xff00).unwrap() }),
        ]
    }

    #[test]
    fn a_rule_survives_its_message() {
        for rule in all() {
            assert_eq!(Rule::parse(&rule.message()), Some(rule));
        }
    }

    #[test]
    fn what_else_a_rule_says_makes_it_another_one() {
        for extra in [
            RuleAttribute::Oifname("eth9".into()),
            RuleAttribute::SuppressPrefixLen(0),
            RuleAttribute::Source(IpAddr::V4([10, 0, 0, 0].into())),
        ] {
            let mut message = all()[1].message();
            message.attributes.push(extra);
            assert_eq!(Rule::parse(&message), None);
        }
        let mut message = all()[1].message();
        message.header.flags = RuleFlags::Invert;
        assert_eq!(Rule::parse(&message), None);
        message.header.flags = RuleFlags::IifDetached;
        assert!(Rule::parse(&message).is_some());
    }

    #[test]
    fn the_difference_keeps_one_adds_missing_and_deletes_the_rest() {
        let stale = rule(30020, Selector::From([10, 0, 9, 9].into())).message();
        let kept = all()[0].message();
        let standing = vec![kept.clone(), stale.clone(), kept.clone()];
        let found = difference(standing, all());
        assert_eq!(found.add, all()[1..]);
        assert_eq!(found.delete, [stale, kept]);
        let right = all().iter().map(Rule::message).collect();
        assert_eq!(difference(right, all()), Difference::default());
    }

    #[test]
    fn ours_are_known_by_protocol_and_priority() {
        let message = all()[0].message();
        assert!(is_ours(&message, &[30000]));
        assert!(is_ours(&message, &[20000, 29901]));
        assert!(!is_ours(&message, &[30001]));
        assert!(!is_ours(&message, &[29900]));
        let mut foreign = message;
        foreign.attributes.retain(|a| !matches!(a, RuleAttribute::Protocol(_)));
        foreign.attributes.push(RuleAttribute::Protocol(RouteProtocol::Static));
        assert!(!is_ours(&foreign, &[30000]));
    }
}

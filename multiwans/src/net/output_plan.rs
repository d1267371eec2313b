//! Which rules steer what the router itself sends, where no program of a socket can. No IO.
//!
//! ```text
//! 40 decided by an application, or only forwarded? ─> 70
//! 41 ─> 50 or 60: two blocks, of which one is in force while the other is rewritten
//!
//! 50 to a local network? ─> 53     51 every filter     52 ─> 70
//! 53                               54 filters with dst 55 ─> 70
//!
//! 70 go on with everybody else's rules
//! ```
//! A filter without `dst` matches anything but `localnets`, which no single rule can say; hence the two
//! lists. All come after ours for addresses and marks, and after the specific routes of the main table.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::output_rules::{Action, OutputRule, Packets};
use crate::config::{Chain, Config, Filter, PortRange, Protocol};
use crate::types::WanMark;

/// Priorities relative to `daemon.rulePriority`.
pub(super) mod order {
    /// The first that is for the router's own packets.
    pub(in crate::net) const FIRST: u32 = 40;
    pub(in crate::net) const GUARD: u32 = FIRST;
    pub(in crate::net) const SWITCH: u32 = 41;
    /// Where the two blocks begin.
    pub(in crate::net) const BLOCKS: [u32; 2] = [50, 60];
    pub(in crate::net) const END: u32 = 70;

    // Within a block.
    pub(super) const TO_LOCAL: u32 = 0;
    pub(super) const FILTERS: u32 = 1;
    pub(super) const FILTERS_END: u32 = 2;
    pub(super) const LOCAL: u32 = 3;
    pub(super) const LOCAL_FILTERS: u32 = 4;
    pub(super) const LOCAL_END: u32 = 5;
    pub(in crate::net) const BLOCK_LENGTH: u32 = 6;
}

/// Rules that filters may come to. The kernel asks one after the other for each of the router's own
/// packets without a route yet, 3 ns or so each.
pub(super) const MAX_RULES: usize = 1024;

/// The filters for the router's own traffic, in the order they are evaluated.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct OutputFilters {
    filters: Vec<(WanMark, Filter)>,
    localnets: Vec<Ipv4Net>,
}

impl OutputFilters {
    pub(super) fn new(config: &Config) -> Self {
        let filters = crate::policy::filters_of(config, Chain::Output);
        Self {
            filters: filters.map(|(wan, filter)| (wan, filter.clone())).collect(),
            localnets: config.localnets.clone(),
        }
    }

    /// One block of rules, at priorities from `base + block` on; none where no filter needs any.
    ///
    /// * `steered`: WANs whose filters are in force.
    /// * `source`: the address the router sends from by its default route, which `src` is held against.
    /// * `programs`: TCP and UDP are steered by programs.
    ///
    /// With it, the filters that did not fit.
    pub(super) fn block(
        &self,
        base: u32,
        block: u32,
        steered: impl Fn(WanMark) -> bool,
        source: Option<Ipv4Addr>,
        programs: bool,
    ) -> (Vec<OutputRule>, Vec<&str>) {
        let by_rule =
            |filter: &Filter| !(programs && matches!(filter.protocol, Protocol::Tcp | Protocol::Udp));
        let from_here = |filter: &Filter| {
            let from = |lists: Vec<&[Ipv4Net]>| {
                source.is_some_and(|ip| lists.into_iter().flatten().any(|net| net.contains(&ip)))
            };
            filter.sources().is_none_or(from)
        };
        let mut filters = Vec::new();
        let (mut left_out, mut count) = (Vec::new(), 0);
        for (wan, filter) in &self.filters {
            if !steered(*wan) || !by_rule(filter) || !from_here(filter) {
                continue;
            }
            let packets = packets(filter);
            count += packets.len();
            if count > MAX_RULES {
                left_out.push(filter.description.as_str());
                count -= packets.len();
            } else {
                filters.push((*wan, filter, packets));
            }
        }
        if filters.is_empty() {
            return (Vec::new(), left_out);
        }

        let at = |order: u32, packets, action| OutputRule { priority: base + block + order, packets, action };
        let lookups = |order: u32, local: bool| {
            let kept = filters.iter().filter(move |(_, filter, _)| !local || filter.destinations().is_some());
            kept.flat_map(move |(wan, _, packets)| {
                let action = Action::Lookup(wan.table());
                packets.iter().map(move |packets| at(order, packets.clone(), action))
            })
            .collect::<Vec<_>>()
        };
        let end = Action::Goto(base + order::END);
        let local = Action::Goto(base + block + order::LOCAL);
        let mut rules: Vec<OutputRule> =
            NEVER.iter().map(|net| at(order::TO_LOCAL, Packets::to(*net), end)).collect();
        rules.extend(self.localnets.iter().map(|net| at(order::TO_LOCAL, Packets::to(*net), local)));
        rules.extend(lookups(order::FILTERS, false));
        rules.push(at(order::FILTERS_END, Packets::ALL, end));
        rules.push(at(order::LOCAL, Packets::ALL, Action::Nop));
        rules.extend(lookups(order::LOCAL_FILTERS, true));
        rules.push(at(order::LOCAL_END, Packets::ALL, end));
        (rules, left_out)
    }
}

/// Never sent to a WAN, whatever `localnets` says: multicast and the limited broadcast.
const NEVER: [Ipv4Net; 2] =
    [Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4), Ipv4Net::new_assert(Ipv4Addr::BROADCAST, 32)];

/// What comes before and after the blocks: the guard, and the place behind everything.
pub(super) fn frame(base: u32) -> [OutputRule; 2] {
    let end = base + order::END;
    [
        OutputRule { priority: end, packets: Packets::ALL, action: Action::Nop },
        OutputRule { priority: base + order::GUARD, packets: Packets::Decided, action: Action::Goto(end) },
    ]
}

/// The rule that puts a block in force.
pub(super) fn switch(base: u32, block: u32) -> OutputRule {
    OutputRule { priority: base + order::SWITCH, packets: Packets::ALL, action: Action::Goto(base + block) }
}

/// A filter as rules: one for each of its destinations, source ports and destination ports.
fn packets(filter: &Filter) -> Vec<Packets> {
    let protocol = filter.protocol.number();
    let (Some(sports), Some(dports)) = (ranges(&filter.sports), ranges(&filter.dports)) else {
        return Vec::new();
    };
    let mut all = Vec::new();
    let destinations: Vec<Option<Ipv4Net>> = match filter.destinations() {
        None => vec![None],
        // More than fit need not be made to be left out.
        Some(lists) => lists.into_iter().flatten().take(MAX_RULES + 1).copied().map(Some).collect(),
    };
    for to in destinations {
        for sport in &sports {
            for dport in &dports {
                all.push(Packets::Of { to, protocol, sport: *sport, dport: *dport });
            }
        }
    }
    all
}

/// The values, or one that stands for all.
fn either<T: Copy>(values: &[T]) -> Vec<Option<T>> {
    if values.is_empty() { vec![None] } else { values.iter().copied().map(Some).collect() }
}

/// As the kernel takes them: it knows no port 0. `None`: nothing is left.
fn ranges(ports: &[PortRange]) -> Option<Vec<Option<PortRange>>> {
    let from_one: Vec<PortRange> = ports
        .iter()
        .filter(|range| range.last > 0)
        .map(|range| PortRange { first: range.first.max(1), last: range.last })
        .collect();
    (ports.is_empty() || !from_one.is_empty()).then(|| either(&from_one))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::TableId;

    fn filter(description: &str, protocol: Protocol) -> Filter {
        Filter {
            description: description.to_owned(),
            note: None,
            chain: Chain::Output,
            protocol,
            src: Vec::new(),
            src_files: Vec::new(),
            dst: Vec::new(),
            dst_files: Vec::new(),
            sports: Vec::new(),
            dports: Vec::new(),
        }
    }

    fn mark(number: u8) -> WanMark {
        WanMark::new(number).unwrap()
    }

    fn filters() -> OutputFilters {
        let net = |text: &str| text.parse().unwrap();
        let port = |first, last| PortRange { first, last };
        OutputFilters {
            filters: vec![
                (mark(2), filter("icmp", Protocol::Icmp)),
                (mark(2), Filter { dst: vec![net("10.8.0.0/16")], ..filter("vpn", Protocol::Gre) }),
                (mark(3), Filter { src: vec![net("10.0.1.2/32")], ..filter("src", Protocol::Esp) }),
                (
                    mark(3),
                    Filter {
                        dports: vec![port(0, 0), port(0, 9), port(80, 80)],
                        ..filter("web", Protocol::Tcp)
                    },
                ),
            ],
            localnets: vec![net("10.0.0.0/8")],
        }
    }

    fn block(steered: &[u8], source: Option<[u8; 4]>, programs: bool) -> Vec<String> {
        let steered = |wan: WanMark| steered.contains(&wan.get());
        let filters = filters();
        let (rules, left_out) = filters.block(30_000, 50, steered, source.map(Into::into), programs);
        assert!(left_out.is_empty());
        rules.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn filters_become_two_lists_by_destination() {
        assert_eq!(
            block(&[2, 3], Some([10, 0, 1, 2]), true),
            [
                "30050: from all to 224.0.0.0/4 goto 30070",
                "30050: from all to 255.255.255.255/32 goto 30070",
                "30050: from all to 10.0.0.0/8 goto 30053",
                "30051: from all ipproto 1 lookup WAN2",
                "30051: from all to 10.8.0.0/16 ipproto 47 lookup WAN2",
                "30051: from all ipproto 50 lookup WAN3",
                "30052: from all goto 30070",
                "30053: from all nop",
                "30054: from all to 10.8.0.0/16 ipproto 47 lookup WAN2",
                "30055: from all goto 30070",
            ]
        );
    }

    #[test]
    fn what_is_not_in_force_has_no_rules() {
        assert!(block(&[], Some([10, 0, 1, 2]), true).is_empty());
        let only_third = block(&[3], Some([10, 0, 1, 2]), true);
        assert!(only_third.iter().all(|rule| !rule.ends_with("lookup WAN2")), "{only_third:?}");
        // The source is another one, and then none.
        assert!(block(&[3], Some([10, 0, 2, 2]), true).is_empty());
        assert!(block(&[3], None, true).is_empty());
    }

    #[test]
    fn without_programs_tcp_and_udp_have_rules_and_port_0_has_none() {
        let rules = block(&[3], None, false);
        assert_eq!(
            rules[3..5],
            [
                "30051: from all ipproto 6 dport 1-9 lookup WAN3",
                "30051: from all ipproto 6 dport 80-80 lookup WAN3"
            ]
        );
    }

    #[test]
    fn filters_that_do_not_fit_are_left_out_whole() {
        let many =
            (0..).take(MAX_RULES + 1).map(|n: u32| Ipv4Net::from(Ipv4Addr::from(0x0808_0000 + n))).collect();
        let big = Filter { dst: many, ..filter("big", Protocol::All) };
        let filters = OutputFilters {
            filters: vec![(mark(2), big), (mark(2), filter("small", Protocol::Gre))],
            localnets: Vec::new(),
        };
        let (rules, left_out) = filters.block(30_000, 60, |_| true, None, true);
        assert_eq!(left_out, ["big"]);
        let lookups: Vec<_> = rules
            .iter()
            .filter(|rule| rule.action == Action::Lookup(TableId(2)))
            .map(|r| r.priority)
            .collect();
        assert_eq!(lookups, [30_061]);
    }
}

//! What a filter means, said as plainly as possible: one packet, one filter, yes or no.
//!
//! The compiled policy must always agree with this; tests hold them against each other.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::Tuple;
use crate::config::{Filter, PortRange};

/// Whether a filter matches a packet. A filter without `dst` and `dstFiles` matches any destination outside
/// `localnets`.
pub fn matches(filter: &Filter, localnets: &[Ipv4Net], packet: &Tuple) -> bool {
    let protocol = filter.protocol.number().is_none_or(|number| number == packet.protocol);
    let source = filter.sources().is_none_or(|lists| within_one(&lists, packet.source));
    let destination = match filter.destinations() {
        Some(lists) => within_one(&lists, packet.destination),
        None => !within(localnets, packet.destination),
    };
    protocol
        && source
        && destination
        && in_ranges(&filter.sports, packet.source_port)
        && in_ranges(&filter.dports, packet.destination_port)
}

fn within_one(lists: &[&[Ipv4Net]], address: Ipv4Addr) -> bool {
    lists.iter().any(|nets| within(nets, address))
}

fn within(nets: &[Ipv4Net], address: Ipv4Addr) -> bool {
    nets.iter().any(|net| net.contains(&address))
}

fn in_ranges(ranges: &[PortRange], port: u16) -> bool {
    ranges.is_empty() || ranges.iter().any(|range| (range.first..=range.last).contains(&port))
}

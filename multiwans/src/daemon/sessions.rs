//! What conntrack's entries mean for steering. Pure: entries in, decisions out.

use std::collections::BTreeSet;

use crate::config::Config;
use crate::datapath::SeedFlow;
use crate::engine::Steering;
use crate::net::conntrack::{Entry, Transport, Tuple};
use crate::policy;
use crate::types::WanMark;

/// The sessions the flow table is to know from the start, so that starting the daemon moves none.
///
/// A translated source leaves by the WAN whose address the answers come to. A translated destination
/// (a forwarded port) came in by the WAN whose address was asked, and its answers go back there.
pub(super) fn seeds(config: &Config, entries: &[Entry]) -> Vec<SeedFlow> {
    let wan_at = |address| config.wans.iter().find(|wan| wan.ip == address).map(|wan| wan.mark);
    entries
        .iter()
        .filter_map(|entry| {
            let flow = |tuple, wan, inbound| SeedFlow {
                tuple: seen_inside(tuple),
                wan,
                // TCP: the handshake was complete; UDP: it went on for a while.
                lasts: entry.assured,
                inbound,
                left: entry.left,
            };
            // The router's own sessions pass no inside interface.
            let outbound = entry.source_nat.then(|| wan_at(entry.reply.destination)).flatten();
            if let Some(wan) = outbound {
                return Some(flow(&entry.original, wan, false));
            }
            let inbound = entry.destination_nat.then(|| wan_at(entry.original.destination)).flatten()?;
            Some(flow(&entry.reply, inbound, true))
        })
        .collect()
}

/// The entries that were never answered and whose packets take another WAN now than the one whose
/// address they were translated to.
///
/// `filtered`: the WAN whose filter takes a packet. There may be as many entries as prefixes, so filters are
/// not gone through one by one here.
pub(super) fn misplaced<'a>(
    config: &Config,
    steering: &Steering,
    entries: &'a [Entry],
    filtered: impl Fn(&policy::Tuple, &BTreeSet<WanMark>, Option<WanMark>) -> Option<WanMark>,
) -> Vec<&'a Entry> {
    let usable: BTreeSet<WanMark> = steering.usable.keys().copied().collect();
    entries
        .iter()
        .filter(|entry| {
            let given = config.wans.iter().find(|wan| wan.ip == entry.reply.destination);
            let Some(given) = given else { return false };
            // An entry whose first packet has the WAN's own address is the router's.
            let own = config.wans.iter().any(|wan| wan.ip == entry.original.source);
            let filtered = filtered(&seen_inside(&entry.original), &usable, steering.default);
            let wanted = filtered.or(steering.default);
            !own && wanted.is_some_and(|wanted| wanted != given.mark)
        })
        .collect()
}

/// A tuple as the policy and the flow table have it.
fn seen_inside(tuple: &Tuple) -> policy::Tuple {
    let (source_port, destination_port) = match tuple.transport {
        Transport::Icmp { id, .. } => (id, 0),
        Transport::Ports { .. } | Transport::Addresses => tuple.ports(),
    };
    policy::Tuple {
        source: tuple.source,
        destination: tuple.destination,
        protocol: tuple.protocol,
        source_port,
        destination_port,
    }
}

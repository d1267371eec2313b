//! Seeding the flow table, so that starting the daemon moves no session.

use std::time::Duration;

use multiwans_common::{
    Binding, FilterTag, FlowKey4, FlowState, FlowValue, Seen, TICK_NS, protocol, tick_of,
};

use super::table::FlowTable;
use crate::datapath::policy_maps::network_order;
use crate::policy::Tuple;
use crate::types::WanMark;

/// A session that was there before the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeedFlow {
    /// The inside host's packets. For ICMP queries `source_port` is the identifier.
    pub tuple: Tuple,
    /// The WAN its translation belongs to.
    pub wan: WanMark,
    /// More than a question and its answer: established (TCP), a stream (all others).
    pub lasts: bool,
    /// Opened from outside: no filter chose its WAN.
    pub inbound: bool,
    /// How much longer it may be idle; `None`: as long as a flow that was seen just now.
    pub left: Option<Duration>,
}

/// Stores them, lasting ones first; returns how many. `generation` gives a WAN's current one.
pub(in crate::datapath) fn seed(
    table: &FlowTable,
    flows: &[SeedFlow],
    generation: impl Fn(WanMark) -> Option<u32>,
) -> usize {
    let now = now();
    table.grow(flows.len() as u64);
    let mut stored = 0;
    let (lasting, passing): (Vec<&SeedFlow>, Vec<&SeedFlow>) = flows.iter().partition(|flow| flow.lasts);
    for flow in lasting.into_iter().chain(passing) {
        let Some(generation) = generation(flow.wan) else { continue };
        let state = match (flow.tuple.protocol == protocol::TCP, flow.lasts) {
            (true, true) => FlowState::Established,
            (true, false) => FlowState::Opening,
            (false, true) => FlowState::Stream,
            (false, false) => FlowState::Single,
        };
        let binding = Binding {
            generation,
            wan: flow.wan.get(),
            state: state as u8,
            inbound: u8::from(flow.inbound),
            claimed: 0,
        };
        let timeout = state.timeout(flow.tuple.protocol);
        let idle = flow.left.map_or(0, |left| timeout.saturating_sub(ticks_of(left)));
        let at = now.wrapping_sub(idle);
        let value = FlowValue { seen: Seen { at, filter: FilterTag::unknown() }, binding };
        // One for which there is no room is classified.
        stored += usize::from(table.put(&key(&flow.tuple), value));
    }
    stored
}

fn key(tuple: &Tuple) -> FlowKey4 {
    let destination_port = if tuple.protocol == protocol::ICMP { 0 } else { tuple.destination_port };
    FlowKey4 {
        source: network_order(tuple.source),
        destination: network_order(tuple.destination),
        source_port: tuple.source_port.to_be(),
        destination_port: destination_port.to_be(),
        protocol: tuple.protocol,
        zero: [0; 3],
    }
}

/// Ticks of a time; the most there can be where it is longer.
pub(super) fn ticks_of(time: Duration) -> u32 {
    u32::try_from(time.as_nanos() / u128::from(TICK_NS)).unwrap_or(u32::MAX)
}

/// The clock of the table; the programs read the same (`bpf_ktime_get_coarse_ns`).
pub(super) fn now() -> u32 {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC_COARSE)
        .map(|time| Duration::from(time).as_nanos())
        .map_or(0, |nanos| tick_of(u64::try_from(nanos).unwrap_or(u64::MAX)))
}

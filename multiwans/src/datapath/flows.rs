//! Seeding the flow table, so that starting the daemon moves no session.

use aya::Ebpf;
use aya::maps::MapError;
use multiwans_common::{FlowKey4, FlowValue, protocol};

use super::policy_maps::network_order;
use super::{DatapathError, maps};
use crate::policy::Tuple;
use crate::types::WanMark;

/// Entries the table holds; see `multiwans-ebpf/src/flows.rs`.
const CAPACITY: usize = 262_144;

/// A session that was there before the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeedFlow {
    /// The inside host's packets. For ICMP queries `source_port` is the identifier.
    pub tuple: Tuple,
    /// The WAN its translation belongs to.
    pub wan: WanMark,
}

/// Stores them; returns how many. `generation` gives a WAN's current one.
pub(super) fn seed(
    ebpf: &mut Ebpf,
    flows: &[SeedFlow],
    generation: impl Fn(WanMark) -> Option<u32>,
) -> Result<usize, DatapathError> {
    let mut map = maps::hash::<FlowKey4, FlowValue>(ebpf, maps::FLOWS)?;
    let now = monotonic_ns();
    let mut stored = 0;
    for flow in flows.iter().take(CAPACITY) {
        let Some(generation) = generation(flow.wan) else { continue };
        let value = FlowValue { last_seen_ns: now, wan: u32::from(flow.wan.get()), generation };
        match map.insert(key(&flow.tuple), value, 0) {
            Ok(()) => stored += 1,
            // The kernel's free lists are per CPU and may be short for a moment; such a flow is classified.
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOMEM) => {}
            Err(source) => return Err(DatapathError::Map { map: maps::FLOWS, source }),
        }
    }
    Ok(stored)
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

/// The clock of `bpf_ktime_get_ns`.
fn monotonic_ns() -> u64 {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .map(|time| std::time::Duration::from(time).as_nanos())
        .map_or(0, |nanos| u64::try_from(nanos).unwrap_or(u64::MAX))
}

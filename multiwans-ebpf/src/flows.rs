//! The flow table: which WAN a known flow is on. Answers make entries, so floods and scans cost no
//! memory and an insert never stands in a fresh packet's way.

use aya_ebpf::{bindings::BPF_ANY, btf_maps::LruHashMap, helpers::bpf_ktime_get_ns, macros::btf_map};
use multiwans_common::{FlowKey4, FlowValue, WanEntry, protocol};

use crate::links;

/// Flows that were answered.
///
/// Key: [`FlowKey4`], the tuple of the inside host's packets. Value: [`FlowValue`]. Writers: learn, steer
/// (refreshes the time), the daemon (seeds it from conntrack at start). Reader: steer. 262 144 entries
/// of about 112 bytes, 29 MiB. Full: the least recently used entry makes room; its flow is classified again, which gives
/// the same WAN unless a link changed since.
#[btf_map]
static MW_FLOWS: LruHashMap<FlowKey4, FlowValue, 262_144> = LruHashMap::new();

const SECOND_NS: u64 = 1_000_000_000;

/// An entry's time is written at most this often, so that a busy flow does not write to memory shared
/// between CPUs with each packet.
const REFRESH_NS: u64 = SECOND_NS;

/// How long a flow may be idle: conntrack's own defaults, since the translation lives as long.
#[inline(always)]
const fn timeout_ns(number: u8) -> u64 {
    match number {
        // nf_conntrack_tcp_timeout_established
        protocol::TCP => 432_000 * SECOND_NS,
        // nf_conntrack_udp_timeout_stream
        protocol::UDP | protocol::UDPLITE => 120 * SECOND_NS,
        // nf_conntrack_icmp_timeout
        protocol::ICMP => 30 * SECOND_NS,
        // nf_conntrack_sctp_timeout_established
        protocol::SCTP => 210 * SECOND_NS,
        // nf_conntrack_generic_timeout
        _ => 600 * SECOND_NS,
    }
}

/// The WAN a flow is on, if it is known, its WAN was in service ever since, and it was not idle for too
/// long.
///
/// Whether the WAN is `usable` now does not matter: an entry of the current generation was made by an
/// answer that came in by this very WAN after it last went out of service.
#[inline(always)]
pub fn find(key: &FlowKey4) -> Option<WanEntry> {
    let flow = MW_FLOWS.get_ptr_mut(key)?;
    // SAFETY: the kernel keeps the element's memory while the program runs. It may be reused for another
    // flow at any time; then the generation or the time read here belongs to that one, and this packet is
    // sent by its WAN, once.
    let FlowValue { last_seen_ns, wan, generation } = unsafe { *flow };
    let entry = links::wan(wan)?;
    if entry.generation != generation {
        return None;
    }
    // SAFETY: the helper has no preconditions.
    let idle = unsafe { bpf_ktime_get_ns() }.wrapping_sub(last_seen_ns);
    if idle > timeout_ns(key.protocol) {
        return None;
    }
    if idle > REFRESH_NS {
        // SAFETY: as above; a lost race costs one refresh.
        unsafe { (*flow).last_seen_ns = last_seen_ns + idle };
    }
    Some(entry)
}

/// Stores that a flow is on a WAN. Returns whether the table took it.
#[inline(always)]
pub fn learn(key: &FlowKey4, wan: u32, entry: &WanEntry) -> bool {
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    // SAFETY: read only, copied at once; see `find`.
    if let Some(known) = unsafe { MW_FLOWS.get(key) }
        && known.wan == wan
        && known.generation == entry.generation
        && now.wrapping_sub(known.last_seen_ns) < REFRESH_NS
    {
        return true;
    }
    let value = FlowValue { last_seen_ns: now, wan, generation: entry.generation };
    MW_FLOWS.insert(key, value, BPF_ANY as u64).is_ok()
}

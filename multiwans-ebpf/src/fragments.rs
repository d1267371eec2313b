//! Later fragments carry no ports: they take what their first one was given.
//!
//! Where conntrack is in use it puts datagrams together before routing, and the first fragment's mark
//! counts anyway, in whatever order they came; this table is for routers that forward fragments one by one,
//! and for the counters. On such a router a fragment that overtakes its first one is classified without
//! ports, which is the same WAN unless a filter asks for ports. The first one does not follow it: where
//! conntrack is in use, that would take datagrams off the WAN their ports ask for.

use aya_ebpf::{bindings::BPF_ANY, btf_maps::LruHashMap, helpers::bpf_ktime_get_ns, macros::btf_map};
use multiwans_common::{FilterTag, FragmentKey4, FragmentValue};

/// What first fragments were given.
///
/// Key: [`FragmentKey4`]. Value: [`FragmentValue`]. Writer and reader: steer. 4 096 entries of about 100 bytes,
/// 400 KiB. Full: the least recently used datagram makes room; its later fragments are classified by themselves.
#[btf_map]
static MW_FRAGMENTS: LruHashMap<FragmentKey4, FragmentValue, 4096> = LruHashMap::new();

/// `net.ipv4.ipfrag_time`: after that a datagram is given up and its identification may be another's.
const TIMEOUT_NS: u64 = 30_000_000_000;

/// Remembers what the first fragment was given (0: nothing), and by which filter.
#[inline(always)]
pub fn remember(datagram: &FragmentKey4, fwmark: u32, filter: FilterTag) {
    // SAFETY: the helper has no preconditions.
    let first_seen_ns = unsafe { bpf_ktime_get_ns() };
    let value = FragmentValue { first_seen_ns, fwmark, filter: filter.word() };
    // A failed insert leaves the later fragments unknown, which is counted when they come.
    let _ = MW_FRAGMENTS.insert(datagram, value, BPF_ANY as u64);
}

/// What the first fragment was given, if it was seen.
#[inline(always)]
pub fn recall(datagram: &FragmentKey4) -> Option<(u32, FilterTag)> {
    // SAFETY: read only, copied at once.
    let value = unsafe { MW_FRAGMENTS.get(datagram)? };
    // SAFETY: the helper has no preconditions.
    let age = unsafe { bpf_ktime_get_ns() }.wrapping_sub(value.first_seen_ns);
    if age > TIMEOUT_NS { None } else { Some((value.fwmark, FilterTag::of_word(value.filter))) }
}

//! The flow table: which WAN a known flow is on. Answers make entries, so scans and floods that nobody
//! answers cost no memory, and an insert never stands in a fresh packet's way.
//!
//! Nothing here removes an entry. The daemon does: those that are idle for too long, and when the table is
//! nearly full those that matter least (`multiwans/src/datapath/flows`). A table that evicts by itself
//! (LRU) would forget established flows in a flood of answers, and nobody would know.

use core::mem::transmute;

use aya_ebpf::helpers::bpf_ktime_get_coarse_ns;
use multiwans_common::{
    Binding, FilterTag, FlowKey4, FlowState, FlowValue, Reason, Seen, Special, WanEntry, tcp, tick_of, ticks,
    ticks_between,
};

use crate::{classify::Match, flow_table, links, packet::Packet};

/// An entry's time is written at most this often, so that a busy flow does not write to memory shared
/// between CPUs with each packet.
const REFRESH: u32 = ticks(1);

/// A known flow.
pub struct Flow {
    /// The mark of the WAN it is on.
    pub fwmark: u32,
    /// The filter that chose it, as far as it is known.
    pub filter: FilterTag,
    inbound: bool,
}

impl Flow {
    /// Whether it is still to be found out which filter of this version of the policy the flow counts for.
    /// A session that was opened from outside counts for none.
    #[inline(always)]
    pub fn lacks_filter(&self, version: u32) -> bool {
        !self.inbound && (self.filter.number == FilterTag::UNKNOWN || self.filter.version != version as u16)
    }
}

/// Remembers that the filter `found` chose a flow, if it sends where the flow is; gives the mark of that WAN, and
/// the filter. Looked up again: an entry kept through the search would have the verifier walk through it once
/// with and once without. `None`: it is gone.
#[inline(always)]
pub fn attribute(key: &FlowKey4, found: Match, version: u32) -> Option<(u32, FilterTag)> {
    let (entry, binding) = flow_table::find(key)?;
    let number = binding.wan as u32;
    let filter = if found.wan == number { found.filter as u16 } else { FilterTag::NONE };
    let filter = FilterTag { number: filter, version: version as u16 };
    write_seen(entry, Seen { at: read_seen(entry).at, filter });
    Some((links::wan(number)?.fwmark, filter))
}

/// The WAN a packet's flow is on, if it is known, its WAN was in service ever since, and it was not idle for
/// too long.
///
/// Whether the WAN is `usable` now does not matter: an entry of the current generation was made by an
/// answer that came in by this very WAN after it last went out of service.
#[inline(always)]
pub fn find(packet: &Packet) -> Option<Flow> {
    let (entry, Binding { generation, wan: number, state, inbound, .. }) = flow_table::find(&packet.tuple)?;
    let wan = links::wan(number as u32)?;
    if wan.generation != generation {
        packet.note(Special::Stale);
        return None;
    }
    let Seen { at, filter } = read_seen(entry);
    let now = now();
    let idle = ticks_between(at, now);
    let state = FlowState::of(state);
    if idle > state.timeout(packet.tuple.protocol) {
        packet.note(Special::Expired);
        return None;
    }
    // An error follows the flow it is about; it is not part of it.
    if !packet.is_error {
        let mut next = state.after_packet(packet.flags);
        if idle > REFRESH {
            next = next.still_there();
            write_seen(entry, Seen { at: now, filter });
        }
        if next as u8 != state as u8 {
            write_state(entry, next);
        }
    } else {
        packet.note(Special::Related);
    }
    Some(Flow { fwmark: wan.fwmark, filter, inbound: inbound != 0 })
}

/// Stores what an answer shows: the flow that it answers is on a WAN.
#[inline(always)]
pub fn learn(packet: &Packet, number: u32, wan: &WanEntry) -> Reason {
    let (key, flags) = (&packet.tuple.reversed(), packet.flags);
    let now = now();
    let known = flow_table::find(key);
    if let Some((entry, binding)) = known {
        let seen = read_seen(entry);
        let idle = ticks_between(seen.at, now);
        let state = FlowState::of(binding.state);
        let is_same = binding.wan as u32 == number && binding.generation == wan.generation;
        let mut next = state.after_answer(flags);
        let begins = next as u8 != state as u8 && matches!(next, FlowState::Opening);
        if is_same && idle <= state.timeout(key.protocol) && !begins {
            if idle > REFRESH {
                next = next.still_there();
                write_seen(entry, Seen { at: now, ..seen });
            }
            if next as u8 != state as u8 {
                write_state(entry, next);
            }
            return Reason::Learned;
        }
        packet.note(match (begins, is_same) {
            (true, _) => Special::Reopened,
            (false, true) => Special::Expired,
            (false, false) => Special::Moved,
        });
    }
    let Some(state) = FlowState::first(key.protocol, flags) else { return Reason::Refusal };
    let inbound = flags & (tcp::SYN | tcp::ACK) == tcp::SYN;
    let value = FlowValue {
        seen: Seen { at: now, filter: FilterTag::unknown() },
        binding: Binding {
            generation: wan.generation,
            wan: number as u8,
            state: state as u8,
            inbound: inbound as u8,
            claimed: 0,
        },
    };
    if let Some((entry, before)) = known {
        write_seen(entry, value.seen);
        // Not over what another flow has made of the place since: that one would keep our WAN.
        // SAFETY: the kernel keeps an array's memory.
        unsafe {
            flow_table::rebind((&raw mut (*entry).binding).cast(), before.word(), value.binding.word())
        };
        return Reason::Learned;
    }
    if flow_table::insert(key, value) { Reason::FlowMade } else { Reason::LearnFailed }
}

/// `CLOCK_MONOTONIC_COARSE` (Linux 5.11), the time of the last jiffy: up to 10 ms old, where the shortest time that
/// is told apart is a second. To read the exact clock takes 40 to 50 ns.
#[inline(always)]
fn now() -> u32 {
    // SAFETY: the helper has no preconditions.
    tick_of(unsafe { bpf_ktime_get_coarse_ns() })
}

// An entry may be removed and its place taken by another flow at any time. What is read here is then that one's time and
// filter; what is written moves that one's time or state, which its next packets put right. Each word is read and written
// whole, so a filter never meets another version of the policy.

#[inline(always)]
fn read_seen(entry: *const FlowValue) -> Seen {
    // SAFETY: the kernel keeps the element's memory while the program runs; both types are eight bytes of
    // plain integers.
    unsafe { transmute((&raw const (*entry).seen).cast::<u64>().read_volatile()) }
}

#[inline(always)]
fn write_seen(entry: *mut FlowValue, seen: Seen) {
    // SAFETY: as above.
    unsafe { (&raw mut (*entry).seen).cast::<u64>().write_volatile(transmute::<Seen, u64>(seen)) };
}

#[inline(always)]
fn write_state(entry: *mut FlowValue, state: FlowState) {
    // SAFETY: as above.
    unsafe { (&raw mut (*entry).binding.state).write_volatile(state as u8) };
}

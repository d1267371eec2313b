//! What stands in front of the flow table: whether a flow may be in it.
//!
//! A look into the table is one cold line of a few megabytes, 300 ns where memory is slow, and of fresh flows it nearly
//! always says no. The bit of this filter is in the cache of the core.

use core::arch::asm;

use aya_ebpf::{Global, bindings::BPF_F_MMAPABLE, btf_maps::Array, macros::btf_map};
use multiwans_common::{FlowKey4, FlowPresence};

/// What the global holds until the daemon sets it; see [`mark`](crate::mark).
const UNSET_BITS: u32 = 0x6d77_7072;

/// Bits of a half; set by the daemon when it loads the programs.
#[unsafe(no_mangle)]
static PRESENCE_BITS: Global<u32> = Global::new(UNSET_BITS);

/// The presence filter of the flow table.
///
/// Key: a word's number. Value: 64 bits, laid out as [`FlowPresence`] says. Writers: learn and the daemon's seeding
/// (set bits in both halves, after the entry is in the table); the daemon's walks through the table (renew the half
/// that is not asked, then have it asked). Reader: steer. As many words as `flows.max` needs, 256 KiB for 262 144
/// flows. Never full: it only gets dull, until the next walk.
///
/// Why a flow in the table has its bit, in `multiwans/src/datapath/flows/presence.rs`.
#[btf_map]
static MW_PRESENCE: Array<u64, 1, { BPF_F_MMAPABLE as usize }> = Array::new();

/// Whether a flow may be in the table: `false` is certain but for the instant between its entry and its bit.
/// In it the packet is classified, by the policy in force, like those before it.
#[inline(always)]
pub fn may_hold(key: &FlowKey4) -> bool {
    let read = |number| {
        let word = MW_PRESENCE.get_ptr(number)?;
        // SAFETY: the kernel keeps an array's memory; eight aligned bytes are read whole.
        Some(unsafe { word.read_volatile() })
    };
    filter().may_hold(key, read)
}

/// Notes a flow that was put into the table.
///
/// Without a look whether the bit is set already: that look could be done before others see the entry, and find a bit that
/// the daemon is about to clear. An operation that returns the old value is a full barrier (LKMM), others
/// are none on every machine.
#[inline(always)]
pub fn note(key: &FlowKey4) {
    for half in [0, 1] {
        let (number, bit) = filter().bit(half, key);
        if let Some(word) = MW_PRESENCE.get_ptr_mut(number) {
            // SAFETY: as above; all that write it use atomic operations.
            unsafe { fetch_or(word, bit) };
        }
    }
}

/// The instruction itself (Linux 5.12): `core` has no operation of the kind for this target.
///
/// # Safety
/// The pointer is to eight bytes in a map, aligned.
#[inline(always)]
unsafe fn fetch_or(word: *mut u64, bits: u64) {
    // SAFETY: as the caller promises; it touches nothing else.
    unsafe {
        asm!("{bits} = atomic_fetch_or((u64 *)({word} + 0), {bits})", word = in(reg) word, bits = inout(reg) bits => _)
    };
}

#[inline(always)]
fn filter() -> FlowPresence {
    FlowPresence::of_bits(PRESENCE_BITS.load())
}

//! The flow table's memory, and the machine's atomic operations on it.

use core::arch::asm;

use aya_ebpf::{Global, bindings::BPF_F_MMAPABLE, btf_maps::Array, macros::btf_map};
use multiwans_common::{Binding, FlowKey4, FlowLayout, FlowLine, FlowLines, FlowMemory, FlowValue, slot};

/// What the globals hold until the daemon sets them; see [`mark`](crate::mark).
const UNSET_SEED: u64 = 0x6d77_7365_6564_7072;
const UNSET_LINES: u32 = 0x6d77_7072;

/// Of the table's hash; set by the daemon when it loads the programs.
#[unsafe(no_mangle)]
static FLOW_SEED: Global<u64> = Global::new(UNSET_SEED);
/// Lines of the table; the same.
#[unsafe(no_mangle)]
static ALL_FLOW_LINES: Global<u32> = Global::new(UNSET_LINES);

/// Lines of the table that are in use.
///
/// Key: 0. Value: [`FlowLines`] as a word. Writers: the daemon; learn, where it finds no place. Readers: steer, learn.
/// Eight bytes, read whole and written by atomic operations.
#[btf_map]
static MW_FLOW_LINES: Array<u64, 1, { BPF_F_MMAPABLE as usize }> = Array::new();

/// Flows that were answered.
///
/// Key: a line's number. Value: [`FlowLine`], two places for flows, found as [`FlowLayout`] says. Writers: learn; steer
/// (refreshes time, state and filter); the daemon (seeds it from conntrack at start, removes). Reader: steer.
/// Two lines of 64 bytes for each flow that `flows.max` says, 32 MiB for 262 144, all allocated at the start.
/// Full: a new flow is not stored and goes on being classified, which gives the same WAN until a link or the
/// policy changes; it is counted.
#[btf_map]
static MW_FLOWS: Array<FlowLine, 1, { BPF_F_MMAPABLE as usize }> = Array::new();

struct Memory;

impl FlowMemory for Memory {
    #[inline(always)]
    fn line(&self, number: u32) -> Option<*mut FlowLine> {
        MW_FLOWS.get_ptr_mut(number)
    }

    /// The instruction itself (Linux 5.12): `core` has no operation of the kind for this target.
    #[inline(always)]
    unsafe fn compare_exchange(&self, word: *mut u64, old: u64, new: u64) -> u64 {
        let mut found = old;
        // SAFETY: as the caller promises; it touches nothing else.
        unsafe {
            asm!(
                "r0 = cmpxchg_64({word} + 0, r0, {new})",
                word = in(reg) word,
                new = in(reg) new,
                inout("r0") found,
            );
        }
        found
    }

    #[inline(always)]
    unsafe fn swap(&self, word: *mut u64, new: u64) {
        // SAFETY: as above.
        unsafe { asm!("{new} = xchg_64({word} + 0, {new})", word = in(reg) word, new = inout(reg) new => _) };
    }
}

/// The entry of a flow, and what it says of the flow's WAN. It is not to be read again: the place may be another flow's then.
///
/// By the number of its place: the verifier then knows one pointer, and not the four that it may be, each to be walked on
/// with.
#[inline(always)]
pub fn find(key: &FlowKey4) -> Option<(*mut FlowValue, Binding)> {
    let found = lines()?.find(&Memory, key, FLOW_SEED.load())?;
    let slot = slot(&Memory, found.place)?;
    // SAFETY: the kernel keeps an array's memory.
    Some((unsafe { &raw mut (*slot).value }, found.binding))
}

/// Stores a flow that is not there; `false`: there is no room.
#[inline(always)]
pub fn insert(key: &FlowKey4, value: FlowValue) -> bool {
    let Some(lines) = lines() else { return false };
    let put = |now| FlowLayout { lines: now, seed: FLOW_SEED.load() }.insert(&Memory, key, value);
    if put(lines.now) {
        return true;
    }
    let (Some(all), Some(word)) = (lines.overflown(ALL_FLOW_LINES.load()), MW_FLOW_LINES.get_ptr_mut(0))
    else {
        return false;
    };
    // SAFETY: eight aligned bytes of an array, whose memory the kernel keeps.
    let found = unsafe { Memory.compare_exchange(word, lines.word(), all.word()) };
    // Another CPU, or the daemon, may have been faster.
    let now = if found == lines.word() { all.now } else { FlowLines::of_word(found).now };
    put(now)
}

/// Puts another binding where `old` is, which [`find`] gave; `false`: it is not there any more. A place that was freed stays
/// free: the flow may have been moved.
///
/// # Safety
/// The pointer is to the binding of an entry.
#[inline(always)]
pub unsafe fn rebind(binding: *mut u64, old: u64, new: u64) -> bool {
    // SAFETY: as the caller promises.
    unsafe { Memory.compare_exchange(binding, old, new) == old }
}

#[inline(always)]
fn lines() -> Option<FlowLines> {
    let word = MW_FLOW_LINES.get_ptr(0)?;
    // SAFETY: the kernel keeps an array's memory; eight aligned bytes are read whole.
    Some(FlowLines::of_word(unsafe { word.read_volatile() }))
}

//! The flow table's layout: lines of two flows, and each flow may stand in either of two lines.
//!
//! One array, written and read with the functions here by programs and daemon alike. A flow is looked for in the two lines
//! that its hash says: one line of memory where it is in the first, two where it is not there. A new flow goes to the
//! emptier one. With two lines for each flow, one flow of 4 000 finds no place, with four one of 250 000 (the power of two
//! choices; `multiwans/src/datapath/flows/table_tests.rs` counts).
//!
//! The kernel's hash maps take three lines one after another for the same: the bucket, and an entry that begins in the
//! middle of a line. Where a line takes 170 ns, that is most of what steering costs.
//!
//! The lines *in use* are a part of the array ([`FlowLines`]), a few for each flow there is: spread over all of it, each look
//! would also miss the processor's table of pages, which costs twice as much again. The daemon makes them more and fewer.
//! Meanwhile flows are looked for where they were *before* and then where they are *now*. Each is put there first and
//! then taken away here, so whoever looks in that order meets it. A program that finds no place for a flow does not wait for
//! the daemon: it has all lines used, and the daemon moves what is there later.
//!
//! Nobody locks. A place is *free* while its [`Binding`] names no WAN. Who makes a flow claims the place by an atomic
//! exchange of that word, writes the rest, and sets the word last; who removes it exchanges the word it saw for zero.
//! A look that falls in between finds nothing. Who looks reads the word before and after the flow's name, so it never takes
//! another flow's WAN for its own where the place was freed and taken just then (on processors that swap two reads it may,
//! for one packet). Two CPUs that make the same flow at the same time make it twice; the second one is never found, and
//! expires.

use crate::{Binding, FlowKey4, FlowValue};

/// Places in a line.
pub const LINE_FLOWS: u32 = 2;

/// A place for a flow.
#[repr(C, align(32))]
#[derive(Clone, Copy, Debug)]
pub struct FlowSlot {
    /// [`FlowKey4::words`].
    pub key: [u64; 2],
    /// Valid where its binding names a WAN.
    pub value: FlowValue,
}

/// Sixty-four bytes, a line of the processor's cache.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug)]
pub struct FlowLine {
    slots: [FlowSlot; LINE_FLOWS as usize],
}

/// The number of a place in the table.
pub type FlowPlace = u32;

/// A flow that was found.
#[derive(Clone, Copy, Debug)]
pub struct FoundFlow {
    /// Where.
    pub place: FlowPlace,
    /// Its binding then. The place may be another flow's by now.
    pub binding: Binding,
}

/// Where the lines stand, and the operations of the machine.
pub trait FlowMemory {
    /// A line; `None` past the end. What it points to lives as long as `self`.
    fn line(&self, number: u32) -> Option<*mut FlowLine>;

    /// Puts `new` where `old` is; returns what was there. A full barrier.
    ///
    /// # Safety
    /// `word` is in a line that [`line`](Self::line) gave, aligned.
    unsafe fn compare_exchange(&self, word: *mut u64, old: u64, new: u64) -> u64;

    /// Puts `new` there, whatever it was. A full barrier.
    ///
    /// # Safety
    /// As above.
    unsafe fn swap(&self, word: *mut u64, new: u64);
}

/// How many lines are in use.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowLines {
    /// Where new flows go.
    pub now: u32,
    /// Where flows may still be; the same but while the daemon moves them.
    pub before: u32,
}

impl FlowLines {
    /// As one word.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        self.now as u64 | (self.before as u64) << 32
    }

    /// From [`word`](Self::word).
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation, reason = "one half each")]
    pub const fn of_word(word: u64) -> Self {
        Self { now: word as u32, before: (word >> 32) as u32 }
    }

    /// All of the table: what whoever finds no place for a flow makes of this, unless flows are being moved already.
    #[inline(always)]
    pub fn overflown(self, all: u32) -> Option<Self> {
        if self.now == self.before && self.now != all {
            Some(Self { now: all, before: self.now })
        } else {
            None
        }
    }

    /// Looks for a flow.
    #[inline(always)]
    pub fn find(self, memory: &impl FlowMemory, key: &FlowKey4, seed: u64) -> Option<FoundFlow> {
        if self.before != self.now
            && let Some(found) = (FlowLayout { lines: self.before, seed }).find(memory, key)
        {
            return Some(found);
        }
        FlowLayout { lines: self.now, seed }.find(memory, key)
    }
}

/// How the lines in use are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowLayout {
    /// How many lines there are.
    pub lines: u32,
    /// Drawn at each start: nobody outside can choose flows that share their lines.
    pub seed: u64,
}

impl FlowLayout {
    /// Looks for a flow.
    #[inline(always)]
    pub fn find(self, memory: &impl FlowMemory, key: &FlowKey4) -> Option<FoundFlow> {
        let [first, second] = self.lines_of(key);
        let (first_line, second_line) = (memory.line(first)?, memory.line(second)?);
        let [addresses, rest] = key.words();
        let binding_of = |line: *mut FlowLine, index: usize| {
            // SAFETY: a line of the table's, which lives as long as `memory`; whole words are read.
            unsafe {
                let slot = &raw mut (*line).slots[index];
                let before = binding_word(slot).read_volatile();
                let is_it = holds_flow(before)
                    && (&raw const (*slot).key[0]).read_volatile() == addresses
                    && (&raw const (*slot).key[1]).read_volatile() == rest;
                let after = binding_word(slot).read_volatile();
                if is_it && (before ^ after) & (WAN_BITS | GENERATION_BITS) == 0 { after } else { FREE }
            }
        };
        let found = |line: u32, index: u32, binding: u64| {
            Some(FoundFlow { place: line * LINE_FLOWS + index, binding: Binding::of_word(binding) })
        };
        let mut binding = binding_of(first_line, 0);
        if binding != FREE {
            return found(first, 0, binding);
        }
        binding = binding_of(first_line, 1);
        if binding != FREE {
            return found(first, 1, binding);
        }
        binding = binding_of(second_line, 0);
        if binding != FREE {
            return found(second, 0, binding);
        }
        binding = binding_of(second_line, 1);
        if binding != FREE { found(second, 1, binding) } else { None }
    }

    /// Stores a flow that is not there; `false`: there is no room for it. The value's binding names a WAN.
    #[inline(always)]
    pub fn insert(self, memory: &impl FlowMemory, key: &FlowKey4, value: FlowValue) -> bool {
        let [a, b] = self.lines_of(key);
        let (Some(used_a), Some(used_b)) = (used(memory, a), used(memory, b)) else { return false };
        let (first, second) = if used_b < used_a { (b, a) } else { (a, b) };
        for place in
            [first * LINE_FLOWS, first * LINE_FLOWS + 1, second * LINE_FLOWS, second * LINE_FLOWS + 1]
        {
            let Some(slot) = slot(memory, place) else { return false };
            // SAFETY: a place of the table's, which lives as long as `memory`. Between claim and binding it is ours.
            unsafe {
                let binding = binding_word(slot);
                let found = binding.read_volatile();
                if !is_free(found) || memory.compare_exchange(binding, found, CLAIMED) != found {
                    continue;
                }
                let [addresses, rest] = key.words();
                (&raw mut (*slot).key[0]).write_volatile(addresses);
                (&raw mut (*slot).key[1]).write_volatile(rest);
                (&raw mut (*slot).value.seen).write_volatile(value.seen);
                memory.swap(binding, value.binding.word());
            }
            return true;
        }
        false
    }

    /// The two lines that a flow may stand in.
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation, reason = "half of a product of two halves")]
    pub fn lines_of(self, key: &FlowKey4) -> [u32; 2] {
        let hash = hash(key, self.seed);
        let lines = self.lines as u64;
        [(((hash & u32::MAX as u64) * lines) >> 32) as u32, (((hash >> 32) * lines) >> 32) as u32]
    }
}

/// A place; `None` past the end.
#[inline(always)]
pub fn slot(memory: &impl FlowMemory, place: FlowPlace) -> Option<*mut FlowSlot> {
    let line = memory.line(place / LINE_FLOWS)?;
    // SAFETY: inside of the line.
    Some(unsafe { (&raw mut (*line).slots).cast::<FlowSlot>().add((place % LINE_FLOWS) as usize) })
}

/// The word that says whether a place is free, and if not, where its flow goes.
///
/// # Safety
/// The pointer is to a place of a table that still is.
#[inline(always)]
pub unsafe fn binding_word(slot: *mut FlowSlot) -> *mut u64 {
    // SAFETY: as the caller promises; a binding is one aligned word.
    unsafe { (&raw mut (*slot).value.binding).cast() }
}

/// What stands in a free place's binding.
pub const FREE: u64 = 0;
const CLAIMED: u64 = Binding { generation: 0, wan: 0, state: 0, inbound: 0, claimed: 1 }.word();
const WAN_BITS: u64 = Binding { generation: 0, wan: u8::MAX, state: 0, inbound: 0, claimed: 0 }.word();
const GENERATION_BITS: u64 =
    Binding { generation: u32::MAX, wan: 0, state: 0, inbound: 0, claimed: 0 }.word();

/// A packet that met the flow just before it was removed may still have written its state.
#[inline(always)]
const fn is_free(binding: u64) -> bool {
    binding & (WAN_BITS | CLAIMED) == 0
}

/// Whether a place holds a flow.
#[inline(always)]
pub const fn holds_flow(binding: u64) -> bool {
    binding & WAN_BITS != 0
}

/// Places of a line that are taken.
#[inline(always)]
fn used(memory: &impl FlowMemory, line: u32) -> Option<u32> {
    let line = memory.line(line)?;
    let taken = |index: usize| {
        // SAFETY: a line of the table's, which lives as long as `memory`.
        let binding = unsafe { binding_word(&raw mut (*line).slots[index]).read_volatile() };
        u32::from(!is_free(binding))
    };
    Some(taken(0) + taken(1))
}

/// Multiplies and folds (the finalizer of MurmurHash3, 64 bits, with the key's second half put in between).
#[inline(always)]
const fn hash(key: &FlowKey4, seed: u64) -> u64 {
    let [addresses, rest] = key.words();
    let mut hash = (addresses ^ seed).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ hash >> 33 ^ rest).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash = (hash ^ hash >> 29 ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash ^ hash >> 32
}

const _: () = {
    assert!(size_of::<FlowSlot>() == 32);
    assert!(size_of::<FlowLine>() == 64);
};

#[cfg(feature = "user")]
// SAFETY: `repr(C)` integers without padding (sizes asserted above), valid for any bit pattern.
unsafe impl aya::Pod for FlowLine {}

//! One dimension of a compiled policy: from what a packet has, an address or a port, to the filters that can
//! still match it.
//!
//! A dimension is one array, made by the daemon and read by the programs with the functions here; the daemon's
//! own check of a policy goes through the same ones. It consists of 16-byte *cells*, four in a [`Line`]:
//!
//! ```text
//! line 0      cell 0: the class of every key that no filter names
//! line 1 …    the root, 16 entries a line, indexed by the port or the upper half of the address. A dimension in
//!             which no filter names anything has none
//! then        classes, nodes and runs
//! ```
//! An *entry* is the number of a class's cell, or with [`NODE`] set that of the first node of a deeper level.
//!
//! A *node* covers 64 slots: a bitmap in which a bit is set where another run of equal entries begins, and
//! the number of its first run's entry. Below the root an address has 16 nodes for its next 10 bits (a slot is
//! a /26), then one for its last 6. So a single /32 costs 16 bytes for its node and some for the runs around
//! it, neighbouring /24s of one class together nothing, and no lookup reads more than six places.
//!
//! A *class* is `[live, changed]`: the words of its vector that are not zero, and those that differ from cell
//! 0's class; then the differences (XOR), two words a cell. The words of cell 0's class stand beside the
//! filters ([`Row`](crate::filters::Row)). A class therefore costs what its own lists change, however many
//! filters say nothing of this dimension.

use crate::lines::{Lines, entry, pair};

/// What a packet is classified by, beside its protocol.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dimension {
    /// Source address.
    Source = 0,
    /// Destination address.
    Destination = 1,
    /// Source port.
    SourcePort = 2,
    /// Destination port.
    DestinationPort = 3,
}

impl Dimension {
    /// How many there are.
    pub const COUNT: usize = 4;
    /// By number.
    pub const ALL: [Self; Self::COUNT] =
        [Self::Source, Self::Destination, Self::SourcePort, Self::DestinationPort];
}

/// Cell of the class of what no filter names; also what a lookup comes to where there is no root.
pub const ELSEWHERE: u32 = 0;
/// Set in entries that name a node.
pub const NODE: u32 = 1 << 31;
/// Number of the root's first entry: behind line 0.
pub const ROOT: u32 = 16;
/// Entries of the root.
pub const ROOT_ENTRIES: u32 = 1 << 16;
/// Slots of a node.
pub const SLOTS: u32 = 64;
/// Nodes for the 10 bits of an address below the root's 16.
pub const MIDDLE_NODES: u32 = 16;

/// The root's entry of a port, or of the upper half of an address (host byte order): of a port its class, of an address
/// what [`below_root`] goes on from.
#[inline(always)]
pub fn root(lines: &impl Lines, key: u16) -> u32 {
    match entry(lines, ROOT + key as u32) {
        Some(entry) => entry,
        None => ELSEWHERE,
    }
}

/// The class of an address (host byte order).
#[inline(always)]
#[allow(clippy::cast_possible_truncation, reason = "the upper half is what is meant")]
pub fn class_of_address(lines: &impl Lines, address: u32) -> u32 {
    below_root(lines, root(lines, (address >> 16) as u16), address)
}

/// The same, from its entry in the root on.
#[inline(always)]
pub fn below_root(lines: &impl Lines, upper: u32, address: u32) -> u32 {
    if upper & NODE == 0 {
        return upper;
    }
    let middle = below(lines, (upper & !NODE) + ((address >> 12) & (MIDDLE_NODES - 1)), address >> 6);
    if middle & NODE == 0 {
        return middle;
    }
    below(lines, middle & !NODE, address)
}

/// The entry of a node's slot, which the lowest six bits of `slot` say.
#[inline(always)]
#[allow(clippy::cast_possible_truncation, reason = "the daemon makes fewer entries than 2^31")]
fn below(lines: &impl Lines, node: u32, slot: u32) -> u32 {
    let Some([starts, first]) = pair(lines, node) else { return ELSEWHERE };
    // Runs that begin up to this slot, itself included; slot 0 always begins one.
    let begun = (starts & (u64::MAX >> (SLOTS - 1 - slot % SLOTS))).count_ones();
    match entry(lines, first as u32 + begun - 1) {
        Some(entry) => entry,
        None => ELSEWHERE,
    }
}

/// A class: the words that are not zero, and those that differ from [`ELSEWHERE`]'s.
#[inline(always)]
pub fn class(lines: &impl Lines, number: u32) -> Option<[u64; 2]> {
    pair(lines, number)
}

/// How a word of a class's vector differs from that of [`ELSEWHERE`]; `changed` is the class's.
#[inline(always)]
pub fn difference(lines: &impl Lines, class: u32, changed: u64, word: u32) -> u64 {
    let bit = 1 << (word % 64);
    if changed & bit == 0 {
        return 0;
    }
    let place = (changed & (bit - 1)).count_ones();
    match pair(lines, class + 1 + place / 2) {
        Some([even, odd]) => {
            if place & 1 == 0 {
                even
            } else {
                odd
            }
        }
        None => 0,
    }
}

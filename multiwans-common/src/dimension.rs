//! One dimension of a compiled policy: from what a packet has (an address, a port, a protocol) to the
//! filters that can still match it.
//!
//! A dimension is one array of 16-byte cells, made by the daemon and read by the programs with the functions
//! here; the daemon's own check of a policy goes through the same ones.
//!
//! ```text
//! cell 0      the class of every key that no filter names
//! cell 1 …    the root, 4 entries a cell, indexed by the key: 65 536 for ports and for the upper half of
//!             addresses, 256 for protocols. A dimension in which no filter names anything has none
//! then        classes, nodes and runs
//! ```
//! An *entry* is the number of a class's cell, or with [`NODE`] set that of the first node of a deeper level.
//!
//! A *node* covers 64 slots: a bitmap in which a bit is set where another run of equal entries begins, and
//! the number of its first run's entry. Below the root an address has 16 nodes for its next 10 bits (a slot is
//! a /26), then one for its last 6. So a single /32 costs 16 bytes for its node and some for the runs around
//! it, neighbouring /24s of one class together nothing, and no lookup reads more than six cells.
//!
//! A *class* is `[live, changed]`: the words of its vector that are not zero, and those that differ from cell
//! 0's class; then the differences (XOR), two words a cell. The words of cell 0's class stand beside the
//! filters ([`FilterWord`](crate::FilterWord)). A class therefore costs what its own lists change, however
//! many filters say nothing of this dimension.

/// Sixteen bytes of a dimension.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell(pub [u64; 2]);

/// What a packet is classified by.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dimension {
    /// Source address.
    Source = 0,
    /// Destination address.
    Destination = 1,
    /// IP protocol number.
    Protocol = 2,
    /// Source port.
    SourcePort = 3,
    /// Destination port.
    DestinationPort = 4,
}

impl Dimension {
    /// How many there are.
    pub const COUNT: usize = 5;

    /// Where this dimension of the policy copy at `place` stands in the dimensions' outer map.
    #[inline(always)]
    pub const fn of_place(self, place: u32) -> u32 {
        place * 5 + self as u32
    }
}

/// Entries in a cell.
pub const CELL_ENTRIES: u32 = 4;
/// The class of what no filter names; also read where the root is missing.
pub const ELSEWHERE: u32 = 0;
/// Set in entries that name a node.
pub const NODE: u32 = 1 << 31;
/// Number of the root's first entry: behind cell 0.
pub const ROOT: u32 = CELL_ENTRIES;
/// Slots of a node.
pub const SLOTS: u32 = 64;
/// Nodes for the 10 bits of an address below the root's 16.
pub const MIDDLE_NODES: u32 = 16;

/// Where cells are read from.
pub trait Cells {
    /// A cell; `None` past the end.
    fn cell(&self, number: u32) -> Option<&Cell>;
}

/// The class of a key that indexes the root: a port (host byte order) or a protocol.
#[inline(always)]
pub fn class_of(cells: &impl Cells, key: u32) -> u32 {
    match entry(cells, ROOT + key) {
        Some(class) => class,
        None => ELSEWHERE,
    }
}

/// The class of an address (host byte order).
#[inline(always)]
pub fn class_of_address(cells: &impl Cells, address: u32) -> u32 {
    let upper = class_of(cells, address >> 16);
    if upper & NODE == 0 {
        return upper;
    }
    let middle = below(cells, (upper & !NODE) + ((address >> 12) & (MIDDLE_NODES - 1)), address >> 6);
    if middle & NODE == 0 {
        return middle;
    }
    below(cells, middle & !NODE, address)
}

/// The entry of a node's slot, which the lowest six bits of `slot` say.
#[inline(always)]
#[allow(clippy::cast_possible_truncation, reason = "the daemon makes fewer entries than 2^31")]
fn below(cells: &impl Cells, node: u32, slot: u32) -> u32 {
    let Some(Cell([starts, first])) = cells.cell(node) else { return ELSEWHERE };
    // Runs that begin up to this slot, itself included; slot 0 always begins one.
    let begun = (starts & (u64::MAX >> (SLOTS - 1 - slot % SLOTS))).count_ones();
    match entry(cells, *first as u32 + begun - 1) {
        Some(entry) => entry,
        None => ELSEWHERE,
    }
}

#[inline(always)]
#[allow(clippy::cast_possible_truncation, reason = "the lower half is what is meant")]
fn entry(cells: &impl Cells, number: u32) -> Option<u32> {
    let Cell([low, high]) = cells.cell(number / CELL_ENTRIES)?;
    let half = if number & 2 == 0 { low } else { high };
    Some((half >> (number % 2 * 32)) as u32)
}

/// How a word of a class's vector differs from that of [`ELSEWHERE`]; `changed` is the class's.
#[inline(always)]
pub fn difference(cells: &impl Cells, class: u32, changed: u64, word: u32) -> u64 {
    let bit = 1 << (word % 64);
    if changed & bit == 0 {
        return 0;
    }
    let place = (changed & (bit - 1)).count_ones();
    match cells.cell(class + 1 + place / 2) {
        Some(Cell([low, high])) => *if place & 1 == 0 { low } else { high },
        None => 0,
    }
}

const _: () = assert!(size_of::<Cell>() == 16);

// SAFETY: `repr(C)` integers without padding (size asserted above), valid for any bit pattern.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Cell {}

//! The compiled policy: bit vectors by class.
//!
//! Filters are numbered in evaluation order. For each of the five dimensions (source, destination,
//! protocol, source port, destination port) one lookup gives a *class*; a class is an index into the
//! vectors; bit *n* of a vector says whether filter *n* can still match. The first bit set in the AND of
//! the five is the filter.

/// Filters a policy can have.
pub const MAX_FILTERS: usize = 4096;
/// Bits in one word of a vector.
pub const BITS_PER_WORD: usize = 64;
/// Words of a vector.
pub const VECTOR_WORDS: usize = MAX_FILTERS / BITS_PER_WORD;
/// A class that no filter of the policy cares for: vector 0, all zero.
pub const NO_CLASS: u32 = 0;

/// The filters that can still match, filter 0 in the lowest bit of word 0.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Vector {
    /// The bits.
    pub words: [u64; VECTOR_WORDS],
}

/// The policy's fixed part, one entry.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PolicyHead {
    /// Words in use: filters divided by 64, rounded up. 0: no filters, everything takes the default.
    pub words: u32,
    /// Zero: the bit that a search begins at.
    pub zero: u32,
    /// Class of an address outside every prefix of the policy.
    pub source_elsewhere: u32,
    /// Class of an address outside every prefix of the policy.
    pub destination_elsewhere: u32,
    /// Class of a source port whose entry is 0.
    pub source_port_elsewhere: u32,
    /// Class of a destination port whose entry is 0.
    pub destination_port_elsewhere: u32,
    /// Class of each IP protocol number.
    pub protocols: [u32; 256],
}

/// Classes of a port, as a source and as a destination. One array of 65 536 of them serves both
/// dimensions (the kernel rounds array elements up to 8 bytes anyway). Index: the port in host byte order.
/// 0: no filter names this port, see [`PolicyHead`]; so only the ports that filters name are written.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortClasses {
    /// As a source port.
    pub source: u32,
    /// As a destination port.
    pub destination: u32,
}

/// One filter.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilterEntry {
    /// The WAN it sends to.
    pub wan: u32,
    /// The next filter that sends elsewhere: where to go on when this WAN takes no filtered traffic now.
    pub skip_to: u32,
}

/// The policies there are: each has its own filters, and two copies of them in the policy maps.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicySet {
    /// Forwarded traffic.
    Forwarding = 0,
    /// The router's own.
    Output = 1,
}

impl PolicySet {
    /// How many there are: entries of the array of [`PolicySlot`]s.
    pub const COUNT: usize = 2;

    /// Where a copy (0 or 1) of this policy stands in the outer maps.
    #[inline(always)]
    pub const fn place(self, copy: u32) -> u32 {
        self as u32 * COPIES + (copy & 1)
    }
}

/// Copies of each policy: one in force, one to build the next in.
const COPIES: u32 = 2;
/// Entries of the outer maps.
pub const POLICY_PLACES: usize = PolicySet::COUNT * COPIES as usize;

/// Which of the two copies of a policy is in force: 0 or 1.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicySlot {
    /// 0 or 1.
    pub active: u32,
}

const _: () = {
    assert!(size_of::<Vector>() == 512);
    assert!(size_of::<PolicyHead>() == 24 + 1024);
    assert!(size_of::<PortClasses>() == 8);
    assert!(size_of::<FilterEntry>() == 8);
};

#[cfg(feature = "user")]
mod pod {
    // SAFETY: `repr(C)` integers without padding (sizes asserted above), valid for any bit pattern.
    unsafe impl aya::Pod for super::Vector {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::PolicyHead {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::PortClasses {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::FilterEntry {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::PolicySlot {}
}

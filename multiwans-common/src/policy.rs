//! The compiled policy: bit vectors by class.
//!
//! Filters are numbered in evaluation order. For each of the five dimensions (source, destination,
//! protocol, source port, destination port) one lookup gives a *class* ([`dimension`](crate::dimension)),
//! and a class is a bit vector; bit *n* says whether filter *n* can still match. The first bit set in the AND
//! of the five is the filter.

use crate::dimension::Dimension;

/// Filters a policy can have: a word of the vectors for each bit of a word.
pub const MAX_FILTERS: usize = VECTOR_WORDS * BITS_PER_WORD;
/// Bits in one word of a vector.
pub const BITS_PER_WORD: usize = 64;
/// Words of a vector.
pub const VECTOR_WORDS: usize = 64;

/// Sixty-four filters, and the same word of the vectors of [`ELSEWHERE`](crate::dimension::ELSEWHERE) in all
/// dimensions: what a step of the search reads is in one place.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilterWord {
    /// By [`Dimension`], filter 0 in the lowest bit.
    pub elsewhere: [u64; Dimension::COUNT],
    /// The filters.
    pub filters: [FilterEntry; BITS_PER_WORD],
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

    /// Where the filters of a version of this policy stand in their outer map.
    #[inline(always)]
    pub const fn place(self, version: u32) -> u32 {
        self as u32 * COPIES + (version & 1)
    }
}

/// Copies of each policy: one in force, one to build the next in.
const COPIES: u32 = 2;
/// Copies of all policies.
pub const POLICY_PLACES: usize = PolicySet::COUNT * COPIES as usize;
/// Dimensions of all of them.
pub const DIMENSION_PLACES: usize = POLICY_PLACES * Dimension::COUNT;

/// Which version of a policy is in force.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicySlot {
    /// Its number, one more with each policy. The lowest bit says in which of the two copies it stands, so
    /// both are read at once.
    pub version: u32,
}

const _: () = {
    assert!(size_of::<FilterWord>() == 40 + 512);
    assert!(size_of::<FilterEntry>() == 8);
};

#[cfg(feature = "user")]
mod pod {
    // SAFETY: `repr(C)` integers without padding (sizes asserted above), valid for any bit pattern.
    unsafe impl aya::Pod for super::FilterEntry {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::FilterWord {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::PolicySlot {}
}

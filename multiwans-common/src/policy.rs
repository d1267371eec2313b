//! The compiled policy: bit vectors by class.
//!
//! Filters are numbered in evaluation order. For each of four dimensions (source, destination, source port,
//! destination port) one lookup gives a *class* ([`dimension`](crate::dimension)), and a class is a bit vector;
//! bit *n* says whether filter *n* can still match. The first bit set in the AND of the four and of the
//! protocol's vector is the filter.

use crate::dimension::Dimension;

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

    /// The copy that holds a version of this policy.
    #[inline(always)]
    pub const fn copy(self, version: u32) -> PolicyCopy {
        PolicyCopy { first: (self as u32 * COPIES + (version & 1)) * MAPS }
    }
}

/// Copies of each policy: one in force, one to build the next in.
const COPIES: u32 = 2;
/// Maps of a copy: its filters, then its dimensions.
const MAPS: u32 = 5;
const _: () = assert!(MAPS as usize == 1 + Dimension::COUNT);
/// Maps of all copies of all policies.
pub const POLICY_PLACES: usize = PolicySet::COUNT * COPIES as usize * MAPS as usize;

/// Where the maps of one copy of a policy stand in the outer map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyCopy {
    first: u32,
}

impl PolicyCopy {
    /// Of the filters.
    #[inline(always)]
    pub const fn filters(self) -> u32 {
        self.first
    }

    /// Of a dimension.
    #[inline(always)]
    pub const fn dimension(self, dimension: Dimension) -> u32 {
        self.first + 1 + dimension as u32
    }
}

/// Which version of a policy is in force.
///
/// Eight bytes, which the kernel copies in one store.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicySlot {
    /// Its number, one more with each policy. The lowest bit says in which of the two copies it stands, so
    /// both are read at once.
    pub version: u32,
    /// The dimensions in which its filters tell keys apart, a bit each by number. Nothing is looked up in the others.
    pub used: u32,
}

impl PolicySlot {
    /// As one word.
    #[inline(always)]
    pub const fn of_word(word: u64) -> Self {
        // SAFETY: two integers without padding (size asserted below), valid for any bit pattern.
        unsafe { core::mem::transmute(word) }
    }

    /// Whether a dimension is to be looked up.
    #[inline(always)]
    pub const fn uses(self, dimension: Dimension) -> bool {
        self.used >> dimension as u32 & 1 != 0
    }
}

const _: () = assert!(size_of::<PolicySlot>() == 8);

// SAFETY: `repr(C)` integers without padding (size asserted above), valid for any bit pattern.
#[cfg(feature = "user")]
unsafe impl aya::Pod for PolicySlot {}

//! Bit vectors over the filters, each stored once and named by its class.

use std::collections::HashMap;

use multiwans_common::{BITS_PER_WORD, NO_CLASS};

/// Which filters can still match. Filter 0 is the lowest bit of word 0.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FilterSet {
    words: Vec<u64>,
}

impl FilterSet {
    /// The empty set, for this many filters.
    pub fn empty(filters: usize) -> Self {
        Self { words: vec![0; filters.div_ceil(BITS_PER_WORD)] }
    }

    /// Adds a filter.
    pub fn insert(&mut self, filter: usize) {
        self.words[filter / BITS_PER_WORD] |= 1 << (filter % BITS_PER_WORD);
    }

    /// Takes a filter out.
    pub fn remove(&mut self, filter: usize) {
        self.words[filter / BITS_PER_WORD] &= !(1 << (filter % BITS_PER_WORD));
    }

    /// The words, as many as the filters need.
    pub fn words(&self) -> &[u64] {
        &self.words
    }
}

/// Gives each distinct set a number.
#[derive(Debug)]
pub(super) struct Classes {
    numbers: HashMap<FilterSet, u32>,
    sets: Vec<FilterSet>,
}

impl Classes {
    /// Class 0 ([`NO_CLASS`]) is the empty set.
    pub(super) fn new(filters: usize) -> Self {
        let empty = FilterSet::empty(filters);
        Self { numbers: HashMap::from([(empty.clone(), NO_CLASS)]), sets: vec![empty] }
    }

    /// The set's class.
    ///
    /// There are at most two sets per prefix or port range of the policy and 256 for the protocols, so
    /// the number fits 32 bits.
    pub(super) fn class(&mut self, set: &FilterSet) -> u32 {
        if let Some(number) = self.numbers.get(set) {
            return *number;
        }
        let number = u32::try_from(self.sets.len()).unwrap_or(u32::MAX);
        self.numbers.insert(set.clone(), number);
        self.sets.push(set.clone());
        number
    }

    /// All sets, by class.
    pub(super) fn into_sets(self) -> Vec<FilterSet> {
        self.sets
    }
}

//! Bit vectors over the filters.

use multiwans_common::filters::BITS_PER_WORD;

/// Which filters can still match. Filter 0 is the lowest bit of word 0.
#[derive(Debug, Clone, PartialEq, Eq)]
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
        self.words[filter / BITS_PER_WORD] |= bit(filter);
    }

    /// A word; zero past the end.
    pub fn word(&self, number: usize) -> u64 {
        self.words.get(number).copied().unwrap_or(0)
    }

    /// The words, as many as the filters need.
    pub fn words(&self) -> &[u64] {
        &self.words
    }
}

/// What a set differs in from the set of what no filter names: the words that are not equal, XORed, in
/// ascending order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Difference {
    words: Vec<(u8, u64)>,
}

impl Difference {
    /// Turns these bits. A filter that is in already stays in.
    pub(super) fn add(&mut self, other: &Self) {
        for &(word, bits) in &other.words {
            self.add_bits(word, bits);
        }
    }

    /// Turns a filter's bit.
    pub(super) fn add_filter(&mut self, filter: usize) {
        // A filter's number is below MAX_FILTERS, 64 words.
        let word = u8::try_from(filter / BITS_PER_WORD).unwrap_or(u8::MAX);
        self.add_bits(word, bit(filter));
    }

    /// Turns a filter's bit back.
    pub(super) fn remove_filter(&mut self, filter: usize) {
        let own = |&(word, _): &(u8, u64)| usize::from(word) == filter / BITS_PER_WORD;
        if let Some(at) = self.words.iter().position(own) {
            self.words[at].1 &= !bit(filter);
            if self.words[at].1 == 0 {
                self.words.remove(at);
            }
        }
    }

    fn add_bits(&mut self, word: u8, bits: u64) {
        match self.words.binary_search_by_key(&word, |(word, _)| *word) {
            Ok(at) => self.words[at].1 |= bits,
            Err(at) => self.words.insert(at, (word, bits)),
        }
    }

    /// The words.
    pub(super) fn words(&self) -> &[(u8, u64)] {
        &self.words
    }
}

fn bit(filter: usize) -> u64 {
    1 << (filter % BITS_PER_WORD)
}

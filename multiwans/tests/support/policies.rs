//! Large policies and the packets that try them: plain numbers, always the same ones for the same sizes.
//! What measures uses it too, so that all measure the same.

use std::collections::BTreeSet;

/// A small generator of numbers (SplitMix64): these need to be many and spread, not secret.
#[derive(Debug, Clone)]
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Any 32 bits.
    pub(crate) fn word(&mut self) -> u32 {
        u32::try_from(self.next() >> 32).unwrap()
    }
}

/// Lengths of the prefixes of [`prefixes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lengths {
    /// As in the lists people have: mostly /24, some shorter, a fifth single addresses.
    Mixed,
    /// Single addresses all over, the costliest there is.
    Hosts,
}

/// So many different prefixes (address, length), in order.
pub(crate) fn prefixes(count: usize, lengths: Lengths, seed: u64) -> Vec<(u32, u8)> {
    let mut numbers = Numbers::new(seed);
    let mut prefixes = BTreeSet::new();
    while prefixes.len() < count {
        let length = match (lengths, numbers.below(20)) {
            (Lengths::Hosts, _) | (_, 0..4) => 32,
            (_, 4..6) => 25 + u8::try_from(numbers.below(7)).unwrap(),
            (_, 6..9) => 16 + u8::try_from(numbers.below(8)).unwrap(),
            _ => 24,
        };
        // 1.0.0.0 to 223.255.255.255: what is routed.
        let address = (1 << 24) + u32::try_from(numbers.below(223 << 24)).unwrap();
        prefixes.insert((address & (u32::MAX << (32 - u32::from(length))), length));
    }
    prefixes.into_iter().collect()
}

/// What a packet is classified by: source, destination, source port, destination port (TCP).
pub(crate) type Flow = (u32, u32, u16, u16);

/// Packets from 10.0.0.0/8, no two alike: every other one to an address in one of `prefixes`, the rest to
/// anywhere.
pub(crate) fn flows(count: usize, prefixes: &[(u32, u8)], seed: u64) -> Vec<Flow> {
    let mut numbers = Numbers::new(seed);
    (0..count)
        .map(|number| {
            let anywhere = (1 << 24) + u32::try_from(numbers.below(223 << 24)).unwrap();
            let destination = if number % 2 == 0 && !prefixes.is_empty() {
                let (address, length) =
                    prefixes[usize::try_from(numbers.next() >> 1).unwrap() % prefixes.len()];
                address | (anywhere & u32::MAX.checked_shr(length.into()).unwrap_or(0))
            } else {
                anywhere
            };
            let port = |number: u64| u16::try_from(number % 65_535).unwrap() + 1;
            let destination_port = match numbers.below(4) {
                0 => 80,
                1 => 443,
                _ => port(numbers.next()),
            };
            ((10 << 24) | (numbers.word() >> 8), destination, port(numbers.next()), destination_port)
        })
        .collect()
}

//! Presence filters: bitmaps that say "not in the table" without a look into it. Bloom filters (Bloom, 1970) with one
//! hash function: a clear bit is certain, a set one is worth a look.

use crate::FlowKey4;

/// Bits for each entry that the flow table can hold. A full table sets at most a quarter of them, one of 50 000 flows in
/// 262 144 a twentieth; so many unknown flows are looked up in vain.
const BITS_PER_FLOW: u32 = 4;

/// Words before the first half: a cache line, so that who notes a flow does not take the first word from those who ask.
const HEAD: u32 = 8;

/// The presence filter of the flow table, in words of 64 bits: [`ACTIVE`](Self::ACTIVE), the rest of its cache line, and
/// two halves, each a bitmap of the whole table. One half is asked while the daemon renews the other; single bits
/// cannot be cleared, since several flows may share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowPresence {
    /// Of a half; a power of two, 64 at least.
    bits: u32,
}

impl FlowPresence {
    /// The word that holds the number of the half that is asked, 0 or 1.
    pub const ACTIVE: u32 = 0;

    /// The filter of a table with so many entries, 2²⁸ at most: 128 KiB a half for 262 144, which stays in the cache of
    /// a core.
    pub const fn of_table(entries: u32) -> Self {
        let bits = (entries.saturating_mul(BITS_PER_FLOW)).next_power_of_two();
        Self { bits: if bits < u64::BITS { u64::BITS } else { bits } }
    }

    /// A filter with so many bits in a half: [`bits`](Self::bits) of another.
    #[inline(always)]
    pub const fn of_bits(bits: u32) -> Self {
        Self { bits }
    }

    /// Bits of a half.
    pub const fn bits(self) -> u32 {
        self.bits
    }

    /// All words.
    pub const fn words(self) -> u32 {
        HEAD + 2 * self.half_words()
    }

    /// The words of a half.
    pub const fn half(self, number: u32) -> core::ops::Range<u32> {
        let begin = HEAD + number * self.half_words();
        begin..begin + self.half_words()
    }

    /// A flow's bit in a half: the word's number, and the bit in it.
    #[inline(always)]
    pub const fn bit(self, half: u32, key: &FlowKey4) -> (u32, u64) {
        let bit = hash(key) & self.bits.wrapping_sub(1);
        (HEAD + half * self.half_words() + bit / u64::BITS, 1 << (bit % u64::BITS))
    }

    /// Whether a flow may be in the table; `read` gives a word, none if it cannot.
    #[inline(always)]
    pub fn may_hold(self, key: &FlowKey4, read: impl Fn(u32) -> Option<u64>) -> bool {
        let Some(active) = read(Self::ACTIVE) else { return true };
        let (word, bit) = self.bit((active & 1) as u32, key);
        match read(word) {
            Some(word) => word & bit != 0,
            None => true,
        }
    }

    #[inline(always)]
    const fn half_words(self) -> u32 {
        self.bits / u64::BITS
    }
}

/// Words of the presence filter of the router's own addresses: 4 096 bits, 512 bytes, for a few hundred addresses at most
/// as a rule.
pub const OWN_WORDS: u32 = 64;

/// The bit of an address (network byte order) in that filter: the word's number, and the bit in it.
#[inline(always)]
pub const fn own_bit(address: u32) -> (u32, u64) {
    // Fibonacci hashing (Knuth): 2³² divided by the golden ratio, and the highest bits.
    let bit = address.wrapping_mul(0x9e37_79b1) >> (u32::BITS - (OWN_WORDS * u64::BITS).ilog2());
    (bit / u64::BITS, 1 << (bit % u64::BITS))
}

/// Multiplies and folds (the finalizer of MurmurHash3, 64 bits, with the key's second half put in between). Whoever
/// finds flows that share a bit has the programs look into the table in vain, which is what they did without a filter.
#[inline(always)]
#[allow(clippy::cast_possible_truncation, reason = "the upper half is folded in")]
const fn hash(key: &FlowKey4) -> u32 {
    let addresses = key.source as u64 | (key.destination as u64) << 32;
    let rest = key.source_port as u64 | (key.destination_port as u64) << 16 | (key.protocol as u64) << 32;
    let mut hash = addresses.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ hash >> 33 ^ rest).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash = (hash ^ hash >> 29).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (hash >> 32) as u32
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec;

    fn flow(client: u8, destination: u32, source_port: u16) -> FlowKey4 {
        FlowKey4 {
            source: u32::from_ne_bytes([192, 168, 50, client]),
            destination,
            source_port: source_port.to_be(),
            destination_port: 443u16.to_be(),
            protocol: 6,
            zero: [0; 3],
        }
    }

    #[test]
    fn sizes() {
        for (entries, bits) in
            [(1, 64), (1_024, 4_096), (1_025, 8_192), (262_144, 1 << 20), (4_194_304, 1 << 24)]
        {
            let filter = FlowPresence::of_table(entries);
            assert_eq!(filter.bits(), bits, "{entries}");
            assert_eq!((filter.half(0).start, filter.half(0).end), (8, filter.half(1).start));
            assert_eq!(filter.half(1).end, filter.words());
            for port in 0..1000 {
                for half in [0, 1] {
                    assert!(filter.half(half).contains(&filter.bit(half, &flow(1, 7, port)).0));
                }
            }
        }
    }

    #[test]
    fn an_address_has_a_bit_of_its_own_among_few() {
        let mut words = [0u64; OWN_WORDS as usize];
        // Two networks whole.
        for last in 0..=255 {
            for net in [[192, 168, 50], [10, 0, 1]] {
                let (word, bit) = own_bit(u32::from_ne_bytes([net[0], net[1], net[2], last]));
                words[word as usize] |= bit;
            }
        }
        let set = words.iter().map(|word| word.count_ones()).sum::<u32>();
        // Of 4 096 bits, 512 addresses hit 481 by chance.
        assert!((440..=512).contains(&set), "{set}");
    }

    /// Flows that differ in little spread over the bits like random ones: of n bits, n/4 flows hit n(1 - e^(-1/4)).
    #[test]
    fn like_flows_have_unlike_bits() {
        let filter = FlowPresence::of_table(16_384);
        let one_host = (0..16_384).map(|port| flow(2, 0x0a71_00cb, port));
        let a_scan = (0..16_384).map(|host: u32| flow(2, (0xcb00_0000 + host).to_be(), 4000));
        let many_clients = (0..16_384u16).map(|n| flow(n.to_le_bytes()[0], 0x0a71_00cb, 40_000 + n / 256));
        let others = [1, 2, 3].map(|many| {
            let keys: &mut dyn Iterator<Item = FlowKey4> = match many {
                1 => &mut one_host.clone(),
                2 => &mut a_scan.clone(),
                _ => &mut many_clients.clone(),
            };
            let mut bits = vec![0u64; filter.words() as usize];
            for key in keys {
                let (word, bit) = filter.bit(0, &key);
                bits[word as usize] |= bit;
            }
            bits.iter().map(|word| word.count_ones()).sum::<u32>()
        });
        // 65 536 bits: 14 497 expected, 56 standard deviation.
        assert!(others.iter().all(|set| (14_100..14_900).contains(set)), "{others:?}");
    }
}

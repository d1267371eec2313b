//! The presence filter of the router's own addresses: a bitmap that says "not in the table" without a look into it. A
//! Bloom filter (Bloom, 1970) with one hash function: a clear bit is certain, a set one is worth a look.

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

#[cfg(test)]
mod tests {
    use super::*;

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
}

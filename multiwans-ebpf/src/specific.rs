//! Where the main table has a route of its own to: traffic that is routed as it says, whatever we choose.

use aya_ebpf::{
    btf_maps::{Array, HashMap, LpmTrie, lpm_trie::Key},
    macros::btf_map,
};
use multiwans_common::{OWN_SLOTS, OWN_WORDS, SPECIFIC_SLOTS, own_bit};

/// Destinations of the main table's routes but the default ones, and the router's own addresses.
///
/// A mark would do no harm there, since the first of our rules asks the main table for such a route, but
/// a WAN's address as the source would be wrong for a datagram into a VPN.
///
/// Key: prefix length and address in network byte order. Value: unused. Writer: the daemon, at every
/// change of a route. Reader: output. 16 384 entries of about 40 bytes, allocated as they come. Full: the
/// daemon enters 0.0.0.0/0 in their place, and no unconnected datagram is given a source; a router with that many
/// routes has one of its own to nearly everywhere.
#[btf_map]
static MW_SPECIFIC: LpmTrie<u32, u32, { SPECIFIC_SLOTS as usize }> = LpmTrie::new();

/// Whether the main table knows more of a destination (network byte order) than its default route.
#[inline(always)]
pub fn covers(destination: u32) -> bool {
    MW_SPECIFIC.get(&Key::new(32, destination)).is_some()
}

/// The router's own addresses, and the broadcast addresses of its networks: what is sent there is steered to
/// no WAN. A mark would change its route as little, but a socket that accepts a connection may inherit it
/// (`net.ipv4.tcp_fwmark_accept`), and it would count for a WAN.
///
/// Key: address in network byte order. Value: unused. Writer: the daemon, at every change of a route.
/// Reader: steer. 4 096 entries of about 70 bytes, 300 KiB. Full: the rest is steered.
#[btf_map]
static MW_OWN: HashMap<u32, u32, { OWN_SLOTS as usize }> = HashMap::new();

/// The presence filter of [`MW_OWN`]: nearly every fresh packet is for somewhere else, and its destination's place in
/// the hash map is not in the cache.
///
/// Key: a word's number. Value: 64 bits ([`own_bit`]). Writer: the daemon; a bit is set before the first of its addresses
/// is in the map, and cleared after the last one went. Reader: steer. 64 × 8 bytes.
#[btf_map]
static MW_OWN_BITS: Array<u64, { OWN_WORDS as usize }> = Array::new();

/// Whether an address (network byte order) is the router's own.
#[inline(always)]
pub fn is_own(address: u32) -> bool {
    let (number, bit) = own_bit(address);
    if let Some(word) = MW_OWN_BITS.get_ptr(number)
        // SAFETY: the kernel keeps an array's memory. The daemon may write the word meanwhile: whatever parts of it are
        // old or new, a bit that is in both is read.
        && unsafe { word.read_volatile() } & bit == 0
    {
        return false;
    }
    MW_OWN.get_ptr(address).is_some()
}

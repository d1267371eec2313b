//! Telling the programs which destinations are routed by routes of their own, and which are the router's.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, MapData, MapError};
use ipnet::Ipv4Net;
use multiwans_common::{OWN_SLOTS, OWN_WORDS, SPECIFIC_SLOTS, own_bit};

use super::policy_maps::network_order;
use super::{DatapathError, maps};

/// The maps; see `multiwans-ebpf/src/specific.rs`.
pub struct SpecificMap {
    map: LpmTrie<MapData, u32, u32>,
    known: BTreeSet<Ipv4Net>,
    own: Own,
}

/// The router's addresses, and the filter in front of them.
struct Own {
    map: HashMap<MapData, u32, u32>,
    /// What is in the map.
    known: BTreeSet<Ipv4Addr>,
    bits: Array<MapData, u64>,
    /// What is in the filter.
    words: [u64; OWN_WORDS as usize],
}

impl SpecificMap {
    /// Destinations it holds.
    pub const CAPACITY: usize = SPECIFIC_SLOTS as usize;

    /// Takes them out of the loaded object: they change beside everything else.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Option<Self>, DatapathError> {
        let Some(map) = ebpf.take_map(maps::SPECIFIC) else { return Ok(None) };
        let map = LpmTrie::try_from(map).map_err(DatapathError::map(maps::SPECIFIC))?;
        let Some(own) = ebpf.take_map(maps::OWN) else { return Ok(None) };
        let Some(bits) = ebpf.take_map(maps::OWN_BITS) else { return Ok(None) };
        let own = Own {
            map: HashMap::try_from(own).map_err(DatapathError::map(maps::OWN))?,
            known: BTreeSet::new(),
            bits: Array::try_from(bits).map_err(DatapathError::map(maps::OWN_BITS))?,
            words: [0; OWN_WORDS as usize],
        };
        Ok(Some(Self { map, known: BTreeSet::new(), own }))
    }

    /// Makes the programs know these as the router's addresses. Of more than the map holds, the rest is
    /// steered like any other destination, which changes nothing but the counters.
    pub fn replace_own(&mut self, wanted: BTreeSet<Ipv4Addr>) -> Result<(), DatapathError> {
        self.own.replace(&wanted.into_iter().take(OWN_SLOTS as usize).collect())
    }

    /// Makes the map of specific routes hold these; `None`: there are more than it
    /// can, and every destination counts as one.
    /// What is kept stays in it all the time.
    pub fn replace(&mut self, wanted: Option<BTreeSet<Ipv4Net>>) -> Result<(), DatapathError> {
        let wanted = match wanted {
            Some(wanted) if wanted.len() <= Self::CAPACITY => wanted,
            _ => BTreeSet::from([Ipv4Net::default()]),
        };
        let error = DatapathError::map(maps::SPECIFIC);
        for net in self.known.difference(&wanted) {
            match self.map.remove(&key(net)) {
                Ok(()) | Err(MapError::KeyNotFound) => {}
                Err(source) => return Err(error(source)),
            }
        }
        for net in wanted.difference(&self.known) {
            self.map.insert(&key(net), 0, 0).map_err(&error)?;
        }
        self.known = wanted;
        Ok(())
    }
}

impl Own {
    /// An address has its bit for as long as it is in the map, whatever fails in between.
    fn replace(&mut self, wanted: &BTreeSet<Ipv4Addr>) -> Result<(), DatapathError> {
        self.set_bits(words(self.known.union(wanted)))?;
        let error = DatapathError::map(maps::OWN);
        for address in &self.known - wanted {
            match self.map.remove(&network_order(address)) {
                Ok(()) | Err(MapError::KeyNotFound) => self.known.remove(&address),
                Err(source) => return Err(error(source)),
            };
        }
        for address in wanted - &self.known {
            self.map.insert(network_order(address), 0, 0).map_err(&error)?;
            self.known.insert(address);
        }
        self.set_bits(words(&self.known))
    }

    fn set_bits(&mut self, wanted: [u64; OWN_WORDS as usize]) -> Result<(), DatapathError> {
        for ((number, wanted), word) in (0..).zip(wanted).zip(&mut self.words) {
            if wanted != *word {
                self.bits.set(number, wanted, 0).map_err(DatapathError::map(maps::OWN_BITS))?;
                *word = wanted;
            }
        }
        Ok(())
    }
}

/// The filter of just these.
fn words<'a>(addresses: impl IntoIterator<Item = &'a Ipv4Addr>) -> [u64; OWN_WORDS as usize] {
    let mut words = [0; OWN_WORDS as usize];
    for address in addresses {
        let (word, bit) = own_bit(network_order(*address));
        words[word as usize] |= bit;
    }
    words
}

fn key(net: &Ipv4Net) -> Key<u32> {
    Key::new(u32::from(net.prefix_len()), network_order(net.network()))
}

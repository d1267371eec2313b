//! Telling the programs which destinations are routed by routes of their own, and which are the router's.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use aya::Ebpf;
use aya::maps::hash_map::HashMap;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{MapData, MapError};
use ipnet::Ipv4Net;
use multiwans_common::{OWN_SLOTS, SPECIFIC_SLOTS};

use super::policy_maps::network_order;
use super::{DatapathError, maps};

/// The maps; see `multiwans-ebpf/src/specific.rs`.
pub struct SpecificMap {
    map: LpmTrie<MapData, u32, u32>,
    known: BTreeSet<Ipv4Net>,
    own: HashMap<MapData, u32, u32>,
    known_own: BTreeSet<Ipv4Addr>,
}

impl SpecificMap {
    /// Destinations it holds.
    pub const CAPACITY: usize = SPECIFIC_SLOTS as usize;

    /// Takes them out of the loaded object: they change beside everything else.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Option<Self>, DatapathError> {
        let Some(map) = ebpf.take_map(maps::SPECIFIC) else { return Ok(None) };
        let map = LpmTrie::try_from(map).map_err(DatapathError::map(maps::SPECIFIC))?;
        let Some(own) = ebpf.take_map(maps::OWN) else { return Ok(None) };
        let own = HashMap::try_from(own).map_err(DatapathError::map(maps::OWN))?;
        Ok(Some(Self { map, known: BTreeSet::new(), own, known_own: BTreeSet::new() }))
    }

    /// Makes the programs know these as the router's addresses. Of more than the map holds, the rest is
    /// steered like any other destination, which changes nothing but the counters.
    pub fn replace_own(&mut self, wanted: BTreeSet<Ipv4Addr>) -> Result<(), DatapathError> {
        let wanted: BTreeSet<Ipv4Addr> = wanted.into_iter().take(OWN_SLOTS as usize).collect();
        let error = DatapathError::map(maps::OWN);
        for address in self.known_own.difference(&wanted) {
            match self.own.remove(&network_order(*address)) {
                Ok(()) | Err(MapError::KeyNotFound) => {}
                Err(source) => return Err(error(source)),
            }
        }
        for address in wanted.difference(&self.known_own) {
            self.own.insert(network_order(*address), 0, 0).map_err(&error)?;
        }
        self.known_own = wanted;
        Ok(())
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

fn key(net: &Ipv4Net) -> Key<u32> {
    Key::new(u32::from(net.prefix_len()), network_order(net.network()))
}

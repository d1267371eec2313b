//! Telling the programs which destinations are routed by routes of their own.

use std::collections::BTreeSet;

use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{MapData, MapError};
use ipnet::Ipv4Net;
use multiwans_common::SPECIFIC_SLOTS;

use super::policy_maps::network_order;
use super::{DatapathError, maps};

/// The map; see `multiwans-ebpf/src/specific.rs`.
pub struct SpecificMap {
    map: LpmTrie<MapData, u32, u32>,
    known: BTreeSet<Ipv4Net>,
}

impl SpecificMap {
    /// Destinations it holds.
    pub const CAPACITY: usize = SPECIFIC_SLOTS as usize;

    /// Takes it out of the loaded object: it changes beside everything else.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Option<Self>, DatapathError> {
        let Some(map) = ebpf.take_map(maps::SPECIFIC) else { return Ok(None) };
        let map = LpmTrie::try_from(map).map_err(DatapathError::map(maps::SPECIFIC))?;
        Ok(Some(Self { map, known: BTreeSet::new() }))
    }

    /// Makes it hold these; `None`: there are more than it can, and every destination counts as one.
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

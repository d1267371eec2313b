//! Telling the programs which WANs there are and which may carry flows.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use aya::Ebpf;
use multiwans_common::WanEntry;

use super::policy_maps::network_order;
use super::{DatapathError, maps};
use crate::engine::command::Steering;
use crate::types::{FwMark, IfIndex, WanMark};

/// What the programs were last told, so that only what changes is written and generations only rise.
#[derive(Debug)]
pub(super) struct Links {
    entries: BTreeMap<WanMark, WanEntry>,
    interfaces: BTreeMap<IfIndex, WanMark>,
}

impl Links {
    /// Announces the configured WANs, none of them usable yet.
    pub(super) fn new(
        ebpf: &mut Ebpf,
        wans: impl IntoIterator<Item = (WanMark, FwMark, Ipv4Addr)>,
    ) -> Result<Self, DatapathError> {
        let mut links = Self { entries: BTreeMap::new(), interfaces: BTreeMap::new() };
        for (mark, fwmark, address) in wans {
            let address = network_order(address);
            links.write(ebpf, mark, WanEntry { fwmark: fwmark.0, address, ..WanEntry::default() })?;
        }
        Ok(links)
    }

    /// Says which interface each WAN is on.
    pub(super) fn place(
        &mut self,
        ebpf: &mut Ebpf,
        interfaces: BTreeMap<IfIndex, WanMark>,
    ) -> Result<(), DatapathError> {
        let error = DatapathError::map(maps::INTERFACES);
        let mut map = maps::hash::<u32, u32>(ebpf, maps::INTERFACES)?;
        for (index, mark) in &interfaces {
            map.insert(index.0, u32::from(mark.get()), 0).map_err(&error)?;
        }
        for index in self.interfaces.keys().filter(|index| !interfaces.contains_key(index)) {
            match map.remove(&index.0) {
                Ok(()) | Err(aya::maps::MapError::KeyNotFound) => {}
                Err(source) => return Err(error(source)),
            }
        }
        let moved: Vec<(WanMark, WanEntry)> = interfaces
            .iter()
            .filter_map(|(index, mark)| {
                let entry = self.entries.get(mark)?;
                (entry.ifindex != index.0).then_some((*mark, WanEntry { ifindex: index.0, ..*entry }))
            })
            .collect();
        for (mark, entry) in moved {
            self.write(ebpf, mark, entry)?;
        }
        self.interfaces = interfaces;
        Ok(())
    }

    /// Says which WANs may carry flows and which is the default.
    ///
    /// The default goes first, then links that come into service, then those that leave it. Each is one
    /// write, and at every moment between them a packet finds a WAN that carries traffic.
    pub(super) fn steer(&mut self, ebpf: &mut Ebpf, steering: &Steering) -> Result<(), DatapathError> {
        let mut coming = Vec::new();
        let mut leaving = Vec::new();
        for (mark, entry) in &self.entries {
            let usable = steering.usable.contains_key(mark);
            if usable && entry.usable == 0 {
                coming.push((*mark, WanEntry { usable: 1, ..*entry }));
            } else if !usable && entry.usable != 0 {
                let generation = entry.generation.wrapping_add(1);
                leaving.push((*mark, WanEntry { usable: 0, generation, ..*entry }));
            }
        }
        let default = steering.default.map_or(0, |mark| u32::from(mark.get()));
        let mut map = maps::array::<u32>(ebpf, maps::DEFAULT)?;
        map.set(0, default, 0).map_err(DatapathError::map(maps::DEFAULT))?;
        for (mark, entry) in coming.into_iter().chain(leaving) {
            self.write(ebpf, mark, entry)?;
        }
        Ok(())
    }

    /// A WAN's generation: entries of the flow table that carry it are valid.
    pub(super) fn generation(&self, mark: WanMark) -> Option<u32> {
        self.entries.get(&mark).map(|entry| entry.generation)
    }

    fn write(&mut self, ebpf: &mut Ebpf, mark: WanMark, entry: WanEntry) -> Result<(), DatapathError> {
        let mut map = maps::array::<WanEntry>(ebpf, maps::WANS)?;
        map.set(u32::from(mark.get()), entry, 0).map_err(DatapathError::map(maps::WANS))?;
        self.entries.insert(mark, entry);
        Ok(())
    }
}

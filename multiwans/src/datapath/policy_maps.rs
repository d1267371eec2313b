//! Putting a compiled policy into the kernel: filled aside, then switched in one write.
//!
//! Two copies of each policy stand in the outer map and are the same except while one of them is replaced.
//! What a new policy has in common with the one in force, whole dimensions, is neither copied nor written.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use aya::Ebpf;
use multiwans_common::dimension::Dimension;
use multiwans_common::{PolicyCopy, PolicySet, PolicySlot};

use super::inner::{self, Content, Inner};
use super::{DatapathError, counters, maps};
use crate::policy::{Compiled, Tuple, first_match};
use crate::types::WanMark;

/// Maps of a policy: the filters, then the dimensions.
const MAPS: usize = 1 + Dimension::COUNT;

/// What putting a policy in force took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Maps that were made, of five for each policy.
    pub maps: usize,
    /// Bytes written into them.
    pub bytes: usize,
}

/// The policies as they stand in the kernel.
#[derive(Default)]
pub(super) struct PolicyMaps {
    sets: [Copies; PolicySet::COUNT],
}

/// The two copies of a policy.
#[derive(Default)]
struct Copies {
    /// The policy's number; the lowest bit says which copy is in force.
    version: u32,
    copies: [Placed; 2],
}

/// The maps of one copy. They are released when they are in no copy any more.
#[derive(Default, Clone)]
struct Placed([Option<Arc<Inner>>; MAPS]);

/// A policy in force.
pub struct InForce {
    filters: Content,
    dimensions: [Content; Dimension::COUNT],
}

impl InForce {
    /// The WAN whose filter takes a packet; `None`: no filter does.
    pub fn first_match(
        &self,
        packet: &Tuple,
        usable: &BTreeSet<WanMark>,
        default: Option<WanMark>,
    ) -> Option<WanMark> {
        first_match(&self.filters, self.dimensions.each_ref(), packet, usable, default)
    }
}

impl PolicyMaps {
    /// Puts policies in force, all or none. On an error those before stay in force, untouched, except where
    /// the error is from clearing them away.
    pub(super) fn install(
        &mut self,
        ebpf: &mut Ebpf,
        policies: &[(PolicySet, &Compiled)],
    ) -> Result<Written, DatapathError> {
        let mut written = Written::default();
        let mut wanted = Vec::with_capacity(policies.len());
        for &(set, policy) in policies {
            let Copies { version, copies } = &self.sets[set as usize];
            wanted.push((set, Placed::new(policy, &copies[(*version & 1) as usize], &mut written)?));
            if set == PolicySet::Forwarding {
                counters::clear_filters(ebpf, version.wrapping_add(1), policy.filters.count())?;
            }
        }
        self.put(ebpf, &wanted)?;
        let mut slot = maps::array::<PolicySlot>(ebpf, maps::SLOT)?;
        // Also where nothing was written: filters may have other names, and count anew.
        for (set, policy) in policies {
            let version = &mut self.sets[*set as usize].version;
            let next = version.wrapping_add(1);
            let entry = PolicySlot { version: next, used: policy.used_dimensions() };
            slot.set(*set as u32, entry, 0).map_err(DatapathError::map(maps::SLOT))?;
            *version = next;
        }
        // A packet that read the slot before that write may still be on its way through the old copy. Writing
        // into a map of maps waits for it, even where it changes nothing.
        if let Some((set, Placed([Some(filters), ..]))) = wanted.first() {
            let place = set.copy(self.sets[*set as usize].version).filters();
            inner::put(ebpf, maps::POLICIES, &[(place, filters)])?;
        }
        // So that what only the old ones had is released now, and of the next only the changes are put.
        self.put(ebpf, &wanted)?;
        Ok(written)
    }

    /// A policy in force, read from the kernel's own memory: a copy of it would take as much again.
    pub(super) fn in_force(&self, set: PolicySet) -> Result<InForce, DatapathError> {
        let Copies { version, copies } = &self.sets[set as usize];
        let Placed([filters, dimensions @ ..]) = &copies[(*version & 1) as usize];
        let content = |map: &Option<Arc<Inner>>| {
            let map = map.as_ref().ok_or(DatapathError::Missing(maps::POLICIES))?;
            map.content().map_err(DatapathError::memory(maps::POLICIES))
        };
        let [source, destination, source_port, destination_port] = dimensions;
        let dimensions =
            [content(source)?, content(destination)?, content(source_port)?, content(destination_port)?];
        Ok(InForce { filters: content(filters)?, dimensions })
    }

    /// Makes the copies that are not in force the wanted ones.
    fn put(&mut self, ebpf: &mut Ebpf, wanted: &[(PolicySet, Placed)]) -> Result<(), DatapathError> {
        let mut changes = Vec::new();
        for (set, wanted) in wanted {
            let Copies { version, copies } = &mut self.sets[*set as usize];
            let aside = *version ^ 1;
            let copy = &mut copies[(aside & 1) as usize];
            changes.extend(copy.changes(wanted, set.copy(aside)));
            // Until all of it is done nobody knows what is where.
            *copy = Placed::default();
        }
        if !changes.is_empty() {
            inner::put(ebpf, maps::POLICIES, &changes)?;
        }
        for (set, wanted) in wanted {
            let Copies { version, copies } = &mut self.sets[*set as usize];
            copies[((*version ^ 1) & 1) as usize] = wanted.clone();
        }
        Ok(())
    }
}

impl Placed {
    /// The maps of a policy: those in force where they hold just what it needs, else new ones.
    fn new(policy: &Compiled, in_force: &Self, written: &mut Written) -> Result<Self, DatapathError> {
        let dimensions = policy.dimensions.iter().map(|dimension| dimension.lines());
        let contents = std::iter::once(policy.filters.lines()).chain(dimensions);
        let mut placed = Self::default();
        for ((place, own), content) in placed.0.iter_mut().zip(&in_force.0).zip(contents) {
            *place = Some(match own.as_ref().filter(|own| own.holds(content)) {
                Some(same) => Arc::clone(same),
                None => {
                    written.maps += 1;
                    written.bytes += size_of_val(content);
                    Arc::new(Inner::new(maps::POLICIES, content)?)
                }
            });
        }
        Ok(placed)
    }

    /// What has to be put where, for this copy to be the wanted one.
    fn changes<'w>(&self, wanted: &'w Self, copy: PolicyCopy) -> Vec<(u32, &'w Inner)> {
        let places = std::iter::once(copy.filters()).chain(Dimension::ALL.map(|each| copy.dimension(each)));
        places
            .zip(self.0.iter().zip(&wanted.0))
            .filter_map(|(place, (own, wanted))| {
                let wanted = wanted.as_ref()?;
                let same = own.as_ref().is_some_and(|own| Arc::ptr_eq(own, wanted));
                (!same).then_some((place, &**wanted))
            })
            .collect()
    }
}

/// An address as it stands in a packet.
pub(super) fn network_order(address: Ipv4Addr) -> u32 {
    u32::from_ne_bytes(address.octets())
}

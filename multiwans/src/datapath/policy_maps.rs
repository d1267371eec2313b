//! Putting a compiled policy into the kernel: filled aside, then switched in one write.
//!
//! Two copies of each policy stand in the outer maps and are the same except while one of them is replaced.
//! What a new policy has in common with the one in force, whole dimensions, is neither copied nor written.

use std::array;
use std::net::Ipv4Addr;
use std::sync::Arc;

use aya::Ebpf;
use aya::Pod;
use multiwans_common::dimension::{Cell, Dimension};
use multiwans_common::{BITS_PER_WORD, FilterEntry, FilterWord, PolicySet, PolicySlot};

use super::inner::Inner;
use super::{DatapathError, counters, maps};
use crate::policy::Compiled;

/// By [`PolicySet`].
const SETS: [PolicySet; PolicySet::COUNT] = [PolicySet::Forwarding, PolicySet::Output];
/// By their number.
const DIMENSIONS: [Dimension; Dimension::COUNT] = [
    Dimension::Source,
    Dimension::Destination,
    Dimension::Protocol,
    Dimension::SourcePort,
    Dimension::DestinationPort,
];

/// What putting a policy in force took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Maps that were made, of six.
    pub maps: usize,
    /// Bytes written into them.
    pub bytes: usize,
}

/// The policies as they stand in the kernel.
#[derive(Default)]
pub(super) struct PolicyMaps {
    sets: [Copies; SETS.len()],
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
struct Placed {
    filters: Option<Arc<Inner<FilterWord>>>,
    dimensions: [Option<Arc<Inner<Cell>>>; Dimension::COUNT],
}

impl PolicyMaps {
    /// Puts policies in force. On an error those before stay in force, untouched, except where the error is
    /// from clearing them away.
    pub(super) fn install(
        &mut self,
        ebpf: &mut Ebpf,
        policies: &[(PolicySet, &Compiled)],
    ) -> Result<Written, DatapathError> {
        let mut written = Written::default();
        let mut filled = Vec::with_capacity(policies.len());
        for &(set, policy) in policies {
            let Copies { version, copies } = &self.sets[set as usize];
            let (wanted, own) = fill(&copies[(*version & 1) as usize], policy)?;
            written.maps += own.maps;
            written.bytes += own.bytes;
            if set == PolicySet::Forwarding {
                counters::clear_filters(ebpf, version.wrapping_add(1), policy.filters.len())?;
            }
            filled.push((set, wanted));
        }
        for (set, wanted) in &filled {
            let Copies { version, copies } = &mut self.sets[*set as usize];
            let next = version.wrapping_add(1);
            copies[(next & 1) as usize].become_(wanted, ebpf, set.place(next))?;
        }
        let mut slot = maps::array::<PolicySlot>(ebpf, maps::SLOT)?;
        for (set, _) in &filled {
            let version = &mut self.sets[*set as usize].version;
            let next = version.wrapping_add(1);
            slot.set(*set as u32, PolicySlot { version: next }, 0).map_err(DatapathError::map(maps::SLOT))?;
            *version = next;
        }
        for (set, wanted) in &filled {
            let Copies { version, copies } = &mut self.sets[*set as usize];
            // A packet that read the slot before that write may still be on its way through the old copy.
            // Writing into a map of maps waits for it, even where it changes nothing.
            if let Some(filters) = &wanted.filters {
                filters.put(ebpf, maps::FILTERS, set.place(*version))?;
            }
            // So that what only the old one had is released now, and the next policy is written in its changes.
            let old = *version ^ 1;
            copies[(old & 1) as usize].become_(wanted, ebpf, set.place(old))?;
        }
        Ok(written)
    }
}

impl Placed {
    /// Writes what is not there yet. The copy must not be in force.
    fn become_(&mut self, wanted: &Self, ebpf: &mut Ebpf, place: u32) -> Result<(), DatapathError> {
        replace(&mut self.filters, wanted.filters.as_ref(), ebpf, maps::FILTERS, place)?;
        for ((own, wanted), dimension) in self.dimensions.iter_mut().zip(&wanted.dimensions).zip(DIMENSIONS) {
            replace(own, wanted.as_ref(), ebpf, maps::DIMENSIONS, dimension.of_place(place))?;
        }
        Ok(())
    }
}

fn replace<V: Pod>(
    own: &mut Option<Arc<Inner<V>>>,
    wanted: Option<&Arc<Inner<V>>>,
    ebpf: &mut Ebpf,
    name: &'static str,
    place: u32,
) -> Result<(), DatapathError> {
    if let Some(wanted) = wanted
        && own.as_ref().is_none_or(|own| !Arc::ptr_eq(own, wanted))
    {
        wanted.put(ebpf, name, place)?;
        *own = Some(Arc::clone(wanted));
    }
    Ok(())
}

/// The maps of a policy: those in force where they hold just what it needs, else new ones.
fn fill(in_force: &Placed, policy: &Compiled) -> Result<(Placed, Written), DatapathError> {
    let mut written = Written::default();
    let mut wanted = Placed {
        filters: Some(same_or_new(
            in_force.filters.as_ref(),
            maps::FILTERS,
            &filter_words(policy),
            &mut written,
        )?),
        dimensions: array::from_fn(|_| None),
    };
    for ((wanted, own), dimension) in
        wanted.dimensions.iter_mut().zip(&in_force.dimensions).zip(&policy.dimensions)
    {
        *wanted = Some(same_or_new(own.as_ref(), maps::DIMENSIONS, dimension.cells(), &mut written)?);
    }
    Ok((wanted, written))
}

fn same_or_new<V: Pod>(
    in_force: Option<&Arc<Inner<V>>>,
    name: &'static str,
    content: &[V],
    written: &mut Written,
) -> Result<Arc<Inner<V>>, DatapathError> {
    if let Some(same) = in_force.filter(|inner| inner.holds(content)) {
        return Ok(Arc::clone(same));
    }
    let inner = Inner::new(name, content)?;
    written.maps += 1;
    written.bytes += inner.bytes();
    Ok(Arc::new(inner))
}

fn filter_words(policy: &Compiled) -> Vec<FilterWord> {
    let entries = policy.filters.chunks(BITS_PER_WORD).enumerate();
    entries
        .map(|(number, filters)| {
            let mut word = FilterWord {
                elsewhere: array::from_fn(|dimension| policy.dimensions[dimension].elsewhere().word(number)),
                filters: [FilterEntry { wan: 0, skip_to: 0 }; BITS_PER_WORD],
            };
            for (entry, filter) in word.filters.iter_mut().zip(filters) {
                *entry = FilterEntry { wan: u32::from(filter.wan.get()), skip_to: filter.skip_to };
            }
            word
        })
        .collect()
}

/// An address as it stands in a packet.
pub(super) fn network_order(address: Ipv4Addr) -> u32 {
    u32::from_ne_bytes(address.octets())
}

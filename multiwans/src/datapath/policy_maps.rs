//! Putting a compiled policy into the kernel: filled aside, then switched in one write.

use std::net::Ipv4Addr;

use aya::Ebpf;
use aya::maps::array::Array;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::of_maps::ArrayOfMaps;
use aya::maps::{InnerMap, MapData};
use multiwans_common::{FilterEntry, PolicyHead, PolicySet, PolicySlot, PortClasses, VECTOR_WORDS, Vector};

use super::{DatapathError, maps};
use crate::policy::{Compiled, Ports, Prefixes};

/// `BPF_F_NO_PREALLOC`: the kernel takes tries only with it.
const NO_PREALLOC: u32 = 1;
/// `BPF_F_INNER_MAP` (Linux 5.10): an array inside an outer map may have any length.
const INNER_MAP: u32 = 1 << 12;
/// Ports there are.
const PORTS: u32 = 65_536;

/// The inner maps of one policy.
struct Filled {
    head: Array<MapData, PolicyHead>,
    sources: LpmTrie<MapData, u32, u32>,
    destinations: LpmTrie<MapData, u32, u32>,
    ports: Array<MapData, PortClasses>,
    vectors: Array<MapData, Vector>,
    filters: Array<MapData, FilterEntry>,
}

/// Puts a policy in force. On an error the one before stays in force, untouched.
pub(super) fn install(ebpf: &mut Ebpf, set: PolicySet, policy: &Compiled) -> Result<(), DatapathError> {
    let filled = fill(policy)?;
    let mut slot = maps::array::<PolicySlot>(ebpf, maps::SLOT)?;
    let index = set as u32;
    let active = slot.get(&index, 0).map_err(DatapathError::map(maps::SLOT))?.active & 1;
    let other = active ^ 1;
    let aside = set.place(other);
    // The kernel waits for all programs to leave a map of maps after each of these writes, so no packet
    // still reads the copy that is replaced here when the next policy comes.
    put(ebpf, maps::HEAD, aside, &filled.head)?;
    put(ebpf, maps::SOURCES, aside, &filled.sources)?;
    put(ebpf, maps::DESTINATIONS, aside, &filled.destinations)?;
    put(ebpf, maps::PORTS, aside, &filled.ports)?;
    put(ebpf, maps::VECTORS, aside, &filled.vectors)?;
    put(ebpf, maps::FILTERS, aside, &filled.filters)?;
    slot = maps::array::<PolicySlot>(ebpf, maps::SLOT)?;
    slot.set(index, PolicySlot { active: other }, 0).map_err(DatapathError::map(maps::SLOT))?;
    // A packet that read the slot before that write may still be on its way through the old copy. Writing
    // the copy just switched to once more changes nothing and waits for it, so the old copy is free now.
    put(ebpf, maps::HEAD, aside, &filled.head)
}

fn put<M: InnerMap>(ebpf: &mut Ebpf, name: &'static str, slot: u32, inner: &M) -> Result<(), DatapathError> {
    let outer = ebpf.map_mut(name).ok_or(DatapathError::Missing(name))?;
    let mut outer: ArrayOfMaps<&mut MapData, M> =
        ArrayOfMaps::try_from(outer).map_err(DatapathError::map(name))?;
    outer.set(slot, inner, 0).map_err(DatapathError::map(name))
}

fn fill(policy: &Compiled) -> Result<Filled, DatapathError> {
    Ok(Filled {
        head: fill_head(policy)?,
        sources: fill_prefixes(maps::SOURCES, &policy.sources)?,
        destinations: fill_prefixes(maps::DESTINATIONS, &policy.destinations)?,
        ports: fill_ports(&policy.source_ports, &policy.destination_ports)?,
        vectors: fill_vectors(policy)?,
        filters: fill_filters(policy)?,
    })
}

fn fill_head(policy: &Compiled) -> Result<Array<MapData, PolicyHead>, DatapathError> {
    let error = DatapathError::map(maps::HEAD);
    let mut head = PolicyHead {
        words: len(policy.vectors.first().map_or(0, |set| set.words().len())),
        zero: 0,
        source_elsewhere: policy.sources.elsewhere,
        destination_elsewhere: policy.destinations.elsewhere,
        source_port_elsewhere: policy.source_ports.elsewhere,
        destination_port_elsewhere: policy.destination_ports.elsewhere,
        protocols: [0; 256],
    };
    for (slot, class) in head.protocols.iter_mut().zip(&policy.protocols) {
        *slot = *class;
    }
    let mut map = Array::create(1, 0).map_err(&error)?;
    map.set(0, head, 0).map_err(&error)?;
    Ok(map)
}

fn fill_prefixes(
    name: &'static str,
    prefixes: &Prefixes,
) -> Result<LpmTrie<MapData, u32, u32>, DatapathError> {
    let error = DatapathError::map(name);
    let capacity = len(prefixes.classes.len()).max(1);
    let mut map = LpmTrie::create(capacity, NO_PREALLOC).map_err(&error)?;
    for (net, class) in &prefixes.classes {
        let key = Key::new(u32::from(net.prefix_len()), network_order(net.network()));
        map.insert(&key, class, 0).map_err(&error)?;
    }
    Ok(map)
}

fn fill_ports(source: &Ports, destination: &Ports) -> Result<Array<MapData, PortClasses>, DatapathError> {
    let error = DatapathError::map(maps::PORTS);
    let mut map = Array::create(PORTS, 0).map_err(&error)?;
    let mut classes = vec![PortClasses { source: 0, destination: 0 }; PORTS as usize];
    for (run, class) in &source.runs {
        for port in run.first..=run.last {
            classes[usize::from(port)].source = *class;
        }
    }
    for (run, class) in &destination.runs {
        for port in run.first..=run.last {
            classes[usize::from(port)].destination = *class;
        }
    }
    for (port, classes) in (0..).zip(classes) {
        if classes.source != 0 || classes.destination != 0 {
            map.set(port, classes, 0).map_err(&error)?;
        }
    }
    Ok(map)
}

fn fill_vectors(policy: &Compiled) -> Result<Array<MapData, Vector>, DatapathError> {
    let error = DatapathError::map(maps::VECTORS);
    let mut map = Array::create(len(policy.vectors.len()).max(1), INNER_MAP).map_err(&error)?;
    for (class, set) in (0..).zip(&policy.vectors) {
        let mut vector = Vector { words: [0; VECTOR_WORDS] };
        for (slot, word) in vector.words.iter_mut().zip(set.words()) {
            *slot = *word;
        }
        map.set(class, vector, 0).map_err(&error)?;
    }
    Ok(map)
}

fn fill_filters(policy: &Compiled) -> Result<Array<MapData, FilterEntry>, DatapathError> {
    let error = DatapathError::map(maps::FILTERS);
    let mut map = Array::create(len(policy.filters.len()).max(1), INNER_MAP).map_err(&error)?;
    for (number, filter) in (0..).zip(&policy.filters) {
        let entry = FilterEntry { wan: u32::from(filter.wan.get()), skip_to: filter.skip_to };
        map.set(number, entry, 0).map_err(&error)?;
    }
    Ok(map)
}

/// An address as it stands in a packet.
pub(super) fn network_order(address: Ipv4Addr) -> u32 {
    u32::from_ne_bytes(address.octets())
}

/// Lengths here are bounded by the configuration; one that did not fit would be refused by the kernel.
fn len(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

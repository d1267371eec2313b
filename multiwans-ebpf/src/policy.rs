//! The policies' maps: of each policy two copies, one in force. The daemon fills the other one and
//! switches by one write, so no packet is judged by a mixture.

use aya_ebpf::{
    bindings::BPF_F_INNER_MAP,
    btf_maps::{Array, ArrayOfMaps, LpmTrie, lpm_trie::Key},
    macros::btf_map,
};
use multiwans_common::{
    FilterEntry, NO_CLASS, POLICY_PLACES, PolicyHead, PolicySet, PolicySlot, PortClasses, Vector,
};

/// Arrays inside the outer maps may have any length: the daemon makes each as long as its policy needs.
const ANY_LENGTH: usize = BPF_F_INNER_MAP as usize;

/// Addresses as the trie compares them: in the packet's byte order, most significant bit first.
type Prefixes = LpmTrie<u32, u32, 1>;

/// A value of an inner array, in an array of one: its type is then no struct. Linux before 6.2 looks for
/// timers in structs it has type information for, and refuses to put an inner map that has none of it,
/// like all the daemon makes, where the outer map was declared with it (`timer_off` in
/// `bpf_map_meta_equal`, kernel/bpf/map_in_map.c). Other types are not looked into.
type Opaque<V> = [V; 1];

/// Which copy of each policy is in force. Key: [`PolicySet`]. Value: [`PolicySlot`]. Writer: the daemon.
/// Readers: steer, output.
#[btf_map]
static MW_SLOT: Array<PolicySlot, { PolicySet::COUNT }> = Array::new();

/// The fixed part. Outer key: [`PolicySet::place`]. Inner: one [`PolicyHead`], 1 048 bytes.
#[btf_map]
static MW_HEAD: ArrayOfMaps<Array<Opaque<PolicyHead>, 1>, POLICY_PLACES> = ArrayOfMaps::new();

/// Source prefixes. Inner key: prefix length and address; inner value: class. About 40 bytes a prefix.
#[btf_map]
static MW_SOURCES: ArrayOfMaps<Prefixes, POLICY_PLACES> = ArrayOfMaps::new();

/// Destination prefixes, as the sources.
#[btf_map]
static MW_DESTINATIONS: ArrayOfMaps<Prefixes, POLICY_PLACES> = ArrayOfMaps::new();

/// Port classes. Inner key: port in host byte order; inner value: [`PortClasses`]. 512 KiB.
#[btf_map]
static MW_PORTS: ArrayOfMaps<Array<Opaque<PortClasses>, 65_536>, POLICY_PLACES> = ArrayOfMaps::new();

/// Bit vectors. Inner key: class; inner value: [`Vector`], 512 bytes each.
#[btf_map]
static MW_VECTORS: ArrayOfMaps<Array<Opaque<Vector>, 1, ANY_LENGTH>, POLICY_PLACES> = ArrayOfMaps::new();

/// Filters. Inner key: the filter's number; inner value: [`FilterEntry`].
#[btf_map]
static MW_FILTERS: ArrayOfMaps<Array<Opaque<FilterEntry>, 1, ANY_LENGTH>, POLICY_PLACES> = ArrayOfMaps::new();

/// One copy of a policy, for the time of one packet.
#[derive(Clone, Copy)]
pub struct Policy {
    place: u32,
}

impl Policy {
    /// The copy in force.
    #[inline(always)]
    pub fn in_force(set: PolicySet) -> Self {
        let copy = match MW_SLOT.get(set as u32) {
            Some(slot) => slot.active,
            None => 0,
        };
        Self { place: set.place(copy) }
    }

    /// Its fixed part; `None` before the daemon filled it.
    #[inline(always)]
    pub fn head(&self) -> Option<&PolicyHead> {
        let [head] = MW_HEAD.get_value(self.place, &0)?;
        Some(head)
    }

    /// Class of a source address (network byte order).
    #[inline(always)]
    pub fn source(&self, head: &PolicyHead, address: u32) -> u32 {
        match MW_SOURCES.get(self.place).and_then(|prefixes| prefixes.get(&Key::new(32, address))) {
            Some(class) => *class,
            None => head.source_elsewhere,
        }
    }

    /// Class of a destination address (network byte order).
    #[inline(always)]
    pub fn destination(&self, head: &PolicyHead, address: u32) -> u32 {
        match MW_DESTINATIONS.get(self.place).and_then(|prefixes| prefixes.get(&Key::new(32, address))) {
            Some(class) => *class,
            None => head.destination_elsewhere,
        }
    }

    /// Class of a source port (network byte order).
    #[inline(always)]
    pub fn source_port(&self, head: &PolicyHead, port: u16) -> u32 {
        match self.port(port) {
            Some(PortClasses { source, .. }) if *source != NO_CLASS => *source,
            _ => head.source_port_elsewhere,
        }
    }

    /// Class of a destination port (network byte order).
    #[inline(always)]
    pub fn destination_port(&self, head: &PolicyHead, port: u16) -> u32 {
        match self.port(port) {
            Some(PortClasses { destination, .. }) if *destination != NO_CLASS => *destination,
            _ => head.destination_port_elsewhere,
        }
    }

    #[inline(always)]
    fn port(&self, port: u16) -> Option<&PortClasses> {
        let [classes] = MW_PORTS.get_value(self.place, &(u16::from_be(port) as u32))?;
        Some(classes)
    }

    /// A class's vector.
    #[inline(always)]
    pub fn vector(&self, class: u32) -> Option<&Vector> {
        let [vector] = MW_VECTORS.get_value(self.place, &class)?;
        Some(vector)
    }

    /// A filter.
    #[inline(always)]
    pub fn filter(&self, number: u32) -> Option<&FilterEntry> {
        let [filter] = MW_FILTERS.get_value(self.place, &number)?;
        Some(filter)
    }
}

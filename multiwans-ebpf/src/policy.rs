//! The policies' maps: of each policy two copies, one in force. The daemon fills the other one and
//! switches by one write, so no packet is judged by a mixture.

use aya_ebpf::{
    bindings::{BPF_F_INNER_MAP, BPF_F_MMAPABLE},
    btf_maps::{Array, ArrayOfMaps},
    macros::btf_map,
};
use multiwans_common::{
    DIMENSION_PLACES, FilterWord, POLICY_PLACES, PolicySet, PolicySlot,
    dimension::{Cell, Cells, Dimension},
};

/// Arrays inside the outer maps may have any length, for the daemon makes each as long as its policy needs,
/// and are filled as memory: a system call for each of millions of cells takes seconds.
const FLAGS: usize = (BPF_F_INNER_MAP | BPF_F_MMAPABLE) as usize;

/// A value of an inner array, in an array of one: its type is then no struct. Linux before 6.2 looks for
/// timers in structs it has type information for, and refuses to put an inner map that has none of it,
/// like all the daemon makes, where the outer map was declared with it (`timer_off` in
/// `bpf_map_meta_equal`, kernel/bpf/map_in_map.c). Other types are not looked into.
type Opaque<V> = [V; 1];

/// The cells of a dimension; see [`multiwans_common::dimension`].
type DimensionCells = Array<Opaque<Cell>, 1, FLAGS>;
/// The filters of a policy, 64 in an element.
type FilterWords = Array<Opaque<FilterWord>, 1, FLAGS>;

/// Which version of each policy is in force. Key: [`PolicySet`]. Value: [`PolicySlot`]. Writer: the daemon.
/// Readers: steer, output.
#[btf_map]
static MW_SLOT: Array<PolicySlot, { PolicySet::COUNT }> = Array::new();

/// The dimensions. Outer key: [`Dimension::of_place`]. Inner key: a cell's number; inner value: [`Cell`]. A
/// dimension that no filter uses has one cell; any other 256 KiB (protocols: 1 KiB) for its root, and addresses
/// what their prefixes need: up to 256 bytes for each /16 that is cut up, 4 to 45 for each prefix in it.
#[btf_map]
static MW_DIMENSIONS: ArrayOfMaps<DimensionCells, DIMENSION_PLACES> = ArrayOfMaps::new();

/// Filters. Outer key: [`PolicySet::place`]. Inner key: a filter's number divided by 64; inner value:
/// [`FilterWord`], 552 bytes.
#[btf_map]
static MW_FILTERS: ArrayOfMaps<FilterWords, POLICY_PLACES> = ArrayOfMaps::new();

/// One copy of a policy, for the time of one packet.
#[derive(Clone, Copy)]
pub struct Policy {
    /// Which it is.
    pub place: Place,
    /// The policy's number; filters of another one are others.
    pub version: u32,
}

/// Where a copy of a policy stands.
#[derive(Clone, Copy)]
pub struct Place(u32);

impl Policy {
    /// The copy in force.
    #[inline(always)]
    pub fn in_force(set: PolicySet) -> Self {
        let version = match MW_SLOT.get(set as u32) {
            Some(slot) => slot.version,
            None => 0,
        };
        Self { place: Place(set.place(version)), version }
    }
}

impl Place {
    /// One of its dimensions; `None` before the daemon filled it.
    #[inline(always)]
    pub fn dimension(&self, dimension: Dimension) -> Option<DimensionMap> {
        MW_DIMENSIONS.get(dimension.of_place(self.0)).map(DimensionMap)
    }

    /// Sixty-four of its filters.
    #[inline(always)]
    pub fn filters(&self, word: u32) -> Option<&FilterWord> {
        let [filters] = MW_FILTERS.get_value(self.0, &word)?;
        Some(filters)
    }
}

/// A dimension's cells.
#[derive(Clone, Copy)]
pub struct DimensionMap(&'static DimensionCells);

impl Cells for DimensionMap {
    #[inline(always)]
    fn cell(&self, number: u32) -> Option<&Cell> {
        let [cell] = self.0.get(number)?;
        Some(cell)
    }
}

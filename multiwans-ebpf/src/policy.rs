//! The policies' maps: of each policy two copies, one in force. The daemon fills the other one and
//! switches by one write, so no packet is judged by a mixture.

use aya_ebpf::{
    bindings::{BPF_F_INNER_MAP, BPF_F_MMAPABLE},
    btf_maps::{Array, ArrayOfMaps},
    macros::btf_map,
};
use multiwans_common::{Line, Lines, POLICY_PLACES, PolicyCopy, PolicySet, PolicySlot, dimension::Dimension};

/// Arrays inside the outer map may have any length, for the daemon makes each as long as its policy needs,
/// and are filled as memory: a system call for each of millions of entries takes seconds.
const FLAGS: usize = (BPF_F_INNER_MAP | BPF_F_MMAPABLE) as usize;

/// A value of an inner array, in an array of one: its type is then no struct. Linux before 6.2 looks for
/// timers in structs it has type information for, and refuses to put an inner map that has none of it,
/// like all the daemon makes, where the outer map was declared with it (`timer_off` in
/// `bpf_map_meta_equal`, kernel/bpf/map_in_map.c). Other types are not looked into.
type Opaque<V> = [V; 1];

/// A map inside [`MW_POLICIES`].
type Inner = Array<Opaque<Line>, 1, FLAGS>;

/// Which version of each policy is in force. Key: [`PolicySet`]. Value: [`PolicySlot`]. Writer: the daemon.
/// Readers: steer, output.
#[btf_map]
static MW_SLOT: Array<PolicySlot, { PolicySet::COUNT }> = Array::new();

/// The policies. Outer key: [`PolicyCopy`]. Inner key: a line's number; inner value: [`Line`]. One for the
/// filters ([`multiwans_common::filters`]), 8 bytes each and 4 KiB for each protocol they name; one for each
/// dimension ([`multiwans_common::dimension`]): one line where no filter uses it, else 256 KiB for its root, and
/// for addresses up to 256 bytes for each /16 that is cut up and 4 to 45 for each prefix in it.
///
/// All in one, because each write into a map of maps has the daemon wait until all programs have left it.
#[btf_map]
static MW_POLICIES: ArrayOfMaps<Inner, POLICY_PLACES> = ArrayOfMaps::new();

/// One copy of a policy, for the time of one packet.
#[derive(Clone, Copy)]
pub struct Policy {
    /// Where it stands.
    pub place: Place,
    /// The policy's number; filters of another one are others.
    pub version: u32,
    slot: PolicySlot,
}

/// Where a copy of a policy stands.
#[derive(Clone, Copy)]
pub struct Place(PolicyCopy);

impl Policy {
    /// The copy in force.
    #[inline(always)]
    pub fn in_force(set: PolicySet) -> Self {
        let slot = match MW_SLOT.get_ptr(set as u32) {
            // SAFETY: the kernel keeps an array's memory; eight aligned bytes are read whole.
            Some(slot) => PolicySlot::of_word(unsafe { slot.cast::<u64>().read_volatile() }),
            None => PolicySlot { version: 0, used: 0 },
        };
        Self { place: Place(set.copy(slot.version)), version: slot.version, slot }
    }

    /// Whether a dimension is to be looked up.
    #[inline(always)]
    pub fn uses(self, dimension: Dimension) -> bool {
        self.slot.uses(dimension)
    }
}

impl Place {
    /// The filters; `None` before the daemon filled it, as below.
    #[inline(always)]
    pub fn filters(self) -> Option<PolicyMap> {
        MW_POLICIES.get(self.0.filters()).map(PolicyMap)
    }

    /// One of its dimensions.
    #[inline(always)]
    pub fn dimension(self, dimension: Dimension) -> Option<PolicyMap> {
        MW_POLICIES.get(self.0.dimension(dimension)).map(PolicyMap)
    }
}

/// One of a policy's maps.
#[derive(Clone, Copy)]
pub struct PolicyMap(&'static Inner);

impl Lines for PolicyMap {
    #[inline(always)]
    fn line(&self, number: u32) -> Option<&Line> {
        let [line] = self.0.get(number)?;
        Some(line)
    }
}

//! Reading the programs' counters. They count on, each CPU for itself; a sum over CPUs is of about one moment.

use aya::Ebpf;
use aya::maps::{MapData, PerCpuArray, PerCpuValues};
use multiwans_common::{
    Direction, PolicySet, PolicySlot, Program, Reason, Special, Traffic, filter_counter, reason_counter,
    special_counter, wan_counter,
};

use super::{DatapathError, maps};
use crate::types::WanMark;

type Counters<'a> = PerCpuArray<&'a MapData, Traffic>;

/// What a program did and why since the start.
pub(super) fn reasons(ebpf: &Ebpf, program: Program) -> Result<Vec<(Reason, Traffic)>, DatapathError> {
    let map = maps::per_cpu_array::<Traffic>(ebpf, maps::REASONS)?;
    let count =
        |reason: &Reason| Ok((*reason, total(&map, maps::REASONS, reason_counter(program, *reason))?));
    Reason::ALL.iter().map(count).collect()
}

/// What was special about the packets of a program since the start; nothing of one that sees no packets.
pub(super) fn special(ebpf: &Ebpf, program: Program) -> Result<Vec<(Special, Traffic)>, DatapathError> {
    if !Program::OF_PACKETS.contains(&program) {
        return Ok(Vec::new());
    }
    let map = maps::per_cpu_array::<Traffic>(ebpf, maps::SPECIAL)?;
    let count = |special: &Special| {
        Ok((*special, total(&map, maps::SPECIAL, special_counter(program, *special as u32))?))
    };
    Special::ALL.iter().map(count).collect()
}

/// What was steered to a WAN, or came in by it.
pub(super) fn wan(ebpf: &Ebpf, wan: WanMark, direction: Direction) -> Result<Traffic, DatapathError> {
    let map = maps::per_cpu_array::<Traffic>(ebpf, maps::WAN_TRAFFIC)?;
    total(&map, maps::WAN_TRAFFIC, wan_counter(u32::from(wan.get()), direction))
}

/// A version of the policy, as seen from the one in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// The one in force.
    InForce,
    /// The one before it.
    Replaced,
}

/// What each of the first `count` filters for forwarded traffic took while its policy was in force.
pub(super) fn filters(ebpf: &mut Ebpf, version: Version, count: u32) -> Result<Vec<Traffic>, DatapathError> {
    let slot = maps::array::<PolicySlot>(ebpf, maps::SLOT)?
        .get(&(PolicySet::Forwarding as u32), 0)
        .map_err(DatapathError::map(maps::SLOT))?;
    let number = match version {
        Version::InForce => slot.version,
        Version::Replaced => slot.version.wrapping_sub(1),
    };
    let map = maps::per_cpu_array::<Traffic>(ebpf, maps::FILTER_TRAFFIC)?;
    (0..count).map(|filter| total(&map, maps::FILTER_TRAFFIC, filter_counter(number, filter))).collect()
}

/// Makes a version's filters begin at zero, before it is in force: no packet counts for them yet.
pub(super) fn clear_filters(ebpf: &mut Ebpf, version: u32, count: usize) -> Result<(), DatapathError> {
    let error = DatapathError::map(maps::FILTER_TRAFFIC);
    let map = ebpf.map_mut(maps::FILTER_TRAFFIC).ok_or(DatapathError::Missing(maps::FILTER_TRAFFIC))?;
    let mut map: PerCpuArray<&mut MapData, Traffic> = PerCpuArray::try_from(map).map_err(&error)?;
    let cpus = aya::util::nr_cpus().map_err(|(_, source)| DatapathError::Cpus(source))?;
    for filter in (0..).take(count) {
        let zero = PerCpuValues::try_from(vec![Traffic::default(); cpus]).map_err(DatapathError::Cpus)?;
        map.set(filter_counter(version, filter), zero, 0).map_err(&error)?;
    }
    Ok(())
}

fn total(map: &Counters<'_>, name: &'static str, index: u32) -> Result<Traffic, DatapathError> {
    Ok(sum(&map.get(&index, 0).map_err(DatapathError::map(name))?))
}

/// All CPUs together.
pub(super) fn sum(values: &PerCpuValues<Traffic>) -> Traffic {
    values.iter().fold(Traffic::default(), |sum, cpu| Traffic {
        packets: sum.packets.wrapping_add(cpu.packets),
        bytes: sum.bytes.wrapping_add(cpu.bytes),
    })
}

//! Names of the maps and typed ways to them. No other module knows a map's name.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use aya::Ebpf;
use aya::Pod;
use aya::maps::{Array, HashMap, MapData, MapError, PerCpuArray};

use super::DatapathError;

/// WAN states; see `multiwans-ebpf/src/links.rs`, like all below.
pub(super) const WANS: &str = "MW_WANS";
/// The default WAN's number.
pub(super) const DEFAULT: &str = "MW_DEFAULT";
/// Interface index to WAN number.
pub(super) const INTERFACES: &str = "MW_INTERFACES";
/// The flow table (`flow_table.rs`).
pub(super) const FLOWS: &str = "MW_FLOWS";
/// How much of it is in use.
pub(super) const FLOW_LINES: &str = "MW_FLOW_LINES";
/// Where the main table has routes of its own to (`specific.rs`).
pub(super) const SPECIFIC: &str = "MW_SPECIFIC";
/// The router's own addresses (`specific.rs`).
pub(super) const OWN: &str = "MW_OWN";
/// The filter in front of them.
pub(super) const OWN_BITS: &str = "MW_OWN_BITS";
/// Counters by program and reason (`counters.rs`).
pub(super) const REASONS: &str = "MW_REASONS";
/// Counters by program and what is special.
pub(super) const SPECIAL: &str = "MW_SPECIAL";
/// Counters by WAN and direction.
pub(super) const WAN_TRAFFIC: &str = "MW_WAN_TRAFFIC";
/// Counters by filter.
pub(super) const FILTER_TRAFFIC: &str = "MW_FILTER_TRAFFIC";
/// Which version of the policy is in force (`policy.rs`).
pub(super) const SLOT: &str = "MW_SLOT";
/// The policies.
pub(super) const POLICIES: &str = "MW_POLICIES";

/// The kernel's own account of a map's memory in bytes: `memlock` of its descriptor. Before Linux 6.4 that is keys and
/// values alone, of a hash map a third of it.
pub(super) fn memory(name: &'static str, map: &MapData) -> Result<u64, DatapathError> {
    let of_descriptor = || {
        let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd()))?;
        let value = text.lines().find_map(|line| line.strip_prefix("memlock:"));
        value.and_then(|value| value.trim().parse().ok()).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "the kernel does not tell a map's memory")
        })
    };
    of_descriptor().map_err(|error| DatapathError::Map { map: name, source: MapError::IoError(error) })
}

/// An array map.
pub(super) fn array<'a, V: Pod>(
    ebpf: &'a mut Ebpf,
    name: &'static str,
) -> Result<Array<&'a mut MapData, V>, DatapathError> {
    let map = ebpf.map_mut(name).ok_or(DatapathError::Missing(name))?;
    Array::try_from(map).map_err(DatapathError::map(name))
}

/// A hash map.
pub(super) fn hash<'a, K: Pod, V: Pod>(
    ebpf: &'a mut Ebpf,
    name: &'static str,
) -> Result<HashMap<&'a mut MapData, K, V>, DatapathError> {
    let map = ebpf.map_mut(name).ok_or(DatapathError::Missing(name))?;
    HashMap::try_from(map).map_err(DatapathError::map(name))
}

/// A per-CPU array.
pub(super) fn per_cpu_array<'a, V: Pod>(
    ebpf: &'a Ebpf,
    name: &'static str,
) -> Result<PerCpuArray<&'a MapData, V>, DatapathError> {
    let map = ebpf.map(name).ok_or(DatapathError::Missing(name))?;
    PerCpuArray::try_from(map).map_err(DatapathError::map(name))
}

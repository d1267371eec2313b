//! Removing from the flow table what has no place in it any more.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use aya::Ebpf;
use aya::maps::{Array, MapData, PerCpuArray};
use multiwans_common::{
    FlowKey4, FlowState, FlowValue, Program, Reason, Traffic, WAN_SLOTS, WanEntry, reason_counter,
    ticks_between,
};

use super::census::Census;
use super::seed::{now, ticks_of};
use super::table::FlowTable;
use crate::datapath::{DatapathError, counters, maps};

/// The flow table and what decides about its entries. It has its own handles, so it can go to a thread.
pub struct FlowKeeper {
    table: Arc<FlowTable>,
    wans: Array<MapData, WanEntry>,
    reasons: PerCpuArray<MapData, Traffic>,
}

/// What one walk found and did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Swept {
    /// What is in the table now.
    pub census: Census,
    /// Removed: idle for too long, or of a WAN that went out of service since.
    pub expired: u64,
    /// Removed though alive, to make room: handshakes, closing connections, questions and their answers.
    pub evicted_passing: u64,
    /// Removed though alive, to make room: established connections and streams.
    pub evicted_lasting: u64,
}

impl FlowKeeper {
    pub(in crate::datapath) fn new(ebpf: &Ebpf, table: Arc<FlowTable>) -> Result<Self, DatapathError> {
        Ok(Self {
            table,
            wans: Array::try_from(aya::maps::Map::Array(another(ebpf, maps::WANS)?))
                .map_err(DatapathError::map(maps::WANS))?,
            reasons: PerCpuArray::try_from(aya::maps::Map::PerCpuArray(another(ebpf, maps::REASONS)?))
                .map_err(DatapathError::map(maps::REASONS))?,
        })
    }

    /// Entries the table is to hold.
    pub fn max(&self) -> u64 {
        u64::from(self.table.max())
    }

    /// What the kernel says the table takes of its memory, in bytes. All of it is taken at the start.
    pub fn bytes(&self) -> u64 {
        self.table.bytes()
    }

    /// How much of it is in use, in bytes.
    pub(super) fn bytes_in_use(&self) -> u64 {
        self.table.bytes_in_use()
    }

    /// Entries made since the start, seeded ones not among them.
    pub(super) fn made(&self) -> Result<u64, DatapathError> {
        self.learned(Reason::FlowMade)
    }

    /// Flows since the start for which there was no room.
    pub fn refused(&self) -> Result<u64, DatapathError> {
        self.learned(Reason::LearnFailed)
    }

    fn learned(&self, reason: Reason) -> Result<u64, DatapathError> {
        let values = self.reasons.get(&reason_counter(Program::Learn, reason), 0);
        Ok(counters::sum(&values.map_err(DatapathError::map(maps::REASONS))?).packets)
    }

    /// Makes room for so many flows; returns how many had to go for it.
    pub(super) fn grow(&self, flows: u64) -> u64 {
        self.table.grow(flows)
    }

    /// The same, or gives back what is too much.
    pub(super) fn fit(&self, flows: u64) -> u64 {
        self.table.fit(flows)
    }

    /// Whether all of the table is in use: there is no more room to be made.
    pub(super) fn is_all_in_use(&self) -> bool {
        self.table.is_all_in_use()
    }

    /// Removes what is expired, and where the table is nearly full also what matters least.
    pub fn sweep(&mut self) -> Result<Swept, DatapathError> {
        self.sweep_in(Duration::ZERO)
    }

    /// The same as if it were so much later.
    pub fn sweep_in(&mut self, later: Duration) -> Result<Swept, DatapathError> {
        let now = now().wrapping_add(ticks_of(later));
        let wans = self.wan_states()?;
        let mut swept = Swept::default();
        let mut census = Census::default();
        swept.expired = self.remove_where(|key, value| {
            let idle = ticks_between(value.seen.at, now);
            let expired = is_expired(key, value, idle, &wans);
            if !expired {
                census.add(key.protocol, value, idle);
            }
            expired
        });
        let mut evictions = census.evictions(self.max());
        if evictions.any() {
            // What is left is counted anew.
            census = Census::default();
            let (mut passing, mut lasting) = (0, 0);
            self.remove_where(|key, value| {
                let idle = ticks_between(value.seen.at, now);
                let before = evictions.lasting.count;
                if !evictions.take(key.protocol, value, idle) {
                    census.add(key.protocol, value, idle);
                    return false;
                }
                if evictions.lasting.count == before {
                    passing += 1
                } else {
                    lasting += 1
                }
                true
            });
            (swept.evicted_passing, swept.evicted_lasting) = (passing, lasting);
        }
        swept.census = census;
        Ok(swept)
    }

    /// Removes the entries that `is_due` picks; returns how many.
    ///
    /// Between the look at an entry and its removal a packet may refresh its time. It loses its entry then as if the
    /// packet had come a moment later.
    fn remove_where(&self, mut is_due: impl FnMut(&FlowKey4, &FlowValue) -> bool) -> u64 {
        let due = self.table.entries().filter(|entry| is_due(&entry.key, &entry.value));
        due.map(|entry| u64::from(self.table.remove(&entry))).sum()
    }

    fn wan_states(&self) -> Result<Vec<WanEntry>, DatapathError> {
        (0..WAN_SLOTS)
            .map(|number| self.wans.get(&number, 0).map_err(DatapathError::map(maps::WANS)))
            .collect()
    }
}

fn is_expired(key: &FlowKey4, value: &FlowValue, idle: u32, wans: &[WanEntry]) -> bool {
    let binding = value.binding;
    let wan = wans.get(usize::from(binding.wan)).copied().unwrap_or_default();
    // Generations only rise, and the WAN may have gone out of service since its state was read: an entry of
    // a later one is valid.
    let is_void = wan.fwmark == 0 || (wan.generation.wrapping_sub(binding.generation).cast_signed()) > 0;
    is_void || idle > FlowState::of(binding.state).timeout(key.protocol)
}

/// Another handle of a map.
fn another(ebpf: &Ebpf, name: &'static str) -> Result<MapData, DatapathError> {
    use aya::maps::Map;
    let map = ebpf.map(name).ok_or(DatapathError::Missing(name))?;
    let (Map::Array(data) | Map::PerCpuArray(data)) = map else {
        return Err(DatapathError::Missing(name));
    };
    // By its number would take CAP_SYS_ADMIN.
    let fd = data.fd().as_fd().try_clone_to_owned().map_err(DatapathError::Handle)?;
    MapData::from_fd(fd).map_err(DatapathError::map(name))
}

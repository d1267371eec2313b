//! The daemon's side of the filter in front of the flow table (`multiwans-ebpf/src/presence.rs`).
//!
//! The rule: **what is in the table has its bit in the half that is asked**, or is about to get it from who put it
//! there. Were it broken, a known flow would count as unknown, and might leave by another WAN.
//!
//! * Who puts an entry into the table sets its bit in both halves afterwards. Only a renewal clears bits, and only in
//!   the half that is not asked.
//! * A renewal clears that half, *then* walks through the table and sets the bit of each entry that it leaves there.
//!   A walk by batches meets every entry that is there from its beginning to its end: the kernel reads a whole bucket
//!   at a time, under its lock, and buckets do not move (`__htab_map_lookup_and_delete_batch`,
//!   kernel/bpf/hashtab.c). An entry that the walk does not meet was put there after the walk began, hence after the
//!   clearing. Its bit is set after the entry, so after the clearing too, and stays.
//! * For "after" to hold between CPUs, both sides have a full barrier: between entry and bit, and between clearing and
//!   walk. Either the walk sees the entry, or the bit is set on what was cleared before.
//! * Only a walk that came to its end, with everything removed that it did not set the bit of, has the other half asked.
//!   One that is broken off changes nothing: the next begins with the clearing.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aya::Ebpf;
use aya::maps::Map;
use memmap2::{MmapOptions, MmapRaw};
use multiwans_common::{FlowKey4, FlowPresence};

use crate::datapath::{DatapathError, maps};

/// The filter's memory, which is the programs'.
pub(in crate::datapath) struct Presence {
    memory: MmapRaw,
    filter: FlowPresence,
    /// Two renewals at a time would clear each other's bits.
    renewing: Mutex<()>,
    bytes: u64,
}

impl Presence {
    /// The filter of a loaded object's table.
    pub(in crate::datapath) fn new(ebpf: &Ebpf, filter: FlowPresence) -> Result<Arc<Self>, DatapathError> {
        let Some(Map::Array(map)) = ebpf.map(maps::PRESENCE) else {
            return Err(DatapathError::Missing(maps::PRESENCE));
        };
        let bytes = maps::memory(maps::PRESENCE, map)?;
        let memory = MmapOptions::new()
            .len(filter.words() as usize * size_of::<u64>())
            .map_raw(map.fd().as_fd().as_raw_fd())
            .map_err(DatapathError::memory(maps::PRESENCE))?;
        Ok(Arc::new(Self::over(memory, filter, bytes)))
    }

    fn over(memory: MmapRaw, filter: FlowPresence, bytes: u64) -> Self {
        Self { memory, filter, renewing: Mutex::new(()), bytes }
    }

    /// What it takes of the kernel's memory.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Notes a flow that was put into the table.
    pub(super) fn note(&self, key: &FlowKey4) {
        self.set(0, key);
        self.set(1, key);
    }

    /// Clears the half that is not asked, to set the bit of everything that is in the table, and no others.
    /// The walk through the table begins after this.
    pub(super) fn renew(&self) -> Renewal<'_> {
        self.renew_after(wait_for_programs)
    }

    fn renew_after<T>(&self, wait: impl FnOnce() -> T) -> Renewal<'_> {
        // Whoever panicked did not finish.
        let guard = self.renewing.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = self.word(FlowPresence::ACTIVE).load(Ordering::SeqCst) & 1;
        let half = u32::from(asked == 0);
        wait();
        for number in self.filter.half(half) {
            self.word(number).store(0, Ordering::Relaxed);
        }
        fence(Ordering::SeqCst);
        Renewal { presence: self, half, _guard: guard }
    }

    fn set(&self, half: u32, key: &FlowKey4) {
        let (number, bit) = self.filter.bit(half, key);
        self.word(number).fetch_or(bit, Ordering::SeqCst);
    }

    fn word(&self, number: u32) -> &AtomicU64 {
        assert!(number < self.filter.words());
        // SAFETY: it is in what was mapped, which begins with a page and stays for as long as `self`; it is written by
        // atomic operations only, here and by the programs.
        unsafe { AtomicU64::from_ptr(self.memory.as_mut_ptr().cast::<u64>().add(number as usize)) }
    }
}

/// A half under renewal. Dropped, it leaves the other one as it is, and asked.
pub(super) struct Renewal<'a> {
    presence: &'a Presence,
    half: u32,
    _guard: MutexGuard<'a, ()>,
}

impl Renewal<'_> {
    /// Sets the bit of an entry that stays in the table.
    pub(super) fn keep(&self, key: &FlowKey4) {
        self.presence.set(self.half, key);
    }

    /// Has the programs ask this half: the walk came to its end, and what was not kept is out of the table.
    pub(super) fn finish(self) {
        self.presence.word(FlowPresence::ACTIVE).store(u64::from(self.half), Ordering::SeqCst);
    }
}

/// Waits until every program that runs has ended: one may be about to ask the half that was asked before. This is
/// `synchronize_rcu()` to the kernel (kernel/sched/membarrier.c). A kernel with `nohz_full` refuses it; there the 200
/// ms between two walks have to do. Whether it waited.
fn wait_for_programs() -> bool {
    /// linux/membarrier.h
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: takes three integers and touches no memory of ours.
    unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) == 0 }
}

#[cfg(test)]
#[path = "presence_tests.rs"]
mod tests;

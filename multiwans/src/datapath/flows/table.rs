//! The flow table's memory as the daemon has it: the very memory that the programs write. A walk through it takes no call
//! into the kernel and no lock, so it keeps no packet waiting.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use aya::Ebpf;
use aya::maps::Map;
use memmap2::{MmapOptions, MmapRaw};
use multiwans_common::{
    Binding, FREE, FlowKey4, FlowLayout, FlowLine, FlowLines, FlowMemory, FlowPlace, FlowValue, LINE_FLOWS,
    Seen, binding_word, holds_flow, slot,
};

use super::size;
use crate::datapath::{DatapathError, maps};

/// The flow table.
pub(in crate::datapath) struct FlowTable {
    memory: MmapRaw,
    /// [`FlowLines`].
    in_use: MmapRaw,
    seed: u64,
    max: u32,
    bytes: u64,
    /// Two at a time would lose flows.
    resizing: Mutex<()>,
}

/// A flow in its place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    place: FlowPlace,
    pub(super) key: FlowKey4,
    pub(super) value: FlowValue,
}

impl FlowTable {
    /// That of a loaded object, for `max` flows.
    pub(in crate::datapath) fn new(ebpf: &Ebpf, seed: u64, max: u32) -> Result<Arc<Self>, DatapathError> {
        let map = |name| match ebpf.map(name) {
            Some(Map::Array(map)) => Ok(map),
            _ => Err(DatapathError::Missing(name)),
        };
        let mapped = |name, length| {
            let fd = map(name)?.fd().as_fd().as_raw_fd();
            MmapOptions::new().len(length).map_raw(fd).map_err(DatapathError::memory(name))
        };
        let table = Self {
            memory: mapped(maps::FLOWS, length(max))?,
            in_use: mapped(maps::FLOW_LINES, size_of::<FlowLines>())?,
            seed,
            max,
            bytes: maps::memory(maps::FLOWS, map(maps::FLOWS)?)?,
            resizing: Mutex::new(()),
        };
        table.begin();
        Ok(Arc::new(table))
    }

    /// Has a table that is empty use the fewest lines.
    fn begin(&self) {
        let lines = size::wanted(0, 0, self.max);
        self.use_lines(FlowLines { now: lines, before: lines });
    }

    /// Flows it is to hold.
    pub(super) fn max(&self) -> u32 {
        self.max
    }

    /// What it takes of the kernel's memory.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Lines in use.
    pub(super) fn lines(&self) -> FlowLines {
        FlowLines::of_word(self.in_use_word().load(Ordering::SeqCst))
    }

    /// What they take.
    pub(super) fn bytes_in_use(&self) -> u64 {
        let FlowLines { now, before } = self.lines();
        u64::from(now.max(before)) * size_of::<FlowLine>() as u64
    }

    /// Whether there are no more lines to be used.
    pub(super) fn is_all_in_use(&self) -> bool {
        self.lines().now == size::most(self.max)
    }

    /// Stores a flow; `false`: there is no room for it.
    pub(super) fn put(&self, key: &FlowKey4, value: FlowValue) -> bool {
        let lines = self.lines();
        match lines.find(self, key, self.seed) {
            Some(found) => self.set(found.place, value),
            None => FlowLayout { lines: lines.now, seed: self.seed }.insert(self, key, value),
        }
    }

    fn set(&self, place: FlowPlace, value: FlowValue) -> bool {
        let Some(slot) = slot(self, place) else { return false };
        // SAFETY: a place of this table, which is mapped for as long as `self`; both are words.
        unsafe {
            (&raw mut (*slot).value.seen).write_volatile(value.seen);
            self.swap(binding_word(slot), value.binding.word());
        }
        true
    }

    /// Has all lines used where those in use do not do for so many flows; returns how many had to go, for which there was no
    /// place. All, because more flows may be coming faster than they can be moved again and again.
    pub(super) fn grow(&self, flows: u64) -> u64 {
        self.resize_to(
            |now| if size::wanted(flows, now, self.max) > now { size::most(self.max) } else { now },
        )
    }

    /// Has as many used as fit so many flows.
    pub(super) fn fit(&self, flows: u64) -> u64 {
        self.resize_to(|now| size::wanted(flows, now, self.max))
    }

    fn resize_to(&self, wanted: impl Fn(u32) -> u32) -> u64 {
        // Whoever panicked left flows where both are looked for.
        let _guard = self.resizing.lock().unwrap_or_else(PoisonError::into_inner);
        // A program may have had all lines used; so it may between this and the next, which then waits for the next time.
        let lost = self.move_all(self.lines(), &wait_for_programs);
        lost + self.resize(wanted(self.lines().now), &wait_for_programs)
    }

    fn resize(&self, lines: u32, wait: &impl Fn()) -> u64 {
        let FlowLines { now, before } = self.lines();
        let (from, to) = (FlowLines { now, before }, FlowLines { now: lines, before: now });
        if now != before || now == lines || !self.exchange_lines(from, to) {
            return 0;
        }
        self.move_all(to, wait)
    }

    /// Moves flows from where they were before to where they are to be now. No flow that stays is unknown to a packet
    /// meanwhile: see `multiwans-common/src/flow_table.rs`.
    fn move_all(&self, lines: FlowLines, wait: &impl Fn()) -> u64 {
        let FlowLines { now, before } = lines;
        if now == before {
            return 0;
        }
        // A program that still knows nothing of the new lines may be about to put a flow into the old ones.
        wait();
        let finds_no_place = |place: &FlowPlace| !self.move_on(lines, *place);
        // Where the lines overlap, some are crowded by flows that are still to be moved.
        let crowded: Vec<FlowPlace> = (0..before * LINE_FLOWS).filter(finds_no_place).collect();
        let left: Vec<FlowPlace> = crowded.into_iter().filter(finds_no_place).collect();
        if !left.is_empty() && before > now {
            // More came meanwhile than there is room for. Where they were, there is.
            let back = FlowLines { now: before, before: now };
            self.use_lines(back);
            return self.move_all(back, wait);
        }
        let left = left.into_iter().filter_map(|place| self.entry(place));
        let lost = left.map(|entry| u64::from(self.remove(&entry))).sum();
        // Programs write this word only where both are the same.
        self.use_lines(FlowLines { now, before: now });
        lost
    }

    /// Moves what is in a place where flows were before to where it is to be now; `false`: there is no room.
    fn move_on(&self, lines: FlowLines, place: FlowPlace) -> bool {
        let layout = |lines| FlowLayout { lines, seed: self.seed };
        let (before, now) = (layout(lines.before), layout(lines.now));
        while let Some(entry) = self.entry(place) {
            let is_in = |layout: FlowLayout| layout.lines_of(&entry.key).contains(&(place / LINE_FLOWS));
            if !is_in(before) {
                return true;
            }
            if before.find(self, &entry.key).is_some_and(|found| found.place == place) {
                // The one that packets find, and keep up to date.
                self.remove_twins(before, &entry);
                if is_in(now) {
                    self.remove_twins(now, &entry);
                    return true;
                }
                // Where it changed since, the copy from the turn before is made the same.
                let has_copy = match now.find(self, &entry.key) {
                    Some(copy) => self.set(copy.place, entry.value),
                    None => now.insert(self, &entry.key, entry.value),
                };
                if !has_copy {
                    return false;
                }
            }
            if self.remove(&entry) {
                return true;
            }
        }
        true
    }

    /// Removes what else stands there for the same flow: two CPUs may have made it. Nothing finds it, and nothing keeps it up
    /// to date, while the flow is where it is; elsewhere it would be found.
    fn remove_twins(&self, layout: FlowLayout, of: &Entry) {
        for line in layout.lines_of(&of.key) {
            for place in line * LINE_FLOWS..(line + 1) * LINE_FLOWS {
                if place != of.place
                    && let Some(twin) = self.entry(place)
                    && twin.key == of.key
                {
                    self.remove(&twin);
                }
            }
        }
    }

    fn use_lines(&self, lines: FlowLines) {
        self.in_use_word().store(lines.word(), Ordering::SeqCst);
    }

    fn exchange_lines(&self, from: FlowLines, to: FlowLines) -> bool {
        let (from, to) = (from.word(), to.word());
        self.in_use_word().compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    fn in_use_word(&self) -> &AtomicU64 {
        // SAFETY: what is mapped begins with a page and has these eight bytes, which all write by atomic operations.
        unsafe { AtomicU64::from_ptr(self.in_use.as_mut_ptr().cast()) }
    }

    /// Every flow that is there from the beginning to the end, and of those that come or go meanwhile some.
    pub(super) fn entries(&self) -> impl Iterator<Item = Entry> {
        let FlowLines { now, before } = self.lines();
        (0..now.max(before) * LINE_FLOWS).filter_map(|place| self.entry(place))
    }

    fn entry(&self, place: FlowPlace) -> Option<Entry> {
        let slot = slot(self, place)?;
        // SAFETY: as above. The binding comes first: what it says of a flow is removed only while it still says so.
        unsafe {
            let binding = self.word(binding_word(slot)).load(Ordering::Acquire);
            if !holds_flow(binding) {
                return None;
            }
            let key = FlowKey4::of_words((&raw const (*slot).key).read_volatile());
            let seen: Seen = (&raw const (*slot).value.seen).read_volatile();
            Some(Entry { place, key, value: FlowValue { seen, binding: Binding::of_word(binding) } })
        }
    }

    /// Removes a flow, unless something became of it since it was looked at.
    pub(super) fn remove(&self, entry: &Entry) -> bool {
        let Some(slot) = slot(self, entry.place) else { return false };
        let binding = entry.value.binding.word();
        // SAFETY: as above.
        unsafe { self.compare_exchange(binding_word(slot), binding, FREE) == binding }
    }

    /// # Safety
    /// The pointer is into this table, to an aligned word that is a binding.
    unsafe fn word(&self, word: *mut u64) -> &AtomicU64 {
        // SAFETY: as the caller promises; bindings are written by atomic operations and single bytes only.
        unsafe { AtomicU64::from_ptr(word) }
    }
}

fn length(max: u32) -> usize {
    size::most(max) as usize * size_of::<FlowLine>()
}

/// Waits until every program that runs has ended. This is `synchronize_rcu()` to the kernel (kernel/sched/membarrier.c).
/// A kernel with `nohz_full` refuses it; there a time has to do that no program takes.
fn wait_for_programs() {
    /// linux/membarrier.h
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    const LONGER: Duration = Duration::from_millis(50);
    // SAFETY: takes three integers and touches no memory of ours.
    if unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) } != 0 {
        thread::sleep(LONGER);
    }
}

impl FlowMemory for FlowTable {
    fn line(&self, number: u32) -> Option<*mut FlowLine> {
        // SAFETY: inside of what was mapped, which begins with a page.
        (number < size::most(self.max))
            .then(|| unsafe { self.memory.as_mut_ptr().cast::<FlowLine>().add(number as usize) })
    }

    unsafe fn compare_exchange(&self, word: *mut u64, old: u64, new: u64) -> u64 {
        // SAFETY: as the caller promises.
        let word = unsafe { self.word(word) };
        word.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).unwrap_or_else(|found| found)
    }

    unsafe fn swap(&self, word: *mut u64, new: u64) {
        // SAFETY: as the caller promises.
        unsafe { self.word(word) }.swap(new, Ordering::SeqCst);
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;

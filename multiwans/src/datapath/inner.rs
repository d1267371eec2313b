//! Arrays that are filled as memory and put inside outer maps.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use aya::maps::array::Array;
use aya::maps::of_maps::ArrayOfMaps;
use aya::maps::{InnerMap, MapData};
use aya::{Ebpf, Pod};
use memmap2::{Mmap, MmapMut, MmapOptions};

use super::DatapathError;

/// `BPF_F_MMAPABLE` (Linux 5.5): filled as memory. `BPF_F_INNER_MAP` (Linux 5.10): an array inside an outer
/// map may have any length. The outer maps are declared with both.
const FLAGS: u32 = (1 << 10) | (1 << 12);

/// An array in the kernel that is written once, when it is made.
pub(super) struct Inner<V: Pod> {
    array: Array<MapData, V>,
    bytes: usize,
}

impl<V: Pod> Inner<V> {
    /// An array that holds just this. `name`: the outer map's, for errors.
    pub(super) fn new(name: &'static str, content: &[V]) -> Result<Self, DatapathError> {
        // A length that does not fit is refused by the kernel.
        let length = u32::try_from(content.len()).unwrap_or(u32::MAX).max(1);
        let array = Array::create(length, FLAGS).map_err(DatapathError::map(name))?;
        let inner = Self { array, bytes: size_of_val(content) };
        if !content.is_empty() {
            let mut memory = inner.memory_mut().map_err(DatapathError::memory(name))?;
            memory.copy_from_slice(bytes_of(content));
        }
        Ok(inner)
    }

    /// Whether it holds just this.
    pub(super) fn holds(&self, content: &[V]) -> bool {
        let content = bytes_of(content);
        self.bytes == content.len()
            && (content.is_empty() || self.memory().is_ok_and(|memory| *memory == *content))
    }

    /// Bytes of its content.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Puts it into an outer map. The kernel waits for all programs that run to end after it did.
    pub(super) fn put(&self, ebpf: &mut Ebpf, name: &'static str, place: u32) -> Result<(), DatapathError> {
        let outer = ebpf.map_mut(name).ok_or(DatapathError::Missing(name))?;
        let mut outer: ArrayOfMaps<&mut MapData, Array<MapData, V>> =
            ArrayOfMaps::try_from(outer).map_err(DatapathError::map(name))?;
        outer.set(place, &self.array, 0).map_err(DatapathError::map(name))
    }

    fn memory_mut(&self) -> io::Result<MmapMut> {
        let descriptor = descriptor(&self.array).as_raw_fd();
        // SAFETY: the kernel keeps an array's memory for as long as it is mapped, and nobody else writes this
        // one: no program does, and it is in no outer map yet.
        unsafe { MmapOptions::new().len(self.bytes).map_mut(descriptor) }
    }

    fn memory(&self) -> io::Result<Mmap> {
        let descriptor = descriptor(&self.array).as_raw_fd();
        // SAFETY: as above; it is written only when it is made.
        unsafe { MmapOptions::new().len(self.bytes).map(descriptor) }
    }
}

/// What a map is to the kernel; aya has no other way to it where the map's type is known.
fn descriptor<M: InnerMap>(map: &M) -> BorrowedFd<'_> {
    map.fd().as_fd()
}

fn bytes_of<V: Pod>(content: &[V]) -> &[u8] {
    // SAFETY: a `Pod` has no padding, and the slice covers just these values.
    unsafe { std::slice::from_raw_parts(content.as_ptr().cast(), size_of_val(content)) }
}

//! Arrays that are filled as memory and put inside an outer map.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use aya::Ebpf;
use aya::maps::array::Array;
use aya::maps::of_maps::ArrayOfMaps;
use aya::maps::{InnerMap, Map, MapData};
use memmap2::{Mmap, MmapMut, MmapOptions};
use multiwans_common::{Line, Lines};

use super::DatapathError;

/// `BPF_F_MMAPABLE` (Linux 5.5): filled as memory. `BPF_F_INNER_MAP` (Linux 5.10): an array inside an outer
/// map may have any length. The outer map is declared with both.
const FLAGS: u32 = (1 << 10) | (1 << 12);

/// An array in the kernel that is written once, when it is made.
pub(super) struct Inner {
    array: Array<MapData, Line>,
    bytes: usize,
}

impl Inner {
    /// An array that holds just this. `name`: the outer map's, for errors.
    pub(super) fn new(name: &'static str, content: &[Line]) -> Result<Self, DatapathError> {
        // A length that does not fit is refused by the kernel.
        let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let array = Array::create(length, FLAGS).map_err(DatapathError::map(name))?;
        let inner = Self { array, bytes: size_of_val(content) };
        let mut memory = inner.memory_mut().map_err(DatapathError::memory(name))?;
        memory.copy_from_slice(bytes_of(content));
        Ok(inner)
    }

    /// Whether it holds just this.
    pub(super) fn holds(&self, content: &[Line]) -> bool {
        let content = bytes_of(content);
        self.bytes == content.len() && self.memory().is_ok_and(|memory| *memory == *content)
    }

    /// Its content, for as long as it is wanted.
    pub(super) fn content(&self) -> io::Result<Content> {
        Ok(Content(self.memory()?))
    }

    fn memory_mut(&self) -> io::Result<MmapMut> {
        // SAFETY: the kernel keeps an array's memory for as long as it is mapped, and nobody else writes this
        // one: no program does, and it is in no outer map yet.
        unsafe { MmapOptions::new().len(self.bytes).map_mut(descriptor(&self.array).as_raw_fd()) }
    }

    fn memory(&self) -> io::Result<Mmap> {
        // SAFETY: as above; it is written only when it is made.
        unsafe { MmapOptions::new().len(self.bytes).map(descriptor(&self.array).as_raw_fd()) }
    }
}

/// What an array holds, as the kernel has it.
pub(super) struct Content(Mmap);

impl Lines for Content {
    fn line(&self, number: u32) -> Option<&Line> {
        // SAFETY: a line is eight integers that may have any value, and what is mapped begins with a page.
        let (_, lines, _) = unsafe { self.0.align_to::<Line>() };
        lines.get(number as usize)
    }
}

/// Puts arrays into an outer map, each at its place. The kernel waits until every program that ran has ended,
/// once for all of them where it takes them together (map of maps: Linux 5.19), else for each.
pub(super) fn put(
    ebpf: &mut Ebpf,
    name: &'static str,
    arrays: &[(u32, &Inner)],
) -> Result<(), DatapathError> {
    let outer = ebpf.map_mut(name).ok_or(DatapathError::Missing(name))?;
    if let Map::ArrayOfMaps(outer) = outer
        && put_together(outer.fd().as_fd(), arrays).is_ok()
    {
        return Ok(());
    }
    let mut outer: ArrayOfMaps<&mut MapData, Array<MapData, Line>> =
        ArrayOfMaps::try_from(outer).map_err(DatapathError::map(name))?;
    for (place, inner) in arrays {
        outer.set(*place, &inner.array, 0).map_err(DatapathError::map(name))?;
    }
    Ok(())
}

/// `BPF_MAP_UPDATE_BATCH`, which aya does not know. On an error some may have been put.
fn put_together(outer: BorrowedFd<'_>, arrays: &[(u32, &Inner)]) -> io::Result<()> {
    const BPF_MAP_UPDATE_BATCH: libc::c_long = 26;
    /// The part of `union bpf_attr` for it (linux/bpf.h).
    #[repr(C)]
    struct Batch {
        in_batch: u64,
        out_batch: u64,
        keys: u64,
        values: u64,
        count: u32,
        map_fd: u32,
        elem_flags: u64,
        flags: u64,
    }
    let keys: Vec<u32> = arrays.iter().map(|(place, _)| *place).collect();
    let values: Vec<i32> = arrays.iter().map(|(_, inner)| descriptor(&inner.array).as_raw_fd()).collect();
    let mut batch = Batch {
        in_batch: 0,
        out_batch: 0,
        keys: keys.as_ptr().expose_provenance() as u64,
        values: values.as_ptr().expose_provenance() as u64,
        count: u32::try_from(keys.len()).unwrap_or(u32::MAX),
        map_fd: outer.as_raw_fd().cast_unsigned(),
        elem_flags: 0,
        flags: 0,
    };
    // SAFETY: the structure is as the kernel has it, and both slices live through the call and have `count`
    // elements of the map's key (u32) and value (a descriptor).
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_UPDATE_BATCH, &raw mut batch, size_of::<Batch>()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What a map is to the kernel; aya has no other way to it where the map's type is known.
fn descriptor<M: InnerMap>(map: &M) -> BorrowedFd<'_> {
    map.fd().as_fd()
}

fn bytes_of(content: &[Line]) -> &[u8] {
    // SAFETY: a line is eight integers without padding, and the slice covers just these lines.
    unsafe { std::slice::from_raw_parts(content.as_ptr().cast(), size_of_val(content)) }
}

//! Reading a hash map in batches (`BPF_MAP_LOOKUP_BATCH`, Linux 5.6), which aya has no call for.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use multiwans_common::{FlowKey4, FlowValue};

/// `BPF_MAP_LOOKUP_BATCH` (linux/bpf.h).
const LOOKUP_BATCH: libc::c_int = 24;
/// Entries of a batch at first. Half a millisecond; larger ones are not faster.
const BATCH: usize = 1024;

/// `bpf_attr.batch` (linux/bpf.h).
#[repr(C)]
struct Attributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// A walk through the flow table. An entry that is there from the beginning to the end is seen once; one that
/// is added or removed meanwhile may or may not be.
pub(super) struct Walk<'a> {
    map: BorrowedFd<'a>,
    keys: Vec<FlowKey4>,
    values: Vec<FlowValue>,
    /// The bucket to go on from; `None` at the beginning.
    position: Option<u32>,
    ended: bool,
}

impl<'a> Walk<'a> {
    pub(super) fn new(map: BorrowedFd<'a>) -> Self {
        Self { map, keys: Vec::new(), values: Vec::new(), position: None, ended: false }
    }

    /// The next entries; empty at the end.
    pub(super) fn next(&mut self) -> io::Result<impl Iterator<Item = (&FlowKey4, &FlowValue)>> {
        let mut count = 0;
        while count == 0 && !self.ended {
            count = self.read()?;
        }
        Ok(self.keys.iter().zip(&self.values).take(count))
    }

    fn read(&mut self) -> io::Result<usize> {
        let zero_key = FlowKey4 {
            source: 0,
            destination: 0,
            source_port: 0,
            destination_port: 0,
            protocol: 0,
            zero: [0; 3],
        };
        if self.keys.is_empty() {
            self.keys = vec![zero_key; BATCH];
            self.values = vec![ZERO_VALUE; BATCH];
        }
        let mut next = 0u32;
        let mut attributes = Attributes {
            in_batch: self.position.as_ref().map_or(0, address),
            out_batch: (&raw mut next).expose_provenance() as u64,
            keys: self.keys.as_mut_ptr().expose_provenance() as u64,
            values: self.values.as_mut_ptr().expose_provenance() as u64,
            // Both buffers hold as many; far less than 2³².
            count: u32::try_from(self.keys.len()).unwrap_or(0),
            map_fd: self.map.as_raw_fd().cast_unsigned(),
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: the kernel writes `count` keys and values of the sizes the map was made with, which are
        // those of the buffers' elements, a bucket's number to `next`, and the count read to `attributes`.
        // All outlive the call, and both types are valid whatever is written.
        let result = unsafe {
            libc::syscall(libc::SYS_bpf, LOOKUP_BATCH, &raw mut attributes, size_of::<Attributes>())
        };
        if result == 0 {
            self.position = Some(next);
            return Ok(attributes.count as usize);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            // The last entries.
            Some(libc::ENOENT) => {
                self.ended = true;
                Ok(attributes.count as usize)
            }
            // A bucket has more entries than there is room for; nothing was read.
            Some(libc::ENOSPC) => {
                self.keys.resize(self.keys.len() * 2, zero_key);
                self.values.resize(self.keys.len(), ZERO_VALUE);
                Ok(0)
            }
            _ => Err(error),
        }
    }
}

const ZERO_VALUE: FlowValue = FlowValue {
    seen: multiwans_common::Seen { at: 0, filter: multiwans_common::FilterTag::unknown() },
    binding: multiwans_common::Binding { generation: 0, wan: 0, state: 0, inbound: 0, zero: 0 },
};

fn address<T>(value: &T) -> u64 {
    std::ptr::from_ref(value).expose_provenance() as u64
}

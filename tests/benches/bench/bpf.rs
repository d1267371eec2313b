//! The few calls of bpf(2) that measuring needs and aya does not offer: loading instructions written here, running
//! a program on live frames, and the programs and maps of another process by their numbers.

use anyhow::{Context as _, Result, bail};
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

// enum bpf_cmd, linux/bpf.h
const MAP_CREATE: libc::c_long = 0;
const MAP_LOOKUP_ELEM: libc::c_long = 1;
const MAP_GET_NEXT_KEY: libc::c_long = 4;
const PROG_LOAD: libc::c_long = 5;
const PROG_TEST_RUN: libc::c_long = 10;
const PROG_GET_FD_BY_ID: libc::c_long = 13;
const MAP_GET_FD_BY_ID: libc::c_long = 14;
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const LINK_CREATE: libc::c_long = 28;
const ENABLE_STATS: libc::c_long = 32;

/// `BPF_MAP_TYPE_ARRAY`
const ARRAY: u32 = 2;
/// `BPF_F_MMAPABLE`
const MMAPABLE: u32 = 1 << 10;
/// `BPF_TCX_INGRESS`
const TCX_INGRESS: u32 = 46;
/// `BPF_F_BEFORE`: with no other program named, before all.
const BEFORE: u32 = 1 << 3;
/// `BPF_F_TEST_XDP_LIVE_FRAMES`
const LIVE_FRAMES: u32 = 1 << 1;

/// Kinds of programs, `enum bpf_prog_type`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Classifier = 3,
    Xdp = 6,
}

/// Calls bpf(2) with an attribute of zeros but for these fields, each at its offset in `union bpf_attr`.
fn call(command: libc::c_long, fields: &[(usize, Field)]) -> io::Result<(i32, Attr)> {
    let mut attr = Attr([0; 128]);
    for (offset, field) in fields {
        match field {
            Field::U32(value) => attr.0[*offset..offset + 4].copy_from_slice(&value.to_ne_bytes()),
            Field::U64(value) => attr.0[*offset..offset + 8].copy_from_slice(&value.to_ne_bytes()),
        }
    }
    // SAFETY: the attribute outlives the call and is as long as said; the pointers in it are those of the
    // callers below, each of whom borrows what it points to across the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr.0.as_mut_ptr(), attr.0.len()) };
    let result = i32::try_from(result).unwrap_or(-1);
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok((result, attr)) }
}

/// `union bpf_attr`, aligned as the kernel's.
#[repr(C, align(8))]
struct Attr([u8; 128]);

impl Attr {
    fn u32(&self, offset: usize) -> u32 {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.0[offset..offset + 4]);
        u32::from_ne_bytes(bytes)
    }
}

enum Field {
    U32(u32),
    U64(u64),
}
use Field::{U32, U64};

fn fd_field(fd: &OwnedFd) -> Field {
    U32(u32::try_from(fd.as_raw_fd()).unwrap_or(u32::MAX))
}

fn pointer<T>(data: &[T]) -> Field {
    U64(data.as_ptr() as u64)
}

fn length<T>(data: &[T]) -> Field {
    U32(u32::try_from(size_of_val(data)).unwrap_or(u32::MAX))
}

fn owned((fd, _): (RawFd, Attr)) -> OwnedFd {
    // SAFETY: the kernel just gave us this descriptor, and nobody else has it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// An array whose memory this process shares with the programs.
pub(crate) struct SharedArray {
    fd: OwnedFd,
    memory: *mut u8,
    bytes: usize,
}

impl SharedArray {
    /// `value_size` must be a multiple of 8: the kernel rounds it up to that.
    pub(crate) fn new(value_size: usize, entries: usize) -> Result<Self> {
        let fields = [
            (0, U32(ARRAY)),
            (4, U32(4)),
            (8, U32(u32::try_from(value_size)?)),
            (12, U32(u32::try_from(entries)?)),
            (16, U32(MMAPABLE)),
        ];
        let fd = owned(call(MAP_CREATE, &fields).context("cannot make an array")?);
        let bytes = value_size * entries;
        // SAFETY: a new mapping; the kernel chooses where.
        let memory = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                0,
            )
        };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error()).context("cannot map an array");
        }
        Ok(Self { fd, memory: memory.cast(), bytes })
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Copies into the array from its begin.
    pub(crate) fn write(&mut self, data: &[u8]) {
        assert!(data.len() <= self.bytes, "{} bytes do not fit into {}", data.len(), self.bytes);
        // SAFETY: the mapping is as long as checked, and no program runs on it while it is filled.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), self.memory, data.len()) };
    }

    /// The 64-bit number at an index of an array of those. Programs may be adding to it.
    pub(crate) fn number(&self, index: usize) -> u64 {
        assert!((index + 1) * 8 <= self.bytes);
        // SAFETY: inside the mapping, which is aligned to a page; read as one aligned word.
        unsafe { std::ptr::read_volatile(self.memory.cast::<u64>().add(index)) }
    }

    pub(crate) fn set_number(&self, index: usize, value: u64) {
        assert!((index + 1) * 8 <= self.bytes);
        // SAFETY: as above.
        unsafe { std::ptr::write_volatile(self.memory.cast::<u64>().add(index), value) };
    }
}

impl Drop for SharedArray {
    fn drop(&mut self) {
        // SAFETY: our own mapping, and nobody uses it any more.
        unsafe { libc::munmap(self.memory.cast(), self.bytes) };
    }
}

// SAFETY: the mapping belongs to this value alone and is not bound to a thread.
unsafe impl Send for SharedArray {}
// SAFETY: shared references only read and write whole aligned words.
unsafe impl Sync for SharedArray {}

/// A program in the kernel.
#[derive(Debug)]
pub(crate) struct Program {
    fd: OwnedFd,
}

/// What a packet brings along, of `struct __sk_buff`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Context {
    pub(crate) mark: u32,
    /// Where it came in.
    pub(crate) ingress_ifindex: u32,
    /// Where it is.
    pub(crate) ifindex: u32,
}

/// `sizeof(struct __sk_buff)`, linux/bpf.h
const CONTEXT_LEN: usize = 192;
/// Where its `mark` is.
const MARK: usize = 8;

impl Context {
    pub(crate) fn bytes(self) -> [u8; CONTEXT_LEN] {
        let mut bytes = [0; CONTEXT_LEN];
        for (offset, value) in [(MARK, self.mark), (36, self.ingress_ifindex), (40, self.ifindex)] {
            bytes[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
        }
        bytes
    }

    pub(crate) fn mark_in(bytes: &[u8; CONTEXT_LEN]) -> u32 {
        let mut mark = [0; 4];
        mark.copy_from_slice(&bytes[MARK..MARK + 4]);
        u32::from_ne_bytes(mark)
    }
}

/// What a test run came to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    /// The packet's mark afterwards.
    pub(crate) mark: u32,
    /// What the kernel measured, the reading of its clock included.
    pub(crate) ns: u32,
}

impl Program {
    pub(crate) fn load(kind: Kind, name: &str, code: &[u64]) -> Result<Self> {
        let license = CString::new("Dual MIT/GPL")?;
        let mut log = vec![0u8; 64 * 1024];
        let mut fields = vec![
            (0, U32(kind as u32)),
            (4, U32(u32::try_from(code.len())?)),
            (8, pointer(code)),
            (16, U64(license.as_ptr() as u64)),
            (24, U32(1)),
            (28, length(&log)),
            (32, U64(log.as_mut_ptr() as u64)),
        ];
        let mut padded = [0; 16];
        for (slot, byte) in padded[..15].iter_mut().zip(name.bytes()) {
            *slot = byte;
        }
        for (offset, word) in (48..).step_by(4).zip(padded.chunks_exact(4)) {
            fields.push((offset, U32(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]))));
        }
        match call(PROG_LOAD, &fields) {
            Ok(loaded) => Ok(Self { fd: owned(loaded) }),
            Err(error) => {
                let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
                bail!("the kernel refuses {name}: {error}\n{}", String::from_utf8_lossy(&log[..end]))
            }
        }
    }

    /// The program of this number, whoever loaded it.
    pub(crate) fn by_id(id: u32) -> Result<Self> {
        let opened = call(PROG_GET_FD_BY_ID, &[(0, U32(id))]);
        Ok(Self { fd: owned(opened.with_context(|| format!("no program {id}"))?) })
    }

    /// Attaches it before all others at the ingress of an interface of the calling thread's network
    /// namespace, until the returned value is dropped.
    pub(crate) fn attach_ingress(&self, ifindex: u32) -> Result<OwnedFd> {
        let fields = [(0, fd_field(&self.fd)), (4, U32(ifindex)), (8, U32(TCX_INGRESS)), (12, U32(BEFORE))];
        let link = call(LINK_CREATE, &fields).context("cannot attach at an ingress (TCX, Linux 6.6)")?;
        Ok(owned(link))
    }

    /// Runs a classifier once on a packet, in the calling thread's network namespace.
    pub(crate) fn test_run(&self, frame: &[u8], context: Context) -> Result<Run> {
        let context = context.bytes();
        let mut out = [0u8; CONTEXT_LEN];
        let fields = [
            (0, fd_field(&self.fd)),
            (8, length(frame)),
            (16, pointer(frame)),
            (32, U32(1)),
            (40, length(&context)),
            (44, length(&out)),
            (48, pointer(&context)),
            (56, U64(out.as_mut_ptr() as u64)),
        ];
        let (_, attr) = call(PROG_TEST_RUN, &fields).context("cannot run a program")?;
        Ok(Run { mark: Context::mark_in(&out), ns: attr.u32(36) })
    }

    /// Runs an XDP program on this many frames that go on into the stack as if the interface had received them. Gives
    /// a frame's mean time in nanoseconds, way through the stack and all; what it takes to set up the run and tear it
    /// down (two grace periods of RCU) is not in it.
    pub(crate) fn run_live(&self, frame: &[u8], ifindex: u32, count: u32) -> Result<u32> {
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex
        let context = [0u32, u32::try_from(frame.len())?, 0, ifindex, 0, 0];
        let fields = [
            (0, fd_field(&self.fd)),
            (8, length(frame)),
            (16, pointer(frame)),
            (32, U32(count)),
            (40, length(&context)),
            (48, pointer(&context)),
            (64, U32(LIVE_FRAMES)),
        ];
        let (_, attr) =
            call(PROG_TEST_RUN, &fields).context("cannot run a program on live frames (Linux 5.18)")?;
        Ok(attr.u32(36))
    }

    pub(crate) fn name(&self) -> Result<String> {
        // struct bpf_prog_info
        name_of(&self.fd, 64)
    }

    /// Nanoseconds and runs since it was loaded, as far as [statistics](Statistics) were on.
    pub(crate) fn run_time(&self) -> Result<(u64, u64)> {
        let info = info_of(&self.fd)?;
        Ok((number_in(&info, "run_time_ns")?, number_in(&info, "run_cnt")?))
    }
}

/// The kernel counts programs' run time as long as this lives.
pub(crate) struct Statistics {
    _fd: OwnedFd,
}

impl Statistics {
    pub(crate) fn on() -> Result<Self> {
        // BPF_STATS_RUN_TIME
        let fd = call(ENABLE_STATS, &[(0, U32(0))]).context("cannot turn the programs' statistics on")?;
        Ok(Self { _fd: owned(fd) })
    }
}

/// A map of any process.
#[derive(Debug)]
pub(crate) struct Map {
    fd: OwnedFd,
}

impl Map {
    pub(crate) fn by_id(id: u32) -> Result<Self> {
        let opened = call(MAP_GET_FD_BY_ID, &[(0, U32(id))]);
        Ok(Self { fd: owned(opened.with_context(|| format!("no map {id}"))?) })
    }

    /// Its entry in `/proc/self/fdinfo`.
    pub(crate) fn info(&self) -> Result<String> {
        info_of(&self.fd)
    }

    /// The 32-bit values of a map with 32-bit keys: of an outer map, the numbers of the inner ones.
    pub(crate) fn values(&self) -> Result<Vec<u32>> {
        let mut values = Vec::new();
        let mut key = [0u32];
        let mut next = [0u32];
        let mut first = true;
        loop {
            let from = if first { U64(0) } else { pointer(&key) };
            let fields = [(0, fd_field(&self.fd)), (8, from), (16, U64(next.as_mut_ptr() as u64))];
            match call(MAP_GET_NEXT_KEY, &fields) {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(values),
                Err(error) => return Err(error).context("cannot list a map's keys"),
            }
            (key, first) = (next, false);
            let mut value = [0u32];
            let fields = [(0, fd_field(&self.fd)), (8, pointer(&key)), (16, U64(value.as_mut_ptr() as u64))];
            if call(MAP_LOOKUP_ELEM, &fields).is_ok() {
                values.push(value[0]);
            }
        }
    }

    pub(crate) fn name(&self) -> Result<String> {
        // struct bpf_map_info
        name_of(&self.fd, 24)
    }
}

/// The name at this offset of the kernel's description.
fn name_of(fd: &OwnedFd, offset: usize) -> Result<String> {
    let mut info = [0u8; 256];
    let fields = [(0, fd_field(fd)), (4, length(&info)), (8, U64(info.as_mut_ptr() as u64))];
    call(OBJ_GET_INFO_BY_FD, &fields).context("cannot ask for a name")?;
    let name = &info[offset..offset + 16];
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    Ok(String::from_utf8_lossy(&name[..end]).into_owned())
}

fn info_of(fd: &OwnedFd) -> Result<String> {
    let path = format!("/proc/self/fdinfo/{}", fd.as_raw_fd());
    fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
}

/// The number in the line `key:\t<number>`.
pub(crate) fn number_in(info: &str, key: &str) -> Result<u64> {
    let line = info.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let number = line.with_context(|| format!("no {key} in {info}"))?;
    number.trim().parse().with_context(|| format!("{key} ({number}) must be a number"))
}

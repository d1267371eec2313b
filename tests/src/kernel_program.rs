//! Packets run through a daemon's own programs, without a network: how a table is filled in seconds.

use crate::{Daemon, Lab, Ns};
use anyhow::{Context as _, Result};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

// enum bpf_cmd, linux/bpf.h
const PROG_TEST_RUN: libc::c_long = 10;
const PROG_GET_FD_BY_ID: libc::c_long = 13;

/// `sizeof(struct __sk_buff)`, linux/bpf.h
const CONTEXT_LEN: usize = 192;

/// A program that a daemon loaded.
#[derive(Debug)]
pub struct KernelProgram {
    fd: OwnedFd,
}

/// What a packet brings along, of `struct __sk_buff`.
#[derive(Debug, Clone, Copy, Default)]
pub struct PacketContext {
    /// Its mark.
    pub mark: u32,
    /// The number of the interface it came in by.
    pub ingress_ifindex: u32,
}

/// The part of `union bpf_attr` for `BPF_PROG_TEST_RUN`, linux/bpf.h.
#[repr(C)]
#[derive(Default)]
struct TestRun {
    prog_fd: RawFd,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    zero: u32,
}

impl KernelProgram {
    /// The program of this name, as the kernel cuts it off, among those that the daemon holds.
    ///
    /// # Errors
    /// When it holds none.
    pub fn of(lab: &Lab, daemon: &Daemon<'_>, name: &str) -> Result<Self> {
        for entry in fs::read_dir(format!("/proc/{}/fdinfo", daemon.pid()))? {
            let info = fs::read_to_string(entry?.path()).unwrap_or_default();
            let id = info.lines().find_map(|line| line.strip_prefix("prog_id:")).map(str::trim);
            let Some(id) = id.and_then(|id| id.parse::<u32>().ok()) else { continue };
            let shown = lab.sh(Ns::Router, &format!("bpftool prog show id {id}"))?;
            if shown.contains(&format!("name {name} ")) {
                return Self::by_id(id);
            }
        }
        anyhow::bail!("the daemon has no program {name}")
    }

    fn by_id(id: u32) -> Result<Self> {
        // union bpf_attr begins with the number here; the rest of it, zeros, may be left out.
        let mut attributes = [id, 0, 0];
        // SAFETY: the kernel reads as many bytes as the array has.
        let fd = unsafe {
            libc::syscall(libc::SYS_bpf, PROG_GET_FD_BY_ID, attributes.as_mut_ptr(), size_of_val(&attributes))
        };
        if fd < 0 {
            return Err(io::Error::last_os_error()).with_context(|| format!("program {id}"));
        }
        // SAFETY: the kernel just gave us this descriptor, and nobody else has it.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(RawFd::try_from(fd)?) } })
    }

    /// Runs it on a frame, once, in the calling thread's network namespace. Its mark afterwards, and what the
    /// kernel measured in nanoseconds, the reading of its clock included.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn run(&self, frame: &[u8], packet: PacketContext) -> Result<(u32, u32)> {
        let mut context = [0u32; CONTEXT_LEN / 4];
        // linux/bpf.h: `mark` is the third word, `ingress_ifindex` the tenth.
        (context[2], context[9]) = (packet.mark, packet.ingress_ifindex);
        let mut out = [0u32; CONTEXT_LEN / 4];
        let length = u32::try_from(CONTEXT_LEN)?;
        let mut attributes = TestRun {
            prog_fd: self.fd.as_raw_fd(),
            data_size_in: u32::try_from(frame.len())?,
            data_in: frame.as_ptr().expose_provenance() as u64,
            repeat: 1,
            ctx_size_in: length,
            ctx_size_out: length,
            ctx_in: context.as_ptr().expose_provenance() as u64,
            ctx_out: out.as_mut_ptr().expose_provenance() as u64,
            ..TestRun::default()
        };
        // SAFETY: the structure is as the kernel has it, and what it points to outlives the call and is as long
        // as it says.
        let result =
            unsafe { libc::syscall(libc::SYS_bpf, PROG_TEST_RUN, &raw mut attributes, size_of::<TestRun>()) };
        if result < 0 {
            return Err(io::Error::last_os_error()).context("a test run");
        }
        Ok((out[2], attributes.duration))
    }
}

//! Sending packets into a router, as fast as one CPU can.
//!
//! Two ways. [`Way::Lan`]: a packet socket in the LAN's namespace writes to the cable (`sendmmsg`, past the queueing
//! discipline); each packet crosses the veth pair and is received by the router's softirq on the sending CPU.
//! [`Way::Driver`]: an XDP program's live frames appear at the router's interface as a network card's driver would
//! hand them up (page pool, lists of packets); it costs a tenth as much, so nearly all of the time is the router's.
//! The kernel's own generator (pktgen) is a module that many kernels are built without.

use crate::asm::{If, Size, add, call, copy, exit, load, map, map_value, modulo, set, skip_if};
use crate::asm::{skip_if_register, store};
use crate::bpf::{Kind, Program, SharedArray};
use crate::frame::FRAME_LEN;
use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use multiwans_tests::netns::Namespace;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// `bpf_map_lookup_elem`
const MAP_LOOKUP_ELEM: i32 = 1;
/// `XDP_DROP`
const DROP: i32 = 1;
/// `XDP_PASS`
const PASS: i32 = 2;

/// Packets for one system call: its cost is spread, and the time is looked at often enough.
const BATCH: usize = 64;

/// Packets a second to begin with, before a burst has shown the rate: low, for a slow router.
const FIRST_RATE: f64 = 1_000.0;

/// How packets come into the router.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Way {
    /// From a packet socket in the LAN, over its cable
    Lan,
    /// As if received by a network card's driver
    Driver,
}

impl Way {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Lan => "lan",
            Self::Driver => "driver",
        }
    }
}

/// What a burst took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Burst {
    pub(crate) sent: usize,
    pub(crate) time: Duration,
}

/// Frames that are ready to be sent into one router.
pub(crate) struct Generator {
    count: usize,
    /// The next frame.
    next: usize,
    /// Packets a second in the last burst.
    rate: f64,
    sender: Sender,
}

enum Sender {
    Lan { socket: OwnedFd, frames: Vec<u8> },
    Driver { program: Program, cursor: SharedArray, _frames: SharedArray, ifindex: u32, first: Vec<u8> },
}

impl Generator {
    /// `frames`: of [`FRAME_LEN`] bytes each. `place` and `iface`: the LAN's end of the cable, or the router's.
    pub(crate) fn new(way: Way, place: &Namespace, iface: &str, frames: Vec<u8>) -> Result<Self> {
        let count = frames.len() / FRAME_LEN;
        let ifindex = place
            .run(|| nix::net::if_::if_nametoindex(iface))
            .with_context(|| format!("no {iface} in {}", place.name()))?;
        let sender = match way {
            Way::Lan => Sender::Lan { socket: place.run(|| packet_socket(ifindex))?, frames },
            Way::Driver => {
                let cursor = SharedArray::new(8, 1)?;
                let mut shared = SharedArray::new(FRAME_LEN, count)?;
                shared.write(&frames);
                let program = Program::load(Kind::Xdp, "mwbench_source", &code(&cursor, &shared, count)?)?;
                let first = frames[..FRAME_LEN].to_vec();
                Sender::Driver { program, cursor, _frames: shared, ifindex, first }
            }
        };
        Ok(Self { count, next: 0, rate: FIRST_RATE, sender })
    }

    /// How many frames there are.
    pub(crate) fn frames(&self) -> usize {
        self.count
    }

    /// Begins with the first frame again.
    pub(crate) fn rewind(&mut self) {
        self.next = 0;
    }

    /// Sends frames in their order, beginning again after the last, until a time is over or so many are sent.
    /// (By [`Way::Driver`] the number is fixed beforehand, from the rate of the burst before.)
    ///
    /// `place` must be the one the generator was made with.
    pub(crate) fn send(
        &mut self,
        place: &Namespace,
        cpu: usize,
        most: usize,
        time: Duration,
    ) -> Result<Burst> {
        let (first, count, sender) = (self.next, self.count, &self.sender);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most some millions")]
        let fits = (self.rate * time.as_secs_f64()) as usize;
        let burst = place.run(|| {
            pin(cpu)?;
            match sender {
                Sender::Lan { socket, frames } => send_by_socket(socket, frames, first, most, time),
                Sender::Driver { program, cursor, ifindex, first: frame, .. } => {
                    cursor.set_number(0, first as u64);
                    send_by_driver(program, frame, *ifindex, fits.min(most))
                }
            }
        })?;
        self.next = (first + burst.sent) % count;
        self.rate = burst.sent as f64 / burst.time.as_secs_f64();
        Ok(burst)
    }
}

/// Keeps the calling thread on a CPU, before all other work there. The kernel goes on with a packet on the CPU that it
/// came in on, so this pins the router too.
pub(crate) fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("cannot run on CPU {cpu}"))?;
    // SAFETY: three numbers; 0 is the calling thread, which ends after the burst.
    if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -20) } != 0 {
        return Err(io::Error::last_os_error()).context("cannot run before others");
    }
    Ok(())
}

fn packet_socket(ifindex: u32) -> Result<OwnedFd> {
    // SAFETY: three numbers. Protocol 0: it receives nothing.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error()).context("cannot open a packet socket");
    }
    // SAFETY: the kernel just gave us this descriptor.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let on: libc::c_int = 1;
    // SAFETY: a pointer to an int and its length.
    let set = unsafe {
        libc::setsockopt(
            fd,
            libc::SOL_PACKET,
            libc::PACKET_QDISC_BYPASS,
            (&raw const on).cast(),
            libc::socklen_t::try_from(size_of_val(&on))?,
        )
    };
    if set != 0 {
        return Err(io::Error::last_os_error()).context("cannot bypass the queueing discipline");
    }
    // SAFETY: plain integers, for which zero is a value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET)?;
    address.sll_ifindex = i32::try_from(ifindex)?;
    // SAFETY: a pointer to an address and its length.
    let bound = unsafe {
        libc::bind(fd, (&raw const address).cast(), libc::socklen_t::try_from(size_of_val(&address))?)
    };
    if bound != 0 {
        return Err(io::Error::last_os_error()).context("cannot bind a packet socket");
    }
    Ok(socket)
}

fn send_by_socket(
    socket: &OwnedFd,
    frames: &[u8],
    first: usize,
    most: usize,
    time: Duration,
) -> Result<Burst> {
    let count = frames.len() / FRAME_LEN;
    // SAFETY: plain integers and pointers, for which zero is a value.
    let mut vectors: [libc::iovec; BATCH] = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    let mut messages: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
    for (message, vector) in messages.iter_mut().zip(&mut vectors) {
        vector.iov_len = FRAME_LEN;
        message.msg_hdr.msg_iov = vector;
        message.msg_hdr.msg_iovlen = 1;
    }
    let (start, waited) = (Instant::now(), time_waited());
    let (mut next, mut sent) = (first, 0);
    while sent < most && start.elapsed() < time {
        let batch = BATCH.min(most - sent).min(count - next);
        for (vector, frame) in vectors.iter_mut().zip(frames[next * FRAME_LEN..].chunks_exact(FRAME_LEN)) {
            vector.iov_base = frame.as_ptr().cast_mut().cast();
        }
        // SAFETY: as many messages as said, each with one vector over a frame; all outlive the call.
        let done = unsafe {
            libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), libc::c_uint::try_from(batch)?, 0)
        };
        let Ok(done) = usize::try_from(done) else {
            return Err(io::Error::last_os_error()).context("cannot send");
        };
        sent += done;
        next = (next + done) % count;
    }
    let others = time_waited().saturating_sub(waited);
    Ok(Burst { sent, time: start.elapsed().saturating_sub(others) })
}

/// How long this thread could have run and another had its CPU. (The thread's CPU time will not do: some kernels do
/// not count softirqs to it, which is where routers work.) Zero where the kernel does not tell.
fn time_waited() -> Duration {
    let numbers = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let waited = numbers.split_whitespace().nth(1).and_then(|number| number.parse().ok());
    Duration::from_nanos(waited.unwrap_or(0))
}

/// One call sends as many as asked for, whatever time it takes. The time is the kernel's own: it does not count what
/// it takes to set up a run, milliseconds, nor what other processes take meanwhile.
fn send_by_driver(program: &Program, frame: &[u8], ifindex: u32, count: usize) -> Result<Burst> {
    let count = u32::try_from(count.max(1))?;
    let ns = program.run_live(frame, ifindex, count)?;
    Ok(Burst { sent: count as usize, time: Duration::from_nanos(u64::from(ns) * u64::from(count)) })
}

/// The program: each frame becomes the next of the table, whole. (A page comes back as the stack left it.)
fn code(cursor: &SharedArray, frames: &SharedArray, count: usize) -> Result<Vec<u64>> {
    let words = i16::try_from(FRAME_LEN / 8)?;
    let copying = words * 2;
    let mut code = vec![copy(6, 1)];
    code.extend(map_value(1, cursor.fd()));
    code.extend([
        // r2 = cursor++ % count
        load(Size::Double, 2, 1, 0),
        copy(3, 2),
        add(3, 1),
        store(Size::Double, 1, 0, 3),
        modulo(2, i32::try_from(count)?),
        store(Size::Word, 10, -4, 2),
        copy(2, 10),
        add(2, -4),
    ]);
    code.extend(map(1, frames.fd()));
    code.extend([
        call(MAP_LOOKUP_ELEM),
        skip_if(If::Equal, 0, 0, 5 + copying + 1),
        // data, data_end
        load(Size::Word, 2, 6, 0),
        load(Size::Word, 3, 6, 4),
        copy(4, 2),
        add(4, i32::from(words) * 8),
        skip_if_register(If::Above, 4, 3, copying + 2),
    ]);
    for offset in (0..words).map(|word| word * 8) {
        code.extend([load(Size::Double, 5, 0, offset), store(Size::Double, 2, offset, 5)]);
    }
    code.extend([set(0, PASS), exit(), set(0, DROP), exit()]);
    Ok(code)
}

/// The CPU that generator and router run on: the last one, which the system uses least.
pub(crate) fn last_cpu() -> Result<usize> {
    let cpus = nix::sched::sched_getaffinity(Pid::from_raw(0))?;
    let last = (0..CpuSet::count()).rev().find(|cpu| cpus.is_set(*cpu).unwrap_or(false));
    match last {
        Some(cpu) => Ok(cpu),
        None => bail!("no CPU to run on"),
    }
}

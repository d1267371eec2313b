//! New flows all the time, and what the internet host sees of them.

use anyhow::{Context, Result};
use multiwans_tests::raw::{self, RawSender};
use multiwans_tests::topology::{CLIENT, internet_addresses};
use multiwans_tests::{Lab, Ns};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::SockRef;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Single datagrams of flows that are never used again, in a second.
const RATE: f64 = 3000.0;
/// What is sent late, on a busy machine, is sent in pieces no larger: an interface's queue holds a thousand.
const BURST: u32 = 64;
/// Destination ports; the first half is answered.
const PORTS: [u16; 4] = [5001, 5002, 5003, 5004];
const ANSWERED: usize = PORTS.len() / 2;
/// Source ports: not those that the kernel gives the client's sockets.
const SOURCES: (u16, u16) = (10_000, 30_000);
/// Of the receiving sockets: nothing that arrived may be lost on a busy machine.
const BUFFER: usize = 16 << 20;
/// `IPPROTO_UDP`.
const UDP: u8 = 17;

/// A datagram that arrived. Times since the beginning.
pub(crate) struct Arrival {
    /// When it was sent.
    pub(crate) sent: Duration,
    /// When it had arrived, at the latest.
    pub(crate) seen: Duration,
    /// The address it had then.
    pub(crate) from: Ipv4Addr,
}

/// Sends until it is over; how many. Each datagram is of a flow of its own.
pub(crate) fn send(lab: &Lab, begin: Instant, over: &AtomicBool) -> Result<u32> {
    let sender = lab.raw_sender(Ns::Client)?;
    let addresses: Vec<Ipv4Addr> = internet_addresses().collect();
    let from = begin.elapsed();
    let mut sent = 0;
    while !over.load(Ordering::Relaxed) {
        let due = (begin.elapsed() - from).as_secs_f64() * RATE;
        for _ in 0..BURST {
            if f64::from(sent) >= due {
                break;
            }
            send_one(&sender, &addresses, sent, begin)?;
            sent += 1;
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(sent)
}

fn send_one(sender: &RawSender, addresses: &[Ipv4Addr], number: u32, begin: Instant) -> Result<()> {
    let rest = number as usize;
    let (to, rest) = (addresses[rest % addresses.len()], rest / addresses.len());
    let (port, rest) = (PORTS[rest % PORTS.len()], rest / PORTS.len());
    let source = SOURCES.0 + u16::try_from(rest % usize::from(SOURCES.1 - SOURCES.0))?;
    let time = u64::try_from(begin.elapsed().as_nanos())?.to_be_bytes();
    // One after the other in time, so that fragments' numbers do not matter.
    sender.send(&raw::ipv4(CLIENT, to, UDP, 0, 0, &raw::udp(source, port, &time)))
}

/// The internet host's sockets for them.
pub(crate) struct Receiver(Vec<UdpSocket>);

impl Receiver {
    /// Opens them. The client has no sockets for the answers and does not say so.
    pub(crate) fn open(lab: &Lab) -> Result<Self> {
        let (first, end) = SOURCES;
        let silent = format!("iptables -A INPUT -p udp --dport {first}:{} -j DROP", end - 1);
        lab.sh(Ns::Client, &silent)?;
        let mut sockets = Vec::new();
        for address in internet_addresses() {
            for port in PORTS {
                let socket = lab.in_ns(Ns::Internet, || UdpSocket::bind((address, port)))?;
                socket.set_nonblocking(true)?;
                force_buffer(&socket)?;
                sockets.push(socket);
            }
        }
        Ok(Self(sockets))
    }

    /// Takes what arrives until it is over and all that was sent is there, or a second passed without any.
    pub(crate) fn run(&self, begin: Instant, over: &AtomicBool) -> Result<Vec<Arrival>> {
        let mut arrivals = Vec::new();
        let mut buffer = [0; 64];
        loop {
            let mut wanted: Vec<PollFd<'_>> =
                self.0.iter().map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)).collect();
            if poll(&mut wanted, PollTimeout::from(1000u16))? == 0 && over.load(Ordering::Relaxed) {
                return Ok(arrivals);
            }
            for (number, socket) in self.0.iter().enumerate() {
                loop {
                    let (length, peer) = match socket.recv_from(&mut buffer) {
                        Ok(received) => received,
                        Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                        Err(error) => return Err(error.into()),
                    };
                    let SocketAddr::V4(peer) = peer else { continue };
                    let time: [u8; 8] =
                        buffer[..length].try_into().context("a datagram of another length")?;
                    let sent = Duration::from_nanos(u64::from_be_bytes(time));
                    arrivals.push(Arrival { sent, seen: begin.elapsed(), from: *peer.ip() });
                    if number % PORTS.len() < ANSWERED {
                        socket.send_to(b"answer", peer)?;
                    }
                }
            }
        }
    }
}

/// `SO_RCVBUFFORCE`: more than the system's limit, as root may.
fn force_buffer(socket: &UdpSocket) -> Result<()> {
    use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};
    setsockopt(&SockRef::from(socket).as_fd(), RcvBufForce, &BUFFER)?;
    Ok(())
}

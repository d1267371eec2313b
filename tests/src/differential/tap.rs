//! Putting frames on the LAN's wire, and seeing at which ISP each arrives.

use super::Packet;
use crate::Lab;
use crate::observer::is_readable;
use crate::topology::Ns;
use crate::wait::wait_until;
use anyhow::{Context, Result, bail};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};
use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// Frames on their way at a time: fewer than a processor's backlog (1 000) holds.
const BURST: usize = 250;

/// How long a burst may take on a busy machine before what is missing is sent again.
const BURST_TIME: Duration = Duration::from_millis(300);

/// How often a packet is sent before it counts as lost.
const TRIES: u8 = 20;

/// Room for what arrives while the thread that reads does not run.
const RECEIVE_BUFFER: usize = 16 << 20;

/// Sends the packets from the LAN, and says of each which ISP received it.
///
/// The router's address translation is taken away: two hosts that send to the same one by a protocol without
/// ports cannot both have the router's address, and the kernel drops one of the packets.
///
/// # Errors
/// When one does not arrive anywhere, however often it is sent.
pub fn wans_taken(lab: &Lab, packets: &[Packet]) -> Result<Vec<u8>> {
    lab.sh(Ns::Router, "iptables -t nat -F POSTROUTING")?;
    let (from, to) = (mac(lab, Ns::Client)?, mac(lab, Ns::Router)?);
    let frames: Vec<Vec<u8>> =
        (0..).zip(packets).map(|(number, packet)| packet.frame(from, to, number)).collect();
    let taken: Vec<AtomicU8> = packets.iter().map(|_| AtomicU8::new(0)).collect();
    let (seen, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let sender = lab.in_ns(Ns::Client, || Sender::open("eth0"))?;
    let mut taps = Vec::new();
    for k in 1..=lab.wans() {
        taps.push((k, lab.in_ns(Ns::Isp(k), tap)?));
    }
    thread::scope(|scope| {
        for (k, mut tap) in taps {
            let (taken, seen, over) = (&taken, &seen, &over);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    if let Some(number) = arrival(&mut tap)
                        && taken[number as usize].swap(k, Ordering::Relaxed) == 0
                    {
                        seen.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        let result = send_all(&sender, &frames, &taken, &seen);
        over.store(true, Ordering::Relaxed);
        result
    })?;
    Ok(taken.iter().map(|k| k.load(Ordering::Relaxed)).collect())
}

fn send_all(sender: &Sender, frames: &[Vec<u8>], taken: &[AtomicU8], seen: &AtomicUsize) -> Result<()> {
    for _ in 0..TRIES {
        let missing: Vec<usize> =
            (0..frames.len()).filter(|number| taken[*number].load(Ordering::Relaxed) == 0).collect();
        if missing.is_empty() {
            return Ok(());
        }
        for burst in missing.chunks(BURST) {
            let wanted = seen.load(Ordering::Relaxed) + burst.len();
            for number in burst {
                sender.send(&frames[*number])?;
            }
            // A loss is made up for by the next round.
            wait_until("", BURST_TIME, || seen.load(Ordering::Relaxed) >= wanted).ok();
        }
    }
    let lost = taken.iter().filter(|k| k.load(Ordering::Relaxed) == 0).count();
    bail!("{lost} of {} packets arrived at no ISP", frames.len())
}

/// A socket that puts frames on a wire.
struct Sender {
    socket: Socket,
    address: SockAddr,
}

impl Sender {
    fn open(interface: &str) -> Result<Self> {
        let socket = Socket::new(Domain::PACKET, Type::RAW, None).context("cannot open a packet socket")?;
        let index = nix::net::if_::if_nametoindex(interface).context("no such interface")?;
        let mut storage = SockAddrStorage::zeroed();
        // SAFETY: `sockaddr_ll` is one of the kernel's socket addresses, which the storage is made for.
        let link = unsafe { storage.view_as::<libc::sockaddr_ll>() };
        link.sll_family = u16::try_from(libc::AF_PACKET).context("AF_PACKET")?;
        link.sll_ifindex = i32::try_from(index).context("an interface's index")?;
        let length = u32::try_from(size_of::<libc::sockaddr_ll>()).context("an address's length")?;
        // SAFETY: the storage was filled as the `sockaddr_ll` of this length that it now is.
        let address = unsafe { SockAddr::new(storage, length) };
        Ok(Self { socket, address })
    }

    fn send(&self, frame: &[u8]) -> Result<()> {
        self.socket.send_to(frame, &self.address).context("cannot send a frame").map(drop)
    }
}

/// A socket that sees the IPv4 packets of every interface of the namespace.
fn tap() -> Result<Socket> {
    let ipv4 = Protocol::from(i32::from(u16::try_from(libc::ETH_P_IP).context("ETH_P_IP")?.to_be()));
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(ipv4)).context("cannot open a packet socket")?;
    socket.set_nonblocking(true)?;
    setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).context("cannot enlarge the buffer")?;
    Ok(socket)
}

/// The next packet of ours; `None` when none came for a moment.
fn arrival(tap: &mut Socket) -> Option<u32> {
    let mut frame = [0; 256];
    let length = match tap.read(&mut frame) {
        Ok(length) => length,
        Err(_) => {
            is_readable(tap);
            return None;
        }
    };
    Packet::number_of(&frame[..length])
}

/// The MAC address of a place's `eth0`.
fn mac(lab: &Lab, place: Ns) -> Result<[u8; 6]> {
    let text = lab.sh(place, "ip -brief link show eth0")?;
    let parse = || -> Option<[u8; 6]> {
        let bytes: Vec<u8> = text
            .split_whitespace()
            .nth(2)?
            .split(':')
            .map_while(|hex| u8::from_str_radix(hex, 16).ok())
            .collect();
        bytes.try_into().ok()
    };
    parse().with_context(|| format!("no MAC address in {text:?}"))
}

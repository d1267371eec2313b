//! Pings, and who the internet host saw send them.

use crate::Lab;
use crate::observer::is_readable;
use crate::topology::Ns;
use crate::wait::wait_for;
use anyhow::{Context, Result, bail};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::HashMap;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;
const ICMP_HEADER: usize = 8;

/// Marks our pings among the daemon's probes. NAT may change a ping's identifier; it never changes
/// what the ping carries.
const MAGIC: [u8; 8] = *b"mwlab\0\0\0";

type Seen = Arc<Mutex<HashMap<u64, Ipv4Addr>>>;

/// Records the echo requests that arrive in a place; the kernel there answers them.
#[derive(Debug)]
pub struct PingObserver {
    stop: Arc<AtomicBool>,
    seen: Seen,
    thread: Option<JoinHandle<()>>,
}

impl Lab {
    /// Watches the pings that arrive in a place.
    ///
    /// # Errors
    /// Without root.
    pub fn observe_ping(&self, place: Ns) -> Result<PingObserver> {
        let mut socket = self.in_ns(place, raw_socket)?;
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Seen::default();
        let thread = {
            let (stop, seen) = (Arc::clone(&stop), Arc::clone(&seen));
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    if let Some((ECHO_REQUEST, source, token)) = receive(&mut socket) {
                        seen.lock().unwrap_or_else(PoisonError::into_inner).insert(token, source);
                    }
                }
            })
        };
        Ok(PingObserver { stop, seen, thread: Some(thread) })
    }

    /// Pings an address from a place, from `local` or whichever address the kernel takes; returns the
    /// ping's token.
    ///
    /// # Errors
    /// When no answer comes within a second.
    pub fn ping(&self, place: Ns, local: Option<Ipv4Addr>, to: Ipv4Addr) -> Result<u64> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let token = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut socket = self.in_ns(place, raw_socket)?;
        if let Some(local) = local {
            socket.bind(&SocketAddr::from((local, 0)).into())?;
        }
        let request = echo_request(token);
        socket
            .send_to(&request, &SocketAddr::from((to, 0)).into())
            .with_context(|| format!("ping to {to}"))?;
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(1) {
            if let Some((ECHO_REPLY, _, answered)) = receive(&mut socket)
                && answered == token
            {
                return Ok(token);
            }
        }
        bail!("no answer to the ping from {place} to {to}")
    }
}

impl PingObserver {
    /// The address that a ping came from; waits for it, because the kernel's answer may be quicker
    /// than this observer.
    ///
    /// # Errors
    /// When it does not arrive here within a second.
    pub fn source_of(&self, token: u64) -> Result<Ipv4Addr> {
        wait_for("the ping's arrival", Duration::from_secs(1), || {
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).get(&token).copied()
        })
    }
}

impl Drop for PingObserver {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic in there has been printed.
            thread.join().ok();
        }
    }
}

fn raw_socket() -> Result<Socket> {
    let socket =
        Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).context("cannot open a raw socket")?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// The type, source and token of the next of our packets; `None` when none came for a moment.
fn receive(socket: &mut Socket) -> Option<(u8, Ipv4Addr, u64)> {
    if !is_readable(socket) {
        return None;
    }
    let mut packet = [0; 256];
    let length = socket.read(&mut packet).ok()?;
    parse(&packet[..length])
}

/// Reads one of our echo packets, IP header and all.
fn parse(packet: &[u8]) -> Option<(u8, Ipv4Addr, u64)> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let source: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
    let message = packet.get(header..)?;
    let token = message.get(ICMP_HEADER..)?.strip_prefix(&MAGIC)?;
    Some((*message.first()?, source.into(), u64::from_be_bytes(token.try_into().ok()?)))
}

fn echo_request(token: u64) -> Vec<u8> {
    // The identifier differs from ping to ping, as a new flow's does.
    let [.., high, low] = token.to_be_bytes();
    let mut packet = vec![ECHO_REQUEST, 0, 0, 0, high, low, 0, 1];
    packet.extend_from_slice(&MAGIC);
    packet.extend_from_slice(&token.to_be_bytes());
    let checksum = internet_checksum(&packet);
    packet[2..4].copy_from_slice(&checksum.to_be_bytes());
    packet
}

/// RFC 1071, over an even number of bytes.
pub(crate) fn internet_checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_reads_back_and_sums_to_nothing() {
        let request = echo_request(0x0102_0304_0506_0708);
        assert_eq!(internet_checksum(&request), 0);
        let mut packet = vec![0x45; 20];
        packet[12..16].copy_from_slice(&[192, 0, 2, 1]);
        packet.extend(request);
        let source = Ipv4Addr::new(192, 0, 2, 1);
        assert_eq!(parse(&packet), Some((ECHO_REQUEST, source, 0x0102_0304_0506_0708)));
    }

    #[test]
    fn other_packets_are_not_ours() {
        assert_eq!(parse(&[]), None);
        assert_eq!(parse(&[0x4f; 24]), None);
        assert_eq!(parse(&[0x45; 48]), None);
    }
}

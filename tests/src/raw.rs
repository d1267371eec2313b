//! Whole IPv4 packets, sent as they are: spoofed sources, fragments in any order.

use crate::Lab;
use crate::icmp::internet_checksum;
use crate::topology::Ns;
use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::AsRawFd;

/// `IPPROTO_RAW` (linux/in.h): what is sent has its IP header.
const IPPROTO_RAW: i32 = 255;
const TCP: u8 = 6;
const UDP: u8 = 17;
const SYN: u8 = 0x02;
/// Bytes of a fragment whose end is where the next one begins: a multiple of eight.
const FRAGMENT_LEN: u16 = 1400;
const MORE_FRAGMENTS: u16 = 0x2000;

/// Sends whole packets from one place.
#[derive(Debug)]
pub struct RawSender {
    socket: Socket,
}

impl Lab {
    /// Opens a sender in a place.
    ///
    /// # Errors
    /// Without root.
    pub fn raw_sender(&self, place: Ns) -> Result<RawSender> {
        let open = || Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(IPPROTO_RAW)));
        Ok(RawSender { socket: self.in_ns(place, open).context("cannot open a raw socket")? })
    }
}

impl RawSender {
    /// Sends a packet that [`ipv4`] made.
    ///
    /// # Errors
    /// When the kernel does not route it.
    pub fn send(&self, packet: &[u8]) -> Result<()> {
        let to = Ipv4Addr::new(packet[16], packet[17], packet[18], packet[19]);
        self.socket.send_to(packet, &SocketAddr::from((to, 0)).into())?;
        Ok(())
    }

    /// Sends the first segment of a TCP connection from an address that may be anybody's.
    ///
    /// # Errors
    /// When the kernel does not route it.
    pub fn syn(&self, from: SocketAddrV4, to: SocketAddrV4) -> Result<()> {
        let mut segment = Vec::new();
        segment.extend(from.port().to_be_bytes());
        segment.extend(to.port().to_be_bytes());
        segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, SYN, 0xff, 0xff, 0, 0, 0, 0]);
        let mut summed = Vec::new();
        summed.extend(from.ip().octets());
        summed.extend(to.ip().octets());
        summed.extend([0, TCP, 0, 20]);
        summed.extend(&segment);
        segment[16..18].copy_from_slice(&internet_checksum(&summed).to_be_bytes());
        self.send(&ipv4(*from.ip(), *to.ip(), TCP, 0, 1, &segment))
    }
}

/// Sends whole frames out of one interface.
#[derive(Debug)]
pub struct FrameSender {
    socket: Socket,
}

impl Lab {
    /// Opens a sender on an interface of a place.
    ///
    /// # Errors
    /// Without root, or where there is no such interface.
    pub fn frame_sender(&self, place: Ns, iface: &str) -> Result<FrameSender> {
        let open = || -> Result<Socket> {
            let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
            let index = nix::net::if_::if_nametoindex(iface)?;
            // SAFETY: all bytes of the structure may be zero.
            let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
            address.sll_family = u16::try_from(libc::AF_PACKET)?;
            address.sll_ifindex = i32::try_from(index)?;
            let length = libc::socklen_t::try_from(size_of_val(&address))?;
            // SAFETY: the kernel reads as many bytes as the structure has.
            let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
            if result != 0 {
                return Err(std::io::Error::last_os_error().into());
            }
            Ok(socket)
        };
        let socket = self.in_ns(place, open).with_context(|| format!("cannot send frames out of {iface}"))?;
        Ok(FrameSender { socket })
    }
}

impl FrameSender {
    /// Sends a frame with its link-layer header.
    ///
    /// # Errors
    /// When the interface is down.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        self.socket.send(frame)?;
        Ok(())
    }
}

/// A packet; `fragment`: flags and offset. The kernel fills in the checksum.
#[must_use]
pub fn ipv4(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    fragment: u16,
    identification: u16,
    payload: &[u8],
) -> Vec<u8> {
    let total = u16::try_from(20 + payload.len()).unwrap_or(u16::MAX);
    let mut packet = vec![0x45, 0];
    packet.extend(total.to_be_bytes());
    packet.extend(identification.to_be_bytes());
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    let checksum = internet_checksum(&packet);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet.extend(payload);
    packet
}

/// A UDP datagram without its IP header.
#[must_use]
pub fn udp(source_port: u16, port: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap_or(u16::MAX);
    let mut datagram = Vec::new();
    datagram.extend(source_port.to_be_bytes());
    datagram.extend(port.to_be_bytes());
    datagram.extend(length.to_be_bytes());
    // No checksum.
    datagram.extend([0, 0]);
    datagram.extend(payload);
    datagram
}

/// A UDP datagram in fragments, the last one first.
#[must_use]
pub fn udp_last_fragment_first(
    from: SocketAddrV4,
    to: SocketAddrV4,
    identification: u16,
    payload: &[u8],
) -> Vec<Vec<u8>> {
    let datagram = udp(from.port(), to.port(), payload);
    let parts: Vec<&[u8]> = datagram.chunks(FRAGMENT_LEN.into()).collect();
    let fragments = (0u16..).zip(&parts).map(|(number, part)| {
        let more = if usize::from(number) + 1 < parts.len() { MORE_FRAGMENTS } else { 0 };
        let offset = number * (FRAGMENT_LEN / 8);
        ipv4(*from.ip(), *to.ip(), UDP, more | offset, identification, part)
    });
    let mut fragments: Vec<Vec<u8>> = fragments.collect();
    fragments.reverse();
    fragments
}

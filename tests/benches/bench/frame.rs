//! The packets that are sent: 64 bytes of Ethernet, IPv4 and UDP, and in their payload what the receiver needs to
//! judge them.

use std::net::Ipv4Addr;

/// An Ethernet frame of the smallest size, its check sequence's four bytes put to payload.
pub(crate) const FRAME_LEN: usize = 64;
/// Where the payload begins: Ethernet, IPv4 and UDP headers.
pub(crate) const PAYLOAD: usize = 14 + 20 + 8;
/// The payload's first four bytes, as a number in the machine's byte order: a packet of ours.
pub(crate) const MAGIC: u32 = u32::from_ne_bytes(*b"mwbn");

/// A link-layer address.
pub(crate) type Mac = [u8; 6];

/// What tells a packet from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Datagram {
    pub(crate) source: Ipv4Addr,
    pub(crate) source_port: u16,
    pub(crate) destination: Ipv4Addr,
    pub(crate) destination_port: u16,
    /// The WAN that its filters give it.
    pub(crate) wan: u8,
}

/// Link-layer addresses of both ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cable {
    pub(crate) from: Mac,
    pub(crate) to: Mac,
}

/// Appends the frame of a datagram. `expected` is what the receiver compares its own WAN with.
pub(crate) fn append(bytes: &mut Vec<u8>, cable: Cable, datagram: &Datagram, expected: u8) {
    let start = bytes.len();
    bytes.extend(cable.to);
    bytes.extend(cable.from);
    bytes.extend([0x08, 0x00]);
    let ip = bytes.len();
    bytes.extend([0x45, 0, 0, 50, 0, 0, 0, 0, 64, 17, 0, 0]);
    bytes.extend(datagram.source.octets());
    bytes.extend(datagram.destination.octets());
    let sum = checksum(&bytes[ip..]);
    bytes[ip + 10..ip + 12].copy_from_slice(&sum.to_be_bytes());
    bytes.extend(datagram.source_port.to_be_bytes());
    bytes.extend(datagram.destination_port.to_be_bytes());
    // Without a checksum of its own, as UDP over IPv4 may be (RFC 768).
    bytes.extend([0, 30, 0, 0]);
    bytes.extend(MAGIC.to_ne_bytes());
    bytes.push(expected);
    bytes.resize(start + FRAME_LEN, 0);
}

/// Of an IPv4 header (RFC 1071).
fn checksum(header: &[u8]) -> u16 {
    let words = header.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap_or(0)
}

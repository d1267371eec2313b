//! Frames and `__sk_buff`s for test runs, built byte by byte.

use std::net::Ipv4Addr;

/// An IPv4 packet to be.
#[derive(Debug, Clone)]
pub(crate) struct Packet {
    pub(crate) source: Ipv4Addr,
    pub(crate) destination: Ipv4Addr,
    pub(crate) protocol: u8,
    /// The transport header and what follows.
    pub(crate) payload: Vec<u8>,
    /// IPv4 options, a multiple of four bytes.
    pub(crate) options: Vec<u8>,
    /// Flags and fragment offset.
    pub(crate) fragment: u16,
    pub(crate) identification: u16,
}

impl Packet {
    pub(crate) fn new(source: &str, destination: &str, protocol: u8, payload: Vec<u8>) -> Self {
        Self {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            protocol,
            payload,
            options: Vec::new(),
            fragment: 0,
            identification: 7,
        }
    }

    pub(crate) fn udp(source: &str, source_port: u16, destination: &str, port: u16) -> Self {
        Self::new(source, destination, 17, ports(source_port, port, &[0, 8, 0, 0]))
    }

    pub(crate) fn tcp(source: &str, source_port: u16, destination: &str, port: u16, flags: u8) -> Self {
        let rest = [0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0];
        Self::new(source, destination, 6, ports(source_port, port, &rest))
    }

    pub(crate) fn icmp(source: &str, destination: &str, kind: u8, identifier: u16) -> Self {
        let [high, low] = identifier.to_be_bytes();
        Self::new(source, destination, 1, vec![kind, 0, 0, 0, high, low, 0, 1])
    }

    /// An ICMP error quoting another packet.
    pub(crate) fn icmp_error(source: &str, destination: &str, quoted: &Self) -> Self {
        let mut payload = vec![3, 4, 0, 0, 0, 0, 5, 0];
        payload.extend(quoted.ip());
        Self::new(source, destination, 1, payload)
    }

    /// Without the link layer.
    pub(crate) fn ip(&self) -> Vec<u8> {
        let header_len = 20 + self.options.len();
        let total = u16::try_from(header_len + self.payload.len()).unwrap();
        let mut bytes = vec![0x40 | u8::try_from(header_len / 4).unwrap(), 0];
        bytes.extend(total.to_be_bytes());
        bytes.extend(self.identification.to_be_bytes());
        bytes.extend(self.fragment.to_be_bytes());
        bytes.extend([64, self.protocol, 0, 0]);
        bytes.extend(self.source.octets());
        bytes.extend(self.destination.octets());
        bytes.extend(&self.options);
        bytes.extend(&self.payload);
        bytes
    }

    /// As an Ethernet frame for this host.
    pub(crate) fn frame(&self) -> Vec<u8> {
        ethernet(0x0800, &self.ip())
    }
}

/// An Ethernet frame to the loopback's address (all zero), which test runs take for this host's.
pub(crate) fn ethernet(kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 12];
    bytes.extend(kind.to_be_bytes());
    bytes.extend(payload);
    bytes
}

fn ports(source: u16, destination: u16, rest: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(source.to_be_bytes());
    bytes.extend(destination.to_be_bytes());
    bytes.extend(rest);
    bytes
}

/// The fields of `struct __sk_buff` (linux/bpf.h) that a test run takes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Context {
    pub(crate) mark: u32,
    pub(crate) ingress_ifindex: u32,
    pub(crate) ifindex: u32,
    /// A buffer of so many packets, …
    pub(crate) gso_segs: u32,
    /// … of so many bytes each, headers not among them.
    pub(crate) gso_size: u32,
}

const MARK: usize = 8;
const INGRESS_IFINDEX: usize = 36;
const IFINDEX: usize = 40;
const GSO_SEGS: usize = 164;
const GSO_SIZE: usize = 176;
/// `sizeof(struct __sk_buff)`.
pub(crate) const CONTEXT_LEN: usize = 192;

impl Context {
    pub(crate) fn bytes(self) -> [u8; CONTEXT_LEN] {
        let mut bytes = [0; CONTEXT_LEN];
        for (place, value) in [
            (MARK, self.mark),
            (INGRESS_IFINDEX, self.ingress_ifindex),
            (IFINDEX, self.ifindex),
            (GSO_SEGS, self.gso_segs),
            (GSO_SIZE, self.gso_size),
        ] {
            bytes[place..place + 4].copy_from_slice(&value.to_ne_bytes());
        }
        bytes
    }

    pub(crate) fn mark_of(bytes: &[u8; CONTEXT_LEN]) -> u32 {
        u32::from_ne_bytes(bytes[MARK..MARK + 4].try_into().unwrap())
    }
}

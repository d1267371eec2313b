//! Random packets that carry their number.

use super::policy::{destination, pick, port, source};
use crate::icmp::internet_checksum;
use fastrand::Rng;
use std::net::Ipv4Addr;

/// What the payload of our packets begins with; the packet's number follows.
const MAGIC: [u8; 8] = *b"mwdiffer";

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const UDPLITE: u8 = 136;
const SCTP: u8 = 132;
/// With ports; GRE, ESP, AH; OSPF, for which no filter has a name.
const PROTOCOLS: [u8; 9] = [TCP, UDP, UDPLITE, SCTP, ICMP, 47, 50, 51, 89];

/// Ethernet, MAC addresses and all.
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];

/// One packet, a flow of its own.
#[derive(Debug, Clone, Copy)]
pub struct Packet {
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    source_port: u16,
    destination_port: u16,
}

impl Packet {
    /// One that the random policies are likely to say something about.
    pub fn random(rng: &mut Rng) -> Self {
        // As often as all the others together: these have all five dimensions.
        let protocol = if rng.bool() { *pick(rng, &[TCP, UDP]) } else { *pick(rng, &PROTOCOLS) };
        Self {
            source: source(rng),
            destination: destination(rng),
            protocol,
            source_port: port(rng),
            destination_port: port(rng),
        }
    }

    /// The frame, from one MAC address to another.
    pub(crate) fn frame(&self, from: [u8; 6], to: [u8; 6], number: u32) -> Vec<u8> {
        let mut body = self.transport();
        body.extend(MAGIC);
        body.extend(number.to_be_bytes());
        self.complete(&mut body);

        let length = u16::try_from(20 + body.len()).expect("a few dozen bytes");
        let mut header = vec![0x45, 0];
        header.extend(length.to_be_bytes());
        // Identification, no fragment, a time to live, the protocol, the checksum to come.
        header.extend([0, 0, 0, 0, 64, self.protocol, 0, 0]);
        header.extend(self.source.octets());
        header.extend(self.destination.octets());
        let checksum = internet_checksum(&header);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());

        let mut frame = Vec::with_capacity(14 + usize::from(length));
        frame.extend(to);
        frame.extend(from);
        frame.extend(ETHERTYPE_IPV4);
        frame.extend(header);
        frame.extend(body);
        frame
    }

    /// The number of a packet of ours.
    pub(crate) fn number_of(frame: &[u8]) -> Option<u32> {
        let at = frame.windows(MAGIC.len()).position(|window| window == MAGIC)?;
        let number = frame.get(at + MAGIC.len()..)?.first_chunk::<4>()?;
        Some(u32::from_be_bytes(*number))
    }

    fn transport(&self) -> Vec<u8> {
        let mut ports = Vec::from(self.source_port.to_be_bytes());
        ports.extend(self.destination_port.to_be_bytes());
        match self.protocol {
            // Sequence, acknowledgement, 20 bytes of header, SYN, a window, checksum, urgent pointer.
            TCP => [ports, vec![0; 8], vec![0x50, 0x02, 0x10, 0, 0, 0, 0, 0]].concat(),
            // Length: 8 bytes of header, 12 of payload. No checksum.
            UDP => [ports, vec![0, 20, 0, 0]].concat(),
            // The checksum covers the header.
            UDPLITE => [ports, vec![0, 8, 0, 0]].concat(),
            // Tag, checksum, and a chunk INIT of 20 bytes.
            SCTP => [ports, vec![0; 8], vec![1, 0, 0, 20], vec![0; 4]].concat(),
            // Echo request.
            ICMP => [vec![8, 0, 0, 0], ports].concat(),
            _ => ports,
        }
    }

    /// Fills in the checksum where the kernel looks at it. Where it is wrong, connection tracking calls the
    /// packet invalid, and it is not translated: it would still be steered, but by other paths of the kernel.
    fn complete(&self, body: &mut [u8]) {
        let at = match self.protocol {
            TCP => 16,
            UDPLITE => 6,
            ICMP => 2,
            _ => return,
        };
        let mut covered = Vec::new();
        if self.protocol != ICMP {
            covered.extend(self.source.octets());
            covered.extend(self.destination.octets());
            let length = u16::try_from(body.len()).expect("a few dozen bytes");
            covered.extend([0, self.protocol]);
            covered.extend(length.to_be_bytes());
        }
        covered.extend_from_slice(if self.protocol == UDPLITE { &body[..8] } else { body });
        let checksum = internet_checksum(&covered);
        body[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    }
}

//! The wire format of the probes: ICMP echo (RFC 792) with an unpredictable payload. Pure.

use std::net::Ipv4Addr;

/// ICMP type of an echo request.
const ECHO_REQUEST: u8 = 8;
/// ICMP type of an echo reply.
pub(super) const ECHO_REPLY: u8 = 0;
/// IP protocol number of ICMP.
const IPPROTO_ICMP: u8 = 1;
/// Shortest IPv4 header.
const IPV4_HEADER_MIN: usize = 20;
/// Type, code, checksum, identifier, sequence.
const ICMP_HEADER: usize = 8;

/// Bytes of a request: header and cookie. An Ethernet frame is padded beyond this anyway, so a longer
/// payload would only cost on links that are paid by the byte.
pub(super) const REQUEST_LEN: usize = ICMP_HEADER + size_of::<u64>();
/// Bytes of the longest packet that can be a reply to ours: the longest IPv4 header and the echoed request.
pub(super) const REPLY_MAX: usize = 60 + REQUEST_LEN;

/// What a reply must bring back: only a host that saw the request knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cookie(pub(super) u64);

/// The fields of an echo that a reply repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Echo {
    /// Which prober.
    pub(super) identifier: u16,
    /// Which of its rounds.
    pub(super) sequence: u16,
    /// The payload.
    pub(super) cookie: Cookie,
}

impl Echo {
    /// The request as it goes to a raw socket, which puts the IP header before it.
    pub(super) fn request(self) -> [u8; REQUEST_LEN] {
        self.message(ECHO_REQUEST)
    }

    fn message(self, icmp_type: u8) -> [u8; REQUEST_LEN] {
        let mut message = [0; REQUEST_LEN];
        message[0] = icmp_type;
        message[4..6].copy_from_slice(&self.identifier.to_be_bytes());
        message[6..8].copy_from_slice(&self.sequence.to_be_bytes());
        message[8..].copy_from_slice(&self.cookie.0.to_be_bytes());
        let sum = checksum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        message
    }
}

/// An echo reply of our form, and who sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reply {
    /// The packet's source address.
    pub(super) source: Ipv4Addr,
    /// What it repeats.
    pub(super) echo: Echo,
}

impl Reply {
    /// Reads a packet as a raw socket delivers it: IP header first. `None` for anything but a whole echo
    /// reply of our length with a right checksum. The kernel hands packets to raw sockets before it
    /// verifies ICMP, so that check is ours; the IP header it has verified.
    pub(super) fn parse(packet: &[u8]) -> Option<Self> {
        let (header, _) = packet.split_at_checked(IPV4_HEADER_MIN)?;
        let (version, words) = (header[0] >> 4, header[0] & 0xf);
        let total_len = u16::from_be_bytes([header[2], header[3]]);
        if version != 4 || usize::from(total_len) != packet.len() || header[9] != IPPROTO_ICMP {
            return None;
        }
        let header_len = usize::from(words) * 4;
        if header_len < IPV4_HEADER_MIN {
            return None;
        }
        let message: &[u8; REQUEST_LEN] = packet.get(header_len..)?.try_into().ok()?;
        let [icmp_type, code, _, _, id0, id1, seq0, seq1, cookie @ ..] = *message;
        if icmp_type != ECHO_REPLY || code != 0 || checksum(message) != 0 {
            return None;
        }
        Some(Self {
            source: Ipv4Addr::new(header[12], header[13], header[14], header[15]),
            echo: Echo {
                identifier: u16::from_be_bytes([id0, id1]),
                sequence: u16::from_be_bytes([seq0, seq1]),
                cookie: Cookie(u64::from_be_bytes(cookie)),
            },
        })
    }
}

/// The internet checksum (RFC 1071): over a message that holds its own right checksum it is 0.
fn checksum(data: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in data.chunks(2) {
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u32::from(u16::from_be_bytes([pair[0], low]));
        // Fold at once: no length of data can overflow the sum.
        sum = (sum & 0xffff) + (sum >> 16);
    }
    #[expect(clippy::cast_possible_truncation, reason = "the last fold left 16 bits")]
    let folded = sum as u16;
    !folded
}

#[cfg(test)]
#[path = "echo_tests.rs"]
mod tests;

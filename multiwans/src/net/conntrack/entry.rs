//! One tracked connection, as far as steering cares.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::conntrack::{
    ConntrackAttribute, IPTuple, ProtoTuple, Status, Tuple as TupleAttribute,
};

use super::message::{
    CTA_ID, CTA_PROTO_ICMP_CODE, CTA_PROTO_ICMP_ID, CTA_PROTO_ICMP_TYPE, CTA_TUPLE_ZONE, CTA_ZONE,
};

/// An IPv4 entry of the connection tracking table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The first packet, before any translation.
    pub original: Tuple,
    /// What its answer looks like on the wire: after source translation its destination is the link's address.
    pub reply: Tuple,
    /// An answer has been seen (`IPS_SEEN_REPLY`).
    pub seen_reply: bool,
    /// Kept when the table is full (`IPS_ASSURED`).
    pub assured: bool,
    /// How long it lives if no packet comes any more. `None`: the kernel told none.
    pub left: Option<Duration>,
    /// The source is translated (`IPS_SRC_NAT`).
    pub source_nat: bool,
    /// The destination is translated (`IPS_DST_NAT`).
    pub destination_nat: bool,
    /// The kernel's number, which tells an entry from a later one with the same tuple. `None`: the kernel told none.
    pub id: Option<u32>,
    /// Its conntrack zone.
    pub zone: Zone,
}

/// One direction of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Source address.
    pub source: Ipv4Addr,
    /// Destination address.
    pub destination: Ipv4Addr,
    /// IP protocol number.
    pub protocol: u8,
    /// What the protocol tells flows apart by.
    pub transport: Transport,
}

/// What a protocol tells flows apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TCP, UDP, SCTP, …: ports. GRE: its call keys.
    Ports {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
    },
    /// ICMP queries.
    Icmp {
        /// Identifier.
        id: u16,
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
    },
    /// Nothing: ESP, AH, …
    Addresses,
}

/// Which table of several: an operator's way to keep equal addresses apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Zone {
    /// The one everything is in unless told otherwise.
    #[default]
    Default,
    /// A zone for both directions.
    Both(u16),
    /// A zone for the original direction; answers are in the default one.
    Original(u16),
    /// A zone for answers only.
    Reply(u16),
}

impl Tuple {
    /// Source and destination port; zeros where the protocol has none.
    pub fn ports(&self) -> (u16, u16) {
        match self.transport {
            Transport::Ports { source, destination } => (source, destination),
            Transport::Icmp { .. } | Transport::Addresses => (0, 0),
        }
    }

    /// The zone that stands inside the tuple comes with it.
    fn parse(attributes: &[TupleAttribute]) -> Option<(Self, Option<u16>)> {
        let (mut source, mut destination, mut protocol, mut zone) = (None, None, None, None);
        let (mut sport, mut dport, mut id, mut kind, mut code) = (None, None, None, None, None);
        for attribute in attributes {
            match attribute {
                TupleAttribute::Ip(parts) => {
                    for part in parts {
                        match part {
                            IPTuple::SourceAddress(IpAddr::V4(ip)) => source = Some(*ip),
                            IPTuple::DestinationAddress(IpAddr::V4(ip)) => destination = Some(*ip),
                            _ => {}
                        }
                    }
                }
                TupleAttribute::Proto(parts) => {
                    for part in parts {
                        match part {
                            ProtoTuple::Protocol(number) => protocol = Some(u8::from(*number)),
                            ProtoTuple::SourcePort(port) => sport = Some(*port),
                            ProtoTuple::DestinationPort(port) => dport = Some(*port),
                            ProtoTuple::Other(other) => match kind_of(other) {
                                CTA_PROTO_ICMP_ID => id = be16(other),
                                CTA_PROTO_ICMP_TYPE => kind = byte(other),
                                CTA_PROTO_ICMP_CODE => code = byte(other),
                                _ => {}
                            },
                            _ => {}
                        }
                    }
                }
                TupleAttribute::Other(other) if kind_of(other) == CTA_TUPLE_ZONE => zone = be16(other),
                _ => {}
            }
        }
        let transport = match (sport.zip(dport), id.zip(kind).zip(code)) {
            (Some((source, destination)), _) => Transport::Ports { source, destination },
            (None, Some(((id, kind), code))) => Transport::Icmp { id, kind, code },
            (None, None) => Transport::Addresses,
        };
        Some((Self { source: source?, destination: destination?, protocol: protocol?, transport }, zone))
    }
}

impl Entry {
    /// `None` for what is not a whole IPv4 entry.
    pub(super) fn parse(attributes: &[ConntrackAttribute]) -> Option<Self> {
        let (mut original, mut reply, mut status, mut id, mut zone, mut left) =
            (None, None, Status::empty(), None, None, None);
        for attribute in attributes {
            match attribute {
                ConntrackAttribute::CtaTupleOrig(parts) => original = Tuple::parse(parts),
                ConntrackAttribute::CtaTupleReply(parts) => reply = Tuple::parse(parts),
                ConntrackAttribute::CtaStatus(bits) => status = *bits,
                ConntrackAttribute::CtaTimeout(seconds) => {
                    left = Some(Duration::from_secs((*seconds).into()))
                }
                ConntrackAttribute::Other(other) => match kind_of(other) {
                    CTA_ID => id = be32(other),
                    CTA_ZONE => zone = be16(other),
                    _ => {}
                },
                _ => {}
            }
        }
        let ((original, original_zone), (reply, reply_zone)) = (original?, reply?);
        let zone = match (zone, original_zone, reply_zone) {
            (Some(zone), _, _) => Zone::Both(zone),
            (None, Some(zone), _) => Zone::Original(zone),
            (None, None, Some(zone)) => Zone::Reply(zone),
            (None, None, None) => Zone::Default,
        };
        Some(Self {
            original,
            reply,
            seen_reply: status.contains(Status::SeenReply),
            assured: status.contains(Status::Assured),
            left,
            source_nat: status.contains(Status::SrcNat),
            destination_nat: status.contains(Status::DstNat),
            id,
            zone,
        })
    }
}

/// Without the flags that tell a nested or big-endian value.
fn kind_of(attribute: &DefaultNla) -> u16 {
    netlink_packet_core::Nla::kind(attribute) & netlink_packet_core::NLA_TYPE_MASK
}

fn value<const N: usize>(attribute: &DefaultNla) -> Option<[u8; N]> {
    use netlink_packet_core::Nla;
    let mut bytes = vec![0; attribute.value_len()];
    attribute.emit_value(&mut bytes);
    bytes.try_into().ok()
}

fn byte(attribute: &DefaultNla) -> Option<u8> {
    value::<1>(attribute).map(|[byte]| byte)
}

fn be16(attribute: &DefaultNla) -> Option<u16> {
    value(attribute).map(u16::from_be_bytes)
}

fn be32(attribute: &DefaultNla) -> Option<u32> {
    value(attribute).map(u32::from_be_bytes)
}

//! The requests we send to ctnetlink, and no others.
//!
//! The kernel takes a delete without a tuple or a filter for "flush the table" (`ctnetlink_del_conntrack`). A delete is
//! only ever built from a [`Deletion`], and each of its variants names its entries.

use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_core::{
    DefaultNla, NLA_F_NESTED, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, Nla,
};
use netlink_packet_netfilter::conntrack::{
    ConntrackAttribute, ConntrackMessage, IPTuple, ProtoTuple, Protocol, Status, Tuple as TupleAttribute,
};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};

use super::entry::{Entry, Transport, Tuple, Zone};

const IPCTNL_MSG_CT_GET: u8 = 1;
const IPCTNL_MSG_CT_DELETE: u8 = 2;
// enum ctattr_type, ctattr_tuple, ctattr_l4proto, ctattr_filter: what the crate does not name.
pub(super) const CTA_ID: u16 = 12;
pub(super) const CTA_ZONE: u16 = 18;
const CTA_FILTER: u16 = 25;
const CTA_STATUS_MASK: u16 = 26;
pub(super) const CTA_TUPLE_ZONE: u16 = 3;
pub(super) const CTA_PROTO_ICMP_ID: u16 = 4;
pub(super) const CTA_PROTO_ICMP_TYPE: u16 = 5;
pub(super) const CTA_PROTO_ICMP_CODE: u16 = 6;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;
/// `CTA_FILTER_F_CTA_IP_DST`: of a tuple, compare the destination address.
const FILTER_DESTINATION: u32 = 1 << 1;

/// What to delete.
#[derive(Debug, Clone, Copy)]
pub(super) enum Deletion<'a> {
    /// Every entry whose source is translated to this address. One request; the kernel looks for them.
    TranslatedTo(Ipv4Addr),
    /// This one.
    Entry(&'a Entry),
}

/// Which entries to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Select {
    /// All of IPv4.
    All,
    /// Those whose source is translated: forwarded flows that are bound to a link.
    Translated,
    /// Those of them that nobody has answered yet.
    TranslatedUnanswered,
}

impl Select {
    /// Whether an entry is meant. The kernel filters too, since 5.8; an older one sends all.
    pub(super) fn matches(self, entry: &Entry) -> bool {
        match self {
            Self::All => true,
            Self::Translated => entry.source_nat,
            Self::TranslatedUnanswered => entry.source_nat && !entry.seen_reply,
        }
    }

    fn status(self) -> Option<(Status, Status)> {
        match self {
            Self::All => None,
            Self::Translated => Some((Status::SrcNat, Status::SrcNat)),
            Self::TranslatedUnanswered => Some((Status::SrcNat, Status::SrcNat | Status::SeenReply)),
        }
    }
}

/// The request that deletes.
pub(super) fn delete(deletion: Deletion<'_>) -> NetlinkMessage<NetfilterMessage> {
    let attributes = match deletion {
        Deletion::TranslatedTo(address) => {
            let destination = TupleAttribute::Ip(vec![IPTuple::DestinationAddress(IpAddr::V4(address))]);
            let mut attributes = vec![ConntrackAttribute::CtaTupleReply(vec![destination]), filter()];
            attributes.extend(status(Status::SrcNat, Status::SrcNat));
            attributes
        }
        Deletion::Entry(entry) => {
            let mut attributes = key(entry);
            attributes.extend(entry.id.map(|id| other(CTA_ID, &id.to_be_bytes())));
            attributes
        }
    };
    // Not `ConntrackMessage::Delete`: the crate's attribute type loses NLA_F_NESTED on the filter it does not know, and
    // the kernel answers EINVAL.
    let attributes = attributes.iter().map(plain).collect();
    request(ConntrackMessage::Other { message_type: IPCTNL_MSG_CT_DELETE, attributes }, NLM_F_ACK)
}

/// The request for what stands now where this entry did.
pub(super) fn get(entry: &Entry) -> NetlinkMessage<NetfilterMessage> {
    let attributes = key(entry).iter().map(plain).collect();
    // The answer says of itself that others follow (`ctnetlink_fill_info`); the acknowledgement is what does.
    request(ConntrackMessage::Other { message_type: IPCTNL_MSG_CT_GET, attributes }, NLM_F_ACK)
}

/// What the kernel finds an entry by: the tuple in its original direction, and the zone.
fn key(entry: &Entry) -> Vec<ConntrackAttribute> {
    let mut tuple = tuple(&entry.original);
    let zone = match entry.zone {
        // The lookup is by the original direction, which a reply zone is not part of.
        Zone::Default | Zone::Reply(_) => None,
        Zone::Both(zone) => Some(other(CTA_ZONE, &zone.to_be_bytes())),
        Zone::Original(zone) => {
            let zone = DefaultNla::new(CTA_TUPLE_ZONE, zone.to_be_bytes().to_vec());
            tuple.push(TupleAttribute::Other(zone));
            None
        }
    };
    [ConntrackAttribute::CtaTupleOrig(tuple)].into_iter().chain(zone).collect()
}

/// The request that lists.
pub(super) fn dump(select: Select) -> NetlinkMessage<NetfilterMessage> {
    let attributes = select.status().map(|(value, mask)| status(value, mask).to_vec()).unwrap_or_default();
    request(ConntrackMessage::Get(attributes), NLM_F_DUMP)
}

fn request(message: ConntrackMessage, flags: u16) -> NetlinkMessage<NetfilterMessage> {
    // Version 1: with 0 the kernel ignores the family when it deletes by filter (`ctnetlink_del_conntrack`).
    let header = NetfilterHeader::new(NetfilterProtoFamily::IPv4, 1, 0);
    let mut request = NetlinkMessage::from(NetfilterMessage::new(header, message));
    request.header.flags = NLM_F_REQUEST | flags;
    request
}

/// Compare the reply's destination and nothing else of the tuples.
fn filter() -> ConntrackAttribute {
    let flag = |kind: u16, flags: u32| {
        // struct nlattr { u16 length; u16 type; } and a host-endian u32.
        let mut bytes = 8u16.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes
    };
    let mut nested = flag(CTA_FILTER_ORIG_FLAGS, 0);
    nested.extend(flag(CTA_FILTER_REPLY_FLAGS, FILTER_DESTINATION));
    other(CTA_FILTER | NLA_F_NESTED, &nested)
}

fn status(value: Status, mask: Status) -> [ConntrackAttribute; 2] {
    [ConntrackAttribute::CtaStatus(value), other(CTA_STATUS_MASK, &mask.bits().to_be_bytes())]
}

fn plain(attribute: &ConntrackAttribute) -> DefaultNla {
    let nested = if attribute.is_nested() { NLA_F_NESTED } else { 0 };
    let mut value = vec![0; attribute.value_len()];
    attribute.emit_value(&mut value);
    DefaultNla::new(attribute.kind() | nested, value)
}

fn other(kind: u16, value: &[u8]) -> ConntrackAttribute {
    ConntrackAttribute::Other(DefaultNla::new(kind, value.to_vec()))
}

fn tuple(tuple: &Tuple) -> Vec<TupleAttribute> {
    let addresses = vec![
        IPTuple::SourceAddress(IpAddr::V4(tuple.source)),
        IPTuple::DestinationAddress(IpAddr::V4(tuple.destination)),
    ];
    let part = |kind, value: &[u8]| ProtoTuple::Other(DefaultNla::new(kind, value.to_vec()));
    let mut transport = vec![ProtoTuple::Protocol(Protocol::from(tuple.protocol))];
    match tuple.transport {
        Transport::Ports { source, destination } => {
            transport.extend([ProtoTuple::SourcePort(source), ProtoTuple::DestinationPort(destination)]);
        }
        Transport::Icmp { id, kind, code } => transport.extend([
            part(CTA_PROTO_ICMP_ID, &id.to_be_bytes()),
            part(CTA_PROTO_ICMP_TYPE, &[kind]),
            part(CTA_PROTO_ICMP_CODE, &[code]),
        ]),
        Transport::Addresses => {}
    }
    vec![TupleAttribute::Ip(addresses), TupleAttribute::Proto(transport)]
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{Emitable, NetlinkPayload, NlasIterator, Parseable};
    use netlink_packet_netfilter::NetfilterMessageInner;

    use super::*;

    fn attributes(message: NetlinkMessage<NetfilterMessage>) -> Vec<ConntrackAttribute> {
        match message.payload {
            NetlinkPayload::InnerMessage(NetfilterMessage {
                inner:
                    NetfilterMessageInner::Conntrack(ConntrackMessage::Other { message_type: 2, attributes }),
                header,
                ..
            }) => {
                assert_eq!(header.version, 1);
                assert_eq!(header.family, NetfilterProtoFamily::IPv4);
                // As the kernel sees it.
                let mut bytes = vec![0; attributes.as_slice().buffer_len()];
                attributes.as_slice().emit(&mut bytes);
                let parse = |nla| ConntrackAttribute::parse(&nla).unwrap();
                NlasIterator::new(bytes.as_slice()).map(|nla| parse(nla.unwrap())).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    fn entry(zone: Zone) -> Entry {
        let tuple = |source: [u8; 4], destination: [u8; 4], sport, dport| Tuple {
            source: source.into(),
            destination: destination.into(),
            protocol: 17,
            transport: Transport::Ports { source: sport, destination: dport },
        };
        Entry {
            original: tuple([192, 168, 0, 9], [8, 8, 8, 8], 1234, 53),
            reply: tuple([8, 8, 8, 8], [10, 0, 1, 2], 53, 1234),
            seen_reply: false,
            assured: false,
            left: None,
            source_nat: true,
            destination_nat: false,
            id: Some(0x0102_0304),
            zone,
        }
    }

    /// Every delete names a tuple: the kernel's "flush everything" cannot be built.
    #[test]
    fn no_deletion_is_a_flush() {
        let bulk = attributes(delete(Deletion::TranslatedTo([10, 0, 1, 2].into())));
        let kinds: Vec<_> = bulk.iter().map(Nla::kind).collect();
        assert_eq!(kinds, [2, CTA_FILTER | NLA_F_NESTED, 3, CTA_STATUS_MASK]);
        let mut value = vec![0; bulk[1].value_len()];
        bulk[1].emit_value(&mut value);
        let flags = u32::from_ne_bytes(value[12..16].try_into().unwrap());
        assert_eq!(flags, FILTER_DESTINATION);

        for zone in [Zone::Default, Zone::Both(7), Zone::Original(7), Zone::Reply(7)] {
            let single = attributes(delete(Deletion::Entry(&entry(zone))));
            assert!(matches!(&single[0], ConntrackAttribute::CtaTupleOrig(parts) if parts.len() >= 2));
            assert!(single.iter().any(|a| a.kind() == CTA_ID));
            assert_eq!(single.iter().any(|a| a.kind() == CTA_ZONE), zone == Zone::Both(7));
        }
    }

    #[test]
    fn an_entry_is_read_back_from_its_own_attributes() {
        for zone in [Zone::Default, Zone::Both(7), Zone::Original(7)] {
            let entry = entry(zone);
            let mut message = attributes(delete(Deletion::Entry(&entry)));
            message.push(ConntrackAttribute::CtaTupleReply(tuple(&entry.reply)));
            message.push(ConntrackAttribute::CtaStatus(Status::SrcNat | Status::Confirmed));
            assert_eq!(Entry::parse(&message), Some(entry));
        }
        let mut echo = entry(Zone::Default);
        echo.original.protocol = 1;
        echo.original.transport = Transport::Icmp { id: 9, kind: 8, code: 0 };
        let mut message = attributes(delete(Deletion::Entry(&echo)));
        message.push(ConntrackAttribute::CtaTupleReply(tuple(&echo.reply)));
        assert_eq!(Entry::parse(&message).unwrap().original, echo.original);
    }

    #[test]
    fn selections_agree_with_what_the_kernel_is_asked() {
        let mut answered = entry(Zone::Default);
        answered.seen_reply = true;
        let mut untranslated = entry(Zone::Default);
        untranslated.source_nat = false;
        let cases = [entry(Zone::Default), answered, untranslated];
        let picked = |select: Select| cases.map(|entry| select.matches(&entry));
        assert_eq!(picked(Select::All), [true, true, true]);
        assert_eq!(picked(Select::Translated), [true, true, false]);
        assert_eq!(picked(Select::TranslatedUnanswered), [true, false, false]);
    }
}

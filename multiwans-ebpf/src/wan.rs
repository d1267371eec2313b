//! Ingress of WANs: what comes from outside carries its WAN's mark, answers too (learn needs it).

use aya_ebpf::programs::TcContext;
use multiwans_common::{Reason, protocol};

use crate::{
    links, mark,
    packet::{self, Packet},
    verdict::Outcome,
};

/// Ports of IKE (RFC 7296): 500, and 4500 where there is address translation.
const IKE_BE: u16 = 500u16.to_be();
const IKE_NAT_BE: u16 = 4500u16.to_be();

/// Decides.
#[inline(always)]
pub fn decide(ctx: &TcContext) -> Outcome {
    if mark::ours(ctx) != 0 {
        return Outcome::untouched(Reason::AlreadyMarked);
    }
    let packet = match packet::incoming(ctx) {
        Ok(packet) => packet,
        Err(why) => return Outcome::unread(why),
    };
    if is_tunnel(packet) {
        return Outcome::untouched(Reason::Tunnel).about(packet);
    }
    match links::wan_of_interface(packet::interface(ctx)).and_then(links::wan) {
        Some(wan) => Outcome::marked(Reason::FromWan, wan.fwmark),
        None => Outcome::untouched(Reason::NotReady),
    }
    .about(packet)
}

/// IPsec: the kernel decrypts in place, and the inner packet would inherit the mark.
#[inline(always)]
fn is_tunnel(packet: &Packet) -> bool {
    match packet.protocol {
        protocol::ESP | protocol::AH => true,
        protocol::UDP => {
            let ports = (packet.tuple.source_port, packet.tuple.destination_port);
            ports.0 == IKE_BE || ports.1 == IKE_BE || ports.0 == IKE_NAT_BE || ports.1 == IKE_NAT_BE
        }
        _ => false,
    }
}

//! Egress of inside interfaces: an answer shows which WAN its flow is on.

use aya_ebpf::programs::TcContext;
use multiwans_common::Reason;

use crate::{
    flows, links, mark,
    packet::{self, Fragment},
    verdict::Outcome,
};

/// Learns; the packet itself is never changed.
#[inline(always)]
pub fn decide(ctx: &TcContext) -> Outcome {
    let number = mark::wan(ctx);
    if number == 0 {
        return Outcome::untouched(Reason::NotAnAnswer);
    }
    let Some(wan) = links::wan(number) else {
        return Outcome::untouched(Reason::NotAnAnswer);
    };
    // Between two inside networks the mark is steer's, not a WAN's: it says where the packet would have
    // gone, not where it came from.
    if wan.ifindex != packet::came_in_by(ctx) {
        return Outcome::untouched(Reason::NotAnAnswer);
    }
    let packet = match packet::outgoing(ctx) {
        Ok(packet) => packet,
        Err(why) => return Outcome::unread(why),
    };
    let reason = if packet.is_error || packet.fragment() == Fragment::Later {
        Reason::NotAnAnswer
    } else {
        flows::learn(packet, number, &wan)
    };
    Outcome::untouched(reason).about(packet)
}

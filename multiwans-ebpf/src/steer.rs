//! Ingress of inside interfaces: which WAN does this packet take?

use aya_ebpf::programs::TcContext;
use multiwans_common::{PolicySet, Reason};

use crate::{
    classify::{self, Match},
    flows, fragments, links, mark,
    packet::{self, Fragment, Packet},
    verdict::Outcome,
};

/// Decides.
#[inline(always)]
pub fn decide(ctx: &TcContext) -> Outcome {
    if mark::ours(ctx) != 0 {
        return Outcome::untouched(Reason::AlreadyMarked);
    }
    let packet = match packet::incoming(ctx) {
        Ok(packet) => packet,
        Err(reason) => return Outcome::untouched(reason),
    };
    if packet.fragment == Fragment::Later {
        return match fragments::recall(&packet.datagram) {
            Some(fwmark) => Outcome::marked(Reason::Fragment, fwmark),
            None => Outcome::untouched(Reason::FragmentUnknown),
        };
    }
    let outcome = choose(&packet);
    if packet.fragment == Fragment::First {
        fragments::remember(&packet.datagram, outcome.fwmark);
    }
    outcome
}

/// Decides for a packet with a transport header. A pure function of packet, flow table, policy and link
/// states: until an answer makes the flow's entry, each packet of it comes to the same.
#[inline(always)]
fn choose(packet: &Packet) -> Outcome {
    // A SYN opens a new connection, even on the ports of an old one.
    if !packet.opens
        && let Some(wan) = flows::find(&packet.tuple)
    {
        return Outcome::marked(Reason::Flow, wan.fwmark);
    }
    let default_wan = links::default_wan();
    match classify::first_match(PolicySet::Forwarding, &packet.tuple, default_wan) {
        Match::Wan(wan) => Outcome::marked(Reason::Filter, wan.fwmark),
        Match::NotReady => Outcome::untouched(Reason::NotReady),
        // The default stays the default when it is out of service and nothing better is left, so its
        // `usable` is not asked for.
        Match::Nothing => match links::wan(default_wan) {
            Some(wan) => Outcome::marked(Reason::Default, wan.fwmark),
            None => Outcome::untouched(Reason::NoDefault),
        },
    }
}

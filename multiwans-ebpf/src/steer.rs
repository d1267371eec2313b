//! Ingress of inside interfaces: which WAN does this packet take?

use aya_ebpf::programs::TcContext;
use multiwans_common::{FilterTag, PolicySet, Reason};

use crate::{
    classify, flows, fragments, links, mark,
    packet::{self, Fragment, Packet},
    policy::Policy,
    specific,
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
        Err(why) => return Outcome::unread(why),
    };
    if packet.fragment() == Fragment::Later
        && let Some((fwmark, filter)) = fragments::recall(&packet.datagram)
    {
        return Outcome::marked(Reason::Fragment, fwmark).by(filter).about(packet);
    }
    let outcome = choose(packet).about(packet);
    match packet.fragment() {
        Fragment::Whole => outcome,
        Fragment::First => {
            fragments::remember(&packet.datagram, outcome.fwmark, outcome.filter);
            outcome
        }
        // What is for the router stays what it is.
        Fragment::Later if outcome.fwmark == 0 => outcome,
        Fragment::Later => Outcome { reason: Reason::FragmentUnknown, ..outcome },
    }
}

/// Decides for a packet by its tuple. A pure function of packet, flow table, policy and link states: until
/// an answer makes the flow's entry, each packet of it comes to the same.
#[inline(always)]
fn choose(packet: &Packet) -> Outcome {
    let policy = Policy::in_force(PolicySet::Forwarding);
    // A SYN opens a new connection, even on the ports of an old one.
    let known = if packet.opens() { None } else { flows::find(packet) };
    if let Some(flow) = &known
        && !flow.lacks_filter(policy.version)
    {
        return Outcome::marked(Reason::Flow, flow.fwmark).by(flow.filter);
    }
    if known.is_none() && specific::is_own(packet.tuple.destination) {
        return Outcome::untouched(Reason::ToRouter);
    }
    packet.set_known(known.is_some());
    let default_wan = links::default_wan();
    let found = classify::first_match(policy, &packet.tuple, default_wan);
    // Only to know whom it counts for: the flow stays where it is.
    if packet.is_known()
        && let Some((fwmark, filter)) = flows::attribute(&packet.tuple, found, policy.version)
    {
        return Outcome::marked(Reason::Flow, fwmark).by(filter);
    }
    if !found.is_ready {
        return Outcome::untouched(Reason::NotReady);
    }
    if let Some(wan) = links::wan(found.wan) {
        let filter = FilterTag { number: found.filter as u16, version: policy.version as u16 };
        return Outcome::marked(Reason::Filter, wan.fwmark).by(filter);
    }
    // The default stays the default when it is out of service and nothing better is left, so its `usable`
    // is not asked for.
    match links::wan(default_wan) {
        Some(wan) => Outcome::marked(Reason::Default, wan.fwmark),
        None => Outcome::untouched(Reason::NoDefault),
    }
}

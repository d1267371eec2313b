//! The router's own traffic: which WAN does this socket, or this datagram, take?
//!
//! A connecting socket is given its WAN's mark. A datagram of an unconnected one is not: the kernel has
//! read the socket's mark by the time it asks us, so a new one would hold from the second datagram on. It
//! is given its WAN's address as the source instead, and the rule for that address does the rest.
//!
//! What the application has chosen stays chosen: sockets bound to an address or a device, marked ones,
//! and datagrams that bring their source. What the main table has a route of its own to is routed by it.

use aya_ebpf::programs::sock_addr::SockAddrContext;
use multiwans_common::{AskedKey4, FlowKey4, PolicySet, Program, Reason, WanEntry, protocol};

use crate::{asked, classify, counters, links, packet::is_unicast, policy::Policy, socket::Socket, specific};

/// Stands for the port of a socket that has none yet, as a TCP socket at its connect: the first of the
/// kernel's default range (`net.ipv4.ip_local_port_range`).
const EPHEMERAL_PORT: u16 = 32_768;

/// `::ffff:0:0/96` (RFC 4291, 2.5.5.2): an IPv4 address in an IPv6 socket.
const MAPPED: [u32; 3] = [0, 0, 0x0000_ffffu32.to_be()];

/// A socket connects to an IPv4 address.
#[inline(always)]
pub fn connect4(ctx: &SockAddrContext) {
    // SAFETY: the context is the kernel's, and the verifier checks each field that is read; so below.
    let (address, port) = unsafe { ((*ctx.sock_addr).user_ip4, (*ctx.sock_addr).user_port) };
    connect(ctx, address, port as u16);
}

/// An IPv6 socket connects: to an IPv4 address, as programs of both worlds do, or not for us.
#[inline(always)]
pub fn connect6(ctx: &SockAddrContext) {
    // SAFETY: as above.
    let (address, port) = unsafe { ((*ctx.sock_addr).user_ip6, (*ctx.sock_addr).user_port) };
    if [address[0], address[1], address[2]] == MAPPED {
        connect(ctx, address[3], port as u16);
    }
}

#[inline(always)]
fn connect(ctx: &SockAddrContext, address: u32, port: u16) {
    let Some(number) = steered_protocol(ctx) else { return };
    let Some(socket) = Socket::of(ctx) else { return };
    if socket.placed || !socket.is_free(ctx) {
        return counters::count_once(Program::Output, Reason::OutputChosen);
    }
    let (reason, wan) = choose(&socket, number, address, port);
    let fwmark = match wan {
        Some(wan) => wan.fwmark,
        None => 0,
    };
    let reason = if socket.set_mark(ctx, fwmark) { reason } else { Reason::OutputFailed };
    counters::count_once(Program::Output, reason);
}

/// An unconnected socket sends a datagram to an IPv4 address.
#[inline(always)]
pub fn sendmsg4(ctx: &SockAddrContext) {
    let Some(number) = steered_protocol(ctx) else { return };
    let Some(socket) = Socket::of(ctx) else { return };
    // SAFETY: as above.
    let (address, port, source) =
        unsafe { ((*ctx.sock_addr).user_ip4, (*ctx.sock_addr).user_port, (*ctx.sock_addr).msg_src_ip4) };
    if socket.placed || socket.mark != 0 || source != 0 {
        return counters::count_once(Program::Output, Reason::OutputChosen);
    }
    let (reason, wan) = choose(&socket, number, address, port as u16);
    if let Some(wan) = wan {
        // SAFETY: as above; the kernel lets this program write the field.
        unsafe { (*ctx.sock_addr).msg_src_ip4 = wan.address };
    }
    counters::count_once(Program::Output, reason);
}

/// TCP and UDP. All others never ask us, or not for every packet: rules take them.
#[inline(always)]
fn steered_protocol(ctx: &SockAddrContext) -> Option<u8> {
    // SAFETY: as above.
    let number = unsafe { (*ctx.sock_addr).protocol };
    if number == protocol::TCP as u32 || number == protocol::UDP as u32 { Some(number as u8) } else { None }
}

/// The WAN for a destination (network byte order); none: as the main table has it.
#[inline(always)]
fn choose(socket: &Socket, number: u8, address: u32, port: u16) -> (Reason, Option<WanEntry>) {
    if !is_unicast(address) {
        return (Reason::OutputSpecific, None);
    }
    if number == protocol::UDP
        && let Some(wan) = asked::find(&AskedKey4 { remote: address, remote_port: port, port: socket.port })
    {
        return (Reason::OutputAnswer, Some(wan));
    }
    if specific::covers(address) {
        return (Reason::OutputSpecific, None);
    }
    let default_wan = links::default_wan();
    let tuple = FlowKey4 {
        // What the main table's default route would make it.
        source: match links::wan(default_wan) {
            Some(wan) => wan.address,
            None => 0,
        },
        destination: address,
        source_port: if socket.port == 0 { EPHEMERAL_PORT } else { socket.port }.to_be(),
        destination_port: port,
        protocol: number,
        zero: [0; 3],
    };
    let found = classify::first_match(Policy::in_force(PolicySet::Output), &tuple, default_wan);
    if !found.is_ready {
        return (Reason::NotReady, None);
    }
    // 0 is no WAN.
    match links::wan(found.wan) {
        Some(wan) => (Reason::OutputFilter, Some(wan)),
        None => (Reason::OutputDefault, None),
    }
}

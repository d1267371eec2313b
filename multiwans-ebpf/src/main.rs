//! The packet path: three TC programs, and four for the router's own sockets.
//!
//! * [`steer`]: ingress of every inside interface; decides which WAN a packet takes and marks it.
//! * [`wan`]: ingress of every WAN; marks what comes from outside with its WAN.
//! * [`learn`]: egress of every inside interface; an answer that carries a WAN's mark teaches the flow
//!   table which WAN its flow is on.
//!
//! * [`output`]: connecting sockets and unconnected datagrams of the router itself, by its cgroups; gives
//!   them the mark or the address of the WAN they take.
//! * [`asked`]: datagrams on their way to a socket of the router; remembers by which WAN it was asked.
//!
//! The first three return `TC_ACT_UNSPEC`: they never drop, never redirect, and the programs and filters of
//! others on the interface still run. Each is one function from packet to [`Outcome`](verdict::Outcome) and one
//! place that turns the outcome into a mark, a counter and, at debug level, a log line. The others let everything pass.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod asked;
mod classify;
mod counters;
mod flow_table;
mod flows;
mod fragments;
mod headers;
mod learn;
mod lengths;
mod links;
mod mark;
mod output;
mod packet;
mod policy;
mod socket;
mod specific;
mod steer;
mod unread;
mod verdict;
mod wan;

use aya_ebpf::{
    macros::{cgroup_skb, cgroup_sock_addr, classifier},
    programs::{SkBuffContext, TcContext, sock_addr::SockAddrContext},
};
use multiwans_common::Program;

/// Ingress of inside interfaces.
#[classifier]
pub fn multiwans_steer(ctx: TcContext) -> i32 {
    verdict::finish(&ctx, Program::Steer, steer::decide(&ctx))
}

/// Ingress of WANs.
#[classifier]
pub fn multiwans_wan(ctx: TcContext) -> i32 {
    verdict::finish(&ctx, Program::Wan, wan::decide(&ctx))
}

/// Egress of inside interfaces.
#[classifier]
pub fn multiwans_learn(ctx: TcContext) -> i32 {
    verdict::finish(&ctx, Program::Learn, learn::decide(&ctx))
}

/// What the programs of a cgroup return: go on.
const ALLOW: i32 = 1;

/// A socket connects to an IPv4 address.
#[cgroup_sock_addr(connect4)]
pub fn multiwans_connect4(ctx: SockAddrContext) -> i32 {
    output::connect4(&ctx);
    ALLOW
}

/// An IPv6 socket connects.
#[cgroup_sock_addr(connect6)]
pub fn multiwans_connect6(ctx: SockAddrContext) -> i32 {
    output::connect6(&ctx);
    ALLOW
}

/// A datagram with an IPv4 destination of its own.
#[cgroup_sock_addr(sendmsg4)]
pub fn multiwans_sendmsg4(ctx: SockAddrContext) -> i32 {
    output::sendmsg4(&ctx);
    ALLOW
}

/// A packet on its way to its socket.
#[cgroup_skb(ingress)]
pub fn multiwans_asked(ctx: SkBuffContext) -> i32 {
    asked::receive(&ctx);
    ALLOW
}

/// Nothing here can panic: indexing is masked, arithmetic wraps. The verifier proves it by loading.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The kernel offers some helpers to programs under a GPL-compatible licence only; this one is dual.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

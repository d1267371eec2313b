//! The packet path: three TC programs.
//!
//! * [`steer`]: ingress of every inside interface; decides which WAN a packet takes and marks it.
//! * [`wan`]: ingress of every WAN; marks what comes from outside with its WAN.
//! * [`learn`]: egress of every inside interface; an answer that carries a WAN's mark teaches the flow
//!   table which WAN its flow is on.
//!
//! All three return `TC_ACT_UNSPEC`: they never drop, never redirect, and the programs and filters of
//! others on the interface still run. Each is one function from packet to [`Outcome`](verdict::Outcome) and one
//! place that turns the outcome into a mark, a counter and, at debug level, a log line.
#![no_std]
#![no_main]

mod classify;
mod counters;
mod flows;
mod fragments;
mod learn;
mod links;
mod mark;
mod packet;
mod policy;
mod steer;
mod verdict;
mod wan;

use aya_ebpf::{macros::classifier, programs::TcContext};

/// Ingress of inside interfaces.
#[classifier]
pub fn multiwans_steer(ctx: TcContext) -> i32 {
    verdict::finish(&ctx, "steer", steer::decide(&ctx))
}

/// Ingress of WANs.
#[classifier]
pub fn multiwans_wan(ctx: TcContext) -> i32 {
    verdict::finish(&ctx, "wan", wan::decide(&ctx))
}

/// Egress of inside interfaces.
#[classifier]
pub fn multiwans_learn(ctx: TcContext) -> i32 {
    verdict::finish(&ctx, "learn", learn::decide(&ctx))
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

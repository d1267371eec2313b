//! From outcome to mark, counter and log line: the one place where a packet is changed.

use aya_ebpf::{bindings::TC_ACT_UNSPEC, programs::TcContext};
use aya_log_ebpf::debug;
use multiwans_common::{Direction, FilterTag, Program, Reason, Traffic};

use crate::{
    counters,
    lengths::Size,
    mark,
    packet::{self, Packet},
    unread::Unread,
};

/// What a program decided.
#[derive(Clone, Copy)]
pub struct Outcome {
    /// Why; also the counter.
    pub reason: Reason,
    /// The mark to set under our mask, already shifted; 0: leave the packet as it is.
    pub fwmark: u32,
    /// The filter that chose, if one did.
    pub filter: FilterTag,
    /// What it counts; no packets: it was not read, and counts as one with the frame's length.
    pub size: Size,
    /// What is special about it: bits of [`Special`](multiwans_common::Special).
    pub special: u32,
}

impl Outcome {
    /// The packet stays as it is.
    #[inline(always)]
    pub const fn untouched(reason: Reason) -> Self {
        Self::marked(reason, 0)
    }

    /// The packet gets this mark.
    #[inline(always)]
    pub const fn marked(reason: Reason, fwmark: u32) -> Self {
        let filter = FilterTag { number: FilterTag::NONE, version: 0 };
        Self { reason, fwmark, filter, size: Size { packets: 0, bytes: 0 }, special: 0 }
    }

    /// The packet was not read and stays as it is.
    #[inline(always)]
    pub const fn unread(why: Unread) -> Self {
        Self { special: why.special, ..Self::untouched(why.reason) }
    }

    /// By this filter.
    #[inline(always)]
    pub const fn by(self, filter: FilterTag) -> Self {
        Self { filter, ..self }
    }

    /// About this packet, as far as it was noted by now.
    #[inline(always)]
    pub fn about(self, packet: &Packet) -> Self {
        Self { size: packet.size(), special: packet.special(), ..self }
    }
}

/// Carries an outcome out.
#[inline(always)]
pub fn finish(ctx: &TcContext, program: Program, outcome: Outcome) -> i32 {
    if outcome.fwmark != 0 {
        mark::set(ctx, outcome.fwmark);
    }
    count(ctx, program, &outcome);
    // Free when off: the level is a read-only global, so the verifier removes the whole call.
    if aya_log_ebpf::macro_support::level_enabled(aya_log_ebpf::macro_support::Level::Debug) {
        log(ctx, program.as_str(), outcome);
    }
    TC_ACT_UNSPEC
}

#[inline(always)]
fn count(ctx: &TcContext, program: Program, outcome: &Outcome) {
    let size = if outcome.size.packets == 0 { Size { packets: 1, bytes: ctx.len() } } else { outcome.size };
    let traffic = Traffic { packets: size.packets as u64, bytes: size.bytes as u64 };
    counters::count(program, outcome.reason, traffic);
    if outcome.fwmark != 0 {
        let direction = if matches!(program, Program::Steer) { Direction::Out } else { Direction::In };
        counters::count_wan(mark::wan_in(outcome.fwmark), direction, traffic);
        counters::count_filter(outcome.filter, traffic);
    }
    // Of nearly all packets nothing is. The last thing done: the verifier walks through it once for each outcome that is
    // still needed then.
    if outcome.special != 0 {
        counters::count_special(program, outcome.special, &traffic);
    }
}

/// `multiwans run --log-level debug` shows these lines.
#[inline(never)]
fn log(ctx: &TcContext, program: &str, outcome: Outcome) {
    let Some(tuple) = packet::addresses(ctx) else { return };
    debug!(
        ctx,
        "{}: if {} proto {} {:i}:{} -> {:i}:{} {} mark {:x}",
        program,
        packet::interface(ctx),
        tuple.protocol,
        u32::from_be(tuple.source),
        u16::from_be(tuple.source_port),
        u32::from_be(tuple.destination),
        u16::from_be(tuple.destination_port),
        outcome.reason.as_str(),
        mark::get(ctx)
    );
}

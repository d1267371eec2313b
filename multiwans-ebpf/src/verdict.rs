//! From outcome to mark, counter and log line: the one place where a packet is changed.

use aya_ebpf::{bindings::TC_ACT_UNSPEC, programs::TcContext};
use aya_log_ebpf::debug;
use multiwans_common::Reason;

use crate::{counters, mark, packet};

/// What a program decided.
#[derive(Clone, Copy)]
pub struct Outcome {
    /// Why; also the counter.
    pub reason: Reason,
    /// The mark to set under our mask, already shifted; 0: leave the packet as it is.
    pub fwmark: u32,
}

impl Outcome {
    /// The packet stays as it is.
    #[inline(always)]
    pub const fn untouched(reason: Reason) -> Self {
        Self { reason, fwmark: 0 }
    }

    /// The packet gets this mark.
    #[inline(always)]
    pub const fn marked(reason: Reason, fwmark: u32) -> Self {
        Self { reason, fwmark }
    }
}

/// Carries an outcome out.
#[inline(always)]
pub fn finish(ctx: &TcContext, program: &str, outcome: Outcome) -> i32 {
    if outcome.fwmark != 0 {
        mark::set(ctx, outcome.fwmark);
    }
    counters::count(outcome.reason);
    // Free when off: the level is a read-only global, so the verifier removes the whole call.
    if aya_log_ebpf::macro_support::level_enabled(aya_log_ebpf::macro_support::Level::Debug) {
        log(ctx, program, outcome);
    }
    TC_ACT_UNSPEC
}

/// `multiwans run --log-level debug` shows these lines.
#[inline(never)]
fn log(ctx: &TcContext, program: &str, outcome: Outcome) {
    let Ok(tuple) = packet::addresses(ctx) else { return };
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

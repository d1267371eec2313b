//! Packets that are not read on: not sound, or not for us. Why, and what is special about them.

use aya_ebpf::programs::TcContext;
use multiwans_common::{Reason, Special};

/// Whom a packet is addressed to at the link layer (linux/if_packet.h).
const PACKET_HOST: u32 = 0;
const PACKET_BROADCAST: u32 = 1;
const PACKET_MULTICAST: u32 = 2;

/// The first four bits of a multicast address (RFC 5771).
const MULTICAST: u32 = 14;

/// Why a packet was not read.
#[derive(Clone, Copy)]
pub struct Unread {
    /// The one word for it.
    pub reason: Reason,
    /// What is special about it: bits of [`Special`].
    pub special: u32,
}

impl Unread {
    /// Nothing is special about it, or nothing of that was seen.
    #[inline(always)]
    pub const fn new(reason: Reason) -> Self {
        Self { reason, special: 0 }
    }

    /// It is not sound, in this way.
    #[inline(always)]
    pub const fn malformed(special: Special) -> Self {
        Self { reason: Reason::Malformed, special: special.bit() }
    }
}

/// Whether the packet came for this host at the link layer; otherwise for whom.
#[inline(always)]
pub fn check_host(ctx: &TcContext) -> Result<(), Unread> {
    // SAFETY: the context pointer is the kernel's and valid while the program runs.
    let special = match unsafe { (*ctx.skb.skb).pkt_type } {
        PACKET_HOST => return Ok(()),
        PACKET_BROADCAST => Special::Broadcast,
        PACKET_MULTICAST => Special::Multicast,
        _ => Special::OtherHost,
    };
    Err(Unread { reason: Reason::NotUnicast, special: special.bit() })
}

/// A destination that is not unicast.
#[inline(always)]
pub fn not_unicast(destination: u32) -> Unread {
    let special = if destination == u32::MAX {
        Special::Broadcast.bit()
    } else if u32::from_be(destination) >> 28 == MULTICAST {
        Special::Multicast.bit()
    } else {
        0
    };
    Unread { reason: Reason::NotUnicast, special }
}

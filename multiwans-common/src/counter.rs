//! What is counted, and where each counter stands.

use crate::{Reason, Special, WAN_SLOTS, filters::MAX_FILTERS};

/// Packets and bytes, per CPU. A packet that the kernel handles for several (GSO, GRO) counts as those on the
/// wire. Bytes are those of the IP packet; where it was not read, those of the frame.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// How many.
    pub packets: u64,
    /// How much.
    pub bytes: u64,
}

/// The programs that count.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Program {
    /// Ingress of inside interfaces.
    Steer = 0,
    /// Ingress of WANs.
    Wan = 1,
    /// Egress of inside interfaces.
    Learn = 2,
    /// The router's own sockets: connects and datagrams, without bytes.
    Output = 3,
    /// Datagrams on their way to a socket of the router.
    Asked = 4,
}

impl Program {
    /// All of them, in order of their numbers.
    pub const ALL: [Self; 5] = [Self::Steer, Self::Wan, Self::Learn, Self::Output, Self::Asked];

    /// Those that see each packet: they count what is special about it, too. The first numbers.
    pub const OF_PACKETS: [Self; 3] = [Self::Steer, Self::Wan, Self::Learn];

    /// For people and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Steer => "steer",
            Self::Wan => "wan",
            Self::Learn => "learn",
            Self::Output => "output",
            Self::Asked => "asked",
        }
    }
}

/// A packet's way.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the internet.
    In = 0,
    /// To it.
    Out = 1,
}

/// Counters by program and reason.
pub const REASON_COUNTERS: usize = Program::ALL.len() * Reason::SLOTS as usize;

/// Where a reason's counter stands.
#[inline(always)]
pub const fn reason_counter(program: Program, reason: Reason) -> u32 {
    program as u32 * Reason::SLOTS + reason as u32
}

/// Counters by program and what is special.
pub const SPECIAL_COUNTERS: usize = Program::OF_PACKETS.len() * Special::SLOTS as usize;

/// Where the counter stands of a [`Special`] with this number; of a program of [`Program::OF_PACKETS`].
#[inline(always)]
pub const fn special_counter(program: Program, special: u32) -> u32 {
    program as u32 * Special::SLOTS + special
}

/// Counters by WAN and direction.
pub const WAN_COUNTERS: usize = WAN_SLOTS as usize * 2;

/// Where a WAN's counter stands.
#[inline(always)]
pub const fn wan_counter(wan: u32, direction: Direction) -> u32 {
    wan * 2 + direction as u32
}

/// Counters by filter: of the policy in force, and of the one before or after it.
pub const FILTER_COUNTERS: usize = MAX_FILTERS * 2;

#[allow(clippy::cast_possible_truncation, reason = "4 096")]
const FILTERS: u32 = MAX_FILTERS as u32;

/// Where the counter of a filter stands in a version of the policy.
#[inline(always)]
pub const fn filter_counter(version: u32, filter: u32) -> u32 {
    (version & 1) * FILTERS + filter
}

const _: () = assert!(size_of::<Traffic>() == 16);

#[cfg(feature = "user")]
// SAFETY: `repr(C)` integers without padding (size asserted above), valid for any bit pattern.
unsafe impl aya::Pod for Traffic {}

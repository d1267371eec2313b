//! What the flow table holds of a flow: its WAN, where it is in its life, and whom it counts for.

use crate::protocol;

/// Nanoseconds of one tick, the unit of [`Seen::at`]: about a millisecond. 2³² of them are 52 days; the
/// longest timeout is 5, and what is expired is removed, so a time is never a whole turn old.
pub const TICK_NS: u64 = 1 << 20;

/// Ticks of a number of seconds.
#[allow(clippy::cast_possible_truncation, reason = "the longest timeout is 5 days")]
pub const fn ticks(seconds: u32) -> u32 {
    (seconds as u64 * 1_000_000_000 / TICK_NS) as u32
}

/// A time of `CLOCK_MONOTONIC_COARSE` in ticks.
#[inline(always)]
#[allow(clippy::cast_possible_truncation, reason = "the clock of ticks turns every 52 days")]
pub const fn tick_of(ns: u64) -> u32 {
    (ns / TICK_NS) as u32
}

/// Ticks from one time to a later one; 0 where it is not later: another CPU may have written it since `now`
/// was read.
#[inline(always)]
pub const fn ticks_between(then: u32, now: u32) -> u32 {
    let ticks = now.wrapping_sub(then);
    if ticks > i32::MAX as u32 { 0 } else { ticks }
}

/// Value of the flow table: two words, each read and written in one piece.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowValue {
    /// When it was last seen, and whom it counts for.
    pub seen: Seen,
    /// Where it goes.
    pub binding: Binding,
}

/// When a flow was last seen and whom it counts for.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Ticks; refreshed once a second at most.
    pub at: u32,
    /// The filter that chose the flow's WAN.
    pub filter: FilterTag,
}

/// A flow's WAN and where it is in its life.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The WAN's generation when the entry was made; an entry of an older one is void.
    pub generation: u32,
    /// The WAN's number, 1 to 252.
    pub wan: u8,
    /// A [`FlowState`] as its number.
    pub state: u8,
    /// 1: the session was opened from outside, and no filter chose its WAN.
    pub inbound: u8,
    /// 1: somebody is about to make a flow here ([`FlowLayout`](crate::FlowLayout)).
    pub claimed: u8,
}

impl Binding {
    /// As one word: as it stands in memory.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        // SAFETY: eight bytes of integers without padding (size asserted below).
        unsafe { core::mem::transmute(self) }
    }

    /// From [`word`](Self::word).
    #[inline(always)]
    pub const fn of_word(word: u64) -> Self {
        // SAFETY: as above, and valid for any bit pattern.
        unsafe { core::mem::transmute(word) }
    }
}

/// A filter of a version of the policy. Numbers mean other filters in another version.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilterTag {
    /// The filter's number, or [`NONE`](Self::NONE) or [`UNKNOWN`](Self::UNKNOWN).
    pub number: u16,
    /// The lowest bits of the policy's version.
    pub version: u16,
}

impl FilterTag {
    /// Number of no filter: the default, or a session that no filter chose.
    pub const NONE: u16 = u16::MAX;
    /// Number of a filter that was not looked for yet.
    pub const UNKNOWN: u16 = u16::MAX - 1;

    /// Nothing is known yet.
    pub const fn unknown() -> Self {
        Self { number: Self::UNKNOWN, version: 0 }
    }

    /// As one word.
    #[inline(always)]
    pub const fn word(self) -> u32 {
        self.number as u32 | (self.version as u32) << 16
    }

    /// From [`word`](Self::word).
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation, reason = "one half each")]
    pub const fn of_word(word: u32) -> Self {
        Self { number: word as u16, version: (word >> 16) as u16 }
    }
}

/// TCP flags (RFC 9293, 3.1).
pub mod tcp {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Opens a connection.
    pub const SYN: u8 = 0x02;
    /// Ends it at once.
    pub const RST: u8 = 0x04;
    /// Acknowledges.
    pub const ACK: u8 = 0x10;
}

/// Where a flow is in its life. It decides how long the flow may be idle, and what goes first when the table
/// is nearly full.
///
/// ```text
///                    ACK from inside
///   ┌─> Opening ───────────────────────────> Established ──FIN──> Closing
///  SYN     └──SYN-ACK from inside──> Answering ──ACK from outside──┘│   │
///  SYN-ACK from outside                                          RST└─> Reset
///
///   Single ──another packet, a second or more later──> Stream      (all but TCP)
/// ```
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FlowState {
    /// TCP: only the outside has spoken: SYN-ACK, SYN, or a segment of a connection we did not see begin.
    Opening = 0,
    /// TCP: an inside server has answered a SYN.
    Answering = 1,
    /// TCP: the handshake is complete.
    Established = 2,
    /// TCP: one side has sent its FIN.
    Closing = 3,
    /// TCP: one side has sent RST.
    Reset = 4,
    /// Not TCP: answered, all within a second.
    Single = 5,
    /// Not TCP: goes on.
    Stream = 6,
}

impl FlowState {
    /// All of them, in order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::Opening,
        Self::Answering,
        Self::Established,
        Self::Closing,
        Self::Reset,
        Self::Single,
        Self::Stream,
    ];

    /// The state of this number; of one that is none, the state that expires first.
    #[inline(always)]
    pub const fn of(number: u8) -> Self {
        match number {
            0 => Self::Opening,
            1 => Self::Answering,
            2 => Self::Established,
            3 => Self::Closing,
            5 => Self::Single,
            6 => Self::Stream,
            _ => Self::Reset,
        }
    }

    /// For people and metrics: lower case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Opening => "opening",
            Self::Answering => "answering",
            Self::Established => "established",
            Self::Closing => "closing",
            Self::Reset => "reset",
            Self::Single => "single",
            Self::Stream => "stream",
        }
    }

    /// Whether the flow is more than a question and its answer: the last to go when the table is full.
    #[inline(always)]
    pub const fn lasts(self) -> bool {
        matches!(self, Self::Established | Self::Stream)
    }

    /// Ticks that a flow of a protocol may be idle in this state. conntrack's own defaults, for the
    /// translation lives as long (net/netfilter/nf_conntrack_proto_*.c).
    #[inline(always)]
    pub const fn timeout(self, number: u8) -> u32 {
        match self {
            // nf_conntrack_tcp_timeout_syn_recv
            Self::Opening | Self::Answering => ticks(60),
            // nf_conntrack_tcp_timeout_established
            Self::Established => ticks(432_000),
            // nf_conntrack_tcp_timeout_fin_wait, …_time_wait
            Self::Closing => ticks(120),
            // nf_conntrack_tcp_timeout_close
            Self::Reset => ticks(10),
            Self::Single => match number {
                // nf_conntrack_udp_timeout, nf_conntrack_icmp_timeout
                protocol::UDP | protocol::UDPLITE | protocol::ICMP => ticks(30),
                // nf_conntrack_sctp_timeout_heartbeat_sent; its handshake's own 3 s are less than a round
                // trip by satellite with a lost packet.
                protocol::SCTP => ticks(30),
                // nf_conntrack_generic_timeout
                _ => ticks(600),
            },
            Self::Stream => match number {
                // nf_conntrack_udp_timeout_stream
                protocol::UDP | protocol::UDPLITE => ticks(120),
                // nf_conntrack_icmp_timeout: it has but one
                protocol::ICMP => ticks(30),
                // nf_conntrack_sctp_timeout_established
                protocol::SCTP => ticks(210),
                // nf_conntrack_generic_timeout
                _ => ticks(600),
            },
        }
    }

    /// The state of a new flow, of which a packet to the inside is the first; `None`: it makes none. RST
    /// says that there is nothing, so a port scan makes no entry.
    #[inline(always)]
    pub const fn first(number: u8, flags: u8) -> Option<Self> {
        if number != protocol::TCP {
            Some(Self::Single)
        } else if flags & tcp::RST != 0 {
            None
        } else if flags & tcp::FIN != 0 {
            Some(Self::Closing)
        } else {
            Some(Self::Opening)
        }
    }

    /// The state after a packet to the inside with these TCP flags (0 for other protocols).
    #[inline(always)]
    pub const fn after_answer(self, flags: u8) -> Self {
        if flags == 0 {
            self
        } else if flags & tcp::RST != 0 {
            Self::Reset
        } else if flags & tcp::SYN != 0 {
            // Another connection on the old tuple. An answer that was only repeated is confirmed again.
            Self::Opening
        } else if flags & tcp::FIN != 0 {
            self.closed()
        } else if matches!(self, Self::Answering) {
            Self::Established
        } else {
            self
        }
    }

    /// The state after a packet from the inside with these TCP flags (0 for other protocols).
    #[inline(always)]
    pub const fn after_packet(self, flags: u8) -> Self {
        if flags == 0 {
            self
        } else if flags & tcp::RST != 0 {
            Self::Reset
        } else if flags & tcp::FIN != 0 {
            self.closed()
        } else if !matches!(self, Self::Opening) {
            self
        } else if flags & tcp::SYN != 0 {
            Self::Answering
        } else {
            Self::Established
        }
    }

    /// The state after a packet that came a second or more after the one before.
    #[inline(always)]
    pub const fn still_there(self) -> Self {
        if matches!(self, Self::Single) { Self::Stream } else { self }
    }

    #[inline(always)]
    const fn closed(self) -> Self {
        if matches!(self, Self::Reset) { Self::Reset } else { Self::Closing }
    }
}

const _: () = {
    assert!(size_of::<FlowValue>() == 16);
    assert!(size_of::<Seen>() == 8);
    assert!(size_of::<Binding>() == 8);
    assert!(crate::filters::MAX_FILTERS < FilterTag::UNKNOWN as usize);
};

#[cfg(feature = "user")]
// SAFETY: `repr(C)` integers without padding (size asserted above), valid for any bit pattern.
unsafe impl aya::Pod for FlowValue {}

#[cfg(test)]
mod tests {
    use super::*;
    use FlowState::*;
    use tcp::*;

    /// A life: `>` a packet from the inside, `<` one to it.
    fn life(steps: &[(char, u8)]) -> Option<FlowState> {
        let mut state: Option<FlowState> = None;
        for (direction, flags) in steps {
            state = match (state, direction) {
                (None, '<') => FlowState::first(protocol::TCP, *flags),
                (None, _) => None,
                (Some(state), '<') => Some(state.after_answer(*flags)),
                (Some(state), _) => Some(state.after_packet(*flags)),
            };
        }
        state
    }

    #[test]
    fn tcp_lives() {
        for (steps, expected) in [
            (&[('>', SYN)][..], None),
            (&[('>', SYN), ('<', RST | ACK)], None),
            (&[('>', SYN), ('<', SYN | ACK)], Some(Opening)),
            (&[('>', SYN), ('<', SYN | ACK), ('<', SYN | ACK)], Some(Opening)),
            (&[('>', SYN), ('<', SYN | ACK), ('>', RST)], Some(Reset)),
            (&[('>', SYN), ('<', SYN | ACK), ('>', ACK)], Some(Established)),
            (&[('>', SYN), ('<', SYN | ACK), ('>', ACK), ('<', SYN | ACK), ('>', ACK)], Some(Established)),
            // Opened from outside.
            (&[('<', SYN), ('>', SYN | ACK)], Some(Answering)),
            (&[('<', SYN), ('>', SYN | ACK), ('<', ACK)], Some(Established)),
            // A stranger's segments alone never make a lasting flow.
            (&[('<', ACK), ('<', ACK), ('<', ACK)], Some(Opening)),
            (&[('<', ACK), ('>', RST)], Some(Reset)),
            (&[('<', ACK), ('>', ACK)], Some(Established)),
            // Ends.
            (&[('<', SYN | ACK), ('>', ACK), ('>', FIN | ACK), ('<', ACK)], Some(Closing)),
            (&[('<', SYN | ACK), ('>', ACK), ('<', FIN | ACK), ('>', ACK), ('>', RST)], Some(Reset)),
            (&[('<', SYN | ACK), ('>', ACK), ('<', RST), ('<', ACK), ('>', FIN)], Some(Reset)),
            // And begins again.
            (&[('<', SYN | ACK), ('>', ACK), ('<', RST), ('>', SYN), ('<', SYN | ACK)], Some(Opening)),
        ] {
            assert_eq!(life(steps), expected, "{steps:x?}");
        }
    }

    #[test]
    fn a_time_that_is_not_past_yet_is_now() {
        assert_eq!(ticks_between(10, 10), 0);
        assert_eq!(ticks_between(11, 10), 0);
        assert_eq!(ticks_between(u32::MAX, 4), 5);
    }

    #[test]
    fn numbers_come_back_as_states() {
        for (number, state) in (0..).zip(FlowState::ALL) {
            assert_eq!((state as u8, FlowState::of(number)), (number, state));
        }
    }
}

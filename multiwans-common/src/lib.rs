//! What the eBPF programs and the daemon agree on: the layout of every map's key and value, the limits,
//! and what the programs count by. Plain old data only; both sides compile this very file.
//!
//! Addresses and ports are kept as they stand in the packet (network byte order): the programs never
//! swap bytes, the daemon does so once when it writes.
#![no_std]

mod counter;
pub mod dimension;
pub mod filters;
mod flow;
mod flow_state;
mod flow_table;
mod lines;
mod own;
mod policy;
mod reason;
mod special;
mod wan;

pub use counter::{
    Direction, FILTER_COUNTERS, Program, REASON_COUNTERS, SPECIAL_COUNTERS, Traffic, WAN_COUNTERS,
    filter_counter, reason_counter, special_counter, wan_counter,
};
pub use flow::{AskedKey4, AskedValue, FlowKey4, FragmentKey4, FragmentValue, OWN_SLOTS, SPECIFIC_SLOTS};
pub use flow_state::{
    Binding, FilterTag, FlowState, FlowValue, Seen, TICK_NS, tcp, tick_of, ticks, ticks_between,
};
pub use flow_table::{
    FREE, FlowLayout, FlowLine, FlowLines, FlowMemory, FlowPlace, FlowSlot, FoundFlow, LINE_FLOWS,
    binding_word, holds_flow, slot,
};
pub use lines::{LINE_CELLS, LINE_ENTRIES, Line, Lines};
pub use own::{OWN_WORDS, own_bit};
pub use policy::{POLICY_PLACES, PolicyCopy, PolicySet, PolicySlot};
pub use reason::Reason;
pub use special::Special;
pub use wan::{WAN_SLOTS, WanEntry};

/// IP protocol numbers the programs tell apart (IANA).
pub mod protocol {
    /// Internet Control Message Protocol.
    pub const ICMP: u8 = 1;
    /// Transmission Control Protocol.
    pub const TCP: u8 = 6;
    /// User Datagram Protocol.
    pub const UDP: u8 = 17;
    /// IPsec's encrypted payload.
    pub const ESP: u8 = 50;
    /// IPsec's authentication header.
    pub const AH: u8 = 51;
    /// Stream Control Transmission Protocol.
    pub const SCTP: u8 = 132;
    /// Lightweight UDP.
    pub const UDPLITE: u8 = 136;

    /// Length of a transport header without options, in bytes; 0 of protocols that we do not look into.
    pub const fn header_len(number: u8) -> u32 {
        match number {
            TCP => 20,
            SCTP => 12,
            UDP | UDPLITE | ICMP => 8,
            _ => 0,
        }
    }

    /// Whether the transport header begins with a source and a destination port.
    pub const fn has_ports(number: u8) -> bool {
        matches!(number, TCP | UDP | UDPLITE | SCTP)
    }
}

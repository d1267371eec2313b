//! What the eBPF programs and the daemon agree on: the layout of every map's key and value, the limits,
//! and the reasons the programs count. Plain old data only; both sides compile this very file.
//!
//! Addresses and ports are kept as they stand in the packet (network byte order): the programs never
//! swap bytes, the daemon does so once when it writes.
#![no_std]

pub mod dimension;
pub mod filters;
mod flow;
mod lines;
mod policy;
mod reason;
mod wan;

pub use flow::{AskedKey4, FlowKey4, FlowValue, FragmentKey4, FragmentValue, SPECIFIC_SLOTS};
pub use lines::{LINE_CELLS, LINE_ENTRIES, Line, Lines};
pub use policy::{POLICY_PLACES, PolicyCopy, PolicySet, PolicySlot};
pub use reason::Reason;
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

    /// Whether the transport header begins with a source and a destination port.
    pub const fn has_ports(number: u8) -> bool {
        matches!(number, TCP | UDP | UDPLITE | SCTP)
    }
}

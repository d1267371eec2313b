//! State of the WANs.

/// Entries of the WAN array: it is indexed by the WAN's number, 1 to 252; 0 is never used.
pub const WAN_SLOTS: u32 = 256;

/// What the programs know of a WAN. All zero: not configured.
///
/// `usable` and `generation` share one aligned 8-byte word, which the kernel copies in one store:
/// taking a WAN out of service and voiding its flows is one write.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WanEntry {
    /// 1: new flows may take it.
    pub usable: u32,
    /// Raised each time the WAN goes out of service: flows learned before are void.
    pub generation: u32,
    /// Its mark, already shifted into the mask.
    pub fwmark: u32,
    /// Its interface: answers are learned only from packets that really came in there.
    pub ifindex: u32,
    /// Its own address, network byte order: the source of what the router itself sends by it.
    pub address: u32,
    /// Zero.
    pub zero: u32,
}

const _: () = assert!(size_of::<WanEntry>() == 24);

#[cfg(feature = "user")]
// SAFETY: `repr(C)` integers without padding (size asserted above), valid for any bit pattern.
unsafe impl aya::Pod for WanEntry {}

//! Keys of the flow table, fragment table, and the table of who asked.

/// Key of the flow table: the tuple of a packet on its way out, from an inside host to the internet.
///
/// ICMP queries have their identifier in `source_port` and 0 in `destination_port`, both ways; protocols
/// without ports have 0 in both.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey4 {
    /// Inside host, network byte order.
    pub source: u32,
    /// Internet host, network byte order.
    pub destination: u32,
    /// Network byte order.
    pub source_port: u16,
    /// Network byte order.
    pub destination_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Zero: the kernel compares keys byte by byte.
    pub zero: [u8; 3],
}

impl FlowKey4 {
    /// All of it in two words.
    #[inline(always)]
    pub const fn words(&self) -> [u64; 2] {
        [
            self.source as u64 | (self.destination as u64) << 32,
            self.source_port as u64 | (self.destination_port as u64) << 16 | (self.protocol as u64) << 32,
        ]
    }

    /// From [`words`](Self::words).
    #[allow(clippy::cast_possible_truncation, reason = "each part is what is meant")]
    pub const fn of_words([addresses, rest]: [u64; 2]) -> Self {
        Self {
            source: addresses as u32,
            destination: (addresses >> 32) as u32,
            source_port: rest as u16,
            destination_port: (rest >> 16) as u16,
            protocol: (rest >> 32) as u8,
            zero: [0; 3],
        }
    }

    /// The tuple of the packets that answer this one.
    #[inline(always)]
    pub const fn reversed(self) -> Self {
        // An ICMP identifier is the same in both directions; it stays where it is.
        let (source_port, destination_port) = if self.protocol == crate::protocol::ICMP {
            (self.source_port, self.destination_port)
        } else {
            (self.destination_port, self.source_port)
        };
        Self {
            source: self.destination,
            destination: self.source,
            source_port,
            destination_port,
            protocol: self.protocol,
            zero: [0; 3],
        }
    }
}

/// Key of the table of UDP services of the router itself: who asked which port.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AskedKey4 {
    /// Who asked, network byte order.
    pub remote: u32,
    /// From which port, network byte order.
    pub remote_port: u16,
    /// The router's port, host byte order.
    pub port: u16,
}

/// Destinations that the table of specific routes holds.
pub const SPECIFIC_SLOTS: u32 = 16_384;
/// Addresses that the table of the router's own holds.
pub const OWN_SLOTS: u32 = 4_096;

/// Value of the table of who asked.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AskedValue {
    /// `bpf_ktime_get_ns` of a recent packet; refreshed once a second at most.
    pub last_seen_ns: u64,
    /// The WAN's number, 1 to 252.
    pub wan: u32,
    /// The WAN's generation when the entry was made; an entry of an older one is void.
    pub generation: u32,
}

/// Key of the fragment table: what all fragments of one datagram share (RFC 791).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FragmentKey4 {
    /// Network byte order.
    pub source: u32,
    /// Network byte order.
    pub destination: u32,
    /// The IP header's identification field, network byte order.
    pub identification: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub zero: u8,
}

/// Value of the fragment table: what the first fragment was given.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentValue {
    /// `bpf_ktime_get_ns` of the first fragment: identifications come round again.
    pub first_seen_ns: u64,
    /// The mark it was given, already shifted; 0: left unmarked.
    pub fwmark: u32,
    /// Whom its bytes count for: a [`FilterTag`](crate::FilterTag) as one word.
    pub filter: u32,
}

const _: () = {
    assert!(size_of::<FlowKey4>() == 16);
    assert!(size_of::<AskedKey4>() == 8);
    assert!(size_of::<AskedValue>() == 16);
    assert!(size_of::<FragmentKey4>() == 12);
    assert!(size_of::<FragmentValue>() == 16);
};

#[cfg(feature = "user")]
mod pod {
    // SAFETY: `repr(C)` integers without padding (sizes asserted above), valid for any bit pattern.
    unsafe impl aya::Pod for super::FlowKey4 {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::FragmentKey4 {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::FragmentValue {}
}

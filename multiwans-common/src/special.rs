//! What is special about a packet, beside what it was given.

macro_rules! specials {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $text:literal;)*) => {
        /// What sets a packet apart from an ordinary one: whole, without options, linear, of a flow that goes on. A
        /// packet may have several. Its bit in the programs' note and index of the counters; part of the daemon's
        /// interface: numbers are never reused. What is frequent has a low one: counting goes on to the highest bit.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Special {
            $($(#[$doc])* $name = $value,)*
        }

        impl Special {
            /// All of them, in order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// For people and metrics: lower case, underscores.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

specials! {
    /// TCP FIN. Its bit is the one of the TCP header, as that of [`Rst`](Self::Rst).
    Fin = 0, "fin";
    /// A buffer that is cut into packets for the wire (GSO, GRO); counts as those.
    Gso = 1, "gso";
    /// TCP RST.
    Rst = 2, "rst";
    /// Of an interface without a link layer (tun, PPP, WireGuard).
    NoLinkLayer = 3, "no_link_layer";
    /// The first fragment of a datagram: it has the transport header.
    FirstFragment = 4, "first_fragment";
    /// Any other fragment.
    LaterFragment = 5, "later_fragment";
    /// IPv4 options.
    Options = 6, "options";
    /// Headers were not in the linear part of the buffer and were pulled there.
    Pulled = 7, "pulled";
    /// A VLAN tag with a priority alone (VLAN 0): the interface's own packet.
    PriorityTag = 8, "priority_tag";
    /// An ICMP error, which quotes another packet.
    IcmpError = 9, "icmp_error";
    /// steer: an ICMP error about a flow of the table; it follows that flow.
    Related = 10, "related";
    /// Its flow's entry was idle past its timeout: steer classifies the packet anew, learn makes the entry anew.
    Expired = 11, "expired";
    /// steer: its flow's WAN was out of service since the entry was made; classified anew.
    Stale = 12, "stale";
    /// learn: a SYN or SYN-ACK of a new connection on a tuple the table still had.
    Reopened = 13, "reopened";
    /// learn: the flow is on another WAN than its entry said, or on one that was out of service since.
    Moved = 14, "moved";
    /// A VLAN tag beside the packet, where network cards and the kernel put it.
    TagOffloaded = 15, "tag_offloaded";
    /// A VLAN tag in the packet: of an outgoing one, or the inner one of two.
    TagInPacket = 16, "tag_in_packet";
    /// Broadcast, by its link-layer address or by its destination.
    Broadcast = 17, "broadcast";
    /// Multicast, in the same way.
    Multicast = 18, "multicast";
    /// For another host's link-layer address: the interface is promiscuous.
    OtherHost = 19, "other_host";
    /// Less of it is there than its IP header says, or than its headers take.
    Truncated = 20, "truncated";
    /// A length that cannot be: an IP header of less than 20 bytes, a total that ends in the headers.
    LyingLength = 21, "lying_length";
}

impl Special {
    /// Entries of the counter array for each program: the bits of the note.
    pub const SLOTS: u32 = u32::BITS;

    /// Its bit in a note of what is special.
    #[inline(always)]
    pub const fn bit(self) -> u32 {
        1 << self as u32
    }
}

const _: () = {
    assert!(Special::ALL.len() <= Special::SLOTS as usize);
    assert!(Special::Fin.bit() == crate::tcp::FIN as u32);
    assert!(Special::Rst.bit() == crate::tcp::RST as u32);
};

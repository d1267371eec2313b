//! Why a packet was given what it was given.

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $text:literal;)*) => {
        /// What a program did with a packet and why. Index of the counters; part of the daemon's interface: numbers
        /// are never reused.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[$doc])* $name = $value,)*
        }

        impl Reason {
            /// All of them, in order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// For people and metrics: lower case, underscores.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

reasons! {
    /// steer: the packet belongs to a known flow.
    Flow = 0, "flow";
    /// steer: a filter matched.
    Filter = 1, "filter";
    /// steer: no filter matched; the default WAN.
    Default = 2, "default";
    /// steer: no filter matched and no default was chosen yet; unmarked.
    NoDefault = 3, "no_default";
    /// steer: a later fragment, sent after its first one.
    Fragment = 4, "fragment";
    /// steer: a later fragment that came before its first one; classified as it is, without ports.
    FragmentUnknown = 5, "fragment_unknown";
    /// wan: came from outside; marked with its WAN.
    FromWan = 6, "from_wan";
    /// wan: ESP, AH or IKE; unmarked, for a decrypted packet would inherit the mark.
    Tunnel = 7, "tunnel";
    /// learn: an answer of a known flow, refreshed.
    Learned = 8, "learned";
    /// learn: the flow table is full; the flow goes on being classified.
    LearnFailed = 9, "learn_failed";
    /// learn: not a packet that came in by the WAN whose mark it carries.
    NotAnAnswer = 10, "not_an_answer";
    /// Not IPv4.
    NotIpv4 = 11, "not_ipv4";
    /// Broadcast, multicast, or sent to another host's link-layer address.
    NotUnicast = 12, "not_unicast";
    /// Still carries a VLAN tag: another interface's packet, seen there again.
    VlanTagged = 13, "vlan_tagged";
    /// Carries a mark under our mask already.
    AlreadyMarked = 14, "already_marked";
    /// Truncated, or its lengths contradict each other.
    Malformed = 15, "malformed";
    /// The programs' own maps are not filled (never seen in a running daemon).
    NotReady = 16, "not_ready";
    /// output: the router's own traffic; a filter matched.
    OutputFilter = 17, "output_filter";
    /// output: no filter matched; as the main table routes it.
    OutputDefault = 18, "output_default";
    /// output: to where the socket was asked from; by the WAN it was asked by.
    OutputAnswer = 19, "output_answer";
    /// output: the application has chosen: bound, bound to a device, marked, or a source with the datagram.
    OutputChosen = 20, "output_chosen";
    /// output: not unicast, or the main table has a route of its own to there.
    OutputSpecific = 21, "output_specific";
    /// output: the kernel refused the mark.
    OutputFailed = 22, "output_failed";
    /// asked: a datagram for a socket on every address; its WAN was stored or refreshed.
    Asked = 23, "asked";
    /// asked: the table refused the entry.
    AskedFailed = 24, "asked_failed";
    /// learn: the first answer of a flow; it was stored.
    FlowMade = 25, "flow_made";
    /// learn: an answer that refuses (TCP RST) to a flow that was never stored.
    Refusal = 26, "refusal";
    /// steer: for an address of the router itself, or broadcast in one of its networks; unmarked.
    ToRouter = 27, "to_router";
}

impl Reason {
    /// Entries of the counter array: room for reasons to come.
    pub const SLOTS: u32 = 64;
}

const _: () = assert!(Reason::ALL.len() <= Reason::SLOTS as usize);

//! Reading a packet: from the socket buffer to its tuple.

use core::cell::Cell;

use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map, programs::TcContext};
use multiwans_common::{FlowKey4, FragmentKey4, Reason, Special, protocol, tcp};

pub use crate::headers::Fragment;
use crate::{
    headers::{
        ETH_P_8021AD_BE, ETH_P_8021Q_BE, ETH_P_IP_BE, Header, IcmpHeader, Ipv4Header, Ports, Start,
        TcpHeader, load,
    },
    lengths::{Size, lengths},
    unread::{Unread, check_host, not_unicast},
};

/// Enough for Ethernet, a full IPv4 header, and what an ICMP error quotes of another one.
const PULL_BYTES: u32 = 160;

/// The VLAN's number in a tag (IEEE 802.1Q).
const VLAN_ID: u32 = 0x0fff;

/// A packet, as far as steering looks into it.
pub struct Packet {
    /// Its flow's tuple, seen in the packet's own direction. For an ICMP error: the tuple that the flow
    /// it is about has in the error's direction.
    pub tuple: FlowKey4,
    /// The packet's own protocol, which for an ICMP error is not the tuple's.
    pub protocol: u8,
    /// TCP flags; 0 for other protocols.
    pub flags: u8,
    /// An ICMP error: it follows its flow and never makes one.
    pub is_error: bool,
    fragment: Fragment,
    /// Valid where `fragment` is not `Whole`.
    pub datagram: FragmentKey4,
    size: Size,
    /// See [`set_known`](Self::set_known).
    is_known: Cell<bool>,
    /// See [`note`](Self::note).
    special: Cell<u32>,
}

/// The packet under way.
///
/// Not on the stack, which is short. And what is read from here the verifier does not know: it need not walk through
/// the search of filters again for each thing that the packet may be.
///
/// Key: 0. Value: a [`Packet`]. Writers and readers: steer, wan, learn, each within one packet: on a CPU they
/// run one after another. 48 bytes × CPUs.
#[btf_map]
static MW_PACKET: PerCpuArray<[u64; PACKET_WORDS], 1> = PerCpuArray::new();

const PACKET_WORDS: usize = size_of::<Packet>().div_ceil(8);
const _: () = assert!(align_of::<Packet>() <= align_of::<u64>());
const _: () = assert!(PACKET_WORDS == 6);

impl Packet {
    /// Notes whether its flow is known, for [`is_known`](Self::is_known).
    #[inline(always)]
    pub fn set_known(&self, is_known: bool) {
        // SAFETY: in bounds and aligned, and nobody else's.
        unsafe { self.is_known.as_ptr().write_volatile(is_known) };
    }

    /// What was noted, read from memory: neither compiler nor verifier carries it through what is between.
    #[inline(always)]
    pub fn is_known(&self) -> bool {
        // SAFETY: as above.
        unsafe { self.is_known.as_ptr().read_volatile() }
    }

    /// Notes what is special about it.
    #[inline(always)]
    pub fn note(&self, special: Special) {
        let noted = self.special() | special.bit();
        // SAFETY: as above.
        unsafe { self.special.as_ptr().write_volatile(noted) };
    }

    /// All that was noted: bits of [`Special`]. Read the same way.
    #[inline(always)]
    pub fn special(&self) -> u32 {
        // SAFETY: as above.
        unsafe { self.special.as_ptr().read_volatile() }
    }

    /// Where it stands in a fragmented datagram, read the same way.
    #[inline(always)]
    pub fn fragment(&self) -> Fragment {
        // SAFETY: as above.
        unsafe { (&raw const self.fragment).read_volatile() }
    }

    /// What it counts, read the same way: here and now. Left to itself the compiler reads it where it is used, by the
    /// instruction that reads the length of packets that were not looked into, and one instruction may not read from two
    /// kinds of memory.
    #[inline(always)]
    pub fn size(&self) -> Size {
        // SAFETY: as above.
        unsafe { (&raw const self.size).read_volatile() }
    }

    /// A TCP segment with SYN and without ACK: opens a connection.
    #[inline(always)]
    pub fn opens(&self) -> bool {
        self.flags & (tcp::SYN | tcp::ACK) == tcp::SYN
    }
}

/// The packet's interface.
#[inline(always)]
pub fn interface(ctx: &TcContext) -> u32 {
    // SAFETY: the context pointer is the kernel's and valid while the program runs.
    unsafe { (*ctx.skb.skb).ifindex }
}

/// The interface the packet came in by; 0 for the router's own.
#[inline(always)]
pub fn came_in_by(ctx: &TcContext) -> u32 {
    // SAFETY: as above.
    unsafe { (*ctx.skb.skb).ingress_ifindex }
}

/// Whether the packet is IPv4 for this interface to judge; otherwise why not. Returns what is special by now.
#[inline(always)]
fn check(ctx: &TcContext) -> Result<u32, Unread> {
    let skb = ctx.skb.skb;
    // SAFETY: as above.
    let (protocol, tagged, tci) = unsafe { ((*skb).protocol, (*skb).vlan_present, (*skb).vlan_tci) };
    // A tag without a VLAN's number is a priority alone: the packet is this interface's.
    let beside = match (tagged, tci & VLAN_ID) {
        (0, _) => 0,
        (_, 0) => Special::PriorityTag.bit(),
        _ => Special::TagOffloaded.bit(),
    };
    let is_inside = protocol == ETH_P_8021Q_BE || protocol == ETH_P_8021AD_BE;
    if beside == Special::TagOffloaded.bit() || is_inside {
        // The VLAN's own interface sees it next, untagged; marking it here would steer it as this one's.
        let inside = if is_inside { Special::TagInPacket.bit() } else { 0 };
        return Err(Unread { reason: Reason::VlanTagged, special: beside | inside });
    }
    if protocol != ETH_P_IP_BE {
        return Err(Unread::new(Reason::NotIpv4));
    }
    Ok(beside)
}

/// Neither broadcast nor multicast nor of a reserved class nor nothing.
#[inline(always)]
pub fn is_unicast(address: u32) -> bool {
    let first = u32::from_be(address) >> 24;
    first < 224 && first != 0 && first != 127
}

/// Reads a packet that came in: what is not unicast to this host is not steered.
#[inline(always)]
pub fn incoming(ctx: &TcContext) -> Result<&'static Packet, Unread> {
    let special = check(ctx)?;
    check_host(ctx)?;
    read(ctx, special)
}

/// Reads a packet that goes out.
#[inline(always)]
pub fn outgoing(ctx: &TcContext) -> Result<&'static Packet, Unread> {
    let special = check(ctx)?;
    read(ctx, special)
}

/// Reads a packet and lays it down in this CPU's [`MW_PACKET`].
#[inline(always)]
fn read(ctx: &TcContext, special: u32) -> Result<&'static Packet, Unread> {
    let packet = parse(ctx, special)?;
    let place = MW_PACKET.get_ptr_mut(0).ok_or(Unread::new(Reason::NotReady))?.cast::<Packet>();
    // SAFETY: as long and as aligned (asserted below), and nobody else's while this program runs.
    unsafe {
        place.write(packet);
        Ok(&*place)
    }
}

#[inline(always)]
fn parse(ctx: &TcContext, mut special: u32) -> Result<Packet, Unread> {
    let start: Option<Start> = load(ctx.skb.skb, 0);
    let header = match &start {
        Some(start) => start.ip,
        None => load_or_pull(ctx, 0, &mut special)?,
    };
    header_is_valid(&header)?;
    if !is_unicast(header.destination) {
        return Err(not_unicast(header.destination));
    }
    let (segments, total) = lengths(ctx, &header, &mut special)?;
    let fragment = header.fragment();
    if fragment == Fragment::First {
        special |= Special::FirstFragment.bit();
    }
    if header.has_options() {
        special |= Special::Options.bit();
    }
    let mut packet = Packet {
        tuple: FlowKey4 {
            source: header.source,
            destination: header.destination,
            source_port: 0,
            destination_port: 0,
            protocol: header.protocol,
            zero: [0; 3],
        },
        protocol: header.protocol,
        flags: 0,
        is_error: false,
        fragment,
        datagram: FragmentKey4 {
            source: header.source,
            destination: header.destination,
            identification: header.identification,
            protocol: header.protocol,
            zero: 0,
        },
        size: Size { packets: 1, bytes: total },
        is_known: Cell::new(false),
        special: Cell::new(0),
    };
    if fragment == Fragment::Later {
        packet.special = Cell::new(special | Special::LaterFragment.bit());
        return Ok(packet);
    }
    let offset = header.len();
    let transport = transport(ctx, header.protocol, offset, true, start.as_ref(), &mut special)?;
    let headers = offset + transport.len;
    // Options are no business of ours, be they as long as they say.
    if offset + protocol::header_len(header.protocol) > total {
        return Err(Unread::malformed(Special::LyingLength));
    }
    packet.tuple.source_port = transport.ports.source;
    packet.tuple.destination_port = transport.ports.destination;
    packet.flags = transport.flags;
    // The bits are the same.
    special |= (transport.flags & (tcp::FIN | tcp::RST)) as u32;
    if transport.is_error {
        packet.is_error = true;
        special |= Special::IcmpError.bit();
        // The quoted packet travelled the other way; what its flow sends in this direction is the
        // reverse of it.
        packet.tuple = quoted(ctx, offset + IcmpHeader::LEN, &mut special)?.reversed();
    }
    if segments.size != 0 {
        special |= Special::Gso.bit();
        packet.size = segments.size_on_wire(total, headers);
    }
    packet.special = Cell::new(special);
    Ok(packet)
}

/// Ports of protocols without.
const NO_PORTS: Ports = Ports { source: 0, destination: 0 };

/// What a transport header says.
struct Transport {
    ports: Ports,
    flags: u8,
    is_error: bool,
    /// Its length in bytes as it says itself, or of its fixed part; 0 where we do not know the protocol.
    len: u32,
}

/// Reads a transport header: whole, or, of a quoted packet, the eight bytes that are there (RFC 792). Out of `start`,
/// if it was read already.
#[inline(always)]
fn transport(
    ctx: &TcContext,
    number: u8,
    offset: u32,
    whole: bool,
    start: Option<&Start>,
    special: &mut u32,
) -> Result<Transport, Unread> {
    let mut transport =
        Transport { ports: NO_PORTS, flags: 0, is_error: false, len: protocol::header_len(number) };
    if number == protocol::TCP && whole {
        let header: TcpHeader = transport_header(ctx, offset, start, special)?;
        transport.ports = header.ports;
        transport.flags = header.flags;
        transport.len = header.len();
    } else if protocol::has_ports(number) {
        transport.ports = transport_header(ctx, offset, start, special)?;
    } else if number == protocol::ICMP {
        let header: IcmpHeader = transport_header(ctx, offset, start, special)?;
        transport.is_error = header.is_error();
        if !transport.is_error {
            transport.ports.source = header.identifier;
        }
    }
    Ok(transport)
}

#[inline(always)]
fn transport_header<T: Header>(
    ctx: &TcContext,
    offset: u32,
    start: Option<&Start>,
    special: &mut u32,
) -> Result<T, Unread> {
    match start.and_then(Start::transport) {
        Some(header) => Ok(header),
        None => load_or_pull(ctx, offset, special),
    }
}

/// The tuple of the packet an ICMP error quotes.
#[inline(always)]
fn quoted(ctx: &TcContext, offset: u32, special: &mut u32) -> Result<FlowKey4, Unread> {
    let header: Ipv4Header = load_or_pull(ctx, offset, special)?;
    header_is_valid(&header)?;
    let ports = if header.fragment() == Fragment::Later {
        NO_PORTS
    } else {
        transport(ctx, header.protocol, offset + header.len(), false, None, special)?.ports
    };
    Ok(FlowKey4 {
        source: header.source,
        destination: header.destination,
        source_port: ports.source,
        destination_port: ports.destination,
        protocol: header.protocol,
        zero: [0; 3],
    })
}

/// Just addresses and ports, for the log.
#[inline(always)]
pub fn addresses(ctx: &TcContext) -> Option<FlowKey4> {
    check(ctx).ok()?;
    let header: Ipv4Header = load(ctx.skb.skb, 0)?;
    let has_ports = protocol::has_ports(header.protocol) && header.fragment() != Fragment::Later;
    let ports = if has_ports { load(ctx.skb.skb, header.len())? } else { NO_PORTS };
    Some(FlowKey4 {
        source: header.source,
        destination: header.destination,
        source_port: ports.source,
        destination_port: ports.destination,
        protocol: header.protocol,
        zero: [0; 3],
    })
}

/// An error where it is not IPv4, or shorter than such a header is.
#[inline(always)]
fn header_is_valid(header: &Ipv4Header) -> Result<(), Unread> {
    if header.is_valid() {
        Ok(())
    } else if header.is_ipv4() {
        Err(Unread::malformed(Special::LyingLength))
    } else {
        Err(Unread::new(Reason::Malformed))
    }
}

/// Reads at an offset from the network header, making the data linear first where it is not.
#[inline(always)]
fn load_or_pull<T: Header>(ctx: &TcContext, offset: u32, special: &mut u32) -> Result<T, Unread> {
    if let Some(value) = load(ctx.skb.skb, offset) {
        return Ok(value);
    }
    let length = ctx.len();
    let wanted = if length < PULL_BYTES { length } else { PULL_BYTES };
    if ctx.pull_data(wanted).is_err() {
        return Err(Unread::malformed(Special::Truncated));
    }
    let value = load(ctx.skb.skb, offset).ok_or(Unread::malformed(Special::Truncated))?;
    *special |= Special::Pulled.bit();
    Ok(value)
}

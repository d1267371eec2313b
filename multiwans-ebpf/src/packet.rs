//! Reading a packet: from the socket buffer to its tuple.
//!
//! Everything is read relative to the *network* header, which the kernel has set by the time TC runs.
//! So one program serves interfaces with and without a link-layer header (Ethernet, tun, PPP,
//! WireGuard), and IPv4 options need no special case.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::bpf_hdr_start_off::BPF_HDR_START_NET, helpers::generated::bpf_skb_load_bytes_relative,
    programs::TcContext,
};
use multiwans_common::{FlowKey4, FragmentKey4, Reason, protocol};

/// `ETH_P_IP` as `__sk_buff::protocol` has it: network byte order.
const ETH_P_IP_BE: u32 = 0x0800u16.to_be() as u32;

/// `PACKET_HOST` (linux/if_packet.h): addressed to this host at the link layer.
const PACKET_HOST: u32 = 0;

/// Enough for Ethernet, a full IPv4 header, and what an ICMP error quotes of another one.
const PULL_BYTES: u32 = 160;

/// Fragment offset (13 bits) of the flags and offset field.
const FRAGMENT_OFFSET: u16 = 0x1fff;
/// "More fragments".
const MORE_FRAGMENTS: u16 = 0x2000;

/// TCP flags: the fourteenth byte of the header (RFC 9293, 3.1).
const TCP_FLAGS_OFFSET: u32 = 13;
const TCP_SYN: u8 = 0x02;
const TCP_ACK: u8 = 0x10;

/// ICMP header without its body (RFC 792).
const ICMP_HEADER_LEN: u32 = 8;

/// The IPv4 header up to its options (RFC 791).
#[repr(C)]
#[derive(Clone, Copy)]
struct Ipv4Header {
    version_ihl: u8,
    tos: u8,
    total_length: u16,
    identification: u16,
    flags_offset: u16,
    ttl: u8,
    protocol: u8,
    checksum: u16,
    source: u32,
    destination: u32,
}

impl Ipv4Header {
    #[inline(always)]
    fn header_len(&self) -> u32 {
        ((self.version_ihl & 0x0f) as u32) * 4
    }

    #[inline(always)]
    fn is_valid(&self) -> bool {
        self.version_ihl >> 4 == 4
            && self.header_len() >= 20
            && u16::from_be(self.total_length) as u32 >= self.header_len()
    }
}

/// The first four bytes of a transport header that has ports.
#[repr(C)]
#[derive(Clone, Copy)]
struct Ports {
    source: u16,
    destination: u16,
}

/// The ICMP header of a query.
#[repr(C)]
#[derive(Clone, Copy)]
struct IcmpHeader {
    kind: u8,
    code: u8,
    checksum: u16,
    identifier: u16,
    sequence: u16,
}

/// A packet, as far as steering looks into it.
#[derive(Clone, Copy)]
pub struct Packet {
    /// Its flow's tuple, seen in the packet's own direction. For an ICMP error: the tuple that the flow
    /// it is about has in the error's direction.
    pub tuple: FlowKey4,
    /// The packet's own protocol, which for an ICMP error is not the tuple's.
    pub protocol: u8,
    /// A TCP segment with SYN and without ACK: opens a connection.
    pub opens: bool,
    /// An ICMP error: it follows its flow and never makes one.
    pub is_error: bool,
    /// Where it stands in a fragmented datagram.
    pub fragment: Fragment,
    /// Valid where `fragment` is not `Whole`.
    pub datagram: FragmentKey4,
}

/// A packet's place in its datagram.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fragment {
    /// Not fragmented.
    Whole,
    /// Carries the transport header.
    First,
    /// Carries none.
    Later,
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

/// Whether the packet is IPv4 for this interface to judge; otherwise why not.
#[inline(always)]
fn check(ctx: &TcContext) -> Result<(), Reason> {
    let skb = ctx.skb.skb;
    // SAFETY: as above.
    let (protocol, tagged) = unsafe { ((*skb).protocol, (*skb).vlan_present) };
    if tagged != 0 {
        // The VLAN's own interface sees it next, untagged; marking it here would steer it as this one's.
        return Err(Reason::VlanTagged);
    }
    if protocol != ETH_P_IP_BE {
        return Err(Reason::NotIpv4);
    }
    Ok(())
}

/// Whether the packet came for this host at the link layer.
#[inline(always)]
fn is_for_this_host(ctx: &TcContext) -> bool {
    // SAFETY: as above.
    unsafe { (*ctx.skb.skb).pkt_type == PACKET_HOST }
}

/// Neither broadcast nor multicast nor of a reserved class nor nothing.
#[inline(always)]
pub fn is_unicast(address: u32) -> bool {
    let first = u32::from_be(address) >> 24;
    first < 224 && first != 0 && first != 127
}

/// Reads a packet that came in: what is not unicast to this host is not steered.
#[inline(always)]
pub fn incoming(ctx: &TcContext) -> Result<Packet, Reason> {
    check(ctx)?;
    if !is_for_this_host(ctx) {
        return Err(Reason::NotUnicast);
    }
    read(ctx)
}

/// Reads a packet that goes out.
#[inline(always)]
pub fn outgoing(ctx: &TcContext) -> Result<Packet, Reason> {
    check(ctx)?;
    read(ctx)
}

#[inline(always)]
fn read(ctx: &TcContext) -> Result<Packet, Reason> {
    let header: Ipv4Header = load_or_pull(ctx, 0)?;
    if !header.is_valid() {
        return Err(Reason::Malformed);
    }
    if !is_unicast(header.destination) {
        return Err(Reason::NotUnicast);
    }
    let flags_offset = u16::from_be(header.flags_offset);
    let fragment = if flags_offset & FRAGMENT_OFFSET != 0 {
        Fragment::Later
    } else if flags_offset & MORE_FRAGMENTS != 0 {
        Fragment::First
    } else {
        Fragment::Whole
    };
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
        opens: false,
        is_error: false,
        fragment,
        datagram: FragmentKey4 {
            source: header.source,
            destination: header.destination,
            identification: header.identification,
            protocol: header.protocol,
            zero: 0,
        },
    };
    if fragment == Fragment::Later {
        return Ok(packet);
    }
    let transport = header.header_len();
    if protocol::has_ports(header.protocol) {
        let ports: Ports = load_or_pull(ctx, transport)?;
        packet.tuple.source_port = ports.source;
        packet.tuple.destination_port = ports.destination;
        if header.protocol == protocol::TCP {
            let flags: u8 = load_or_pull(ctx, transport + TCP_FLAGS_OFFSET)?;
            packet.opens = flags & (TCP_SYN | TCP_ACK) == TCP_SYN;
        }
    } else if header.protocol == protocol::ICMP {
        let icmp: IcmpHeader = load_or_pull(ctx, transport)?;
        if is_icmp_error(icmp.kind) {
            packet.is_error = true;
            // The quoted packet travelled the other way; what its flow sends in this direction is the
            // reverse of it.
            packet.tuple = quoted(ctx, transport + ICMP_HEADER_LEN)?.reversed();
        } else {
            packet.tuple.source_port = icmp.identifier;
        }
    }
    Ok(packet)
}

/// Destination unreachable, source quench, redirect, time exceeded, parameter problem: they quote the
/// packet they are about. All others are queries with an identifier, or carry none (0 then).
#[inline(always)]
fn is_icmp_error(kind: u8) -> bool {
    matches!(kind, 3 | 4 | 5 | 11 | 12)
}

/// The tuple of the packet an ICMP error quotes. Eight bytes of its transport header are there (RFC 792).
#[inline(always)]
fn quoted(ctx: &TcContext, offset: u32) -> Result<FlowKey4, Reason> {
    let header: Ipv4Header = load_or_pull(ctx, offset)?;
    if header.version_ihl >> 4 != 4 || header.header_len() < 20 {
        return Err(Reason::Malformed);
    }
    let mut tuple = FlowKey4 {
        source: header.source,
        destination: header.destination,
        source_port: 0,
        destination_port: 0,
        protocol: header.protocol,
        zero: [0; 3],
    };
    let transport = offset + header.header_len();
    if u16::from_be(header.flags_offset) & FRAGMENT_OFFSET != 0 {
        return Ok(tuple);
    }
    if protocol::has_ports(header.protocol) {
        let ports: Ports = load_or_pull(ctx, transport)?;
        tuple.source_port = ports.source;
        tuple.destination_port = ports.destination;
    } else if header.protocol == protocol::ICMP {
        let icmp: IcmpHeader = load_or_pull(ctx, transport)?;
        tuple.source_port = icmp.identifier;
    }
    Ok(tuple)
}

/// Just the tuple, for the log.
#[inline(always)]
pub fn addresses(ctx: &TcContext) -> Result<FlowKey4, Reason> {
    check(ctx)?;
    Ok(read(ctx)?.tuple)
}

/// Reads at an offset from the network header, making the data linear first where it is not.
#[inline(always)]
fn load_or_pull<T: Copy>(ctx: &TcContext, offset: u32) -> Result<T, Reason> {
    if let Some(value) = load(ctx, offset) {
        return Ok(value);
    }
    let length = ctx.len();
    let wanted = if length < PULL_BYTES { length } else { PULL_BYTES };
    if ctx.pull_data(wanted).is_err() {
        return Err(Reason::Malformed);
    }
    load(ctx, offset).ok_or(Reason::Malformed)
}

#[inline(always)]
fn load<T: Copy>(ctx: &TcContext, offset: u32) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper writes `size_of::<T>()` bytes to `value` or fails; every `T` here is plain
    // integers, valid for any bit pattern.
    unsafe {
        let result = bpf_skb_load_bytes_relative(
            ctx.skb.skb.cast(),
            offset,
            value.as_mut_ptr().cast(),
            size_of::<T>() as u32,
            BPF_HDR_START_NET,
        );
        if result == 0 { Some(value.assume_init()) } else { None }
    }
}

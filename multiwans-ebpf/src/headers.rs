//! Headers, and reading them out of a socket buffer.
//!
//! Everything is read relative to the *network* header, which the kernel has set by the time our programs
//! run. So one program serves interfaces with and without a link-layer header (Ethernet, tun, PPP,
//! WireGuard), and IPv4 options need no special case.

use aya_ebpf::{
    bindings::{__sk_buff, bpf_hdr_start_off::BPF_HDR_START_NET},
    helpers::generated::bpf_skb_load_bytes_relative,
};
use core::mem::{MaybeUninit, transmute_copy};

/// `ETH_P_IP` as `__sk_buff::protocol` has it: network byte order.
pub const ETH_P_IP_BE: u32 = 0x0800u16.to_be() as u32;
/// `ETH_P_8021Q`, the same way.
pub const ETH_P_8021Q_BE: u32 = 0x8100u16.to_be() as u32;
/// `ETH_P_8021AD`, the same way.
pub const ETH_P_8021AD_BE: u32 = 0x88a8u16.to_be() as u32;

/// Plain integers, valid for any bit pattern.
///
/// # Safety
/// Neither padding nor any other type inside.
pub unsafe trait Header: Copy {}

/// The IPv4 header up to its options (RFC 791).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Ipv4Header {
    version_ihl: u8,
    tos: u8,
    total_length: u16,
    /// Network byte order.
    pub identification: u16,
    flags_offset: u16,
    ttl: u8,
    /// IP protocol number.
    pub protocol: u8,
    checksum: u16,
    /// Network byte order.
    pub source: u32,
    /// Network byte order.
    pub destination: u32,
}

/// Fragment offset (13 bits) of the flags and offset field.
const FRAGMENT_OFFSET: u16 = 0x1fff;
/// "More fragments".
const MORE_FRAGMENTS: u16 = 0x2000;

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

impl Ipv4Header {
    /// With options, in bytes.
    #[inline(always)]
    pub fn len(&self) -> u32 {
        ((self.version_ihl & 0x0f) as u32) * 4
    }

    /// With what it carries, in bytes, as it says itself.
    #[inline(always)]
    pub fn total_len(&self) -> u32 {
        u16::from_be(self.total_length) as u32
    }

    /// Whether it has options.
    #[inline(always)]
    pub fn has_options(&self) -> bool {
        self.len() != size_of::<Self>() as u32
    }

    /// Whether it says that it is IPv4.
    #[inline(always)]
    pub fn is_ipv4(&self) -> bool {
        self.version_ihl >> 4 == 4
    }

    /// Whether it is IPv4 and as long as a header must be.
    #[inline(always)]
    pub fn is_valid(&self) -> bool {
        self.is_ipv4() && self.len() >= 20
    }

    /// Where it stands in a fragmented datagram.
    #[inline(always)]
    pub fn fragment(&self) -> Fragment {
        let flags_offset = u16::from_be(self.flags_offset);
        if flags_offset & FRAGMENT_OFFSET != 0 {
            Fragment::Later
        } else if flags_offset & MORE_FRAGMENTS != 0 {
            Fragment::First
        } else {
            Fragment::Whole
        }
    }
}

/// The first four bytes of a transport header that has ports; network byte order.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Ports {
    /// Who sends.
    pub source: u16,
    /// Who is to have it.
    pub destination: u16,
}

/// The TCP header up to the window (RFC 9293, 3.1).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct TcpHeader {
    /// Both.
    pub ports: Ports,
    sequence: u32,
    acknowledgement: u32,
    data_offset: u8,
    /// See [`multiwans_common::tcp`].
    pub flags: u8,
    window: u16,
}

impl TcpHeader {
    /// With options, in bytes.
    #[inline(always)]
    pub fn len(&self) -> u32 {
        (self.data_offset >> 4) as u32 * 4
    }
}

/// Both headers of a packet without IPv4 options that is long enough: nearly every packet. One call reads them,
/// and a call costs as much as all that is done with what it read.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Start {
    /// The first one.
    pub ip: Ipv4Header,
    /// The second one, whatever its protocol.
    pub transport: TcpHeader,
}

impl Start {
    /// What follows the IPv4 header, read as the header that it is; `None` if that is not where it would be.
    #[inline(always)]
    pub fn transport<T: Header>(&self) -> Option<T> {
        const { assert!(size_of::<T>() <= size_of::<TcpHeader>()) };
        if self.ip.len() as usize != size_of::<Ipv4Header>() {
            return None;
        }
        // SAFETY: `T` is no longer than what is read from (asserted above), and valid for any bits.
        Some(unsafe { transmute_copy(&self.transport) })
    }
}

/// The ICMP header of a query (RFC 792).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct IcmpHeader {
    kind: u8,
    code: u8,
    checksum: u16,
    /// Network byte order.
    pub identifier: u16,
    sequence: u16,
}

impl IcmpHeader {
    /// Length of an ICMP header without its body.
    pub const LEN: u32 = 8;

    /// Destination unreachable, source quench, redirect, time exceeded, parameter problem: they quote the
    /// packet they are about. All others are queries with an identifier, or carry none.
    #[inline(always)]
    pub fn is_error(&self) -> bool {
        matches!(self.kind, 3 | 4 | 5 | 11 | 12)
    }
}

// SAFETY: integers only, without padding, like all below.
unsafe impl Header for u8 {}
// SAFETY: as above.
unsafe impl Header for Ipv4Header {}
// SAFETY: as above.
unsafe impl Header for Start {}
// SAFETY: as above.
unsafe impl Header for Ports {}
// SAFETY: as above.
unsafe impl Header for TcpHeader {}
// SAFETY: as above.
unsafe impl Header for IcmpHeader {}

/// Reads at an offset from the network header; `None` where the linear part of the buffer ends before.
#[inline(always)]
pub fn load<T: Header>(skb: *mut __sk_buff, offset: u32) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper writes `size_of::<T>()` bytes to `value` or fails, and `T` is valid whatever they are.
    unsafe {
        let result = bpf_skb_load_bytes_relative(
            skb.cast(),
            offset,
            value.as_mut_ptr().cast(),
            size_of::<T>() as u32,
            BPF_HDR_START_NET,
        );
        if result == 0 { Some(value.assume_init()) } else { None }
    }
}

//! UDP services of the router: by which WAN was a socket on every address asked?
//!
//! TCP and ICMP answer from the address they were asked at, and the rule for that address does the rest.
//! A UDP socket on 0.0.0.0 answers from the address of the main table's route, unless its program keeps
//! the asked one (`IP_PKTINFO`); for the others [`crate::output`] looks here.
//!
//! Seen where the datagram is handed to its socket: after the firewall, after a redirection, and only if
//! there is a socket. So neither forwarded packets nor floods to closed ports cost anything.

use aya_ebpf::{
    bindings::{BPF_ANY, bpf_hdr_start_off::BPF_HDR_START_NET},
    btf_maps::LruHashMap,
    helpers::{bpf_ktime_get_ns, generated::bpf_skb_load_bytes_relative},
    macros::btf_map,
    programs::SkBuffContext,
};
use core::mem::MaybeUninit;
use multiwans_common::{AskedKey4, FlowValue, Reason, WanEntry, protocol};

use crate::{counters, links, mark};

/// Who asked which of the router's UDP ports, and by which WAN.
///
/// Key: [`AskedKey4`]. Value: [`FlowValue`]. Writer: asked. Reader: output. 65 536 entries of about
/// 100 bytes, 6 MiB. Full: the least recently used makes room, so a flood at an open port pushes out
/// those that wait longest for their answer; they are answered by the default WAN.
#[btf_map]
static MW_ASKED: LruHashMap<AskedKey4, FlowValue, 65_536> = LruHashMap::new();

const SECOND_NS: u64 = 1_000_000_000;
/// How long an answer may take, and how long a silent peer keeps its WAN: nf_conntrack_udp_timeout_stream.
const TIMEOUT_NS: u64 = 120 * SECOND_NS;
/// An entry's time is written at most this often.
const REFRESH_NS: u64 = SECOND_NS;

/// `ETH_P_IP` as `__sk_buff::protocol` has it: network byte order.
const ETH_P_IP_BE: u32 = 0x0800u16.to_be() as u32;

/// The IPv4 header's parts that are looked at (RFC 791); its first byte is read apart.
#[repr(C)]
#[derive(Clone, Copy)]
struct Addresses {
    ttl: u8,
    protocol: u8,
    checksum: u16,
    source: u32,
    destination: u32,
}
/// Where they begin.
const ADDRESSES_OFFSET: u32 = 8;

/// The UDP header's ports (RFC 768).
#[repr(C)]
#[derive(Clone, Copy)]
struct Ports {
    source: u16,
    destination: u16,
}

/// A datagram on its way to a socket.
#[inline(always)]
pub fn receive(ctx: &SkBuffContext) {
    if let Some(reason) = note(ctx) {
        counters::count(reason);
    }
}

/// `None`: nothing for us.
#[inline(always)]
fn note(ctx: &SkBuffContext) -> Option<Reason> {
    // SAFETY: the context is the kernel's, and the verifier checks each field that is read.
    let (whole_mark, ethertype, ifindex) =
        unsafe { ((*ctx.skb.skb).mark, (*ctx.skb.skb).protocol, (*ctx.skb.skb).ifindex) };
    // The cheapest question first: nearly all that any socket of the machine gets ends here. Only wan,
    // which runs in our own network namespace, marks what comes in.
    let number = mark::wan_in(whole_mark);
    if number == 0 || ethertype != ETH_P_IP_BE {
        return None;
    }
    let wan = links::wan(number)?;
    if wan.ifindex != ifindex || !is_on_every_address(ctx) {
        return None;
    }
    let first: u8 = load(ctx, 0)?;
    let addresses: Addresses = load(ctx, ADDRESSES_OFFSET)?;
    if addresses.protocol != protocol::UDP || addresses.destination != wan.address {
        return None;
    }
    let ports: Ports = load(ctx, (first & 0x0f) as u32 * 4)?;
    let key = AskedKey4 {
        remote: addresses.source,
        remote_port: ports.source,
        port: u16::from_be(ports.destination),
    };
    Some(store(&key, number, &wan))
}

#[inline(always)]
fn store(key: &AskedKey4, number: u32, wan: &WanEntry) -> Reason {
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    // SAFETY: read only, copied at once; another packet may write it meanwhile, and then this one is
    // answered by the WAN of that one, once.
    if let Some(known) = unsafe { MW_ASKED.get(key) }
        && known.wan == number
        && known.generation == wan.generation
        && now.wrapping_sub(known.last_seen_ns) < REFRESH_NS
    {
        return Reason::Asked;
    }
    let value = FlowValue { last_seen_ns: now, wan: number, generation: wan.generation };
    match MW_ASKED.insert(key, value, BPF_ANY as u64) {
        Ok(()) => Reason::Asked,
        Err(_) => Reason::AskedFailed,
    }
}

/// The WAN by which this peer asked this port, unless it was long ago or the WAN went out of service since.
#[inline(always)]
pub fn find(key: &AskedKey4) -> Option<WanEntry> {
    // SAFETY: read only, copied at once; see `store`.
    let FlowValue { last_seen_ns, wan, generation } = *unsafe { MW_ASKED.get(key) }?;
    let entry = links::wan(wan)?;
    // SAFETY: the helper has no preconditions.
    let idle = unsafe { bpf_ktime_get_ns() }.wrapping_sub(last_seen_ns);
    if entry.generation == generation && idle <= TIMEOUT_NS { Some(entry) } else { None }
}

/// A connected or bound socket needs nobody to remember its address.
#[inline(always)]
fn is_on_every_address(ctx: &SkBuffContext) -> bool {
    // SAFETY: as in `note`; the socket may be missing, which is asked first.
    unsafe {
        let sock = (*ctx.skb.skb).__bindgen_anon_2.sk;
        !sock.is_null() && (*sock).src_ip4 == 0
    }
}

/// Reads at an offset from the network header.
#[inline(always)]
fn load<T: Copy>(ctx: &SkBuffContext, offset: u32) -> Option<T> {
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

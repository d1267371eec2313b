//! UDP services of the router: by which WAN was a socket on every address asked?
//!
//! TCP and ICMP answer from the address they were asked at, and the rule for that address does the rest.
//! A UDP socket on 0.0.0.0 answers from the address of the main table's route, unless its program keeps
//! the asked one (`IP_PKTINFO`); for the others [`crate::output`] looks here.
//!
//! Seen where the datagram is handed to its socket: after the firewall, after a redirection, and only if
//! there is a socket. So neither forwarded packets nor floods to closed ports cost anything.

use aya_ebpf::{
    bindings::BPF_ANY, btf_maps::LruHashMap, helpers::bpf_ktime_get_ns, macros::btf_map,
    programs::SkBuffContext,
};
use multiwans_common::{AskedKey4, AskedValue, Program, Reason, WanEntry, protocol};

use crate::{
    counters,
    headers::{ETH_P_IP_BE, Ipv4Header, Ports, load},
    links, mark,
};

/// Who asked which of the router's UDP ports, and by which WAN.
///
/// Key: [`AskedKey4`]. Value: [`AskedValue`]. Writer: asked. Reader: output. 65 536 entries of about
/// 100 bytes, 6 MiB. Full: the least recently used makes room, so a flood at an open port pushes out
/// those that wait longest for their answer; they are answered by the default WAN.
#[btf_map]
static MW_ASKED: LruHashMap<AskedKey4, AskedValue, 65_536> = LruHashMap::new();

const SECOND_NS: u64 = 1_000_000_000;
/// How long an answer may take, and how long a silent peer keeps its WAN: nf_conntrack_udp_timeout_stream.
const TIMEOUT_NS: u64 = 120 * SECOND_NS;
/// An entry's time is written at most this often.
const REFRESH_NS: u64 = SECOND_NS;

/// A datagram on its way to a socket.
#[inline(always)]
pub fn receive(ctx: &SkBuffContext) {
    if let Some(reason) = note(ctx) {
        counters::count_once(Program::Asked, reason);
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
    let header: Ipv4Header = load(ctx.skb.skb, 0)?;
    if header.protocol != protocol::UDP || header.destination != wan.address {
        return None;
    }
    let ports: Ports = load(ctx.skb.skb, header.len())?;
    let key =
        AskedKey4 { remote: header.source, remote_port: ports.source, port: u16::from_be(ports.destination) };
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
    let value = AskedValue { last_seen_ns: now, wan: number, generation: wan.generation };
    match MW_ASKED.insert(key, value, BPF_ANY as u64) {
        Ok(()) => Reason::Asked,
        Err(_) => Reason::AskedFailed,
    }
}

/// The WAN by which this peer asked this port, unless it was long ago or the WAN went out of service since.
#[inline(always)]
pub fn find(key: &AskedKey4) -> Option<WanEntry> {
    // SAFETY: read only, copied at once; see `store`.
    let AskedValue { last_seen_ns, wan, generation } = *unsafe { MW_ASKED.get(key) }?;
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

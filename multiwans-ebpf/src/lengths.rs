//! How much a packet is: its length, which must be true, and how many packets of the wire it stands for.

use aya_ebpf::programs::TcContext;
use multiwans_common::Special;

use crate::{
    headers::{Ipv4Header, load},
    unread::Unread,
};

/// The longest link-layer header that the devices we steer have; the length of a buffer includes it.
const ETHERNET_LEN: u32 = 14;

/// Packets on the wire, and their bytes without the link layer's. Half as wide as
/// [`Traffic`](multiwans_common::Traffic): the stack is short.
#[derive(Clone, Copy)]
pub struct Size {
    /// How many.
    pub packets: u32,
    /// How much.
    pub bytes: u32,
}

/// How a buffer is cut into packets for the wire. `size` 0: it is not.
pub struct Segments {
    count: u32,
    /// Bytes of each, headers not among them.
    pub size: u32,
}

impl Segments {
    /// All packets have the headers; the buffer has them once.
    #[inline(always)]
    pub fn size_on_wire(&self, total: u32, headers: u32) -> Size {
        // What a guest or a tunnel's program hands over is not counted yet (SKB_GSO_DODGY).
        let count =
            if self.count != 0 { self.count } else { total.saturating_sub(headers).div_ceil(self.size) };
        let count = if count == 0 { 1 } else { count };
        Size { packets: count, bytes: total + (count - 1) * headers }
    }
}

/// How the buffer is cut, and the length of the IP packet in it; an error where that is less than its header
/// or more than there is. Notes in `special` what is there of it.
#[inline(always)]
pub fn lengths(ctx: &TcContext, header: &Ipv4Header, special: &mut u32) -> Result<(Segments, u32), Unread> {
    // SAFETY: the context pointer is the kernel's and valid while the program runs.
    let (count, size) = unsafe { ((*ctx.skb.skb).gso_segs, (*ctx.skb.skb).gso_size) };
    let segments = Segments { count, size };
    let total = header.total_len();
    if total == 0 && size != 0 {
        // More than the field can say (BIG TCP). The link-layer header is in this length, too: less than a
        // fiftieth of a percent.
        return Ok((segments, ctx.len()));
    }
    if total < header.len() {
        return Err(Unread::malformed(Special::LyingLength));
    }
    if total + ETHERNET_LEN <= ctx.len() {
        return Ok((segments, total));
    }
    // The last byte is in the linear part, or there is another part. Of such a buffer, the length with
    // the link-layer header is compared; the kernel drops what lies by less than that. Not done for every packet:
    // what forwards has no other business with the last byte, and it is in no cache yet.
    if load::<u8>(ctx.skb.skb, total - 1).is_none() && (is_linear(ctx) || total > ctx.len()) {
        return Err(Unread::malformed(Special::Truncated));
    }
    // No packet of an Ethernet gets here: at least its header is more than this.
    if total == ctx.len() {
        *special |= Special::NoLinkLayer.bit();
    }
    Ok((segments, total))
}

#[inline(always)]
fn is_linear(ctx: &TcContext) -> bool {
    ctx.data_end() - ctx.data() >= ctx.len() as usize
}

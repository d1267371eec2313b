//! The packet's mark. Bits outside our mask belong to others and are never changed.

use aya_ebpf::{Global, programs::TcContext};

/// What the globals hold until the daemon sets them. LLVM merges equal constants: with 0 here, the shift
/// would share its place with every map key 0 of the program, and setting it would change them all. No
/// other constant of the program has these values.
const UNSET_MASK: u32 = 0x6d77_6d61;
const UNSET_SHIFT: u32 = 0x6d77_7368;

/// Our bits of the mark; set by the daemon when it loads the programs.
#[unsafe(no_mangle)]
static MARK_MASK: Global<u32> = Global::new(UNSET_MASK);

/// How far a WAN's number is shifted left into the mask; set with [`MARK_MASK`].
#[unsafe(no_mangle)]
static MARK_SHIFT: Global<u32> = Global::new(UNSET_SHIFT);

/// The whole mark.
#[inline(always)]
pub fn get(ctx: &TcContext) -> u32 {
    // SAFETY: the context pointer is the kernel's and valid while the program runs.
    unsafe { (*ctx.skb.skb).mark }
}

/// The bits of the mark that are ours.
#[inline(always)]
pub fn ours(ctx: &TcContext) -> u32 {
    get(ctx) & MARK_MASK.load()
}

/// The WAN's number in the packet's mark; 0: none.
#[inline(always)]
pub fn wan(ctx: &TcContext) -> u32 {
    wan_in(get(ctx))
}

/// The WAN's number in a mark; 0: none.
#[inline(always)]
pub fn wan_in(mark: u32) -> u32 {
    (mark & MARK_MASK.load()) >> (MARK_SHIFT.load() & 31)
}

/// Sets our bits.
#[inline(always)]
pub fn set(ctx: &TcContext, fwmark: u32) {
    let mask = MARK_MASK.load();
    ctx.skb.set_mark((get(ctx) & !mask) | (fwmark & mask));
}

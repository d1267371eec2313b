//! The WANs: which interface each is on, which may carry flows, which is the default.

use aya_ebpf::{
    btf_maps::{Array, HashMap},
    macros::btf_map,
};
use multiwans_common::{WAN_SLOTS, WanEntry};

/// State of each WAN.
///
/// Key: the WAN's number. Value: [`WanEntry`]. Writer: the daemon, one write per change. Readers: all
/// programs. 256 × 16 bytes; never full, it is indexed by the number.
#[btf_map]
static MW_WANS: Array<WanEntry, { WAN_SLOTS as usize }> = Array::new();

/// The WAN that takes what no filter claims.
///
/// Key: 0. Value: the WAN's number, 0 while none was chosen. Writer: the daemon. Reader: steer.
#[btf_map]
static MW_DEFAULT: Array<u32, 1> = Array::new();

/// Which WAN an interface is.
///
/// Key: interface index. Value: the WAN's number. Writer: the daemon, before it attaches. Reader: wan.
/// 256 entries of 16 bytes: WANs are at most 252.
#[btf_map]
static MW_INTERFACES: HashMap<u32, u32, { WAN_SLOTS as usize }> = HashMap::new();

/// A WAN's state, if it is configured; number 0 never is.
#[inline(always)]
pub fn wan(number: u32) -> Option<WanEntry> {
    let entry = *MW_WANS.get(number)?;
    if entry.fwmark == 0 { None } else { Some(entry) }
}

/// The default WAN's number; 0: none.
#[inline(always)]
pub fn default_wan() -> u32 {
    match MW_DEFAULT.get(0) {
        Some(number) => *number,
        None => 0,
    }
}

/// The WAN on an interface.
#[inline(always)]
pub fn wan_of_interface(ifindex: u32) -> Option<u32> {
    // SAFETY: the value is copied at once; the daemon may replace it meanwhile, but a 4-byte load is whole.
    unsafe { MW_INTERFACES.get(ifindex).copied() }
}

//! How often each reason occurred.

use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map};
use multiwans_common::Reason;

/// Packets by [`Reason`].
///
/// Key: the reason's number. Value: packets, per CPU. Writer: all programs. Reader: the daemon.
/// 64 entries × 8 bytes × CPUs; never full, it is indexed by an enum.
#[btf_map]
static MW_REASONS: PerCpuArray<u64, { Reason::SLOTS as usize }> = PerCpuArray::new();

/// Counts one packet.
#[inline(always)]
pub fn count(reason: Reason) {
    if let Some(counter) = MW_REASONS.get_ptr_mut(reason as u32) {
        // SAFETY: the slot is this CPU's own, and a TC program is not preempted by another one on it. A
        // program of a socket's call may be, by a packet with other reasons or, rarely, by another call
        // with the same: that costs one count.
        unsafe { *counter += 1 };
    }
}

//! What is counted of every packet. One program never waits for another to count: all of it is per CPU.

use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map};
use multiwans_common::{
    Direction, FILTER_COUNTERS, FilterTag, Program, REASON_COUNTERS, Reason, SPECIAL_COUNTERS, Special,
    Traffic, WAN_COUNTERS, filter_counter, filters::MAX_FILTERS, reason_counter, special_counter,
    wan_counter,
};

/// Packets by program and [`Reason`].
///
/// Key: [`reason_counter`]. Value: [`Traffic`], per CPU. Writer: all programs. Reader: the daemon.
/// 320 entries × 16 bytes × CPUs; never full, it is indexed by enums.
#[btf_map]
static MW_REASONS: PerCpuArray<Traffic, REASON_COUNTERS> = PerCpuArray::new();

/// Packets by program and [`Special`].
///
/// Key: [`special_counter`]. Value: [`Traffic`], per CPU. Writers: steer, wan, learn. Reader: the daemon.
/// 96 entries × 16 bytes × CPUs; never full, it is indexed by enums.
#[btf_map]
static MW_SPECIAL: PerCpuArray<Traffic, SPECIAL_COUNTERS> = PerCpuArray::new();

/// Packets by WAN and direction.
///
/// Key: [`wan_counter`]. Value: [`Traffic`], per CPU. Writers: steer, wan. Reader: the daemon.
/// 512 entries × 16 bytes × CPUs.
#[btf_map]
static MW_WAN_TRAFFIC: PerCpuArray<Traffic, WAN_COUNTERS> = PerCpuArray::new();

/// Packets by filter, established flows' too.
///
/// Key: [`filter_counter`]. Value: [`Traffic`], per CPU. Writers: steer; the daemon, which clears the half of
/// a version before that version is in force. Reader: the daemon. 8 192 entries × 16 bytes × CPUs.
#[btf_map]
static MW_FILTER_TRAFFIC: PerCpuArray<Traffic, FILTER_COUNTERS> = PerCpuArray::new();

/// Counts why a program did what it did.
#[inline(always)]
pub fn count(program: Program, reason: Reason, traffic: Traffic) {
    add(MW_REASONS.get_ptr_mut(reason_counter(program, reason)), traffic);
}

/// Counts a packet for each thing that is special about it. Bits of [`Special`], not 0.
///
/// A function of its own, so that ordinary packets have nothing of it in their way. A plain loop: the verifier takes
/// 6 000 steps more for it than for one of `bpf_loop`, but that takes twice as long, 45 and not 20 ns for a large buffer.
#[inline(never)]
pub fn count_special(program: Program, special: u32, traffic: &Traffic) {
    let mut left = special;
    for number in 0..Special::ALL.len() as u32 {
        if left & 1 != 0 {
            add(MW_SPECIAL.get_ptr_mut(special_counter(program, number)), *traffic);
        }
        left >>= 1;
        if left == 0 {
            return;
        }
    }
}

/// Counts what is not a packet with a length: a socket's call, or a datagram that is counted elsewhere.
#[inline(always)]
pub fn count_once(program: Program, reason: Reason) {
    count(program, reason, Traffic { packets: 1, bytes: 0 });
}

/// Counts for a WAN.
#[inline(always)]
pub fn count_wan(wan: u32, direction: Direction, traffic: Traffic) {
    add(MW_WAN_TRAFFIC.get_ptr_mut(wan_counter(wan, direction)), traffic);
}

/// Counts for a filter, where one chose.
#[inline(always)]
pub fn count_filter(filter: FilterTag, traffic: Traffic) {
    let number = filter.number as u32;
    if number < MAX_FILTERS as u32 {
        add(MW_FILTER_TRAFFIC.get_ptr_mut(filter_counter(filter.version as u32, number)), traffic);
    }
}

#[inline(always)]
fn add(counter: Option<*mut Traffic>, traffic: Traffic) {
    if let Some(counter) = counter {
        // SAFETY: the slot is this CPU's own, and a TC program is not preempted by another one on it. A
        // program of a socket's call may be, by a packet with other reasons or, rarely, by another call
        // with the same: that costs one count.
        unsafe {
            (*counter).packets += traffic.packets;
            (*counter).bytes += traffic.bytes;
        }
    }
}

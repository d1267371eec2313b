//! What is counted of every packet. One program never waits for another to count: all of it is per CPU.

use core::ffi::c_void;

use aya_ebpf::{btf_maps::PerCpuArray, helpers::generated::bpf_loop, macros::btf_map};
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

/// What [`count_special`] counts.
struct Counted {
    program: Program,
    /// Bits of [`Special`].
    special: u32,
    traffic: Traffic,
}

/// Counts a packet for each thing that is special about it. Bits of [`Special`], not 0.
///
/// By a function of its own and a loop that the verifier checks once: unrolled, it is three programs with 22 times
/// the same, for packets that are rare.
#[inline(never)]
pub fn count_special(program: Program, special: u32, traffic: &Traffic) {
    let mut counted = Counted { program, special, traffic: *traffic };
    // SAFETY: the callback has the signature the helper calls, and `counted` outlives the call.
    unsafe {
        bpf_loop(Special::SLOTS, count_bit as *mut c_void, (&raw mut counted).cast(), 0);
    }
}

/// One bit of a [`count_special`]: 1 after the last one that is set.
#[inline(never)]
extern "C" fn count_bit(number: u32, counted: *const Counted) -> i64 {
    // SAFETY: `bpf_loop` hands over the pointer it was given, and nobody writes there.
    let counted = unsafe { &*counted };
    let left = counted.special >> (number & 31);
    if left & 1 != 0 {
        add(MW_SPECIAL.get_ptr_mut(special_counter(counted.program, number)), counted.traffic);
    }
    (left <= 1) as i64
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

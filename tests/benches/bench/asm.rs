//! Just enough of an assembler for the two programs that measuring needs (`struct bpf_insn`, linux/bpf.h). They are
//! written by hand because nothing that is installed compiles C for the kernel, and what `multiwans-ebpf` holds is
//! the product.

use std::os::fd::RawFd;

/// Registers. 0 is the result, 1 to 5 are arguments and lost in a call, 6 to 9 are kept, 10 is the stack's end.
pub(crate) type Register = u8;

/// Sizes of a memory access.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Size {
    Byte = 0x10,
    Word = 0x00,
    Double = 0x18,
}

/// Conditions of a jump.
#[derive(Debug, Clone, Copy)]
pub(crate) enum If {
    Equal = 0x10,
    NotEqual = 0x50,
    Above = 0x20,
}

const fn encode(code: u8, target: Register, source: Register, offset: i16, immediate: i32) -> u64 {
    (code as u64)
        | (target as u64) << 8
        | (source as u64) << 12
        | (offset.cast_unsigned() as u64) << 16
        | (immediate.cast_unsigned() as u64) << 32
}

/// target = value
pub(crate) fn set(target: Register, value: i32) -> u64 {
    encode(0xb7, target, 0, 0, value)
}

/// target = source
pub(crate) fn copy(target: Register, source: Register) -> u64 {
    encode(0xbf, target, source, 0, 0)
}

/// target += value
pub(crate) fn add(target: Register, value: i32) -> u64 {
    encode(0x07, target, 0, 0, value)
}

/// target %= value
pub(crate) fn modulo(target: Register, value: i32) -> u64 {
    encode(0x97, target, 0, 0, value)
}

/// target = *(source + offset)
pub(crate) fn load(size: Size, target: Register, source: Register, offset: i16) -> u64 {
    encode(0x61 | size as u8, target, source, offset, 0)
}

/// *(target + offset) = source
pub(crate) fn store(size: Size, target: Register, offset: i16, source: Register) -> u64 {
    encode(0x63 | size as u8, target, source, offset, 0)
}

/// *(u64 *)(target + offset) += source, atomically
pub(crate) fn atomic_add(target: Register, offset: i16, source: Register) -> u64 {
    encode(0xdb, target, source, offset, 0)
}

/// Skips instructions if target compares so with a value.
pub(crate) fn skip_if(condition: If, target: Register, value: i32, skip: i16) -> u64 {
    encode(0x05 | condition as u8, target, 0, skip, value)
}

/// Skips instructions if target compares so with source.
pub(crate) fn skip_if_register(condition: If, target: Register, source: Register, skip: i16) -> u64 {
    encode(0x0d | condition as u8, target, source, skip, 0)
}

/// Calls a helper.
pub(crate) fn call(helper: i32) -> u64 {
    encode(0x85, 0, 0, 0, helper)
}

/// Returns register 0.
pub(crate) fn exit() -> u64 {
    encode(0x95, 0, 0, 0, 0)
}

/// target = the map (`BPF_PSEUDO_MAP_FD`)
pub(crate) fn map(target: Register, fd: RawFd) -> [u64; 2] {
    [encode(0x18, target, 1, 0, fd), 0]
}

/// target = where the values of an array begin (`BPF_PSEUDO_MAP_VALUE`)
pub(crate) fn map_value(target: Register, fd: RawFd) -> [u64; 2] {
    [encode(0x18, target, 2, 0, fd), 0]
}

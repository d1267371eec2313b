//! The programs in the kernel, packet by packet: `BPF_PROG_TEST_RUN` gives each a packet and shows the
//! mark it leaves and the reason it counted. Needs root and the eBPF object; fails loudly without.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]
#![allow(clippy::cast_possible_truncation, reason = "counts of single packets")]

mod attach;
mod config;
mod frame;
mod random;
#[path = "../support/mod.rs"]
mod support;
mod table;

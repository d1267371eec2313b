//! The programs in the kernel, packet by packet: `BPF_PROG_TEST_RUN` gives each a packet and shows the
//! mark it leaves and the reason it counted. Needs root and the eBPF object; fails loudly without.

mod attach;
mod config;
mod frame;
mod random;
#[path = "../support/mod.rs"]
mod support;
mod table;

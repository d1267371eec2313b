//! The programs in the kernel, packet by packet: `BPF_PROG_TEST_RUN` gives each a packet and shows the
//! mark it leaves and the reason it counted. Needs root and the eBPF object; fails loudly without.

#![allow(clippy::unwrap_used, reason = "the lint's leave for tests does not reach their helpers")]

mod attach;
mod config;
mod flows;
mod frame;
mod hard;
mod own;
#[path = "../support/policies.rs"]
mod policies;
mod random;
mod scale;
mod special;
#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "shared with tests that need more of it")]
mod support;
mod swap;
mod table;

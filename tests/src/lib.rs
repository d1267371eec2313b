//! The lab that the end-to-end tests and `cargo xtask demo` run in: a LAN, a router, several ISPs and
//! an internet host as network namespaces; faults to put into them; observers that say what the
//! internet sees; and the real daemon, started and watched.
//!
//! Everything here needs root and touches nothing outside the namespaces that it makes.

pub mod client;
mod config;
pub mod daemon;
pub mod differential;
pub mod dns;
mod faults;
pub mod icmp;
mod kernel_program;
mod lab;
pub mod machine;
pub mod netns;
pub mod observer;
pub mod portless;
pub mod raw;
mod residue;
pub mod router_files;
pub mod session;
mod setup;
pub mod smtp;
pub mod status;
pub mod topology;
pub mod wait;

pub use client::Client;
pub use config::Config;
pub use daemon::Daemon;
pub use kernel_program::{KernelProgram, PacketContext};
pub use lab::{Lab, LabBuilder};
pub use machine::Machine;
pub use residue::Residue;
pub use topology::Ns;

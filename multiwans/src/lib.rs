//! multiwans: steering and failover for Linux edge routers with two or more internet links.
//!
//! `ARCHITECTURE.md` tells how the modules fit; the pure ones ([`config`], [`policy`], [`engine`]) never
//! import IO, a clock or the kernel's interfaces.

pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod datapath;
pub mod engine;
pub mod net;
pub mod notify;
pub mod policy;
pub mod probe;
pub mod types;

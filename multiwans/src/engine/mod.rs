//! Events in, commands out: the daemon's decisions, without clock or IO.

pub mod command;
pub mod event;

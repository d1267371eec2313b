//! The kernel's state, for real: every test is a router in a namespace of its own. Needs root and iproute2; the
//! conntrack tests need conntrack(8) too.

// A failing unwrap is a failing test.
#![allow(clippy::unwrap_used)]

mod bench;
mod conntrack;
mod default_route;
mod monitor;
mod output;
mod routing;

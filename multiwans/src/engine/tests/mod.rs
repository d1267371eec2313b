//! The engine as a whole: tables of events and commands, random runs against invariants, simulated links.

pub(crate) mod world;

mod commands;
mod healing;
mod hooks;
mod invariants;
mod model;
mod moving_flows;
mod reloading;
mod runs;
mod simulator;
mod start_and_stop;

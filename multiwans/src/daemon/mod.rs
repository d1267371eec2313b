//! The daemon: what must hold before it starts, and the loop that drives the engine.

pub mod lock;
pub mod requirements;

//! Placeholder until the engine lands.
pub mod command;
pub mod event;

//! The engine's words: what it is told and what it wants done.

pub mod command;
pub mod event;

//! From configuration to the policy the programs run, and what it means.
//!
//! [`decide`] says what a packet's WAN is, filter by filter, as BEHAVIOUR has it. [`Compiled`] says the
//! same in the shape the programs need: it must never differ, and a property test says so.

mod classes;
mod compiled;
mod decide;
mod dimension;
mod filters;
mod ports;
mod prefixes;
mod search;
mod selector;
mod tuple;
mod vectors;

#[cfg(test)]
mod tests;

pub use compiled::{CompileError, Compiled, CompiledFilter, Policies, filters_of, forwarding_filters};
pub use decide::decide;
pub use dimension::{Dimension, MAX_LINES, TooLarge};
pub use filters::Filters;
pub use search::first_match;
pub use selector::matches;
pub use tuple::Tuple;
pub use vectors::FilterSet;

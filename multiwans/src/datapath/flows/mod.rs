//! The flow table from the daemon's side: what is in it at the start, and what leaves it when.
//!
//! The programs only add. Walking through the table is done here, in the memory that both have: the kernel is not asked,
//! nothing is locked, and no CPU is kept from its packets.

mod census;
mod keeper;
mod seed;
mod size;
mod table;
mod thread;

pub use census::{Census, Family};
pub use keeper::{FlowKeeper, Swept};
pub use seed::SeedFlow;
pub use thread::{FlowReport, FlowThread};

pub(super) use seed::seed;
pub(super) use size::most as lines;
pub(super) use table::FlowTable;

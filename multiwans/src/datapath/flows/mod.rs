//! The flow table from the daemon's side: what is in it at the start, and what leaves it when.
//!
//! The programs only add. Walking through the table is done here, by batches of entries copied out. A
//! program of ours that walks through it inside the kernel (`bpf_for_each_map_elem`) takes half the time,
//! 50 ms instead of 110 for 262 144 entries, but in one piece: a kernel that does not preempt itself, as
//! most routers' do not, would keep that CPU from its packets meanwhile. A batch takes half a millisecond.

mod batch;
mod census;
mod keeper;
mod presence;
mod seed;
mod thread;

pub use census::{Census, Family};
pub use keeper::{FlowKeeper, Swept};
pub use seed::SeedFlow;
pub use thread::{FlowReport, FlowThread};

pub(super) use presence::Presence;
pub(super) use seed::seed;

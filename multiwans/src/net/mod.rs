//! The kernel's network state, over netlink: observe it, compare it with what should be, apply the difference.
//!
//! * [`Monitor`] tells what interfaces there are and when something changed.
//! * [`Kernel`] keeps routes, rules, table names and rp_filter as the engine wants them, and takes them away again.
//! * [`conntrack`] finds and deletes the entries of flows that must move to another link.
//!
//! Everything acts on the network namespace of the calling thread. Only what is ours is ever changed: objects that
//! carry [`PROTOCOL`], and, for rules, lie in our priority range. What cannot carry a mark (the main table's default
//! route, sysctls) is remembered in an undo journal before it is changed.

mod bring_up;
pub mod conntrack;
mod default_route;
mod error;
mod first_leaf;
mod monitor;
mod names_watch;
mod netns;
mod output_plan;
mod output_rules;
mod output_state;
mod plan;
mod reconcile;
mod repairs;
mod routes;
mod rt_tables;
mod rtnl;
mod rules;
mod snapshot;
mod specific;
mod sysctl;
mod undo;

pub use bring_up::bring_up;
pub use error::{ApplyError, Error};
pub use monitor::{Changed, Monitor};
pub use netns::namespace_cookie;
pub use output_rules::OutputRule;
pub use reconcile::{Change, Kernel, Paths};
pub use routes::Via;
pub use rules::{Rule, Selector};
pub use specific::{Destinations, SpecificRoutes};

/// The `rtm_protocol` of our routes and rules: how they are told from everybody else's.
///
/// iproute2's `rt_protos` names 0 to 18, 42, 84, 99 and 186 to 189 and 192; FRR takes 186 to 198, Calico 80. 109 is free
/// in all of them (it is the letter `m`).
pub const PROTOCOL: u8 = 109;

/// How many rule priorities are ours, from `daemon.rulePriority` on.
pub const RULE_PRIORITIES: u32 = 100;

//! The same random policy and the same packets through two routers: one steered by the daemon, one by
//! iptables rules that say what the policy says. Whoever sits at the ISPs tells which WAN each packet took.
//!
//! Nothing of the daemon's code is used here, so a misreading in it cannot hide on both sides.

mod packet;
mod policy;
mod reference;
mod tap;

pub use packet::Packet;
pub use policy::Policy;
pub use reference::Reference;
pub use tap::wans_taken;

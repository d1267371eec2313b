//! What the engine wants done. Each command carries the whole target and is idempotent: carrying it out
//! twice is carrying it out once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::change::LinkChange;
use super::event::{Binding, CommandId};
use super::settings::Revision;
use crate::types::{IfIndex, IfName, LinkState, WanMark};

/// A command and its number; the driver answers with `Event::Done` or `Event::Failed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbered {
    /// Its number.
    pub id: CommandId,
    /// What to do.
    pub command: Command,
}

/// One thing to do. The driver carries them out one after another, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Which interface runs which programs; all others run none of ours.
    Attach(BTreeMap<IfIndex, Role>),
    /// The data path's view of the links, default first, then the WANs: see [`Steering`].
    Steer(Steering),
    /// The filters of this configuration, for forwarded traffic and the router's own sockets.
    Filters(Revision),
    /// Routes, rules, table names, default route, rp_filter.
    Routes(Routes),
    /// Delete the conntrack entries of flows that must move.
    MoveFlows(MoveFlows),
    /// Probe this WAN over this binding; `None`: stop probing it.
    Probe {
        /// Which WAN.
        wan: WanMark,
        /// Over what.
        binding: Option<Binding>,
    },
    /// Look whether these are as they were made, and put right what is not. `None`: not looked at.
    Audit {
        /// As in [`Command::Routes`].
        routes: Option<Routes>,
        /// As in [`Command::Attach`].
        programs: Option<BTreeMap<IfIndex, Role>>,
    },
    /// Switch on a WAN's interface. The commands after it do not wait for its answer.
    BringUp {
        /// Whose.
        wan: WanMark,
        /// Which.
        iface: IfName,
    },
    /// Write the status file.
    WriteStatus(Vec<(IfName, LinkState)>),
    /// Run the hooks of a link that came to another state. Carried out once it is in the hooks' queue.
    RunHooks(LinkChange),
}

/// What an interface's programs do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// An internet link: its packets come marked with it.
    Wan(WanMark),
    /// Everything else at layer 3: packets are steered in, answers learned from out.
    Inside,
}

/// What the data path is told of the links.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Steering {
    /// Takes what no filter claims; `None` while no link has been judged yet: such packets stay unmarked.
    pub default: Option<WanMark>,
    /// Links that may carry flows, with the interface they are on.
    pub usable: BTreeMap<WanMark, IfIndex>,
}

/// What the kernel's routing is to look like.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Routes {
    /// WANs whose interface is there, up and has their address: their table gets its default route. Rules and table names
    /// are kept for every configured WAN, present or not.
    pub present: BTreeMap<WanMark, IfIndex>,
    /// Whose gateway is the main table's default route; `None`: leave the main table as it is.
    pub default: Option<WanMark>,
    /// WANs whose filters for the router's own traffic are in force: those that have any and are ON, but the
    /// default.
    pub steered: BTreeSet<WanMark>,
}

/// Which conntrack entries to delete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MoveFlows {
    /// Every translated flow that leaves from this address: its link is dead and another one takes them.
    OffDeadLink {
        /// The dead WAN.
        wan: WanMark,
        /// Its address, which is the entries' reply destination.
        address: Ipv4Addr,
    },
    /// Flows never answered whose decision is another one now than the translation they were given: on the next packet they
    /// would leave by one link with another link's address.
    Unanswered,
}

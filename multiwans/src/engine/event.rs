//! What the engine is told.

use std::net::Ipv4Addr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::types::{IfIndex, IfName, WanMark};

/// The time of an event, read once by the driver: the engine itself has no clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Now {
    /// Since the daemon started; never goes back.
    pub mono: Duration,
    /// Unix time in seconds, for people only.
    pub wall: u64,
}

/// One thing that happened outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// The interfaces as they are now: at start, and after every netlink change.
    Interfaces(Vec<Interface>),
    /// What one probing round of one WAN came to.
    Round(Round),
    /// Time passed; answers [`next_deadline`](super::Engine::next_deadline).
    Tick,
    /// A command was carried out.
    Done(CommandId),
    /// A command could not be carried out.
    Failed {
        /// Which.
        id: CommandId,
        /// Why, for people.
        error: String,
    },
    /// The operator asks to stop.
    Stop,
}

/// A command's number, unique within a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CommandId(pub u64);

/// A network interface as netlink shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its index; a re-created interface has a new one.
    pub index: IfIndex,
    /// Its name.
    pub name: IfName,
    /// `IFF_UP`: switched on.
    pub up: bool,
    /// `IFF_LOWER_UP`: the cable is in, the peer is there.
    pub carrier: bool,
    /// The loopback.
    pub loopback: bool,
    /// Port of a bridge, bond or team: its master carries the layer 3. (A VRF's member is not one.)
    pub port: bool,
    /// IPv4 addresses, primary ones first, each with its prefix length.
    pub addresses: Vec<(Ipv4Addr, u8)>,
}

/// The outcome of one probing round.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Round {
    /// Whose.
    pub wan: WanMark,
    /// Which binding of the prober it belongs to; a round of an older one says nothing any more.
    pub binding: Binding,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a round.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The first answer to the round. Told as it arrives.
    Answered {
        /// Who answered.
        target: Ipv4Addr,
        /// Round-trip time.
        rtt: Duration,
    },
    /// `ping.timeout` passed and nobody answered.
    Silent {
        /// Why sending failed, where even that did.
        send_error: Option<String>,
    },
}

/// What a WAN's probe sockets are bound to. Changes with the interface or the address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Binding {
    /// The interface's index: a re-created interface needs new sockets.
    pub index: IfIndex,
    /// Its name (`SO_BINDTODEVICE`).
    pub iface: IfName,
    /// Source address.
    pub source: Ipv4Addr,
}

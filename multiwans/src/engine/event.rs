//! What the engine is told.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::settings::Settings;
use crate::types::{IfIndex, IfName, WanMark};

/// The time of an event, read once by the driver: the engine itself has no clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Now {
    /// Since the daemon started; never goes back.
    pub mono: Duration,
    /// Unix time in seconds, for people only.
    pub wall: u64,
    /// Seconds that local time is ahead of UTC, for people only.
    #[serde(default)]
    pub utc_offset: i32,
}

impl Now {
    /// The local time of day at `mono`, another moment of the same run.
    pub(super) fn time_of_day(&self, mono: Duration) -> TimeOfDay {
        const DAY: i64 = 24 * 60 * 60;
        let ago = self.mono.saturating_sub(mono).as_secs();
        let ahead = mono.saturating_sub(self.mono).as_secs();
        let wall = self.wall.saturating_sub(ago).saturating_add(ahead);
        let local = i64::try_from(wall).unwrap_or(0) + i64::from(self.utc_offset);
        // At most a day, so it fits.
        TimeOfDay(u32::try_from(local.rem_euclid(DAY)).unwrap_or(0))
    }
}

/// Seconds since local midnight; shown as `11:02:31`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TimeOfDay(u32);

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}:{:02}", self.0 / 3600, self.0 / 60 % 60, self.0 % 60)
    }
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
    /// The kernel's state was changed by somebody, which includes us.
    Disturbed(Disturbance),
    /// While a command was carried out something was found that somebody else had taken or changed, and
    /// it was put right. Comes before the command's answer.
    Repaired(BTreeSet<String>),
    /// Another configuration of the same WANs is to be followed; the executor was given it before.
    Configured(Settings),
    /// The operator asks to stop.
    Stop,
}

/// What of the kernel's state may not be any more as it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Disturbance {
    /// Routes or rules.
    pub routing: bool,
    /// Programs attached to interfaces.
    pub programs: bool,
}

impl Disturbance {
    /// Everything.
    pub const ALL: Self = Self { routing: true, programs: true };

    /// Whether there is any.
    pub fn any(self) -> bool {
        self.routing || self.programs
    }

    /// Both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { routing: self.routing || other.routing, programs: self.programs || other.programs }
    }
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
    /// The same, but not everybody could be asked: names were being resolved for the first time.
    Unresolved {
        /// Why sending failed, where it did.
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

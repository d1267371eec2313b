//! What the engine follows of a configuration, once it runs.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::{Chain, Config, Difference, Ping, Wan};
use crate::types::WanMark;

/// The number of a configuration within a run: 0 is the one of the start.
///
/// Commands name configurations by it. The executor was given the configuration itself before, which is
/// too large for an event, and holds passwords.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl Revision {
    /// The one after it.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}

/// Another configuration of the same WANs: what of it the engine follows, and what is to be put in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Its number.
    pub revision: Revision,
    /// `daemon.runInterval`.
    pub audit_period: Duration,
    /// One for each WAN.
    pub links: Vec<LinkSettings>,
    /// Filters or `localnets` are others.
    pub filters: bool,
    /// WANs that are to be probed in another way.
    pub probes: BTreeSet<WanMark>,
    /// What is different, for people.
    pub changes: Vec<String>,
}

impl Settings {
    /// Those of `config`, which differs by this from the one in force.
    pub fn new(config: &Config, difference: Difference, revision: Revision) -> Self {
        let Difference { live, at_restart: _, filters, probes } = difference;
        Self {
            revision,
            audit_period: config.daemon.run_interval,
            links: config.wans.iter().map(|wan| LinkSettings::of(wan, &config.ping)).collect(),
            filters,
            probes,
            changes: live,
        }
    }
}

/// How a link is judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkSettings {
    /// Which.
    pub wan: WanMark,
    /// How many targets a round asks.
    pub targets: usize,
    /// Silent rounds in a row that take it down: `1 + ping.count`.
    pub silent_limit: u32,
    /// `ping.timeout`: a silent round was sent this long before it was found silent.
    pub timeout: Duration,
    /// Has filters for the router's own traffic that count.
    pub steers_own: bool,
}

impl LinkSettings {
    /// A WAN's.
    pub(super) fn of(wan: &Wan, ping: &Ping) -> Self {
        Self {
            wan: wan.mark,
            targets: wan.targets.len(),
            silent_limit: 1 + u32::from(ping.count),
            timeout: ping.timeout,
            steers_own: wan.order_failover != Some(1)
                && wan.filters.iter().any(|filter| filter.chain == Chain::Output),
        }
    }
}

//! What `multiwans status` shows.

use serde::{Deserialize, Serialize};

use super::event::TimeOfDay;
use super::link::Link;
use crate::types::{IfName, LinkState, WanMark};

/// The whole, as its JSON is published: `{"default": DESCRIPTION|null, "wans": […]}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Description of the default link; `null` while none was chosen.
    pub default: Option<String>,
    /// Every enabled WAN in steering order.
    pub wans: Vec<WanStatus>,
}

/// One WAN.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WanStatus {
    /// `WANS[].description`.
    pub description: String,
    /// `WANS[].iface`.
    pub iface: IfName,
    /// `WANS[].mark`.
    pub mark: WanMark,
    /// Its state.
    pub state: LinkState,
    /// Why it is not ON, as a sentence without a full stop; empty when it is.
    pub reason: String,
    /// When it came to this state: Unix time in seconds.
    pub since: u64,
    /// `WANS[].orderFailover`; `null`: never the default.
    pub order: Option<u8>,
    /// The configured address with its prefix length, `10.0.1.2/24`.
    pub address: String,
    /// Whether the data path may send flows over it: ON, or the default that was kept when no link was ON.
    pub usable: bool,
    /// Round-trip time of the last answered probe in milliseconds; `null` before the first.
    pub last_rtt_ms: Option<f64>,
    /// Who answered it.
    pub last_target: Option<std::net::Ipv4Addr>,
}

impl WanStatus {
    /// `switched_on`: when its interface, which is down, is switched on.
    pub(super) fn of(link: &Link, usable: bool, switched_on: Option<TimeOfDay>) -> Self {
        let label = link.label();
        let (address, prefix_len) = link.address();
        let last_reply = link.last_reply();
        Self {
            description: label.description.clone(),
            iface: label.iface.clone(),
            mark: label.mark,
            state: link.state(),
            reason: match switched_on {
                Some(at) => format!("{}; multiwans switches it on at {at}", link.reason()),
                None => link.reason(),
            },
            since: link.since().wall,
            order: link.order(),
            address: format!("{address}/{prefix_len}"),
            usable,
            last_rtt_ms: last_reply.map(|reply| reply.rtt.as_secs_f64() * 1e3),
            last_target: last_reply.map(|reply| reply.target),
        }
    }
}

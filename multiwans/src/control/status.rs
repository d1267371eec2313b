//! The answer to `{"cmd":"status"}`. Monitoring reads it: fields are added, never renamed.

use serde::{Deserialize, Serialize};

use crate::types::{IfName, LinkState, WanMark};

/// All links.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Description of the WAN that carries what no filter claims; `null`: none.
    pub default: Option<String>,
    /// Every enabled WAN, in steering order.
    pub wans: Vec<WanStatus>,
}

/// One link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WanStatus {
    /// Its name for people.
    pub description: String,
    /// Its interface.
    pub iface: IfName,
    /// Its number.
    pub mark: WanMark,
    /// `ON`, `OFF` or `UNKNOW`.
    pub state: LinkState,
    /// Why it is in that state; `null` where there is nothing to say.
    pub reason: Option<String>,
    /// Unix time in seconds since when. The daemon takes how long it has been from the monotonic clock
    /// when it answers, so a clock that was set in between does not show here.
    pub since: u64,
}

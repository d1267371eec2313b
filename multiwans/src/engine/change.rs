//! A link's change of state, as its hooks are told of it.

use serde::{Deserialize, Serialize};

use crate::types::{LinkState, WanMark};

/// A link came to another state. The first judgement after a start is a change too, from UNKNOW.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkChange {
    /// Which link.
    pub wan: WanMark,
    /// The state it is in now: ON or OFF.
    pub state: LinkState,
    /// The state it was in before.
    pub previous: LinkState,
    /// Why it is OFF, as a sentence without a full stop; empty when it is ON.
    pub reason: String,
    /// The default link once this change had its consequences; `None` while none was chosen.
    pub default: Option<WanMark>,
}

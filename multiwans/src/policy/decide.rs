//! Where a packet that starts a flow goes.

use std::collections::BTreeSet;

use super::Tuple;
use super::compiled::forwarding_filters;
use super::selector::matches;
use crate::config::Config;
use crate::types::WanMark;

/// The WAN of a packet without a flow entry, worked out filter by filter; `None`: it stays unmarked.
pub fn decide(
    config: &Config,
    packet: &Tuple,
    usable: &BTreeSet<WanMark>,
    default: Option<WanMark>,
) -> Option<WanMark> {
    forwarding_filters(config)
        .filter(|(wan, _)| Some(*wan) != default && usable.contains(wan))
        .find(|(_, filter)| matches(filter, &config.localnets, packet))
        .map(|(wan, _)| wan)
        .or(default)
}

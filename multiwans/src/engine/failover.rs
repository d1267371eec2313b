//! Which link is the default, and what follows from the links' states for data path and routing.

use super::command::{Routes, Steering};
use super::link::Link;
use crate::types::{LinkState, WanMark};

/// The default link: the first in failover order that is ON.
///
/// `candidates` are the links with an `orderFailover`, in that order. Before the first choice a link not
/// judged yet holds back those behind it, so that a start does not switch twice; its judgement is
/// bounded by its rounds. With none ON the choice stays as it is: a link that is dead for the probes may
/// still carry something, no default at all carries nothing.
pub(super) fn choose<'a>(
    candidates: impl IntoIterator<Item = &'a Link>,
    current: Option<WanMark>,
) -> Option<WanMark> {
    for link in candidates {
        match link.state() {
            LinkState::On => return Some(link.mark()),
            LinkState::Unknow if current.is_none() => return None,
            LinkState::Unknow | LinkState::Off => {}
        }
    }
    current
}

/// What the data path is to know: links that are ON, and the default even while it is OFF, as long as it
/// has an interface at all.
pub(super) fn steering(links: &[Link], default: Option<WanMark>) -> Steering {
    let usable = links
        .iter()
        .filter(|link| link.is_on() || default == Some(link.mark()))
        .filter_map(|link| Some((link.mark(), link.index()?)))
        .collect();
    Steering { default, usable }
}

/// What the kernel's routing is to look like. Every link that can hold routes has its table, whatever its
/// state: the probes that judge it need it.
pub(super) fn routes(links: &[Link], default: Option<WanMark>) -> Routes {
    let present = links.iter().filter_map(|link| Some((link.mark(), link.routable_index()?))).collect();
    // Links without such filters are not named, so that what they do is no news for the routing.
    let steered =
        links.iter().filter(|link| link.steers_own() && link.is_on() && default != Some(link.mark()));
    Routes { present, default, steered: steered.map(Link::mark).collect() }
}

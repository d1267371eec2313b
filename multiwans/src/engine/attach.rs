//! Which interface runs which programs.

use std::collections::BTreeMap;

use super::command::Role;
use super::event::Interface;
use super::link::Link;
use crate::types::IfIndex;

/// The role of every interface that has one.
///
/// The loopback has none, nor has a port: its bridge or bond is where its packets reach layer 3, and on
/// the port itself they may only be passing through the bridge. Interfaces that are down have theirs
/// already, so that their first packet is not missed. Of two WANs on one interface (`eth0:1`) the first
/// in steering order gives it its mark.
pub(super) fn roles(links: &[Link], interfaces: &[Interface]) -> BTreeMap<IfIndex, Role> {
    interfaces
        .iter()
        .filter(|interface| !interface.loopback && !interface.port)
        .map(|interface| {
            let wan = links.iter().find(|link| link.label().iface == interface.name);
            (interface.index, wan.map_or(Role::Inside, |link| Role::Wan(link.mark())))
        })
        .collect()
}

//! What a hook is told: variables of its environment.

use super::Change;
use crate::config::{Config, Wan};
use crate::engine::LinkChange;

/// Where a hook finds programs; the daemon's own may be anything.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Variables a hook has from the daemon: in which language and time zone to speak. No others, above all
/// not those systemd means for the daemon (`NOTIFY_SOCKET`, `CREDENTIALS_DIRECTORY`).
const KEPT: [&str; 4] = ["LANG", "LC_ALL", "LC_MESSAGES", "TZ"];

/// The change as the queue of hooks has it.
pub(super) fn describe(config: &Config, wan: &Wan, change: &LinkChange) -> Change {
    let default = config.wans.iter().find(|wan| change.default == Some(wan.mark));
    let variables = vec![
        ("MULTIWANS_WAN", wan.description.clone()),
        ("MULTIWANS_IFACE", wan.iface.to_string()),
        ("MULTIWANS_REASON", change.reason.clone()),
        ("MULTIWANS_DEFAULT", default.map(|wan| wan.description.clone()).unwrap_or_default()),
        ("MULTIWANS_GATEWAY", wan.gateway.to_string()),
        ("MULTIWANS_IP", wan.ip.to_string()),
        ("MULTIWANS_MARK", wan.mark.to_string()),
        ("MULTIWANS_FWMARK", format!("{}/{}", wan.fwmark, config.daemon.mark_mask)),
        ("MULTIWANS_TABLE", wan.mark.table().to_string()),
    ];
    Change { wan: wan.mark, state: change.state, previous: change.previous, variables }
}

/// A hook's whole environment.
pub(super) fn of(change: &Change) -> Vec<(&'static str, std::ffi::OsString)> {
    let kept = KEPT.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
    let states = [("MULTIWANS_STATE", change.state), ("MULTIWANS_PREVIOUS", change.previous)];
    [("PATH", PATH.into())]
        .into_iter()
        .chain(kept)
        .chain(states.map(|(name, state)| (name, state.to_string().into())))
        .chain(change.variables.iter().map(|(name, value)| (*name, value.into())))
        .collect()
}

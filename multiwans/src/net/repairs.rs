//! What we have set and not taken back: found missing, it was taken by somebody else.

use std::collections::BTreeSet;

use super::Change;
use super::output_rules::OutputRule;
use super::routes::Via;
use super::rules::Rule;
use crate::types::{IfIndex, IfName};

/// What stood when it was last looked at.
///
/// Only what was found or written without an error is in here, so that what could not be set at first and is set later
/// is not taken for a repair. Empty at start: what an earlier run left or lost is nobody's doing.
#[derive(Debug, Default)]
pub(super) struct Standing {
    pub(super) rules: Vec<Rule>,
    /// Of the filters for the router's own traffic.
    pub(super) output: Option<Vec<OutputRule>>,
    pub(super) routes: Vec<Via>,
    pub(super) default: Option<Via>,
    pub(super) named: bool,
    /// With the index: an interface that was created anew comes with the system's values, which is nobody's doing.
    pub(super) loose: BTreeSet<(IfName, IfIndex)>,
}

impl Standing {
    /// Tells a repair from what was to be done anyway.
    pub(super) fn judge(&self, change: Change) -> Change {
        let text = match &change {
            Change::RuleAdded(rule) if self.rules.contains(rule) => {
                format!("rule {rule} was gone; put back")
            }
            // Before the first rule of ours stands, the stale ones are an earlier run's.
            Change::RuleDeleted(rule) if !self.rules.is_empty() => {
                format!("rule {rule} was added to those of multiwans; deleted")
            }
            Change::RouteAdded(wan, via) if self.routes.contains(via) => {
                format!(
                    "route default via {} dev {} in table {} was gone or no longer the first; put back",
                    via.gateway,
                    wan.iface,
                    via.table.name()
                )
            }
            Change::DefaultWritten { wan, via, over } if self.default == Some(*via) => {
                let found = match over {
                    None => "was gone".to_owned(),
                    Some(over) => format!("was replaced by {over}"),
                };
                format!("main default route via {} dev {} {found}; put back", via.gateway, wan.iface)
            }
            Change::TablesNamed(path) if self.named => {
                format!("table names in {} were gone or changed; put back", path.display())
            }
            Change::RpFilter { iface, from } if self.loose.iter().any(|(loose, _)| loose == iface) => {
                format!("rp_filter of {iface} was set to {from} (strict); loose again")
            }
            _ => return change,
        };
        Change::PutBack(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::WanLabel;
    use crate::net::Selector;
    use crate::types::{TableId, WanMark};

    fn via(table: TableId) -> Via {
        Via {
            table,
            gateway: [10, 0, 1, 1].into(),
            oif: IfIndex(5),
            source: [10, 0, 1, 2].into(),
            onlink: false,
        }
    }

    fn eth1() -> IfName {
        IfName::new("eth1").unwrap()
    }

    #[test]
    fn what_stood_is_put_back_and_what_did_not_is_set() {
        let mark = WanMark::new(1).unwrap();
        let wan = || WanLabel { description: "fibre".into(), iface: eth1(), mark };
        let rule =
            Rule { priority: 30_020, selector: Selector::From([10, 0, 1, 2].into()), table: TableId(1) };
        let standing = Standing {
            rules: vec![rule.clone()],
            output: None,
            routes: vec![via(TableId(1))],
            default: Some(via(TableId::MAIN)),
            named: true,
            loose: [(eth1(), IfIndex(5))].into(),
        };
        let changes = || {
            [
                Change::RuleAdded(rule.clone()),
                Change::RuleDeleted("30015: from all lookup 7".into()),
                Change::RouteAdded(wan(), via(TableId(1))),
                Change::DefaultWritten { wan: wan(), via: via(TableId::MAIN), over: None },
                Change::DefaultWritten {
                    wan: wan(),
                    via: via(TableId::MAIN),
                    over: Some("default via 10.9.9.9".into()),
                },
                Change::TablesNamed("/etc/x.conf".into()),
                Change::RpFilter { iface: eth1(), from: 1 },
            ]
        };
        let told = |standing: &Standing| {
            changes().map(|change| match standing.judge(change) {
                Change::PutBack(text) => text,
                _ => String::new(),
            })
        };
        assert_eq!(
            told(&standing),
            [
                "rule 30020: from 10.0.1.2 lookup WAN1 was gone; put back",
                "rule 30015: from all lookup 7 was added to those of multiwans; deleted",
                "route default via 10.0.1.1 dev eth1 in table WAN1 was gone or no longer the first; put back",
                "main default route via 10.0.1.1 dev eth1 was gone; put back",
                "main default route via 10.0.1.1 dev eth1 was replaced by default via 10.9.9.9; put back",
                "table names in /etc/x.conf were gone or changed; put back",
                "rp_filter of eth1 was set to 1 (strict); loose again",
            ]
        );
        assert_eq!(told(&Standing::default()), [""; 7].map(str::to_owned));
    }
}

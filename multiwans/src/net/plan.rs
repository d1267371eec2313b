//! What the kernel's state should be, worked out of the configuration and the engine's wish. No IO.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::output_plan::OutputFilters;
use super::routes::Via;
use super::rules::{Rule, Selector};
use crate::config::{Config, Wan};
use crate::engine::WanLabel;
use crate::engine::command::Routes;
use crate::types::{FwMark, IfIndex, IfName, MarkMask, TableId, WanMark};

/// Rule priorities relative to `daemon.rulePriority`, in the order the kernel asks them. Gaps leave places.
mod order {
    /// Every specific route of the main table wins: VPNs, static routes, other LANs.
    pub(super) const SPECIFIC: u32 = 0;
    /// Packets from the internet carry their link's mark and must not be routed back out.
    pub(super) const FROM_INTERNET: u32 = 10;
    /// What the data path has decided: nearly all packets, so before what only the router's own need. Each rule that is
    /// passed over costs every packet some nanoseconds.
    pub(super) const MARKED: u32 = 15;
    /// The router's own packets that have chosen a link by its address.
    pub(super) const FROM_ADDRESS: u32 = 20;
    /// The router's own packets that have chosen a link by its interface, and no address.
    pub(super) const BY_INTERFACE: u32 = 25;
}

/// What routing needs to know of a WAN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Uplink {
    pub(super) description: String,
    pub(super) mark: WanMark,
    pub(super) fwmark: FwMark,
    pub(super) iface: IfName,
    pub(super) ip: Ipv4Addr,
    pub(super) prefix_len: u8,
    pub(super) gateway: Ipv4Addr,
}

impl From<&Wan> for Uplink {
    fn from(wan: &Wan) -> Self {
        Self {
            description: wan.description.clone(),
            mark: wan.mark,
            fwmark: wan.fwmark,
            iface: wan.iface.clone(),
            ip: wan.ip,
            prefix_len: wan.prefix_len,
            gateway: wan.gateway,
        }
    }
}

impl Uplink {
    /// As people know it.
    pub(super) fn label(&self) -> WanLabel {
        WanLabel { description: self.description.clone(), iface: self.iface.clone(), mark: self.mark }
    }

    /// Its default route in `table`.
    pub(super) fn via(&self, table: TableId, oif: IfIndex) -> Via {
        let on_link = Ipv4Net::new(self.ip, self.prefix_len).is_ok_and(|net| net.contains(&self.gateway));
        Via { table, gateway: self.gateway, oif, source: self.ip, onlink: !on_link }
    }
}

/// The parts of the configuration that routing follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setup {
    pub(super) uplinks: Vec<Uplink>,
    pub(super) mask: MarkMask,
    pub(super) rule_priority: u32,
    pub(super) output: OutputFilters,
}

impl From<&Config> for Setup {
    fn from(config: &Config) -> Self {
        Self {
            uplinks: config.wans.iter().map(Uplink::from).collect(),
            mask: config.daemon.mark_mask,
            rule_priority: config.daemon.rule_priority,
            output: OutputFilters::new(config),
        }
    }
}

impl Setup {
    pub(super) fn uplink(&self, wan: WanMark) -> Option<&Uplink> {
        self.uplinks.iter().find(|uplink| uplink.mark == wan)
    }

    /// The rules of every WAN, present or not, in the kernel's order.
    pub(super) fn rules(&self) -> Vec<Rule> {
        let at = |order: u32, selector, table| Rule { priority: self.rule_priority + order, selector, table };
        let each = |rule: &dyn Fn(&Uplink) -> Rule| self.uplinks.iter().map(rule).collect::<Vec<_>>();
        let mut rules = vec![at(order::SPECIFIC, Selector::Specific, TableId::MAIN)];
        rules.extend(each(&|w| at(order::FROM_INTERNET, Selector::Iif(w.iface.clone()), TableId::MAIN)));
        rules.extend(each(&|w| {
            let selector = Selector::Mark { mark: w.fwmark, mask: self.mask };
            at(order::MARKED, selector, w.mark.table())
        }));
        rules.extend(each(&|w| at(order::FROM_ADDRESS, Selector::From(w.ip), w.mark.table())));
        // Without it the kernel takes whatever such a socket sends to for a neighbour, because the main table's default
        // route goes elsewhere.
        rules.extend(each(&|w| at(order::BY_INTERFACE, Selector::Oif(w.iface.clone()), w.mark.table())));
        // Two WANs on one interface (two addresses of one cable) share their `iif` rule: asking twice is asking once. Of
        // their `oif` rules the first with a route in its table decides.
        rules.into_iter().fold(Vec::new(), |mut unique, rule| {
            if !unique.contains(&rule) {
                unique.push(rule);
            }
            unique
        })
    }

    /// The default route of each present WAN's table.
    pub(super) fn routes(&self, wish: &Routes) -> Vec<(WanLabel, Via)> {
        let present = |uplink: &Uplink| wish.present.get(&uplink.mark).copied();
        self.uplinks
            .iter()
            .filter_map(|uplink| Some((uplink.label(), uplink.via(uplink.mark.table(), present(uplink)?))))
            .collect()
    }

    /// Where the main table's default route is to go; `None`: wherever it goes.
    pub(super) fn default(&self, wish: &Routes) -> Option<(WanLabel, Via)> {
        let wan = wish.default?;
        let uplink = self.uplink(wan)?;
        Some((uplink.label(), uplink.via(TableId::MAIN, *wish.present.get(&wan)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uplink(mark: u8, iface: &str, ip: &str, prefix_len: u8, gateway: &str) -> Uplink {
        let mark = WanMark::new(mark).unwrap();
        Uplink {
            description: format!("WAN{mark}"),
            mark,
            fwmark: MarkMask::default().encode(mark).unwrap(),
            iface: IfName::new(iface).unwrap(),
            ip: ip.parse().unwrap(),
            prefix_len,
            gateway: gateway.parse().unwrap(),
        }
    }

    fn setup() -> Setup {
        Setup {
            uplinks: vec![
                uplink(1, "eth1", "10.0.1.2", 24, "10.0.1.1"),
                uplink(2, "ppp0", "10.0.2.2", 32, "10.9.9.9"),
            ],
            mask: MarkMask::default(),
            rule_priority: 30000,
            output: OutputFilters::default(),
        }
    }

    #[test]
    fn every_wan_has_its_rules_in_order() {
        let rules: Vec<_> = setup().rules().iter().map(ToString::to_string).collect();
        assert_eq!(
            rules,
            [
                "30000: from all lookup main suppress_prefixlength 0",
                "30010: from all iif eth1 lookup main",
                "30010: from all iif ppp0 lookup main",
                "30015: from all fwmark 0x1/0xff lookup WAN1",
                "30015: from all fwmark 0x2/0xff lookup WAN2",
                "30020: from 10.0.1.2 lookup WAN1",
                "30020: from 10.0.2.2 lookup WAN2",
                "30025: from all oif eth1 lookup WAN1",
                "30025: from all oif ppp0 lookup WAN2",
            ]
        );
    }

    #[test]
    fn two_wans_on_one_interface_share_a_rule() {
        let mut setup = setup();
        setup.uplinks[1].iface = setup.uplinks[0].iface.clone();
        assert_eq!(setup.rules().len(), 8);
    }

    /// The index of no interface, which therefore has no name.
    const NOWHERE: u32 = 77_777;

    #[test]
    fn only_present_wans_have_routes_and_only_they_can_be_the_default() {
        let (one, two) = (WanMark::new(1).unwrap(), WanMark::new(2).unwrap());
        let mut wish =
            Routes { present: [(two, IfIndex(NOWHERE))].into(), default: Some(one), ..Routes::default() };
        let routes = setup().routes(&wish);
        assert_eq!(routes.len(), 1);
        assert_eq!(routes[0].1.to_string(), "default via 10.9.9.9 dev 77777 src 10.0.2.2 onlink table WAN2");
        assert_eq!(setup().default(&wish), None);
        wish.default = Some(two);
        assert_eq!(setup().default(&wish).unwrap().1.table, TableId::MAIN);
        wish.present.insert(one, IfIndex(3));
        assert!(!setup().routes(&wish)[0].1.onlink);
    }
}

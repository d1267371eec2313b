//! `WANS`: each entry on its own, then what they must not share.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::filter;
use super::general::General;
use super::model::{Filter, Target, Wan};
use super::net;
use super::node::Position;
use super::problem::{Report, Shown};
use super::scalar::{boolean, description, free_text, integer, mark};
use super::section::{Found, Section};
use super::unique::Unique;
use crate::types::{FwMark, IfName, WanMark};

pub(super) const KEYS: &[&str] = &[
    "description",
    "note",
    "enabled",
    "mark",
    "orderFailover",
    "iface",
    "ip",
    "mask",
    "gateway",
    "dns",
    "ping",
    "filters",
];

/// The name of the loopback, in every network namespace.
const LOOPBACK: &str = "lo";

/// What only one WAN may have. Marks count for disabled WANs too: their table number stays reserved.
#[derive(Default)]
struct Taken {
    marks: Unique<WanMark>,
    descriptions: Unique<String>,
    orders: Unique<u8>,
    devices: Unique<IfName>,
    addresses: Unique<Ipv4Addr>,
    filters: Unique<String>,
}

/// Reads the enabled WANs, in steering order: by `orderFailover`, then those without one by mark.
pub(super) fn read_all(root: &Section<'_>, general: &General, report: &mut Report) -> Vec<Wan> {
    let Some(list) = root.find("WANS") else {
        root.missing("WANS", report);
        return Vec::new();
    };
    if list.text().is_some() {
        list.must_be("a list of WANs", report);
        return Vec::new();
    }
    let mut reader = Reader {
        general,
        taken: Taken::default(),
        orders: BTreeMap::new(),
        enabled: 0,
        unsure: list.is_mapping(),
        without_targets: None,
        without_servers: None,
    };
    let items: Vec<_> = list.items(report).map(|item| item.named("WAN")).collect();
    let wans = items.iter().filter_map(|item| reader.read(item, report));
    let mut wans: Vec<Wan> = wans.collect();

    if reader.enabled == 0 && !reader.unsure {
        report.error(list.at, &list.path, format_args!("must have at least one enabled WAN"));
    }
    reader.check_orders(&list, report);
    if let Some(who) = reader.without_targets {
        let why = format_args!("required key is missing: {who} has no ping of its own");
        root.missing_below("ping", "targets", why, report);
    }
    if let Some(who) = reader.without_servers {
        let why = format_args!("required key is missing: {who} probes a name and has no dns of its own");
        root.missing_below("dns", "servers", why, report);
    }
    wans.sort_by_key(|wan| (wan.order_failover.is_none(), wan.order_failover, wan.mark));
    wans
}

struct Reader<'g, 'p> {
    general: &'g General,
    taken: Taken,
    /// Each order given and who has it.
    orders: BTreeMap<u8, (Found<'p>, Position)>,
    enabled: usize,
    /// Something counted here could not be read, so the count proves nothing.
    unsure: bool,
    /// The first WAN that needs `ping.targets` where there are none.
    without_targets: Option<String>,
    /// The first WAN that needs `dns.servers` where there are none.
    without_servers: Option<String>,
}

impl<'p> Reader<'_, 'p> {
    fn read(&mut self, item: &Found<'p>, report: &mut Report) -> Option<Wan> {
        let Some(wan) = Section::open(*item, report) else {
            self.unsure = true;
            return None;
        };
        let who = match item.description() {
            Some(description) => format!("WAN \"{}\"", Shown(description)),
            None => item.path.to_string(),
        };
        let enabled = wan.with_default("enabled", boolean, true, report);
        let mark = self.mark(&wan, &who, report);
        if !enabled {
            return None;
        }
        self.enabled += 1;
        wan.check_keys(KEYS, report);

        let fwmark = mark.and_then(|mark| self.fwmark(&wan, mark, report));
        let description = self.description(&wan, report);
        let note = wan.optional("note", free_text, report);
        let order_failover = self.order(item, &wan, &who, report);
        let iface = self.iface(&wan, &who, report);
        let ip = self.ip(&wan, &who, report);
        let prefix_len = wan.required("mask", integer(0..=32), report);
        let gateway = wan.required("gateway", net::host_address, report);
        if let (Some(ip), Some(prefix_len), Some(gateway)) = (ip, prefix_len, gateway) {
            check_gateway(&wan, ip, prefix_len, gateway, report);
        }
        let targets = self.targets(&wan, &who, report);
        let dns = self.servers(&wan, &targets, &who, report);
        let filters = self.filters(&wan, order_failover, &who, report);
        Some(Wan {
            description: description?,
            note,
            mark: mark?,
            fwmark: fwmark?,
            order_failover,
            iface: iface?,
            ip: ip?,
            prefix_len: prefix_len?,
            gateway: gateway?,
            dns,
            targets,
            filters,
        })
    }

    fn mark(&mut self, wan: &Section<'_>, who: &str, report: &mut Report) -> Option<WanMark> {
        let mark = wan.required("mark", mark, report)?;
        let found = wan.find("mark")?;
        if let Err(owner) = self.taken.marks.take(mark, who, found.at.line) {
            let rule = format!("unique among all WANs: {} has it, line {}", owner.name, owner.line);
            found.must_be(&rule, report);
        }
        Some(mark)
    }

    fn fwmark(&self, wan: &Section<'_>, mark: WanMark, report: &mut Report) -> Option<FwMark> {
        let mask = self.general.daemon.mark_mask;
        let fwmark = mask.encode(mark);
        if let (None, Some(found)) = (fwmark, wan.find("mark")) {
            let rule =
                format!("at most {}, which is all that daemon.markMask ({mask}) can hold", mask.capacity());
            found.must_be(&rule, report);
        }
        fwmark
    }

    fn description(&mut self, wan: &Section<'_>, report: &mut Report) -> Option<String> {
        let description = wan.required("description", description, report)?;
        let found = wan.find("description")?;
        if let Err(owner) = self.taken.descriptions.take(description.clone(), &description, found.at.line) {
            let rule = format!("unique among enabled WANs: another has it, line {}", owner.line);
            found.must_be(&rule, report);
        }
        Some(description)
    }

    fn order(&mut self, item: &Found<'p>, wan: &Section<'p>, who: &str, report: &mut Report) -> Option<u8> {
        let found = wan.find("orderFailover")?;
        let Some(order) = found.read(integer(1..=WanMark::MAX), report) else {
            self.unsure = true;
            return None;
        };
        match self.taken.orders.take(order, who, found.at.line) {
            Ok(()) => {
                self.orders.insert(order, (*item, found.at));
            }
            Err(owner) => {
                let rule = format!("unique among enabled WANs: {} has it, line {}", owner.name, owner.line);
                found.must_be(&rule, report);
            }
        }
        Some(order)
    }

    /// Orders count from 1 without a gap; the first WAN behind a gap is reported.
    fn check_orders(&self, list: &Found<'_>, report: &mut Report) {
        if self.unsure || self.enabled == 0 {
            return;
        }
        if self.orders.is_empty() {
            report.warning(
                list.at,
                &list.path,
                format_args!("no enabled WAN has an orderFailover, so none can become the default"),
            );
        }
        for ((order, (wan, at)), expected) in self.orders.iter().zip(1..) {
            if *order != expected {
                let path = wan.path.key("orderFailover");
                let rule = format!("without a gap, counted from 1 among enabled WANs: {expected} is missing");
                report.must_be(*at, &path, &order.to_string(), &rule);
                return;
            }
        }
    }

    fn iface(&mut self, wan: &Section<'_>, who: &str, report: &mut Report) -> Option<IfName> {
        let device = wan.required("iface", net::device, report)?;
        let found = wan.find("iface")?;
        if device.as_str() == LOOPBACK {
            found.must_be("a link to the internet, which the loopback is not", report);
        }
        if let Err(owner) = self.taken.devices.take(device.clone(), who, found.at.line) {
            let rule = format!(
                "a device of its own: {} is on {device} too (line {}), and the packets of two WANs on one device \
                 cannot be told apart",
                owner.name, owner.line
            );
            found.must_be(&rule, report);
        }
        Some(device)
    }

    fn ip(&mut self, wan: &Section<'_>, who: &str, report: &mut Report) -> Option<Ipv4Addr> {
        let ip = wan.required("ip", net::host_address, report)?;
        let found = wan.find("ip")?;
        if let Err(owner) = self.taken.addresses.take(ip, who, found.at.line) {
            report.warning(
                found.at,
                &found.path,
                format_args!(
                    "{} has {ip} too (line {}): connections of the router itself cannot be kept on one of them",
                    owner.name, owner.line
                ),
            );
        }
        Some(ip)
    }

    fn targets(&mut self, wan: &Section<'_>, who: &str, report: &mut Report) -> Vec<Target> {
        if let Some(list) = wan.find("ping") {
            return net::targets(&list, report);
        }
        if !self.general.targets_given && self.without_targets.is_none() {
            self.without_targets = Some(who.to_owned());
        }
        self.general.ping.targets.clone()
    }

    /// Servers are only needed where a name has to be resolved.
    fn servers(
        &mut self,
        wan: &Section<'_>,
        targets: &[Target],
        who: &str,
        report: &mut Report,
    ) -> Vec<Ipv4Addr> {
        if let Some(list) = wan.find("dns") {
            return net::servers(&list, report);
        }
        let resolves = targets.iter().any(|target| matches!(target, Target::Name(_)));
        if resolves && !self.general.servers_given && self.without_servers.is_none() {
            self.without_servers = Some(who.to_owned());
        }
        self.general.dns.servers.clone()
    }

    fn filters(
        &mut self,
        wan: &Section<'_>,
        order: Option<u8>,
        who: &str,
        report: &mut Report,
    ) -> Vec<Filter> {
        let Some(list) = wan.find("filters") else { return Vec::new() };
        let filters = filter::read_all(&list, who, &mut self.taken.filters, report);
        if order == Some(1) && !filters.is_empty() {
            report.warning(
                list.at,
                &list.path,
                format_args!(
                    "ignored: orderFailover 1 is the default WAN, which takes what no filter matches"
                ),
            );
        }
        filters
    }
}

fn check_gateway(wan: &Section<'_>, ip: Ipv4Addr, prefix_len: u8, gateway: Ipv4Addr, report: &mut Report) {
    let Some(found) = wan.find("gateway") else { return };
    if gateway == ip {
        found.must_be("another address than the WAN's own ip", report);
        return;
    }
    // A /32 is a point-to-point link: there the gateway is reached through the device, not the network.
    let outside = Ipv4Net::new(ip, prefix_len).is_ok_and(|net| !net.contains(&gateway));
    if outside && prefix_len < 32 {
        report.warning(
            found.at,
            &found.path,
            format_args!("{gateway} is outside {ip}/{prefix_len}: the kernel may find no way to it"),
        );
    }
}

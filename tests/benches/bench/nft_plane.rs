//! The best that nftables can do for the same policy: no rule for each filter, but two maps that are looked up once,
//! ports in a hash and prefixes in an interval map; the connection's mark is saved at once and taken back by the
//! first rule; routing rules for marks only.

use crate::policy::{DEFAULT_WAN, LIST_WAN, PORT_WAN, Policy, WANS, text};
use crate::router::LOCALNETS;
use anyhow::Result;
use multiwans_tests::topology::{gateway, wan_iface};
use multiwans_tests::{Lab, Ns};
use std::fmt::Write as _;

/// The table that holds it all.
const TABLE: &str = "ip multiwans_bench";

/// Puts it in force.
pub(crate) fn install(lab: &Lab, policy: &Policy) -> Result<()> {
    lab.feed(Ns::Router, "nft -f -", &ruleset(policy)?)?;
    let mut routing = String::new();
    for k in DEFAULT_WAN + 1..=WANS {
        let (iface, gateway) = (wan_iface(k), gateway(k));
        writeln!(routing, "route replace default via {gateway} dev {iface} table {k}")?;
        writeln!(routing, "rule add pref {} iif {iface} lookup main", 100 + u32::from(k))?;
        writeln!(routing, "rule add pref {} fwmark {k} lookup {k}", 200 + u32::from(k))?;
    }
    lab.feed(Ns::Router, "ip -batch -", &routing).map(drop)
}

/// Takes it off.
pub(crate) fn remove(lab: &Lab) -> Result<()> {
    lab.sh(Ns::Router, &format!("nft delete table {TABLE}"))?;
    let mut routing = String::new();
    for k in DEFAULT_WAN + 1..=WANS {
        writeln!(routing, "rule delete pref {}", 100 + u32::from(k))?;
        writeln!(routing, "rule delete pref {}", 200 + u32::from(k))?;
    }
    lab.feed(Ns::Router, "ip -batch -", &routing).map(drop)
}

/// For `nft -f`.
fn ruleset(policy: &Policy) -> Result<String> {
    let mut rules = format!("table {TABLE} {{\n");
    writeln!(
        rules,
        "set localnets {{ type ipv4_addr; flags interval; elements = {{ {} }} }}",
        LOCALNETS.join(", ")
    )?;
    writeln!(rules, "map inbound {{ type ifname : mark; elements = {{")?;
    for k in 1..=WANS {
        writeln!(rules, "{} : {k},", wan_iface(k))?;
    }
    writeln!(rules, "}} }}")?;
    writeln!(rules, "map ports {{ type inet_proto . inet_service : mark;")?;
    if !policy.ports.is_empty() {
        writeln!(rules, "elements = {{")?;
        for port in &policy.ports {
            writeln!(rules, "udp . {port} : {PORT_WAN},")?;
        }
        writeln!(rules, "}}")?;
    }
    writeln!(rules, "}}")?;
    interval_map(&mut rules, "lists", policy.lists.iter().flatten().map(|net| text(*net)))?;
    rules.push_str(
        "chain prerouting {
            type filter hook prerouting priority mangle; policy accept;
            ct state established,related meta mark set ct mark accept
            ct state new meta mark set iifname map @inbound ct mark set meta mark accept
            ip daddr != @localnets meta mark set meta l4proto . th dport map @ports ct mark set meta mark accept
            meta mark set ip daddr map @lists ct mark set meta mark
        }
        }\n",
    );
    Ok(rules)
}

/// Appends a map from prefixes to the mark of their WAN.
pub(crate) fn interval_map(rules: &mut String, name: &str, nets: impl Iterator<Item = String>) -> Result<()> {
    writeln!(rules, "map {name} {{ type ipv4_addr : mark; flags interval; elements = {{")?;
    for net in nets {
        writeln!(rules, "{net} : {LIST_WAN},")?;
    }
    writeln!(rules, "}} }}")?;
    Ok(())
}

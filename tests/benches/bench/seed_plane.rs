//! The rules that the Bash tool would make for the same policy: legacy iptables, ipset, connection marks.
//!
//! Its filter rules test the destination first, by `ipset`, and then protocol, ports, state and mark; each is looked
//! at for every packet, whatever the ones before decided, and for packets of established connections too. In two
//! things this is kinder to it than its code: a list of destinations is one `hash:net` set here (it would make a
//! rule of each, and its `dst` never works), and sets hold more than its 1 024 entries.

use crate::policy::{LIST_WAN, WANS};
use crate::policy::{PORT_WAN, Policy, text};
use crate::router::LOCALNETS;
use anyhow::Result;
use multiwans_tests::topology::{gateway, wan_iface, wan_ip};
use multiwans_tests::{Lab, Ns};
use std::fmt::Write as _;

/// What every filter rule ends with.
const NEW_AND_UNMARKED: &str = "-m conntrack --ctstate NEW -m mark --mark 0";

/// Puts it in force.
pub(crate) fn install(lab: &Lab, policy: &Policy) -> Result<()> {
    lab.feed(Ns::Router, "ipset restore", &sets(policy)?)?;
    lab.feed(Ns::Router, "iptables-legacy-restore", &rules(policy)?)?;
    let mut routing = String::new();
    for k in 1..=WANS {
        let (iface, ip, gateway) = (wan_iface(k), wan_ip(k), gateway(k));
        writeln!(routing, "route replace default via {gateway} dev {iface} table {k}")?;
        // Without priorities: each comes before the one before it.
        writeln!(routing, "rule add from {ip} table {k}")?;
        writeln!(routing, "rule add fwmark {k} table {k}")?;
        writeln!(routing, "rule add iif {iface} from all lookup main")?;
    }
    lab.feed(Ns::Router, "ip -batch -", &routing).map(drop)
}

/// Takes it off, as far as it is there.
pub(crate) fn remove(lab: &Lab) -> Result<()> {
    lab.sh(Ns::Router, "iptables-legacy -t mangle -F")?;
    lab.sh(Ns::Router, "ipset destroy")?;
    lab.sh(Ns::Router, "ip -4 rule flush")?;
    lab.feed(
        Ns::Router,
        "ip -batch -",
        "rule add pref 32766 lookup main\nrule add pref 32767 lookup default\n",
    )?;
    Ok(())
}

/// For `ipset restore`.
pub(crate) fn sets(policy: &Policy) -> Result<String> {
    let mut sets = String::new();
    writeln!(sets, "create multiwans-localnets hash:net family inet maxelem 1024")?;
    for net in LOCALNETS {
        writeln!(sets, "add multiwans-localnets {net}")?;
    }
    for (number, list) in policy.lists.iter().enumerate() {
        set(&mut sets, &format!("multiwans-list{number}"), list.iter().map(|net| text(*net)))?;
    }
    Ok(sets)
}

/// Appends a set of its own for these prefixes.
pub(crate) fn set(sets: &mut String, name: &str, nets: impl ExactSizeIterator<Item = String>) -> Result<()> {
    let room = nets.len().max(1024);
    writeln!(sets, "create {name} hash:net family inet maxelem {room}")?;
    for net in nets {
        writeln!(sets, "add {name} {net}")?;
    }
    Ok(())
}

/// For `iptables-legacy-restore`: the order is the one its insertions and appendings come to.
fn rules(policy: &Policy) -> Result<String> {
    let restore = "-m conntrack --ctstate ESTABLISHED,RELATED -m comment --comment MULTIWANS_BASIC_MARK \
                   -j CONNMARK --restore-mark";
    let mut rules = "*mangle\n".to_owned();
    let inbound = |rules: &mut String, k: u8| {
        writeln!(
            rules,
            "-A PREROUTING -i {} -m policy --pol none --dir in -m conntrack --ctstate NEW \
             -m comment --comment MULTIWANS_INPUT_WAN{k} -j MARK --set-mark {k}",
            wan_iface(k)
        )
    };
    inbound(&mut rules, WANS)?;
    writeln!(rules, "-A PREROUTING {restore}")?;
    for k in (1..WANS).rev() {
        inbound(&mut rules, k)?;
    }
    for (number, port) in policy.ports.iter().enumerate() {
        writeln!(
            rules,
            "-A PREROUTING -m set ! --match-set multiwans-localnets dst -p udp --dport {port} \
             {NEW_AND_UNMARKED} -m comment --comment MULTIWANS_MARK_WAN{PORT_WAN}_PORT{number} \
             -j MARK --set-mark {PORT_WAN}"
        )?;
    }
    for number in 0..policy.lists.len() {
        writeln!(
            rules,
            "-A PREROUTING -m set --match-set multiwans-list{number} dst {NEW_AND_UNMARKED} \
             -m comment --comment MULTIWANS_MARK_WAN{LIST_WAN}_LIST{number} -j MARK --set-mark {LIST_WAN}"
        )?;
    }
    writeln!(rules, "-A OUTPUT {restore}")?;
    writeln!(
        rules,
        "-A POSTROUTING -m conntrack --ctstate NEW -m mark ! --mark 0 \
         -m comment --comment MULTIWANS_BASIC_MARK -j CONNMARK --save-mark"
    )?;
    rules.push_str("COMMIT\n");
    Ok(rules)
}

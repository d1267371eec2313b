//! A router steered by iptables alone, as its manual would do it.

use super::policy::{Filter, Policy};
use crate::Lab;
use crate::topology::{Ns, gateway, wan_iface};
use anyhow::Result;
use std::fmt::{Display, Write as _};

/// Routing tables of the WANs begin after this number.
const TABLES: u32 = 100;

/// A lab whose router has no daemon.
#[derive(Debug)]
pub struct Reference {
    lab: Lab,
}

impl Reference {
    /// A router of so many WANs, with a table for each.
    ///
    /// # Errors
    /// When the lab cannot be built.
    pub fn build(wans: u8) -> Result<Self> {
        let lab = Lab::builder().wans(wans).rp_filter(0).build()?;
        for k in 1..=wans {
            let table = TABLES + u32::from(k);
            let (gateway, iface) = (gateway(k), wan_iface(k));
            lab.sh(Ns::Router, &format!("ip route add default via {gateway} dev {iface} table {table}"))?;
            lab.sh(Ns::Router, &format!("ip rule add fwmark {k} lookup {table}"))?;
        }
        Ok(Self { lab })
    }

    /// The lab.
    #[must_use]
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// Steers by a policy, while WAN `default` is the default and `down` is out of service.
    ///
    /// # Errors
    /// When iptables refuses.
    pub fn steer(&self, policy: &Policy, default: u8, down: Option<u8>) -> Result<()> {
        let (gateway, iface) = (gateway(default), wan_iface(default));
        self.lab.sh(Ns::Router, &format!("ip route replace default via {gateway} dev {iface}"))?;
        let rules = rules(policy, default, down)?;
        self.lab.feed(Ns::Router, "iptables-legacy-restore", &rules)?;
        Ok(())
    }
}

/// The mangle table: one chain for each filter, tried in order until a packet has a mark.
fn rules(policy: &Policy, default: u8, down: Option<u8>) -> Result<String> {
    let mut chains = String::new();
    let mut order = String::new();
    let mut bodies = String::new();
    for (k, filters) in (1_u8..).zip(&policy.filters) {
        // Filters of the first WAN steer nothing; those of a dead link and of the default are lifted.
        if k == 1 || k == default || Some(k) == down {
            continue;
        }
        for (number, filter) in filters.iter().enumerate() {
            let chain = format!("w{k}f{number}");
            writeln!(chains, ":{chain} - [0:0]")?;
            writeln!(order, "-A PREROUTING -i eth0 -m mark --mark 0 -j {chain}")?;
            bodies.push_str(&body(&chain, filter, policy, k)?);
        }
    }
    Ok(format!("*mangle\n:PREROUTING ACCEPT [0:0]\n{chains}{order}{bodies}COMMIT\n"))
}

fn body(chain: &str, filter: &Filter, policy: &Policy, k: u8) -> Result<String> {
    let mut body = String::new();
    if filter.dst.is_empty() {
        for net in &policy.localnets {
            writeln!(body, "-A {chain} -d {net} -j RETURN")?;
        }
    }
    write!(body, "-A {chain} -p {}", filter.protocol)?;
    let mut selector = |option: &str, list: String| {
        if list.is_empty() { Ok(()) } else { write!(body, " {option} {list}") }
    };
    selector("-s", joined(&filter.src))?;
    selector("-d", joined(&filter.dst))?;
    selector("-m multiport --sports", joined(&filter.sports))?;
    selector("-m multiport --dports", joined(&filter.dports))?;
    writeln!(body, " -j MARK --set-mark {k}")?;
    Ok(body)
}

fn joined(items: &[impl Display]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

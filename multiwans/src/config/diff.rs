//! What another configuration changes, key by key, and which of it can be done while the daemon runs.
//!
//! Everything here takes its structures apart field by field: a new key does not compile until it has its
//! place in one of the two lists.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::time::Duration;

use super::model::{
    Alerts, Company, Config, Daemon, Dns, Email, Filter, Flows, Hooks, Login, PasswordSource, Ping, Probe,
    Target, Wan,
};
use crate::types::WanMark;

/// The difference between the configuration in force and another one. Texts are for people and never hold
/// a password.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Difference {
    /// What can be put in force at once: `ping.timeout 3 s -> 2 s`.
    pub live: Vec<String>,
    /// Keys that are followed from a start on only, one each: `WAN2.gateway 10.0.2.1 -> 10.0.2.9`.
    pub at_restart: Vec<String>,
    /// Filters or `localnets` changed: another policy.
    pub filters: bool,
    /// WANs that are to be probed in another way: targets, timing, or how their names are resolved.
    pub probes: BTreeSet<WanMark>,
}

impl Difference {
    /// What `new` changes of `old`.
    pub fn between(old: &Config, new: &Config) -> Self {
        let mut this = Self::default();
        let Config { company, daemon, flows, alerts, ping, probe, dns, hooks, localnets, email, wans } = old;
        this.company(company, &new.company);
        this.daemon(daemon, &new.daemon);
        this.flows(flows, &new.flows);
        this.alerts(alerts, &new.alerts);
        this.ping(ping, &new.ping);
        this.probe(probe, &new.probe);
        this.dns(dns, &new.dns);
        this.hooks(hooks, &new.hooks);
        this.live_list("localnets", localnets, &new.localnets);
        this.email(email.as_ref(), new.email.as_ref());
        this.wans(wans, &new.wans);
        this.filters(wans, &new.wans);
        this.filters |= *localnets != new.localnets;
        this.probes = probed_otherwise(old, new);
        this
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.live.is_empty() && self.at_restart.is_empty()
    }

    fn company(&mut self, old: &Company, new: &Company) {
        let Company { name, department, site } = old;
        for (key, differs) in [
            ("name", *name != new.name),
            ("department", *department != new.department),
            ("site", *site != new.site),
        ] {
            self.live_if(differs, || format!("company.{key} changed"));
        }
    }

    fn daemon(&mut self, old: &Daemon, new: &Daemon) {
        let Daemon { run_interval, status_file, control_socket, mark_mask, log_level, rule_priority } = old;
        self.live_span("daemon.runInterval", *run_interval, new.run_interval);
        self.live_value("daemon.logLevel", log_level, &new.log_level);
        self.at_restart("daemon.statusFile", status_file.display(), new.status_file.display());
        self.at_restart("daemon.controlSocket", control_socket.display(), new.control_socket.display());
        self.at_restart("daemon.markMask", mark_mask, new.mark_mask);
        self.at_restart("daemon.rulePriority", rule_priority, new.rule_priority);
    }

    fn flows(&mut self, old: &Flows, new: &Flows) {
        let Flows { max } = old;
        self.at_restart("flows.max", max, new.max);
    }

    fn alerts(&mut self, old: &Alerts, new: &Alerts) {
        let Alerts { max, interval } = old;
        self.live_value("alerts.max", max, &new.max);
        self.live_span("alerts.interval", *interval, new.interval);
    }

    fn ping(&mut self, old: &Ping, new: &Ping) {
        let Ping { count, timeout, targets } = old;
        self.live_value("ping.count", count, &new.count);
        self.live_span("ping.timeout", *timeout, new.timeout);
        self.live_list("ping.targets", targets, &new.targets);
    }

    fn probe(&mut self, old: &Probe, new: &Probe) {
        let Probe { interval } = old;
        self.live_span("probe.interval", *interval, new.interval);
    }

    fn dns(&mut self, old: &Dns, new: &Dns) {
        let Dns { retry, timeout, servers } = old;
        self.live_value("dns.retry", retry, &new.retry);
        self.live_span("dns.timeout", *timeout, new.timeout);
        self.live_list("dns.servers", servers, &new.servers);
    }

    fn hooks(&mut self, old: &Hooks, new: &Hooks) {
        let Hooks { dir, timeout } = old;
        self.live_if(*dir != new.dir, || format!("hooks.dir {} -> {}", dir.display(), new.dir.display()));
        self.live_span("hooks.timeout", *timeout, new.timeout);
    }

    fn email(&mut self, old: Option<&Email>, new: Option<&Email>) {
        let (old, new) = match (old, new) {
            (Some(old), Some(new)) => (old, new),
            (None, None) => return,
            (None, Some(_)) => return self.live.push("email added".to_owned()),
            (Some(_), None) => return self.live.push("email removed".to_owned()),
        };
        let Email { from, to, host, port, tls, ca_file, login } = old;
        self.live_value("email.from", from, &new.from);
        self.live_if(*to != new.to, || format!("email.to {} -> {}", to.join(", "), new.to.join(", ")));
        self.live_value("email.host", host, &new.host);
        self.live_value("email.port", port, &new.port);
        self.live_if(*tls != new.tls, || "email.tls changed".to_owned());
        self.live_if(*ca_file != new.ca_file, || "email.caFile changed".to_owned());
        let none = (None, None);
        let parts = |login: &'_ Option<Login>| login.as_ref().map_or(none.clone(), login_parts);
        let ((user, password), (new_user, new_password)) = (parts(login), parts(&new.login));
        self.live_if(user != new_user, || "email.username changed".to_owned());
        self.live_if(password != new_password, || {
            "where the e-mail password is, or itself, changed".to_owned()
        });
    }

    /// WANs are the same while their mark is; only a mark that is there no more is looked for by name.
    fn wans(&mut self, old: &[Wan], new: &[Wan]) {
        let again = |wan: &Wan| {
            let same = new.iter().find(|other| other.mark == wan.mark);
            same.or_else(|| {
                new.iter().find(|other| {
                    other.description == wan.description && !old.iter().any(|wan| wan.mark == other.mark)
                })
            })
        };
        for wan in old {
            match again(wan) {
                Some(other) => self.wan(wan, other),
                None => self.at_restart.push(format!("WANS: {} removed", wan.description)),
            }
        }
        let known = |wan: &&Wan| old.iter().filter_map(again).any(|known| known.mark == wan.mark);
        for wan in new.iter().filter(|wan| !known(wan)) {
            self.at_restart.push(format!("WANS: {} added", wan.description));
        }
    }

    fn wan(&mut self, old: &Wan, new: &Wan) {
        let Wan {
            description,
            note,
            mark,
            // Follows from mark and markMask.
            fwmark: _,
            order_failover,
            iface,
            ip,
            prefix_len,
            gateway,
            dns,
            targets,
            // All WANs' together: one may move from one to another.
            filters: _,
        } = old;
        let key = |key: &str| format!("{description}.{key}");
        let order = |order: Option<u8>| order.map_or_else(|| "none".to_owned(), |order| order.to_string());
        self.at_restart(&key("description"), description, &new.description);
        self.at_restart(&key("mark"), mark, new.mark);
        self.at_restart(&key("orderFailover"), order(*order_failover), order(new.order_failover));
        self.at_restart(&key("iface"), iface, &new.iface);
        self.at_restart(&key("ip"), ip, new.ip);
        self.at_restart(&key("mask"), prefix_len, new.prefix_len);
        self.at_restart(&key("gateway"), gateway, new.gateway);
        self.live_if(*note != new.note, || format!("{description}.note changed"));
        // Where they come from (this WAN or all) is no difference; said once for all is said already.
        let told = |key: &str, live: &[String]| live.iter().any(|line| line.starts_with(key));
        let (dns_told, targets_told) = (told("dns.servers", &self.live), told("ping.targets", &self.live));
        self.live_if(*dns != new.dns && !dns_told, || format!("{description}.dns changed"));
        self.live_if(*targets != new.targets && !targets_told, || format!("{description}.ping changed"));
    }

    fn filters(&mut self, old: &[Wan], new: &[Wan]) {
        let (old, new): (Vec<_>, Vec<_>) = (filters(old).collect(), filters(new).collect());
        self.filters = old != new;
        if !self.filters {
            return;
        }
        let (before, now) = (by_name(&old), by_name(&new));
        let names = |is_it: &dyn Fn(&str) -> bool, list: &[(WanMark, &Filter)]| -> Vec<String> {
            let names = list.iter().map(|(_, filter)| filter.description.clone());
            names.filter(|name| is_it(name)).collect()
        };
        let added = names(&|name| !before.contains_key(name), &new);
        let removed = names(&|name| !now.contains_key(name), &old);
        let changed = names(&|name| before.contains_key(name) && before.get(name) != now.get(name), &new);
        let only_order = added.is_empty() && removed.is_empty() && changed.is_empty();
        for (what, names) in [("added", added), ("removed", removed), ("changed", changed)] {
            self.live_if(!names.is_empty(), || {
                let plural = if names.len() == 1 { "filter" } else { "filters" };
                format!("{} {plural} {what} ({})", names.len(), shortened(&names))
            });
        }
        self.live_if(only_order, || "filters in another order".to_owned());
    }

    fn live_if(&mut self, differs: bool, text: impl FnOnce() -> String) {
        if differs {
            self.live.push(text());
        }
    }

    fn live_value<T: PartialEq + Display>(&mut self, key: &str, old: &T, new: &T) {
        self.live_if(old != new, || format!("{key} {old} -> {new}"));
    }

    fn live_span(&mut self, key: &str, old: Duration, new: Duration) {
        self.live_value(key, &spelt(old), &spelt(new));
    }

    /// A list is too long to be shown.
    fn live_list<T: PartialEq>(&mut self, key: &str, old: &[T], new: &[T]) {
        self.live_if(old != new, || format!("{key} changed"));
    }

    fn at_restart(&mut self, key: &str, old: impl Display, new: impl Display) {
        let (old, new) = (old.to_string(), new.to_string());
        if old != new {
            self.at_restart.push(format!("{key} {old} -> {new}"));
        }
    }
}

type LoginParts = (Option<String>, Option<PasswordSource>);

fn login_parts(login: &Login) -> LoginParts {
    let Login { user, password } = login;
    (Some(user.clone()), Some(password.clone()))
}

fn filters(wans: &[Wan]) -> impl Iterator<Item = (WanMark, &Filter)> {
    wans.iter().flat_map(|wan| wan.filters.iter().map(move |filter| (wan.mark, filter)))
}

fn by_name<'a>(list: &[(WanMark, &'a Filter)]) -> BTreeMap<&'a str, (WanMark, &'a Filter)> {
    list.iter().map(|(wan, filter)| (filter.description.as_str(), (*wan, *filter))).collect()
}

/// WANs whose prober works by something else now.
fn probed_otherwise(old: &Config, new: &Config) -> BTreeSet<WanMark> {
    let timing = |config: &Config| (config.probe.interval, config.ping.timeout);
    let resolving = |config: &Config| (config.dns.retry, config.dns.timeout);
    let all = timing(old) != timing(new);
    let pairs = new.wans.iter().filter_map(|wan| Some((wan, old.wans.iter().find(|o| o.mark == wan.mark)?)));
    pairs
        .filter(|(wan, before)| {
            let any_name = wan.targets.iter().any(|target| matches!(target, Target::Name(_)));
            let resolved_otherwise = wan.dns != before.dns || resolving(old) != resolving(new);
            all || wan.targets != before.targets || any_name && resolved_otherwise
        })
        .map(|(wan, _)| wan.mark)
        .collect()
}

/// As the file would have it: `1 s`, `500 ms`.
fn spelt(span: Duration) -> String {
    match (span.subsec_millis(), span.as_secs()) {
        (0, secs) if secs >= 120 && secs % 60 == 0 => format!("{} min", secs / 60),
        (0, secs) => format!("{secs} s"),
        _ => format!("{} ms", span.as_millis()),
    }
}

fn shortened(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let mut text = names.iter().take(SHOWN).map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text += ", …";
    }
    text
}

#[cfg(test)]
#[path = "diff_tests.rs"]
mod tests;

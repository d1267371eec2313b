//! Everything but `WANS` and `email`.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::Ipv4Net;

use super::model::{Alerts, Company, Daemon, Dns, Flows, Hooks, LogLevel, Ping, Probe};
use super::net;
use super::problem::Report;
use super::scalar::{
    Rule, duration, file_path, folder_path, free_text, integer, log_level, mark_mask, socket_path,
};
use super::section::Section;
use crate::types::MarkMask;

const COMPANY_KEYS: &[&str] = &["name", "department", "site"];
const DAEMON_KEYS: &[&str] =
    &["runInterval", "statusFile", "controlSocket", "markMask", "rulePriority", "logLevel"];
const FLOWS_KEYS: &[&str] = &["max"];
const ALERTS_KEYS: &[&str] = &["max", "interval"];
const PING_KEYS: &[&str] = &["count", "timeout", "targets"];
const PROBE_KEYS: &[&str] = &["interval"];
const DNS_KEYS: &[&str] = &["retry", "timeout", "servers"];
const HOOKS_KEYS: &[&str] = &["dir", "timeout"];

const DEFAULT_STATUS_FILE: &str = "/tmp/.multiwans.status";
const DEFAULT_CONTROL_SOCKET: &str = "/run/multiwans/control.sock";
/// Beside the configuration file, where the seed had it.
const DEFAULT_HOOKS_DIR: &str = "scripts";
/// Above the priorities that other software likes (0 to 30000 is crowded by hand-written rules, VPNs
/// and container networks), below the main table's 32766.
const DEFAULT_RULE_PRIORITY: u32 = 30_000;
/// Our rules take 100 priorities, all below the kernel's own rule for the main table at 32766.
const MAX_RULE_PRIORITY: u32 = 32_766 - 100 - 1;

/// What an office or a school with some hundred people has at once, ten times over; 24 MiB of the kernel's
/// memory.
const DEFAULT_FLOWS: u32 = 262_144;

/// The seed's list: what is never reached through a WAN.
const DEFAULT_LOCALNETS: [Ipv4Net; 10] = [
    Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16),
    Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 0, 0), 12),
    Ipv4Net::new_assert(Ipv4Addr::new(192, 0, 2, 0), 24),
    Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 0, 0), 16),
    Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4),
    Ipv4Net::new_assert(Ipv4Addr::new(240, 0, 0, 0), 5),
    Ipv4Net::new_assert(Ipv4Addr::new(248, 0, 0, 0), 5),
    Ipv4Net::new_assert(Ipv4Addr::new(255, 255, 255, 255), 32),
];

/// The sections that stand above the WANs.
pub(super) struct General {
    pub(super) company: Company,
    pub(super) daemon: Daemon,
    pub(super) flows: Flows,
    pub(super) alerts: Alerts,
    pub(super) ping: Ping,
    pub(super) probe: Probe,
    pub(super) dns: Dns,
    pub(super) hooks: Hooks,
    pub(super) localnets: Vec<Ipv4Net>,
    /// Whether the file has `ping.targets`, right or wrong.
    pub(super) targets_given: bool,
    /// Whether the file has `dns.servers`, right or wrong.
    pub(super) servers_given: bool,
}

/// Reads them; wrong values stand as their defaults.
pub(super) fn read(root: &Section<'_>, report: &mut Report) -> General {
    let (ping, targets_given) = ping(root, report);
    let (dns, servers_given) = dns(root, report);
    General {
        company: company(root, report),
        daemon: daemon(root, report),
        flows: flows(root, report),
        alerts: alerts(root, report),
        ping,
        probe: probe(root, report),
        dns,
        hooks: hooks(root, report),
        localnets: localnets(root, report),
        targets_given,
        servers_given,
    }
}

fn company(root: &Section<'_>, report: &mut Report) -> Company {
    let company = root.section("company", COMPANY_KEYS, report);
    let mut text = |key| company.optional(key, free_text, report).filter(|text| !text.is_empty());
    Company { name: text("name"), department: text("department"), site: text("site") }
}

fn daemon(root: &Section<'_>, report: &mut Report) -> Daemon {
    let section = root.section("daemon", DAEMON_KEYS, report);
    let daemon = Daemon {
        run_interval: section.with_default("runInterval", seconds(10, 60), Duration::from_secs(20), report),
        status_file: section.with_default("statusFile", file_path, DEFAULT_STATUS_FILE.into(), report),
        control_socket: section.with_default(
            "controlSocket",
            socket_path,
            PathBuf::from(DEFAULT_CONTROL_SOCKET),
            report,
        ),
        mark_mask: section.with_default("markMask", mark_mask, MarkMask::default(), report),
        log_level: section.with_default("logLevel", log_level, LogLevel::default(), report),
        rule_priority: section.with_default(
            "rulePriority",
            integer(1..=MAX_RULE_PRIORITY),
            DEFAULT_RULE_PRIORITY,
            report,
        ),
    };
    if daemon.status_file == daemon.control_socket
        && let Some(found) = section.find("controlSocket").or_else(|| section.find("statusFile"))
    {
        report.error(found.at, &found.path, format_args!("statusFile and controlSocket must be two files"));
    }
    daemon
}

fn flows(root: &Section<'_>, report: &mut Report) -> Flows {
    let flows = root.section("flows", FLOWS_KEYS, report);
    Flows { max: flows.with_default("max", integer(1_024..=4_194_304), DEFAULT_FLOWS, report) }
}

fn alerts(root: &Section<'_>, report: &mut Report) -> Alerts {
    let alerts = root.section("alerts", ALERTS_KEYS, report);
    let minutes = alerts.with_default("interval", integer(5..=720), 30u64, report);
    Alerts {
        max: alerts.with_default("max", integer(2..=10), 2, report),
        interval: Duration::from_secs(minutes * 60),
    }
}

fn ping(root: &Section<'_>, report: &mut Report) -> (Ping, bool) {
    let ping = root.section("ping", PING_KEYS, report);
    let targets = ping.find("targets");
    let values = Ping {
        count: ping.with_default("count", integer(1..=2), 1, report),
        timeout: ping.with_default("timeout", seconds(1, 5), Duration::from_secs(3), report),
        targets: targets.as_ref().map(|list| net::targets(list, report)).unwrap_or_default(),
    };
    (values, targets.is_some())
}

fn probe(root: &Section<'_>, report: &mut Report) -> Probe {
    let probe = root.section("probe", PROBE_KEYS, report);
    let rule = duration(Duration::from_millis(100)..=Duration::from_secs(60), "100ms..60s");
    Probe { interval: probe.with_default("interval", rule, Duration::from_secs(1), report) }
}

fn dns(root: &Section<'_>, report: &mut Report) -> (Dns, bool) {
    let dns = root.section("dns", DNS_KEYS, report);
    let servers = dns.find("servers");
    let values = Dns {
        retry: dns.with_default("retry", integer(1..=5), 1, report),
        timeout: dns.with_default("timeout", seconds(1, 10), Duration::from_secs(2), report),
        servers: servers.as_ref().map(|list| net::servers(list, report)).unwrap_or_default(),
    };
    (values, servers.is_some())
}

fn hooks(root: &Section<'_>, report: &mut Report) -> Hooks {
    let hooks = root.section("hooks", HOOKS_KEYS, report);
    let rule = duration(Duration::from_secs(1)..=Duration::from_secs(3_600), "1s..1h");
    Hooks {
        dir: hooks.with_default("dir", folder_path, DEFAULT_HOOKS_DIR.into(), report),
        timeout: hooks.with_default("timeout", rule, Duration::from_secs(30), report),
    }
}

fn localnets(root: &Section<'_>, report: &mut Report) -> Vec<Ipv4Net> {
    let Some(list) = root.find("localnets") else { return DEFAULT_LOCALNETS.to_vec() };
    if list.is_empty_list() {
        report.error(
            list.at,
            &list.path,
            format_args!("must list at least one network; without the key the default list applies"),
        );
    }
    net::prefixes(&list, report)
}

/// Whole seconds.
fn seconds(first: u64, last: u64) -> impl Fn(&str) -> Rule<Duration> {
    let rule = integer(first..=last);
    move |text| rule(text).map(Duration::from_secs)
}

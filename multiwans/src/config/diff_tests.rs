use super::*;
use crate::config::parse;

const BASE: &str = "\
company: {name: Acme, department: IT, site: 'https://example.org/'}
daemon: {runInterval: 20, statusFile: /tmp/status, logLevel: info}
alerts: {max: 3, interval: 60}
ping: {count: 1, timeout: 3, targets: [1.1.1.1, example.org]}
probe: {interval: 1s}
dns: {retry: 1, timeout: 2, servers: [9.9.9.9]}
hooks: {dir: /etc/hooks, timeout: 30s}
localnets: [10.0.0.0/8]
email: {host: mail.example.org, port: 587, from: a@example.org, to: b@example.org, username: u, password: one}
WANS:
  - {description: WAN1, note: x, mark: 1, orderFailover: 1, iface: eth1, ip: 10.0.1.2, mask: 24, gateway: 10.0.1.1}
  - description: WAN2
    mark: 2
    orderFailover: 2
    iface: eth2
    ip: 10.0.2.2
    mask: 24
    gateway: 10.0.2.1
    ping: [8.8.8.8]
    filters:
      - {description: web, protocol: tcp, chainMangle: PREROUTING, dports: [80]}
      - {description: dns, protocol: udp, chainMangle: OUTPUT, dports: [53]}
";

fn config(text: &str) -> Config {
    parse(text, "c.yaml").unwrap_or_else(|problems| panic!("{problems}")).config
}

fn changed(from: &str, to: &str) -> Difference {
    assert!(BASE.contains(from), "{from}");
    Difference::between(&config(BASE), &config(&BASE.replacen(from, to, 1)))
}

#[track_caller]
fn live(from: &str, to: &str, lines: &[&str]) -> Difference {
    let difference = changed(from, to);
    assert_eq!(difference.at_restart, Vec::<String>::new());
    assert_eq!(difference.live, lines);
    difference
}

#[track_caller]
fn at_restart(from: &str, to: &str, lines: &[&str]) {
    assert_eq!(changed(from, to).at_restart, lines);
}

fn marks(marks: &[u8]) -> BTreeSet<WanMark> {
    marks.iter().filter_map(|mark| WanMark::new(*mark)).collect()
}

#[test]
fn the_same_is_no_difference() {
    let same = Difference::between(&config(BASE), &config(&format!("# another comment\n{BASE}")));
    assert_eq!(same, Difference::default());
    assert!(same.is_empty());
}

#[test]
fn values_are_told_as_they_were_and_as_they_are() {
    live("runInterval: 20", "runInterval: 10", &["daemon.runInterval 20 s -> 10 s"]);
    live("logLevel: info", "logLevel: warn", &["daemon.logLevel info -> warn"]);
    live("max: 3", "max: 4", &["alerts.max 3 -> 4"]);
    live("interval: 60", "interval: 90", &["alerts.interval 60 min -> 90 min"]);
    live("name: Acme", "name: Emca", &["company.name changed"]);
    live("dir: /etc/hooks", "dir: /etc/other", &["hooks.dir /etc/hooks -> /etc/other"]);
    live("timeout: 30s", "timeout: 31s", &["hooks.timeout 30 s -> 31 s"]);
    live("note: x", "note: y", &["WAN1.note changed"]);
}

#[test]
fn probing_otherwise_says_whose() {
    assert_eq!(live("count: 1", "count: 2", &["ping.count 1 -> 2"]).probes, marks(&[]));
    assert_eq!(live("timeout: 3", "timeout: 2", &["ping.timeout 3 s -> 2 s"]).probes, marks(&[1, 2]));
    assert_eq!(
        live("interval: 1s", "interval: 500ms", &["probe.interval 1 s -> 500 ms"]).probes,
        marks(&[1, 2])
    );
    // WAN2 has targets of its own, and none that is a name.
    assert_eq!(live("[1.1.1.1, ", "[1.0.0.1, ", &["ping.targets changed"]).probes, marks(&[1]));
    assert_eq!(live("[8.8.8.8]", "[8.8.4.4]", &["WAN2.ping changed"]).probes, marks(&[2]));
    assert_eq!(live("[9.9.9.9]", "[1.1.1.1]", &["dns.servers changed"]).probes, marks(&[1]));
    assert_eq!(live("retry: 1", "retry: 2", &["dns.retry 1 -> 2"]).probes, marks(&[1]));
}

#[test]
fn filters_are_known_by_their_name() {
    let more = "- {description: web2, protocol: tcp, chainMangle: PREROUTING, dports: [81]}\n      - {description: web,";
    assert!(live("- {description: web,", more, &["1 filter added (\"web2\")"]).filters);
    live(
        "description: web,",
        "description: www,",
        &["1 filter added (\"www\")", "1 filter removed (\"web\")"],
    );
    assert!(live("dports: [80]", "dports: [443]", &["1 filter changed (\"web\")"]).filters);
    assert!(live("[10.0.0.0/8]", "[10.0.0.0/9]", &["localnets changed"]).filters);
    let [web, dns] = [
        "web, protocol: tcp, chainMangle: PREROUTING, dports: [80]}",
        "dns, protocol: udp, chainMangle: OUTPUT, dports: [53]}",
    ];
    let swapped = BASE.replace(web, "#").replace(dns, web).replace('#', dns);
    let difference = Difference::between(&config(BASE), &config(&swapped));
    assert_eq!(
        (difference.live.as_slice(), difference.filters),
        (["filters in another order".to_owned()].as_slice(), true)
    );
}

#[test]
fn a_password_is_never_shown() {
    live("password: one", "password: two", &["where the e-mail password is, or itself, changed"]);
    live("to: b@", "to: c@", &["email.to b@example.org -> c@example.org"]);
    live("email: {", "#", &["email removed"]);
    let without = BASE.lines().filter(|line| !line.starts_with("email")).collect::<Vec<_>>().join("\n");
    assert_eq!(Difference::between(&config(&without), &config(BASE)).live, ["email added"]);
}

#[test]
fn what_holds_a_link_together_is_followed_at_a_restart_only() {
    at_restart("statusFile: /tmp/status", "statusFile: /tmp/s", &["daemon.statusFile /tmp/status -> /tmp/s"]);
    at_restart("logLevel: info", "markMask: 0xff00", &["daemon.markMask 0xff -> 0xff00"]);
    at_restart("logLevel: info", "rulePriority: 20000", &["daemon.rulePriority 30000 -> 20000"]);
    let socket = "daemon.controlSocket /run/multiwans/control.sock -> /run/c";
    at_restart("logLevel: info", "controlSocket: /run/c", &[socket]);
    at_restart("gateway: 10.0.2.1", "gateway: 10.0.2.9", &["WAN2.gateway 10.0.2.1 -> 10.0.2.9"]);
    at_restart("ip: 10.0.2.2", "ip: 10.0.2.3", &["WAN2.ip 10.0.2.2 -> 10.0.2.3"]);
    at_restart("iface: eth2", "iface: eth3", &["WAN2.iface eth2 -> eth3"]);
    at_restart("mark: 2", "mark: 3", &["WAN2.mark 2 -> 3"]);
    at_restart("    orderFailover: 2\n", "", &["WAN2.orderFailover 2 -> none"]);
    at_restart("description: WAN2", "description: Two", &["WAN2.description WAN2 -> Two"]);
    at_restart("description: WAN2", "enabled: false\n    description: WAN2", &["WANS: WAN2 removed"]);
    let more =
        "WANS:\n  - {description: W3, mark: 3, iface: eth3, ip: 10.0.3.2, mask: 24, gateway: 10.0.3.1}\n";
    at_restart("WANS:\n", more, &["WANS: W3 added"]);
}

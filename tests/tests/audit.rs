//! Somebody takes or changes what is the daemon's: it is put back and named in the log, under traffic.

use anyhow::{Context, Result, ensure};
use multiwans_tests::session::{TcpSession, UdpStream};
use multiwans_tests::topology::{INTERNET, wan_ip};
use multiwans_tests::wait::{stays_true, wait_until};
use multiwans_tests::{Config, Daemon, Lab, Ns};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

/// The promise.
const HEALED: Duration = Duration::from_secs(1);
/// A full audit comes after `daemon.runInterval`: 10 s in these tests.
const AUDITED: Duration = Duration::from_secs(12);
const ROUNDS: usize = 10;

fn web_config(lab: &Lab) -> Config {
    Config::of(lab)
        .filter(2, "web", "protocol: tcp, dports: [80]")
        .filter(2, "web by UDP", "protocol: udp, dports: [80]")
        .filter(2, "own web", "chainMangle: OUTPUT, protocol: tcp, dports: [80]")
}

/// Flows without pause, by the default and by the filter's WAN.
struct Traffic {
    sessions: Vec<TcpSession>,
    streams: Vec<UdpStream>,
}

impl Traffic {
    /// A firewall that translates to a fixed address. (To masquerade kills the entry of a flow that leaves by
    /// another interface, for however short a time, and with it a TCP session: no daemon could help that.)
    fn start(lab: &Lab) -> Result<Self> {
        let mut rules = "*nat\n".to_owned();
        for k in [1, 2] {
            rules += &format!("-A POSTROUTING -o eth{k} -j SNAT --to-source {}\n", wan_ip(k));
        }
        lab.feed(Ns::Router, "iptables-restore", &(rules + "COMMIT\n"))?;
        let client = lab.client(Ns::Client);
        let (mut sessions, mut streams) = (Vec::new(), Vec::new());
        for (port, k) in [(443, 1), (80, 2)] {
            let (session, stream) = (client.tcp_session(INTERNET, port)?, client.udp_stream(INTERNET, port)?);
            assert_eq!((session.seen, stream.seen), (wan_ip(k), wan_ip(k)));
            sessions.push(session);
            streams.push(stream);
        }
        Ok(Self { sessions, streams })
    }

    /// Every session lives and lost nothing, and of the datagrams no more than this share in percent.
    fn finish(self, share: u32) -> Result<()> {
        for session in self.sessions {
            let report = session.finish()?;
            assert!(report.messages > 100, "{report:?}");
        }
        for stream in self.streams {
            let report = stream.finish()?;
            assert!(report.sent > 500 && report.lost < report.sent * share / 100, "{report:?}");
        }
        Ok(())
    }
}

/// The routing state that is to come back, as text.
fn routing(lab: &Lab) -> Result<String> {
    let mut text = String::new();
    for line in ["ip rule show", "ip route show table 1", "ip route show table 2", "ip route show default"] {
        // A table that is empty is none at all for some versions of `ip`.
        // Rules of one priority stand in the order they came in, which means nothing here.
        let shown = lab.sh(Ns::Router, line).unwrap_or_default();
        let mut lines: Vec<&str> = shown.lines().map(str::trim_end).collect();
        lines.sort_unstable();
        text += &(lines.join("\n") + "\n");
    }
    for wan in ["eth1", "eth2"] {
        text += &lab.sh(Ns::Router, &format!("cat /proc/sys/net/ipv4/conf/{wan}/rp_filter"))?;
    }
    Ok(text)
}

/// Lines of the log that warn and have all of these.
fn warnings(daemon: &Daemon<'_>, words: &[&str]) -> usize {
    let is_it = |line: &&str| line.contains("WARN") && words.iter().all(|word| line.contains(word));
    daemon.log().lines().filter(is_it).count()
}

/// Vandalism that the kernel tells of: what is done, and what the log has to name.
fn vandalism(lab: &Lab) -> Result<Vec<(String, Vec<String>)>> {
    let rules = lab.sh(Ns::Router, "ip rule show")?;
    let ours = rules.lines().filter(|line| line.contains("proto 109"));
    let mut acts: Vec<(String, Vec<String>)> = ours
        .map(|line| {
            let (priority, rule) = line.split_once(":\t").unwrap_or_default();
            let rule = rule.replace(" [detached]", "");
            (
                format!("rule del priority {priority} {rule}"),
                vec![format!("rule {priority}: "), "gone".into()],
            )
        })
        .collect();
    assert_eq!(acts.len(), 9, "{rules}");
    let act = |line: &str, words: &[&str]| {
        (line.to_owned(), words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    };
    acts.push(act(
        "rule flush\nrule add from all lookup main priority 32766\nrule add from all lookup default priority 32767",
        &["rule 30000: ", "gone"],
    ));
    acts.push(act("route flush table 1", &["10.0.1.1", "table WAN1", "gone"]));
    acts.push(act("route flush table 2", &["10.0.2.1", "table WAN2", "gone"]));
    acts.push(act("route del default", &["main default route", "gone"]));
    acts.push(act("route replace default via 10.0.2.1", &["main default route", "replaced by", "10.0.2.1"]));
    acts.push(act("rule add from 9.9.9.9 lookup 7 priority 30050 protocol 109", &["30050", "deleted"]));
    Ok(acts)
}

#[test]
fn what_the_kernel_tells_of_is_back_within_a_second() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80, 443])?;
    let mut daemon = Daemon::start(&lab, &web_config(&lab))?;
    let client = lab.client(Ns::Client);
    // One path after another is taken from it.
    let traffic = Traffic::start(&lab)?;

    let acts = vandalism(&lab)?;
    for round in 0..ROUNDS {
        for (act, words) in &acts {
            let context = || format!("round {round}: {act}");
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let (before, told) = (routing(&lab)?, warnings(&daemon, &words));
            lab.feed(Ns::Router, "ip -batch -", act).with_context(context)?;
            // Who set the default route is not seen in what it does.
            let plain = |text: String| text.replace(" proto 109 src 10.0.1.2", "");
            wait_until("healing", HEALED, || {
                routing(&lab).is_ok_and(|now| plain(now) == plain(before.clone()))
                    && warnings(&daemon, &words) > told
            })
            .with_context(context)
            .with_context(|| routing(&lab).unwrap_or_default())?;
        }
        assert_eq!(client.seen_by_tcp(INTERNET, 80)?, wan_ip(2));
        assert_eq!(client.seen_by_tcp(INTERNET, 443)?, wan_ip(1));
        for wan in ["eth1", "eth2"] {
            lab.sysctl(Ns::Router, &format!("ipv4/conf/{wan}/rp_filter"), "1")?;
            wait_until("rp_filter", HEALED, || {
                warnings(&daemon, &[&format!("rp_filter of {wan} "), "loose again"]) > round
            })?;
        }
    }
    traffic.finish(25)?;
    // What it did itself it does not take for somebody else's doing.
    let told = warnings(&daemon, &[]);
    stays_true("quiet", Duration::from_secs(1), || warnings(&daemon, &[]) == told)?;
    daemon.terminate()
}

#[test]
fn what_the_kernel_does_not_tell_of_is_back_within_a_second_too() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80, 443])?;
    let mut daemon = Daemon::start(&lab, &web_config(&lab))?;
    let (client, router) = (lab.client(Ns::Client), lab.client(Ns::Router));
    let traffic = Traffic::start(&lab)?;
    // `/etc/iproute2` of this lab began as a copy of the machine's, where others' names may be.
    let log = daemon.log();
    let named = log.lines().find_map(|line| line.split_once("table names written to /etc/iproute2/"));
    let file = &lab.router_files().iproute2().join(named.context("no table names")?.1);
    let text = fs::read_to_string(file)?;
    let detach = |kind: &str, number: usize| -> Result<()> {
        let links = our_links(&daemon, kind)?;
        ensure!(links.len() == number, "{kind}: {links:?}");
        for link in &links {
            lab.sh(Ns::Router, &format!("bpftool link detach id {link}"))?;
        }
        // Others by now, with other numbers.
        let back = || {
            our_links(&daemon, kind)
                .is_ok_and(|now| now.len() == number && now.iter().all(|link| !links.contains(link)))
        };
        wait_until("attaching again", HEALED, back).map(drop)
    };
    let told = |words: &[&str], times: usize| {
        wait_until("a warning", HEALED, || warnings(&daemon, words) == times)
            .with_context(|| format!("{words:?}, {times} times"))
    };

    for round in 0..ROUNDS {
        match round % 3 {
            0 => fs::remove_file(file)?,
            1 => fs::write(file, "1\tmine\n")?,
            _ => fs::remove_dir_all(file.parent().context("no directory")?)?,
        }
        wait_until("names", HEALED, || fs::read_to_string(file).is_ok_and(|now| now == text))
            .with_context(|| format!("round {round}"))?;
        told(&["table names", "put back"], round + 1)?;

        detach("tcx", 4)?;
        for (program, place) in [
            ("multiwans_steer", "eth0"),
            ("multiwans_learn", "eth0"),
            ("multiwans_wan", "eth1"),
            ("multiwans_wan", "eth2"),
        ] {
            told(&[program, &format!("taken off {place};")], round + 1)?;
        }
        assert_eq!(client.seen_by_tcp(INTERNET, 80)?, wan_ip(2));

        detach("cgroup", 4)?;
        for program in ["connect4", "connect6", "sendmsg4", "asked"] {
            told(&[&format!("multiwans_{program} "), "taken off the root of the cgroups;"], round + 1)?;
        }
        assert_eq!(router.seen_by_tcp(INTERNET, 80)?, wan_ip(2));
    }
    // Most of this test's time something is missing.
    traffic.finish(75)?;
    daemon.terminate()
}

/// The numbers of the daemon's links of a type that are attached to something. (A bpftool of 7.1 shows none
/// of TCX, but detaches them.)
fn our_links(daemon: &Daemon<'_>, kind: &str) -> Result<Vec<String>> {
    let mut live = Vec::new();
    for entry in fs::read_dir(format!("/proc/{}/fdinfo", daemon.pid()))? {
        let Ok(text) = fs::read_to_string(entry?.path()) else { continue };
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.map(|value| value.trim().to_owned())
        };
        let place = field("ifindex").or_else(|| field("cgroup_id"));
        if field("link_type").as_deref() == Some(kind) && place.is_some_and(|place| place != "0") {
            live.extend(field("link_id"));
        }
    }
    Ok(live)
}

#[test]
fn an_address_that_comes_back_has_its_routes_within_a_second() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80, 443])?;
    let mut daemon = Daemon::start(&lab, &web_config(&lab))?;
    let client = lab.client(Ns::Client);
    let before = routing(&lab)?;
    let session = client.tcp_session(INTERNET, 80)?;
    let stream = client.udp_stream(INTERNET, 443)?;
    for round in 0..ROUNDS {
        let context = || format!("round {round}");
        lab.remove_address(1)?;
        daemon.wait_status("the loss", HEALED, |s| s.is_off(1) && s.defaults_to(2)).with_context(context)?;
        wait_until("a warning", HEALED, || {
            warnings(&daemon, &["WAN1 (eth1)", "OFF", "lacks the address 10.0.1.2/24"]) == round + 1
        })
        .with_context(context)?;
        lab.add_address(1)?;
        // The kernel took the routes with the address.
        let table = || lab.sh(Ns::Router, "ip route show table 1").unwrap_or_default();
        wait_until("the route", HEALED, || table().contains("default via 10.0.1.1")).with_context(context)?;
        daemon
            .wait_status("WAN1 to be back", Duration::from_secs(5), |s| s.is_on(1) && s.defaults_to(1))
            .with_context(context)?;
        let plain = |text: String| text.replace(" proto 109 src 10.0.1.2", "");
        wait_until("the rest", HEALED, || routing(&lab).is_ok_and(|now| plain(now) == plain(before.clone())))
            .with_context(context)
            .with_context(|| routing(&lab).unwrap_or_default())?;
    }
    let report = session.finish()?;
    assert!(report.messages > 200, "the other WAN's session: {report:?}");
    let report = stream.finish()?;
    assert!(report.lost < report.sent / 4, "{report:?}");
    daemon.terminate()
}

#[test]
fn a_program_that_works_against_the_daemon_is_met_with_pauses() -> Result<()> {
    let lab = Lab::builder().build()?;
    let mut daemon = Daemon::start(&lab, &web_config(&lab))?;
    let rule =
        || lab.sh(Ns::Router, "ip rule show priority 30020").is_ok_and(|rules| rules.contains("10.0.1.2"));
    let mut removed = 0;
    stays_true("the fight", Duration::from_secs(10), || {
        if rule() && lab.sh(Ns::Router, "ip rule del from 10.0.1.2 priority 30020").is_ok() {
            removed += 1;
        }
        true
    })?;
    // 20 times at once, then after 1, 2 and 4 seconds, and by the audit.
    assert!((20..=27).contains(&removed), "{removed}");
    let told = warnings(&daemon, &["rule 30020: from 10.0.1.2"]);
    assert!((20..=22).contains(&told), "{told}");
    assert_eq!(warnings(&daemon, &["works against multiwans"]), 1);
    daemon.wait_status("all is well", HEALED, |s| s.is_on(1) && s.defaults_to(1))?;
    wait_until("healing", AUDITED, rule)?;
    daemon.terminate()
}

#[test]
fn an_interface_taken_down_is_switched_on_after_growing_pauses() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80, 443])?;
    let mut daemon = Daemon::start(&lab, &web_config(&lab))?;
    let is_up =
        || lab.sh(Ns::Router, "ip -o link show up dev eth1").is_ok_and(|shown| !shown.trim().is_empty());
    let others = lab.client(Ns::Client).tcp_session(INTERNET, 80)?;
    lab.set_down(1)?;
    wait_until("switching on", Duration::from_secs(5), is_up)?;
    assert_eq!(warnings(&daemon, &["WAN1 (eth1)", "switching it on"]), 1);
    daemon.wait_status("WAN1 to be back", Duration::from_secs(10), |s| s.defaults_to(1))?;
    lab.client(Ns::Client).wait_seen(wan_ip(1), INTERNET, 443, HEALED)?;
    // Again: it is left so for 10 s, which the status tells.
    lab.set_down(1)?;
    let planned = |reason: &str| reason.starts_with("the interface is down; multiwans switches it on at ");
    daemon.wait_status("the plan", HEALED, |s| s.is_off(1) && planned(&s.wan(1).reason))?;
    stays_true("down", Duration::from_secs(4), || !is_up())?;
    wait_until("switching on again", Duration::from_secs(15), is_up)?;
    assert_eq!(warnings(&daemon, &["WAN1 (eth1)", "switching it on"]), 2);
    assert_eq!(warnings(&daemon, &["switching it on for the 2. time in a row, next time after 30"]), 1);
    daemon.wait_status("WAN1 to be back", Duration::from_secs(10), |s| s.defaults_to(1))?;
    let report = others.finish()?;
    assert!(report.messages > 200, "the other WAN's session: {report:?}");
    daemon.terminate()
}

#[test]
fn an_interface_that_ifupdown_knows_is_switched_on_by_it() -> Result<()> {
    let lab = Lab::builder().build()?;
    // In the place of ifupdown, which would read the machine's own configuration.
    let programs = lab.router_files().run().join("multiwans-programs");
    fs::create_dir_all(&programs)?;
    let trace = programs.join("trace");
    for (name, action) in [("ifquery", "test $1 = eth1"), ("ifdown", ":"), ("ifup", "ip link set eth1 up")] {
        let path = programs.join(name);
        // As the daemon sees the directory.
        let text = format!("#!/bin/sh\necho {name} $* >>/run/multiwans-programs/trace\n{action}\n");
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    let path = format!("/run/multiwans-programs:{}", std::env::var("PATH")?);
    let mut daemon = Daemon::spawn_with(&lab, &web_config(&lab), |command| {
        command.env("PATH", path);
    })?;
    daemon.wait_ready()?;
    lab.set_down(1)?;
    let wanted = "ifquery eth1\nifdown --force --ignore-errors eth1\nifup --force --ignore-errors eth1\n";
    wait_until("ifupdown", Duration::from_secs(5), || {
        fs::read_to_string(&trace).is_ok_and(|text| text == wanted)
    })
    .with_context(|| fs::read_to_string(&trace).unwrap_or_default())?;
    daemon.wait_status("WAN1 to be back", Duration::from_secs(10), |s| s.defaults_to(1))?;
    daemon.terminate()
}

#[test]
fn an_address_changed_by_somebody_is_named_and_left_to_them() -> Result<()> {
    let lab = Lab::builder().build()?;
    let mut daemon = Daemon::start(&lab, &web_config(&lab))?;
    lab.remove_address(1)?;
    lab.sh(Ns::Router, "ip address add 10.0.1.77/24 dev eth1")?;
    let wanted = "lacks the address 10.0.1.2/24; it has 10.0.1.77/24";
    daemon.wait_status("WAN1 off", HEALED, |s| s.is_off(1) && s.wan(1).reason.contains(wanted))?;
    let addresses = lab.sh(Ns::Router, "ip -o -4 addr show dev eth1")?;
    assert!(!addresses.contains("10.0.1.2/24"), "the network's configuration is not ours: {addresses}");
    daemon.terminate()
}

#[test]
fn what_others_add_is_left_alone() -> Result<()> {
    let lab = Lab::builder().build()?;
    let mut daemon = Daemon::start(&lab, &web_config(&lab))?;
    let told = warnings(&daemon, &[]);
    // As a DHCP client does it, and another program.
    lab.sh(Ns::Router, "ip route add default via 10.0.2.1 metric 1024 proto dhcp")?;
    lab.sh(Ns::Router, "ip rule add from 192.168.50.99 lookup 300 priority 5000")?;
    lab.sh(Ns::Router, "ip route add default via 10.0.2.1 table 300")?;
    let stay = || {
        let rules = lab.sh(Ns::Router, "ip rule show").unwrap_or_default();
        let routes = lab.sh(Ns::Router, "ip route show table all").unwrap_or_default();
        rules.contains("5000:") && routes.contains("metric 1024") && routes.contains("table 300")
    };
    stays_true("theirs", Duration::from_secs(2), stay)?;
    assert_eq!(warnings(&daemon, &[]), told, "{}", daemon.log());
    assert_eq!(lab.default_gateway()?, Some(1));
    daemon.terminate()
}

//! Another configuration while the daemon runs: what it changes, what it leaves alone, what is refused.

use anyhow::{Context, Result};
use multiwans_tests::daemon::run_to_end;
use multiwans_tests::smtp::Options;
use multiwans_tests::topology::{INTERNET, INTERNET_OTHERS, wan_ip};
use multiwans_tests::wait::{stays_true, wait_for, wait_until};
use multiwans_tests::{Config, Daemon, Lab, Ns, Residue};
use nix::sys::signal::Signal;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(5);
const FAILOVER: Duration = Duration::from_secs(15);
/// IP protocol number.
const GRE: u8 = 47;

const WEB: &str = "protocol: tcp, dports: [80]";
const OWN_WEB: &str = "chainMangle: OUTPUT, protocol: tcp, dports: [80]";
const OWN_GRE: &str = "chainMangle: OUTPUT, protocol: gre";

/// What was said of a refusal.
fn refused(daemon: &Daemon<'_>) -> String {
    match daemon.reload() {
        Ok(said) => panic!("taken: {said}"),
        Err(error) => format!("{error:#}"),
    }
}

/// Lines about the daemon's doings, without every packet's.
fn log_of(daemon: &Daemon<'_>) -> String {
    let log = daemon.log();
    log.lines().filter(|line| !line.contains("DEBUG")).collect::<Vec<_>>().join("\n")
}

/// What the daemon's maps of maps hold: the numbers of the maps that make the policies.
fn policies(lab: &Lab, pid: u32) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        let info = fs::read_to_string(entry?.path()).unwrap_or_default();
        let number = |key: &str| info.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
        // BPF_MAP_TYPE_ARRAY_OF_MAPS (linux/bpf.h)
        if let (Some("12"), Some(id)) = (number("map_type:"), number("map_id:")) {
            found.push(lab.sh(Ns::Router, &format!("bpftool map dump id {id}"))?);
        }
    }
    found.sort();
    Ok(found)
}

#[test]
fn filters_come_and_go_and_no_flow_moves_with_them() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80, 443])?;
    let without = Config::of(&lab);
    let with = without.clone().filter(2, "web", WEB).filter(2, "stream", "protocol: udp, dports: [80]");
    let mut daemon = Daemon::start(&lab, &without)?;
    let client = lab.client(Ns::Client);
    let before = (client.tcp_session(INTERNET, 80)?, client.udp_stream(INTERNET, 80)?);
    assert_eq!((before.0.seen, before.1.seen), (wan_ip(1), wan_ip(1)));

    daemon.write_config(&with)?;
    assert_eq!(daemon.reload()?, "reloaded: 2 filters added (\"web\", \"stream\")\n");
    // At once, not soon: the command waits until it is in force.
    assert_eq!(client.seen_by_tcp(INTERNET, 80)?, wan_ip(2));
    assert_eq!(client.seen_by_udp(INTERNET, 80)?, wan_ip(2));
    assert_eq!(client.seen_by_tcp(INTERNET, 443)?, wan_ip(1));
    let during = (client.tcp_session(INTERNET, 80)?, client.udp_stream(INTERNET, 80)?);
    assert_eq!((during.0.seen, during.1.seen), (wan_ip(2), wan_ip(2)));

    daemon.write_config(&without)?;
    assert_eq!(daemon.reload()?, "reloaded: 2 filters removed (\"web\", \"stream\")\n");
    assert_eq!(client.seen_by_tcp(INTERNET, 80)?, wan_ip(1));
    assert_eq!(client.seen_by_udp(INTERNET, 80)?, wan_ip(1));
    for ((tcp, udp), at) in [(before, wan_ip(1)), (during, wan_ip(2))] {
        let (tcp, udp) = (tcp.finish()?, udp.finish()?);
        assert!(tcp.retransmits == 0 && tcp.messages > 2, "{tcp:?}");
        assert!(udp.lost == 0 && udp.sent > 2, "{udp:?}");
        assert_eq!(udp.seen, [at]);
    }
    assert_eq!(daemon.reload()?, "reloaded: nothing changed\n");
    let log = log_of(&daemon);
    assert!(log.contains("reloaded: 2 filters added") && log.contains("reloaded: nothing changed"), "{log}");
    daemon.terminate()
}

#[test]
fn localnets_are_filters_too() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80])?;
    let config = Config::of(&lab).filter(2, "web", WEB);
    let mut daemon = Daemon::start(&lab, &config)?;
    let client = lab.client(Ns::Client);
    assert_eq!(client.seen_by_tcp(INTERNET, 80)?, wan_ip(2));
    daemon.write_config(&config.localnet(&format!("{INTERNET}/32")))?;
    assert_eq!(daemon.reload()?, "reloaded: localnets changed\n");
    assert_eq!(client.seen_by_tcp(INTERNET, 80)?, wan_ip(1));
    assert_eq!(client.seen_by_tcp(INTERNET_OTHERS[0], 80)?, wan_ip(2));
    daemon.terminate()
}

#[test]
fn the_router_s_own_traffic_follows_its_filters() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80])?;
    let mut gre = lab.observe_protocol(Ns::Internet, GRE)?;
    let mut seen_gre = |text: &str| -> Result<Ipv4Addr> {
        lab.send_protocol(Ns::Router, GRE, None, INTERNET, text.as_bytes())?;
        gre.source_of(text.as_bytes())
    };
    let without = Config::of(&lab);
    let mut daemon = Daemon::start(&lab, &without)?;
    let router = lab.client(Ns::Router);
    let old = router.tcp_session(INTERNET, 80)?;
    assert_eq!((old.seen, seen_gre("GRE one")?), (wan_ip(1), wan_ip(1)));

    daemon.write_config(&without.clone().filter(2, "web", OWN_WEB).filter(2, "tunnel", OWN_GRE))?;
    daemon.reload()?;
    assert_eq!(router.seen_by_tcp(INTERNET, 80)?, wan_ip(2));
    assert_eq!(seen_gre("GRE two")?, wan_ip(2));
    // As at a start: filters of a link that is dead do not count, and count when it is back.
    lab.pull_cable(2)?;
    daemon.wait_status("off", SOON, |status| status.is_off(2))?;
    daemon.write_config(&without.clone().filter(2, "tunnel", OWN_GRE))?;
    daemon.reload()?;
    assert_eq!(seen_gre("GRE three")?, wan_ip(1));
    lab.plug_cable(2)?;
    daemon.wait_status("on", FAILOVER, |status| status.is_on(2))?;
    wait_until("the filter's return", SOON, || seen_gre("GRE four").is_ok_and(|seen| seen == wan_ip(2)))?;
    assert_eq!(router.seen_by_tcp(INTERNET, 80)?, wan_ip(1));

    daemon.write_config(&without)?;
    daemon.reload()?;
    assert_eq!(seen_gre("GRE five")?, wan_ip(1));
    assert!(!lab.sh(Ns::Router, "ip rule show")?.contains("ipproto"));
    let old = old.finish()?;
    assert_eq!(old.retransmits, 0, "{old:?}");
    daemon.terminate()
}

#[test]
fn a_file_that_is_no_good_changes_nothing_and_says_why() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80])?;
    let good = Config::of(&lab).filter(2, "web", WEB).filter(2, "tunnel", OWN_GRE);
    let mut daemon = Daemon::start(&lab, &good)?;
    let client = lab.client(Ns::Client);
    let in_force = |lab: &Lab| -> Result<_> { Ok((policies(lab, daemon.pid())?, Residue::take(lab)?)) };
    let before = in_force(&lab)?;
    let secret = "email: {host: 203.0.113.10, to: a@example.org, username: u, passwordFile: /run/none}";
    for (text, told) in [
        (
            good.to_string().replace("runInterval: 10", "runInterval: 1"),
            ":1:23: daemon.runInterval (1) must be an integer 10..60",
        ),
        (good.to_string().replace("  - description: WAN2", " - description: WAN2"), "yaml:"),
        (
            good.to_string().replace("dports: [80]", "dports: [80, 99999]"),
            "filters[0].dports[1] (99999) must be",
        ),
        (String::new(), ":1:1: the file is empty"),
        (good.clone().extra(secret).to_string(), "email.passwordFile (/run/none) must be readable"),
    ] {
        daemon.write_config(&text)?;
        let said = refused(&daemon);
        assert!(said.contains("exit status: 1") && said.contains(told), "{said}");
        wait_until("the same in the log", SOON, || log_of(&daemon).contains(told))
            .context(log_of(&daemon))?;
        assert_eq!(client.seen_by_tcp(INTERNET, 80)?, wan_ip(2));
    }
    let after = in_force(&lab)?;
    before.1.check_same(&after.1)?;
    assert!(!before.0.is_empty());
    assert_eq!(before.0, after.0, "policies were written anew");
    // The next good one is taken.
    daemon.write_config(&Config::of(&lab))?;
    daemon.reload()?;
    assert_eq!(client.seen_by_tcp(INTERNET, 80)?, wan_ip(1));
    daemon.terminate()
}

#[test]
fn another_file_than_the_daemon_s_is_refused() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80])?;
    let mut daemon = Daemon::start(&lab, &Config::of(&lab))?;
    let own = daemon.config_file();
    let run = lab.router_files().run();
    fs::write(run.join("other.yaml"), Config::of(&lab).filter(2, "web", WEB).to_string())?;
    // As the daemon sees it, by another name.
    symlink(format!("/run/{own}"), run.join("link.yaml"))?;
    let reload = |file: &str| -> Result<_> {
        let output = run_to_end(&lab, &["reload", "-c", &format!("/run/{file}")])?;
        let said = [output.stdout, output.stderr].concat();
        Ok((output.status.code(), String::from_utf8(said)?))
    };
    for file in ["other.yaml", "none.yaml"] {
        let refused = format!(
            "configuration (/run/{file}) must be the one that the daemon was started with: /run/{own}\n\
             multiwans: not reloaded\n"
        );
        assert_eq!(reload(file)?, (Some(1), refused));
    }
    let client = lab.client(Ns::Client);
    assert_eq!(client.seen_by_tcp(INTERNET, 80)?, wan_ip(1));
    daemon.write_config(&Config::of(&lab).filter(2, "web", WEB))?;
    assert_eq!(reload("link.yaml")?, (Some(0), "reloaded: 1 filter added (\"web\")\n".to_owned()));
    assert_eq!(client.seen_by_tcp(INTERNET, 80)?, wan_ip(2));
    assert_eq!(reload(&own)?, (Some(0), "reloaded: nothing changed\n".to_owned()));
    daemon.terminate()
}

#[test]
fn what_needs_a_restart_is_refused_as_a_whole() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80])?;
    let config = Config::of(&lab);
    let mut daemon = Daemon::start(&lab, &config)?;
    let text = config.filter(2, "web", WEB).to_string();
    let text = text.replace("gateway: 10.0.2.1", "gateway: 10.0.2.7").replace("/run/status", "/run/other");
    daemon.write_config(&text.replace("count: 1", "count: 2"))?;
    let said = refused(&daemon);
    for line in [
        "daemon.statusFile /run/status -> /run/other: needs a restart (sessions of the default link stay)\n",
        "WAN2.gateway 10.0.2.1 -> 10.0.2.7: needs a restart (sessions of the default link stay)\n",
        "not reloaded",
    ] {
        assert!(said.contains(line), "{line} in {said}");
    }
    assert!(log_of(&daemon).contains("WAN2.gateway 10.0.2.1 -> 10.0.2.7: needs a restart"));
    // Not even what could have been done.
    assert!(!log_of(&daemon).contains("ping.count"));
    assert_eq!(lab.client(Ns::Client).seen_by_tcp(INTERNET, 80)?, wan_ip(1));
    daemon.terminate()
}

#[test]
fn probing_changes_without_a_change_of_state() -> Result<()> {
    let lab = Lab::builder().build()?;
    let config = Config::of(&lab);
    let mut daemon = Daemon::start(&lab, &config)?;
    let file = |daemon: &Daemon<'_>| -> Option<(u64, String)> {
        let path = daemon.status_file();
        Some((fs::metadata(&path).ok()?.ino(), fs::read_to_string(&path).ok()?))
    };
    let (before, written) = (daemon.status()?, file(&daemon));
    assert!(written.is_some());
    let target = INTERNET_OTHERS[2];
    let other = config.clone().wan_key(2, &format!("ping: [{target}]"));
    let other = other.to_string().replace("timeout: 1", "timeout: 2").replace("200ms", "100ms");
    daemon.write_config(&other)?;
    let said = daemon.reload()?;
    for line in ["ping.timeout 1 s -> 2 s", "probe.interval 200 ms -> 100 ms", "WAN2.ping changed"] {
        assert!(said.contains(&format!("reloaded: {line}\n")), "{said}");
    }
    wait_until("the new target's answer", SOON, || {
        daemon.status().is_ok_and(|status| status.wan(2).last_target == Some(target))
    })?;
    stays_true("states and since when", Duration::from_secs(3), || {
        daemon.status().is_ok_and(|status| {
            [1, 2].iter().all(|k| status.is_on(*k) && status.wan(*k).since == before.wan(*k).since)
        })
    })?;
    assert_eq!(file(&daemon), written, "the status file was written anew");
    assert!(!log_of(&daemon).contains("OFF"), "{}", log_of(&daemon));

    // Of targets that nobody answers at, the link is dead.
    daemon.write_config(&config.wan_key(2, "ping: [203.0.113.99]"))?;
    daemon.reload()?;
    daemon.wait_status("off", FAILOVER, |status| status.is_off(2) && status.is_on(1))?;
    daemon.terminate()
}

#[test]
fn the_next_mail_goes_to_the_new_recipient() -> Result<()> {
    let lab = Lab::builder().build()?;
    let server = lab.mail_server(&Options::plain(25))?;
    let to = |who: &str| Config::of(&lab).extra(&format!("email: {{host: {INTERNET}, to: {who}}}"));
    let mut daemon = Daemon::start(&lab, &Config::of(&lab))?;
    daemon.write_config(&to("one@example.org"))?;
    assert_eq!(daemon.reload()?, "reloaded: email added\n");
    // The start is not two seconds ago: its mail goes to whoever wants to know by then.
    let first = server.wait_mail("START", 0, FAILOVER)?;
    assert_eq!(first.recipients(), ["one@example.org"]);
    daemon.write_config(&to("two@example.org"))?;
    assert_eq!(daemon.reload()?, "reloaded: email.to one@example.org -> two@example.org\n");
    lab.pull_cable(2)?;
    let second = server.wait_mail("ERROR", 1, FAILOVER)?;
    assert_eq!(second.recipients(), ["two@example.org"]);
    assert!(second.text("plain").contains("reloaded: email.to"), "{second:?}");
    daemon.write_config(&Config::of(&lab))?;
    assert_eq!(daemon.reload()?, "reloaded: email removed\n");
    daemon.terminate()?;
    assert_eq!(server.kinds(), ["START", "ERROR"], "no STOP to nobody");
    Ok(())
}

#[test]
fn hooks_are_looked_for_in_the_new_place() -> Result<()> {
    let lab = Lab::builder().build()?;
    let run = lab.router_files().run();
    let hook = |folder: &str| -> Result<()> {
        for state in ["up", "down"] {
            let path = run.join(folder).join("eth2").join(state).join("trace");
            fs::create_dir_all(path.parent().context("no folder")?)?;
            fs::write(&path, format!("#!/bin/sh\necho {state} >> /run/{folder}/said\n"))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
        Ok(())
    };
    hook("scripts")?;
    hook("others")?;
    let said = |folder: &str| fs::read_to_string(run.join(folder).join("said")).unwrap_or_default();
    let mut daemon = Daemon::start(&lab, &Config::of(&lab))?;
    wait_until("the first hook", SOON, || said("scripts") == "up\n")?;
    daemon.write_config(&Config::of(&lab).extra("hooks: {dir: others, timeout: 5s}"))?;
    assert_eq!(
        daemon.reload()?,
        "reloaded: hooks.dir /run/scripts -> /run/others\nreloaded: hooks.timeout 30 s -> 5 s\n"
    );
    lab.pull_cable(2)?;
    wait_until("the hook in the new place", SOON, || said("others") == "down\n")?;
    assert_eq!(said("scripts"), "up\n");
    daemon.terminate()
}

#[test]
fn the_log_says_as_much_as_it_is_told_to() -> Result<()> {
    let lab = Lab::builder().build()?;
    let level = |level: &str| {
        Config::of(&lab)
            .to_string()
            .replace("runInterval: 10", &format!("runInterval: 10, logLevel: {level}"))
    };
    let mut daemon = Daemon::start_as_configured(&lab, &level("info"))?;
    assert!(!daemon.log().contains("DEBUG") && daemon.log().contains("ON:"), "{}", daemon.log());
    daemon.write_config(&level("debug"))?;
    assert_eq!(daemon.reload()?, "reloaded: daemon.logLevel info -> debug\n");
    lab.pull_cable(2)?;
    wait_until("a command in the log", SOON, || daemon.log().contains("WriteStatus"))?;
    daemon.write_config(&level("error"))?;
    daemon.reload()?;
    let length = daemon.log().len();
    lab.plug_cable(2)?;
    daemon.wait_status("on", FAILOVER, |status| status.is_on(2))?;
    daemon.terminate()?;
    assert_eq!(&daemon.log()[length..], "");
    Ok(())
}

#[test]
fn a_storm_of_reloads_loses_no_packet_and_leaves_nothing() -> Result<()> {
    let lab = Lab::builder().wans(3).build()?;
    let _servers = lab.serve_internet(&[80, 81])?;
    let before = Residue::take(&lab)?;
    // The same filters at other places: what one policy's sets mean in the other's list is another WAN, or none.
    let by = |k: u8| {
        let config = Config::of(&lab);
        let config = if k == 2 { config } else { config.filter(2, "first", "protocol: sctp") };
        config
            .filter(k, "stream", "protocol: udp, dports: [80]")
            .filter(k, "web", WEB)
            .filter(k, "own", OWN_WEB)
            .filter(k, "tunnel", OWN_GRE)
    };
    let configs = [by(2), by(3)];
    let mut daemon = Daemon::start_at(&lab, &configs[0], "info")?;
    let client = lab.client(Ns::Client);
    let sessions = [client.tcp_session(INTERNET, 80)?, client.tcp_session(INTERNET, 81)?];
    let streams = [client.udp_stream(INTERNET, 80)?, client.udp_stream(INTERNET, 81)?];
    let over = AtomicBool::new(false);
    // New flows all the time: each by one policy or the other, never by none.
    let (by_either, reloads) = thread::scope(|scope| -> Result<_> {
        let flows = scope.spawn(|| -> Result<Vec<Ipv4Addr>> {
            let mut seen = Vec::new();
            while !over.load(Ordering::Relaxed) {
                seen.push(client.seen_by_udp(INTERNET, 80)?);
                seen.push(client.seen_by_tcp(INTERNET, 80)?);
                seen.push(lab.client(Ns::Router).seen_by_tcp(INTERNET, 80)?);
            }
            Ok(seen)
        });
        let begin = Instant::now();
        let mut reloads = 0;
        let mut result = Ok(());
        while begin.elapsed() < Duration::from_secs(4) && result.is_ok() {
            reloads += 1;
            let next = begin + Duration::from_millis(100) * reloads;
            result = daemon.write_config(&configs[reloads as usize % 2]).and_then(|()| match reloads % 3 {
                0 => daemon.reload().map(drop),
                _ => daemon.signal(Signal::SIGHUP),
            });
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        over.store(true, Ordering::Relaxed);
        let seen = flows.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        result.and(Ok((seen?, reloads)))
    })?;
    let count = |address| by_either.iter().filter(|seen| **seen == address).count();
    let (two, three) = (count(wan_ip(2)), count(wan_ip(3)));
    println!("{reloads} reloads; new flows by WAN2 {two}, by WAN3 {three}");
    assert_eq!(two + three, by_either.len(), "{by_either:?}");
    assert!(two > 5 && three > 5 && reloads > 30, "{two} {three} {reloads}");
    for session in sessions {
        let report = session.finish()?;
        assert_eq!(report.retransmits, 0, "{report:?}");
    }
    for (stream, at) in streams.into_iter().zip([wan_ip(2), wan_ip(1)]) {
        let report = stream.finish()?;
        assert_eq!((report.lost, report.seen.as_slice()), (0, [at].as_slice()), "{report:?}");
    }
    let log = log_of(&daemon);
    println!("{} times another policy", log.matches("4 filters changed").count());
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
    daemon.terminate()?;
    before.check_same(&Residue::take(&lab)?)
}

#[test]
fn the_service_manager_and_the_log_are_told() -> Result<()> {
    let lab = Lab::builder().build()?;
    let path = lab.router_files().run().join("notify");
    let socket = UnixDatagram::bind(&path)?;
    socket.set_nonblocking(true)?;
    let config = Config::of(&lab);
    let mut daemon = Daemon::spawn_with(&lab, &config, |command| {
        command.env("NOTIFY_SOCKET", "/run/notify");
    })?;
    daemon.wait_ready()?;
    let mut heard = Vec::new();
    let mut hear = |until: &str| {
        wait_for(until, SOON, || {
            let mut buffer = [0; 4096];
            let length = socket.recv(&mut buffer).ok()?;
            heard.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
            let found = heard.last()?.lines().any(|line| line.starts_with(until));
            found.then(|| heard.last().cloned().unwrap_or_default())
        })
    };
    hear("READY=1")?;
    for text in [config.clone().filter(2, "web", WEB).to_string(), "no".to_owned()] {
        daemon.write_config(&text)?;
        daemon.signal(Signal::SIGHUP)?;
        let begin = hear("RELOADING=1")?;
        let time = begin.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
        assert!(time.is_some_and(|time| time.parse::<u64>().is_ok_and(|time| time > 0)), "{begin}");
        hear("READY=1")?;
    }
    let log = log_of(&daemon);
    assert!(log.contains("SIGHUP") && log.contains("reloaded: 1 filter added (\"web\")"), "{log}");
    assert!(log.contains("not reloaded"), "{log}");
    daemon.terminate()
}

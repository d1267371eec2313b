//! Ping targets that are names, resolved by a real server over each WAN.

use anyhow::Result;
use multiwans_tests::topology::{INTERNET, INTERNET_OTHERS, wan_ip};
use multiwans_tests::wait::{stays_true, wait_until};
use multiwans_tests::{Config, Daemon, Lab, Ns};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Of the internet's networks, but no host's.
const DEAD: &str = "192.0.2.99";
const NOTICED: Duration = Duration::from_secs(10);
/// Servers that give no time to live are asked again after 8 s, and when they did not answer, after at
/// most 8 s more in the tests below.
const ASKED_AGAIN: Duration = Duration::from_secs(25);

/// Every WAN has a dead address and a name, and the internet host for its server.
fn config(lab: &Lab, name: &str) -> Config {
    let config = Config::of(lab).extra(&format!("dns: {{retry: 1, timeout: 1, servers: [{INTERNET}]}}"));
    (1..=lab.wans()).fold(config, |config, k| config.wan_key(k, &format!("ping: [{DEAD}, {name}]")))
}

#[test]
fn a_name_is_probed_where_it_is_and_while_its_server_is_dead() -> Result<()> {
    let lab = Lab::builder().build()?;
    let [_, first, second, ..] = INTERNET_OTHERS;
    let address = |address| format!("address=/alive.example.org/{address}");
    let server = lab.serve_dns(Ns::Internet, 53, &[&address(first)])?;
    let mut daemon = Daemon::start(&lab, &config(&lab, "alive.example.org"))?;
    let probes = |target| {
        move |s: &multiwans_tests::status::Status| {
            (1..=2).all(|k| s.is_on(k) && s.wan(k).last_target == Some(target))
        }
    };
    daemon.wait_status("both on by the name's address", NOTICED, probes(first))?;

    // Its time is over, and there is another address.
    server.kill();
    let server = lab.serve_dns(Ns::Internet, 53, &[&address(second)])?;
    daemon.wait_status("the new address", ASKED_AGAIN, probes(second))?;

    server.kill();
    wait_until("a word about the dead server", ASKED_AGAIN, || {
        daemon.log().matches(&format!("cannot be resolved, {second} is probed as before")).count() == 2
    })?;
    stays_true("both on", Duration::from_secs(5), || daemon.status().is_ok_and(|s| probes(second)(&s)))?;
    let log = daemon.log();
    assert!(!log.contains("OFF:"), "no link was ever off\n{log}");

    let _server = lab.serve_dns(Ns::Internet, 53, &[&address(first)])?;
    daemon.wait_status("the server's word again", Duration::from_secs(40), probes(first))?;
    daemon.terminate()
}

#[test]
fn each_wan_asks_over_itself() -> Result<()> {
    let lab = Lab::builder().build()?;
    let [_, first, second, ..] = INTERNET_OTHERS;
    // The same server for both; but who comes in by ISP 2 gets another one's answer.
    lab.sh(
        Ns::Internet,
        "iptables -t nat -A PREROUTING -i isp2 -p udp --dport 53 -j REDIRECT --to-ports 5353",
    )?;
    let _one = lab.serve_dns(Ns::Internet, 53, &[&format!("address=/alive.example.org/{first}")])?;
    let _two = lab.serve_dns(
        Ns::Internet,
        5353,
        &[&format!("host-record=real.example.org,{second}"), "cname=alive.example.org,real.example.org"],
    )?;
    // It does not work over a link that is down, and goes on until it does.
    lab.blackhole(2)?;
    let mut daemon = Daemon::start(&lab, &config(&lab, "alive.example.org"))?;
    daemon.wait_status("only WAN1 on", NOTICED, |s| s.is_on(1) && s.is_off(2))?;
    assert_eq!(daemon.status()?.wan(1).last_target, Some(first));
    lab.heal(2)?;
    daemon.wait_status("WAN2 on by its own answer", Duration::from_secs(40), |s| {
        s.is_on(2) && s.wan(2).last_target == Some(second)
    })?;
    let log = daemon.log();
    assert_eq!(
        log.matches("WAN2 (eth2): alive.example.org cannot be resolved").count(),
        1,
        "told once\n{log}"
    );
    assert!(log.contains(&format!("WAN2 (eth2): alive.example.org is {second}")), "{log}");
    daemon.terminate()
}

#[test]
fn the_router_s_own_server_long_answers_and_missing_names() -> Result<()> {
    let lab = Lab::builder().wans(1).build()?;
    let alive = INTERNET_OTHERS[3];
    let mut records = vec![format!("host-record=many.example.org,{alive}")];
    records.extend((100..140).map(|last| format!("host-record=many.example.org,192.0.2.{last}")));
    let records: Vec<&str> = records.iter().map(String::as_str).collect();
    let server = lab.serve_dns(Ns::Router, 53, &records)?;
    // Nobody listens on the first.
    let config = Config::of(&lab)
        .extra("dns: {retry: 2, timeout: 1, servers: [192.0.2.11, 127.0.0.1]}")
        .wan_key(1, &format!("ping: [{DEAD}, many.example.org, missing.example.org]"));
    let mut daemon = Daemon::start(&lab, &config)?;
    daemon.wait_status("WAN1 on", NOTICED, |s| s.is_on(1) && s.wan(1).last_target == Some(alive))?;
    let log = daemon.log();
    // Of 41 addresses, which take TCP, 32 are probed.
    assert!(log.contains(&format!("many.example.org is {alive}, 192.0.2.100, ")), "{log}");
    wait_until("the missing name's warning", NOTICED, || {
        daemon.log().contains("missing.example.org cannot be resolved and is not probed: 192.0.2.11: ")
    })?;
    // Asked again and again, told once.
    wait_until("more questions", NOTICED * 2, || {
        server.asked("missing.example.org", Ipv4Addr::LOCALHOST) >= 4
    })?;
    let log = daemon.log();
    let warnings: Vec<&str> = log.lines().filter(|line| line.contains("missing.example.org ")).collect();
    assert!(warnings.len() == 1 && warnings[0].contains("127.0.0.1: no such name"), "{warnings:?}");
    daemon.terminate()
}

#[test]
fn each_wan_has_servers_of_its_own_and_silent_ones_are_asked_as_often_as_dns_says() -> Result<()> {
    let lab = Lab::builder().build()?;
    let [_, first, second, silent] = INTERNET_OTHERS;
    // Two servers on two addresses of one host; a third address takes questions and gives no answer.
    let listen = |address: Ipv4Addr| format!("listen-address={address}");
    let serve = |address: Ipv4Addr, answer: Ipv4Addr| {
        let records = [listen(address), format!("address=/alive.example.org/{answer}")];
        let records: Vec<&str> =
            records.iter().map(String::as_str).chain(["bind-interfaces", "except-interface=lo"]).collect();
        lab.serve_dns(Ns::Internet, 53, &records)
    };
    let one = serve(first, first)?;
    let two = serve(second, second)?;
    let deaf = lab.in_ns(Ns::Internet, || UdpSocket::bind((silent, 53)))?;
    deaf.set_read_timeout(Some(Duration::from_secs(20)))?;
    let heard = Arc::new(Mutex::new(Vec::<(Instant, SocketAddr)>::new()));
    let listener = Arc::clone(&heard);
    // It ends when nobody has asked for a while, or with the test.
    thread::spawn(move || {
        let mut buffer = [0; 512];
        while let (Ok((_, from)), Ok(mut heard)) = (deaf.recv_from(&mut buffer), listener.lock()) {
            heard.push((Instant::now(), from));
        }
    });
    let config = Config::of(&lab)
        .extra(&format!("dns: {{retry: 3, timeout: 1, servers: [{first}]}}"))
        .wan_key(1, &format!("ping: [{DEAD}, alive.example.org]"))
        .wan_key(2, &format!("ping: [{DEAD}, alive.example.org]"))
        .wan_key(2, &format!("dns: [{silent}, {second}]"));
    let mut daemon = Daemon::start(&lab, &config)?;
    daemon.wait_status("both on, each by its own server's answer", NOTICED, |s| {
        (1..=2).all(|k| s.is_on(k))
            && s.wan(1).last_target == Some(first)
            && s.wan(2).last_target == Some(second)
    })?;
    assert!(one.asked("alive.example.org", wan_ip(1)) > 0 && one.asked("alive.example.org", wan_ip(2)) == 0);
    assert!(two.asked("alive.example.org", wan_ip(2)) > 0 && two.asked("alive.example.org", wan_ip(1)) == 0);
    let heard = heard.lock().map_err(|_| anyhow::anyhow!("the listener panicked"))?.clone();
    assert!(heard.len() == 3 && heard.iter().all(|(_, from)| from.ip() == wan_ip(2)), "dns.retry: {heard:?}");
    let gaps: Vec<Duration> = heard.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    let timeout = Duration::from_millis(900)..Duration::from_millis(1_900);
    assert!(gaps.iter().all(|gap| timeout.contains(gap)), "dns.timeout: {gaps:?}");
    daemon.terminate()
}

/// A probe of the only address finds nobody while the first server is waited for.
#[test]
fn a_link_is_not_judged_at_start_while_its_names_are_resolved_for_the_first_time() -> Result<()> {
    let lab = Lab::builder().wans(1).build()?;
    let [_, alive, silent, ..] = INTERNET_OTHERS;
    let _server = lab.serve_dns(
        Ns::Internet,
        53,
        &[
            &format!("listen-address={INTERNET}"),
            &format!("address=/alive.example.org/{alive}"),
            "bind-interfaces",
            "except-interface=lo",
        ],
    )?;
    let _deaf = lab.in_ns(Ns::Internet, || UdpSocket::bind((silent, 53)))?;
    let servers = |servers: &str| {
        Config::of(&lab)
            .extra(&format!("dns: {{retry: 2, timeout: 3, servers: [{servers}]}}"))
            .wan_key(1, &format!("ping: [{DEAD}, alive.example.org]"))
    };
    let mut daemon = Daemon::start(&lab, &servers(&format!("{silent}, {INTERNET}")))?;
    daemon.wait_status("on by the second server's answer", Duration::from_secs(20), |s| s.is_on(1))?;
    let log = daemon.log();
    assert!(!log.contains("OFF:"), "never off\n{log}");
    daemon.terminate()?;

    // With nobody but the silent one there is a judgement still, after 2 times 3 s.
    let mut daemon = Daemon::start(&lab, &servers(&silent.to_string()))?;
    daemon.wait_status("off in the end", Duration::from_secs(20), |s| s.is_off(1))?;
    daemon.terminate()
}

/// It answers at times, nobody listens at others.
#[test]
fn trouble_that_changes_is_one_trouble() -> Result<()> {
    let lab = Lab::builder().wans(1).build()?;
    let [_, first, second, ..] = INTERNET_OTHERS;
    let records = [first, second].map(|address| format!("host-record=alive.example.org,{address}"));
    let records: Vec<&str> = records.iter().map(String::as_str).collect();
    let server = lab.serve_dns(Ns::Internet, 53, &records)?;
    let mut daemon = Daemon::start(&lab, &config(&lab, "alive.example.org"))?;
    daemon.wait_status("on", NOTICED, |s| s.is_on(1))?;
    server.kill();
    let told = |text: &str| daemon.log().matches(text).count();
    wait_until("a refused question", ASKED_AGAIN, || {
        told(&format!("{first}, {second} are probed as before: {INTERNET}: Connection refused")) == 1
    })?;
    let deaf = lab.in_ns(Ns::Internet, || UdpSocket::bind((INTERNET, 53)))?;
    deaf.set_read_timeout(Some(ASKED_AGAIN))?;
    let asked = |deaf: &UdpSocket| deaf.recv(&mut [0; 512]);
    asked(&deaf)?;
    asked(&deaf)?;
    drop(deaf);
    let _server = lab.serve_dns(Ns::Internet, 53, &records)?;
    let resolved = format!("alive.example.org is {first}, {second}");
    wait_until("the end of the trouble", Duration::from_secs(40), || told(&resolved) == 2)?;
    assert_eq!(told("alive.example.org cannot be resolved"), 1, "{}", daemon.log());
    daemon.terminate()
}

#[test]
fn an_answer_is_kept_for_most_of_its_time_to_live() -> Result<()> {
    let lab = Lab::builder().wans(1).build()?;
    let [_, first, ..] = INTERNET_OTHERS;
    let server = lab.serve_dns(Ns::Internet, 53, &[&format!("host-record=alive.example.org,{first},20")])?;
    let mut daemon = Daemon::start(&lab, &config(&lab, "alive.example.org"))?;
    daemon.wait_status("on", NOTICED, |s| s.is_on(1))?;
    let asked = || server.asked("alive.example.org", wan_ip(1));
    assert_eq!(asked(), 1);
    let known = Instant::now();
    // Four fifths of it: there has to be time to ask again.
    stays_true("no other question", Duration::from_secs(12), || asked() == 1)?;
    wait_until("the next question", Duration::from_secs(8), || asked() == 2)?;
    assert!(known.elapsed() < Duration::from_secs(18), "{:?}", known.elapsed());
    daemon.terminate()
}

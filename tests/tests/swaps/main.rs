//! Policies swapped again and again under full traffic.

mod policies;
mod traffic;

use anyhow::{Context, Result};
use multiwans_tests::topology::{INTERNET, wan_ip};
use multiwans_tests::{Client, Config, Daemon, Lab, Ns};
use nix::sys::signal::Signal;
use policies::{NEW, OLD};
use std::env;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use traffic::Receiver;

/// How long policies are swapped, in seconds.
const SECONDS_VARIABLE: &str = "MULTIWANS_TEST_SECONDS";
/// How many filters each policy has beside those that matter; each comes with a hundred prefixes in lists.
const FILTERS_VARIABLE: &str = "MULTIWANS_TEST_FILTERS";
/// Ten swaps a second.
const INTERVAL: Duration = Duration::from_millis(100);
/// A port that both policies send the same way as all others, and where servers answer.
const PORT: u16 = 5000;
/// For a connection whose first packet met the end of its flow: the next one comes after a second.
const PATIENCE: Duration = Duration::from_secs(10);
/// Long sessions that are opened meanwhile, at most.
const SESSIONS: u32 = 8;

fn number_in(variable: &str, otherwise: u32) -> Result<u32> {
    match env::var(variable) {
        Ok(text) => text.parse().with_context(|| format!("{variable} ({text}) must be a number")),
        Err(_) => Ok(otherwise),
    }
}

/// A time in which one policy alone was in force: from the answer to the reload that put it there, to the
/// moment the next one was asked for.
struct Reign {
    wan: Ipv4Addr,
    from: Duration,
    to: Duration,
}

/// What the one who swaps has to say.
#[derive(Default)]
struct Swaps {
    asked: u32,
    /// What those took whose end is told, the shortest first.
    times: Vec<Duration>,
    reigns: Vec<Reign>,
}

/// How long a policy is in force at least, however long a slow machine takes for a reload: in this time there is no doubt
/// by which WAN a packet has to leave.
const REIGN: Duration = Duration::from_millis(20);

/// The new policy, the old one, and so on, until the time is over.
fn swap(daemon: &Daemon<'_>, configs: &[String; 2], begin: Instant, time: Duration) -> Result<Swaps> {
    let mut swaps = Swaps::default();
    // Since when, and what is in force, where that is known.
    let mut reigning: Option<(Ipv4Addr, Duration)> = None;
    let start = begin.elapsed();
    while begin.elapsed() < start + time {
        swaps.asked += 1;
        let next = swaps.asked as usize % 2;
        daemon.write_config(&configs[next])?;
        let asked = begin.elapsed();
        if let Some((wan, from)) = reigning.take() {
            swaps.reigns.push(Reign { wan, from, to: asked });
        }
        if swaps.asked % 4 == 0 {
            daemon.signal(Signal::SIGHUP)?;
        } else {
            daemon.reload()?;
            let answered = begin.elapsed();
            swaps.times.push(answered - asked);
            reigning = Some((wan_ip([OLD, NEW][next]), answered));
        }
        let due = start + INTERVAL * swaps.asked;
        thread::sleep(due.saturating_sub(begin.elapsed()).max(REIGN));
    }
    swaps.times.sort();
    Ok(swaps)
}

/// The address that each new connection had, with the times of its beginning and its end.
fn connect(client: Client<'_>, begin: Instant, over: &AtomicBool) -> Result<Vec<traffic::Arrival>> {
    let mut seen = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let sent = begin.elapsed();
        let from = client.seen_by_tcp(INTERNET, PORT)?;
        seen.push(traffic::Arrival { sent, seen: begin.elapsed(), from });
    }
    Ok(seen)
}

/// None by another WAN than that of either policy, and none by the other's while one alone was in force. How
/// many could be told.
fn check(what: &str, arrivals: &[traffic::Arrival], reigns: &[Reign]) -> usize {
    let policies = [wan_ip(OLD), wan_ip(NEW)];
    let strangers: Vec<_> = arrivals.iter().filter(|arrival| !policies.contains(&arrival.from)).collect();
    let by = |wan| strangers.iter().filter(|arrival| arrival.from == wan_ip(wan)).count();
    assert!(
        strangers.is_empty(),
        "{what}: of {} by neither policy {}: by WAN{} (a mixture's) {}, by WAN{} (the default) {}",
        arrivals.len(),
        strangers.len(),
        policies::TRAP,
        by(policies::TRAP),
        policies::DEFAULT,
        by(policies::DEFAULT)
    );
    let mut told = 0;
    for arrival in arrivals {
        let since = reigns.partition_point(|reign| reign.from <= arrival.sent);
        let reign = since.checked_sub(1).and_then(|number| reigns.get(number));
        if let Some(reign) = reign.filter(|reign| arrival.seen <= reign.to) {
            let (sent, from) = (arrival.sent, arrival.from);
            assert_eq!(from, reign.wan, "{what} of {sent:?}, in force since {:?}", reign.from);
            told += 1;
        }
    }
    for wan in policies {
        let count = arrivals.iter().filter(|arrival| arrival.from == wan).count();
        assert!(count > arrivals.len() / 10, "{what}: {count} of {} by {wan}", arrivals.len());
    }
    told
}

#[test]
fn ten_swaps_a_second_under_traffic() -> Result<()> {
    let time = Duration::from_secs(number_in(SECONDS_VARIABLE, 8)?.into());
    let filters = number_in(FILTERS_VARIABLE, 20)?;
    let lab = Lab::builder().wans(policies::WANS).build()?;
    let _servers = lab.serve_internet(&[PORT])?;
    let receiver = Receiver::open(&lab)?;
    let configs: [String; 2] = policies::write(&lab, filters as usize)?.each_ref().map(Config::to_string);
    let mut daemon = Daemon::start_at(&lab, &configs[0], "info")?;
    let client = lab.client(Ns::Client).patience(PATIENCE);
    let open =
        || -> Result<_> { Ok((client.tcp_session(INTERNET, PORT)?, client.udp_stream(INTERNET, PORT)?)) };
    // Sessions of before, by either policy.
    let mut sessions = vec![open()?, open()?];
    daemon.write_config(&configs[1])?;
    daemon.reload()?;
    sessions.extend([open()?, open()?]);
    for ((tcp, udp), wan) in sessions.iter().zip([OLD, OLD, NEW, NEW]) {
        assert_eq!((tcp.seen, udp.seen), (wan_ip(wan), wan_ip(wan)));
    }
    daemon.write_config(&configs[0])?;
    daemon.reload()?;

    let (begin, over) = (Instant::now(), AtomicBool::new(false));
    let (swaps, sent, arrivals, connections, opened) = thread::scope(|scope| -> Result<_> {
        let sending = scope.spawn(|| traffic::send(&lab, begin, &over));
        let receiving = scope.spawn(|| receiver.run(begin, &over));
        let connecting = scope.spawn(|| connect(client, begin, &over));
        let opening = scope.spawn(|| -> Result<Vec<_>> {
            let mut opened = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let due = time / (SESSIONS + 1) * (u32::try_from(opened.len())? + 1);
                if opened.len() < SESSIONS as usize && begin.elapsed() > due {
                    opened.push(open()?);
                }
                thread::sleep(Duration::from_millis(20));
            }
            Ok(opened)
        });
        let swaps = swap(&daemon, &configs, begin, time);
        over.store(true, Ordering::Relaxed);
        let joined = "a thread of the test panicked";
        Ok((
            swaps?,
            sending.join().expect(joined)?,
            receiving.join().expect(joined)?,
            connecting.join().expect(joined)?,
            opening.join().expect(joined)?,
        ))
    })?;
    sessions.extend(opened);

    let log = daemon.log();
    let told: Vec<&str> = log.lines().filter(|line| !line.contains("DEBUG")).collect();
    let taken = told.iter().filter(|line| line.contains("reloaded: ") && line.contains("changed")).count();
    let at = |percent: usize| {
        swaps.times.get(swaps.times.len() * percent / 100).or(swaps.times.last()).copied().unwrap_or_default()
    };
    println!(
        "{} swaps asked for, {taken} taken over in {time:?}; a reload: median {:.0?}, 95 % {:.0?}, longest {:.0?}",
        swaps.asked,
        at(50),
        at(95),
        at(100)
    );
    let datagrams = check("datagrams", &arrivals, &swaps.reigns);
    let by_tcp = check("connections", &connections, &swaps.reigns);
    println!(
        "{sent} datagrams of new flows, {} arrived, {datagrams} in one policy's time; {} connections, {by_tcp}",
        arrivals.len(),
        connections.len()
    );
    assert_eq!(arrivals.len(), sent as usize, "datagrams were lost");
    assert!(datagrams > 100, "too few to tell: {datagrams}");

    for (number, (tcp, udp)) in sessions.into_iter().enumerate() {
        let (tcp_wan, udp_wan) = (tcp.seen, udp.seen);
        let tcp = tcp.finish().with_context(|| format!("session {number} by {tcp_wan}"))?;
        let udp = udp.finish().with_context(|| format!("stream {number} by {udp_wan}"))?;
        println!("session {number}: {tcp_wan}: {tcp:?}; {udp:?}");
        assert_eq!(tcp.retransmits, 0, "session {number} by {tcp_wan}: {tcp:?}");
        assert_eq!((udp.lost, udp.seen.as_slice()), (0, [udp_wan].as_slice()), "stream {number}: {udp:?}");
    }
    let trouble: Vec<_> =
        told.iter().filter(|line| line.contains("WARN") || line.contains("ERROR")).collect();
    assert!(trouble.is_empty(), "{trouble:?}");
    // Whether all could be taken over is a matter of the machine; too few prove nothing.
    assert!(taken > swaps.asked as usize / 2, "{taken} of {} swaps", swaps.asked);
    daemon.terminate()
}

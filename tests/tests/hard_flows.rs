//! Flows that end, begin again on the same ports, and come back after a pause, through real interfaces.

use anyhow::{Context, Result};
use multiwans_tests::topology::{CLIENT, INTERNET, wan_ip};
use multiwans_tests::wait::wait_until;
use multiwans_tests::{Config, Daemon, Lab, Ns};
use std::io::{BufRead, BufReader, Read};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// Enough for anything in the lab, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// Waits for a count, which is exact: what was sent is under way for a moment.
fn wait_special(daemon: &Daemon<'_>, program: &str, special: &str, count: u64) -> Result<()> {
    let seen = wait_until(special, PATIENCE, || daemon.special(program, special).is_ok_and(|n| n == count));
    let told = || daemon.status_json().unwrap_or_default()["datapath"]["special"].to_string();
    seen.with_context(|| format!("{count} of {program} {special} in {}", told()))?;
    Ok(())
}

/// A connection by WAN 2 from the same port as ever. All that the server says first has arrived: what comes after a reset
/// is answered by another one.
fn connect(lab: &Lab) -> Result<TcpStream> {
    let stream = lab.client(Ns::Client).from(CLIENT).source_port(4000).connect(INTERNET, 80)?;
    BufReader::new(&stream).read_line(&mut String::new())?;
    Ok(stream)
}

/// Ends a connection by RST, which leaves the port free.
fn reset(stream: TcpStream) -> Result<()> {
    let stream = socket2::Socket::from(stream);
    stream.set_linger(Some(Duration::ZERO))?;
    drop(stream);
    Ok(())
}

#[test]
fn fins_resets_and_a_syn_on_an_old_tuple() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80])?;
    let config = Config::of(&lab).filter(2, "web", "protocol: tcp, dports: [80]");
    let mut daemon = Daemon::start(&lab, &config)?;

    // A reset by each side: the client's own, and the answer of a port that nobody listens at.
    reset(connect(&lab)?)?;
    wait_special(&daemon, "steer", "rst", 1)?;
    assert_eq!(daemon.special("learn", "rst")?, 0);
    assert!(lab.client(Ns::Client).connect(INTERNET, 81).is_err());
    wait_special(&daemon, "learn", "rst", 1)?;
    assert_eq!(daemon.special("wan", "rst")?, 1);
    assert_eq!(daemon.counter(&["programs", "learn", "refusal", "packets"])?, 1);
    assert_eq!(daemon.special("learn", "reopened")?, 0);

    // The same ports again, while the table knows the connection before.
    for round in 1..=3 {
        reset(connect(&lab).with_context(|| format!("connection {round} on the same ports"))?)?;
        wait_special(&daemon, "learn", "reopened", round)?;
        wait_special(&daemon, "steer", "rst", 1 + round)?;
    }

    // An end in order, a FIN by each side.
    assert_eq!((daemon.special("steer", "fin")?, daemon.special("learn", "fin")?), (0, 0));
    let mut stream = lab.client(Ns::Client).from(CLIENT).connect(INTERNET, 80)?;
    stream.shutdown(Shutdown::Write)?;
    let mut text = String::new();
    stream.read_to_string(&mut text).context("the server's last words")?;
    assert!(text.starts_with("10.0.2.2:"), "{text}");
    wait_special(&daemon, "steer", "fin", 1)?;
    wait_special(&daemon, "learn", "fin", 1)?;
    daemon.terminate()
}

#[test]
fn a_datagram_after_a_pause_begins_a_new_flow() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80])?;
    // The daemon takes over how long conntrack's flows last. Longer than it takes to start; and what is expired must
    // not be removed yet when it comes back: that is done every ten seconds.
    lab.sysctl(Ns::Router, "netfilter/nf_conntrack_udp_timeout", "5")?;
    let socket = lab.client(Ns::Client).from(CLIENT).source_port(4000).udp(INTERNET, 80)?;
    let mut answer = [0; 64];
    socket.send(b"who")?;
    socket.recv(&mut answer).context("an answer without a daemon")?;
    let mut daemon = Daemon::start(&lab, &Config::of(&lab))?;
    wait_until("conntrack to forget the flow", PATIENCE, || {
        lab.sh(Ns::Router, "conntrack -L -p udp --orig-port-src 4000").is_ok_and(|text| text.is_empty())
    })?;
    assert_eq!(daemon.special("steer", "expired")?, 0);
    socket.send(b"who")?;
    socket.recv(&mut answer).context("an answer after a pause")?;
    assert_eq!((daemon.special("steer", "expired")?, daemon.special("learn", "expired")?), (1, 1));
    socket.send(b"who")?;
    socket.recv(&mut answer).context("an answer without a pause")?;
    assert_eq!((daemon.special("steer", "expired")?, daemon.special("learn", "expired")?), (1, 1));
    daemon.terminate()
}

#[test]
fn a_flow_that_must_leave_its_wan_is_counted_as_moved() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80])?;
    let stream = lab.client(Ns::Client).udp_stream(INTERNET, 80)?;
    assert_eq!(stream.seen, wan_ip(1));
    let mut daemon = Daemon::start(&lab, &Config::of(&lab))?;
    // The walk through the table removes flows whose WAN is gone. The next one is ten seconds after the first.
    wait_until("the first walk", PATIENCE, || daemon.counter(&["flows", "entries"]).is_ok_and(|n| n == 1))?;
    assert_eq!((daemon.special("steer", "stale")?, daemon.special("learn", "moved")?), (0, 0));
    lab.pull_cable(1)?;
    wait_special(&daemon, "learn", "moved", 1)?;
    assert!(daemon.special("steer", "stale")? >= 1);
    drop(stream);
    daemon.terminate()
}

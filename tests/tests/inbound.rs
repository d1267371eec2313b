//! Connections from the internet to a server in the LAN: answered through the WAN they came in by.

use anyhow::{Context, Result};
use multiwans_tests::topology::{CLIENT, INTERNET, wan_ip};
use multiwans_tests::{Config, Daemon, Lab, Ns};
use std::time::Duration;

#[test]
fn a_forwarded_port_is_answered_through_the_wan_it_was_asked_by() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80])?;
    let _server = lab.observe_tcp(Ns::Client, 8000)?;
    for k in [1, 2] {
        lab.forward_port(k, 8080, CLIENT, 8000)?;
    }
    let mut daemon = Daemon::start(&lab, &Config::of(&lab))?;
    assert_eq!(lab.client(Ns::Client).seen_by_tcp(INTERNET, 80)?, wan_ip(1), "WAN1 is the default");

    let caller = lab.client(Ns::Internet).from(INTERNET);
    for number in 0..50 {
        for k in [1, 2] {
            let seen = caller.seen_by_tcp(wan_ip(k), 8080);
            let seen = seen.with_context(|| format!("call {number} by WAN{k}"))?;
            assert_eq!(seen, INTERNET, "the server sees its caller");
        }
    }
    daemon.terminate()
}

#[test]
fn a_long_inbound_session_loses_nothing() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _server = lab.observe_tcp(Ns::Client, 8000)?;
    lab.forward_port(2, 8080, CLIENT, 8000)?;
    // The server's answers match a filter of another kind; the session stays where it began.
    let config = Config::of(&lab).filter(2, "web", "protocol: tcp, dports: [80]");
    let mut daemon = Daemon::start(&lab, &config)?;
    let session = lab.client(Ns::Internet).from(INTERNET).tcp_session(wan_ip(2), 8080)?;
    std::thread::sleep(Duration::from_secs(1));
    let report = session.finish()?;
    assert_eq!(report.retransmits, 0, "{report:?}");
    assert!(report.messages > 30, "{report:?}");
    daemon.terminate()
}

#[test]
fn a_filter_does_not_pull_answers_to_another_wan() -> Result<()> {
    let lab = Lab::builder().wans(3).build()?;
    let _server = lab.observe_tcp(Ns::Client, 8000)?;
    lab.forward_port(2, 8080, CLIENT, 8000)?;
    let config = Config::of(&lab).filter(3, "the server's own traffic", "protocol: tcp, sports: [8000]");
    let mut daemon = Daemon::start(&lab, &config)?;
    let caller = lab.client(Ns::Internet).from(INTERNET);
    for _ in 0..20 {
        assert_eq!(caller.seen_by_tcp(wan_ip(2), 8080)?, INTERNET);
    }
    daemon.terminate()
}

#[test]
fn the_router_itself_answers_pings_on_every_wan() -> Result<()> {
    let lab = Lab::builder().wans(3).build()?;
    let mut daemon = Daemon::start(&lab, &Config::of(&lab))?;
    for k in 1..=3 {
        lab.ping(Ns::Internet, Some(INTERNET), wan_ip(k)).with_context(|| format!("WAN{k}"))?;
    }
    daemon.terminate()
}

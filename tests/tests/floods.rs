//! Floods and scans from the inside: who is established stays where it is, and memory does not grow.

use anyhow::{Context, Result};
use multiwans_tests::topology::{CLIENT, INTERNET, wan_ip};
use multiwans_tests::wait::wait_until;
use multiwans_tests::{Config, Daemon, Lab, Ns};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

/// The smallest table there is.
const MAX: u64 = 1024;
/// Whose addresses the flood has. The client takes its answers and says nothing.
const SPOOFED: &str = "192.168.51.0/24";
/// An address of nobody on the internet.
const NOBODY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 99);

/// SYNs of so many flows from spoofed inside addresses.
fn flood(lab: &Lab, flows: u16, to: SocketAddrV4) -> Result<()> {
    let sender = lab.raw_sender(Ns::Client)?;
    for number in 0..flows {
        let [high, low] = number.to_be_bytes();
        let from = SocketAddrV4::new(Ipv4Addr::new(192, 168, 51, 1 + low % 250), 1024 + u16::from(high));
        sender.syn(SocketAddrV4::new(*from.ip(), from.port() + number % 50 * 300), to)?;
    }
    Ok(())
}

fn entries(daemon: &Daemon<'_>) -> Result<u64> {
    daemon.counter(&["flows", "entries"])
}

#[test]
fn floods_and_scans_move_no_established_flow() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80, 443, 444])?;
    let _server = lab.observe_tcp(Ns::Client, 8000)?;
    lab.forward_port(2, 8080, CLIENT, 8000)?;
    lab.sh(Ns::Router, &format!("ip route add {SPOOFED} via {CLIENT}"))?;
    lab.sh(Ns::Client, &format!("ip route add local {SPOOFED} dev lo"))?;
    lab.sh(Ns::Client, &format!("iptables -A OUTPUT -s {SPOOFED} -p tcp --tcp-flags RST RST -j DROP"))?;
    let config =
        Config::of(&lab).filter(2, "web", "protocol: tcp, dports: [80]").extra("flows: {max: 1024}\n");
    let mut daemon = Daemon::start(&lab, &config)?;
    let bytes = daemon.counter(&["flows", "bytes"])?;
    // Keys and values; since Linux 6.4 with all that the kernel keeps beside them.
    assert!(bytes >= MAX * 32, "{bytes} bytes");
    assert_eq!(daemon.counter(&["flows", "max"])?, MAX);

    let client = lab.client(Ns::Client);
    let by_default = client.tcp_session(INTERNET, 443)?;
    let by_filter = client.tcp_session(INTERNET, 80)?;
    // Classification would send its answers by WAN1.
    let inbound = lab.client(Ns::Internet).from(INTERNET).tcp_session(wan_ip(2), 8080)?;
    assert_eq!((by_default.seen, by_filter.seen), (wan_ip(1), wan_ip(2)));

    // Unanswered: nothing is stored.
    let before = entries(&daemon)?;
    flood(&lab, 3000, SocketAddrV4::new(NOBODY, 444))?;
    wait_until("the unanswered flood to pass", Duration::from_secs(10), || {
        daemon.counter(&["programs", "steer", "default", "packets"]).is_ok_and(|packets| packets >= 3000)
    })?;
    assert_eq!(daemon.counter(&["packets", "learn_failed"])?, 0);
    assert!(entries(&daemon)? <= before + 10, "probes and sessions alone make flows");

    // Refused: neither.
    for port in 2000..2300 {
        assert!(client.connect(INTERNET, port).is_err(), "port {port} is closed");
    }
    assert!(daemon.counter(&["packets", "refusal"])? >= 300);
    assert!(daemon.counter(&["packets", "flow_made"])? < 100, "a port scan makes no flow");

    // Answered: the table is full again and again.
    for _ in 0..4 {
        flood(&lab, 3000, SocketAddrV4::new(INTERNET, 444))?;
    }
    wait_until("room to be made", Duration::from_secs(15), || {
        let evicted = daemon.counter(&["flows", "evicted", "passing"]);
        evicted.is_ok_and(|evicted| evicted >= MAX / 4)
            && entries(&daemon).is_ok_and(|now| now < MAX * 15 / 16)
    })
    .with_context(|| daemon.status_json().map_or_else(|e| e.to_string(), |s| s["datapath"].to_string()))?;
    assert!(daemon.counter(&["packets", "learn_failed"])? > 0, "{}", daemon.status_json()?["datapath"]);
    assert_eq!(daemon.counter(&["flows", "evicted", "lasting"])?, 0);
    assert_eq!(daemon.counter(&["flows", "bytes"])?, bytes, "memory does not grow");
    daemon.wait_logged("the flow table (flows.max 1024) is full: in ", Duration::from_secs(15))?;

    // A session that changed its WAN would be cut: the provider drops the other's addresses.
    for (name, session) in [("default", by_default), ("filter", by_filter), ("inbound", inbound)] {
        let report = session.finish().with_context(|| format!("the session by {name}"))?;
        assert!(report.messages > 20, "{name}: {report:?}");
    }
    // And new ones find their place.
    assert_eq!(client.seen_by_tcp(INTERNET, 80)?, wan_ip(2));
    assert_eq!(client.seen_by_tcp(INTERNET, 443)?, wan_ip(1));
    daemon.terminate()
}

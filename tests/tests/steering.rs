//! Which WAN a new flow takes while every link is up: the internet host says whose address it saw.

use anyhow::{Context, Result};
use multiwans_tests::topology::{CLIENT, CLIENT_SECOND, INTERNET, INTERNET_OTHERS, wan_ip};
use multiwans_tests::{Client, Config, Daemon, Lab, Ns};
use std::net::Ipv4Addr;

/// In a row, as an unlucky choice among two links would show.
const FLOWS: usize = 100;

#[track_caller]
fn every_tcp_flow(client: Client<'_>, to: Ipv4Addr, port: u16, expected: Ipv4Addr) {
    for flow in 0..FLOWS {
        let seen = client.seen_by_tcp(to, port).unwrap_or_else(|error| panic!("TCP flow {flow}: {error:#}"));
        assert_eq!(seen, expected, "TCP flow {flow} to {to}:{port}");
    }
}

#[track_caller]
fn every_udp_flow(client: Client<'_>, to: Ipv4Addr, port: u16, expected: Ipv4Addr) {
    for flow in 0..FLOWS {
        let seen = client.seen_by_udp(to, port).unwrap_or_else(|error| panic!("UDP flow {flow}: {error:#}"));
        assert_eq!(seen, expected, "UDP flow {flow} to {to}:{port}");
    }
}

#[test]
fn ports_choose_the_wan() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80, 443, 5000, 5010, 5011])?;
    let config = Config::of(&lab).filter(2, "web", "protocol: tcp, dports: [80]").filter(
        2,
        "game",
        "protocol: udp, dports: ['5000:5010']",
    );
    let mut daemon = Daemon::start(&lab, &config)?;
    let client = lab.client(Ns::Client);

    every_tcp_flow(client, INTERNET, 80, wan_ip(2));
    every_tcp_flow(client, INTERNET, 443, wan_ip(1));
    every_udp_flow(client, INTERNET, 5000, wan_ip(2));
    every_udp_flow(client, INTERNET, 5010, wan_ip(2));
    every_udp_flow(client, INTERNET, 5011, wan_ip(1));
    // The same ports by the other protocol are other traffic.
    every_udp_flow(client, INTERNET, 80, wan_ip(1));
    assert_eq!(client.seen_by_tcp(INTERNET, 5000)?, wan_ip(1));
    daemon.terminate()
}

#[test]
fn source_ports_choose_the_wan_under_either_name() -> Result<()> {
    let lab = Lab::builder().wans(3).build()?;
    let _servers = lab.serve_internet(&[80])?;
    let config = Config::of(&lab).filter(2, "one port", "protocol: udp, sports: [4000]").filter(
        3,
        "a range",
        "protocol: tcp, sport: ['4001:4010']",
    );
    let mut daemon = Daemon::start(&lab, &config)?;
    let client = lab.client(Ns::Client);

    assert_eq!(client.source_port(4000).seen_by_udp(INTERNET, 80)?, wan_ip(2));
    assert_eq!(client.source_port(4001).seen_by_udp(INTERNET, 80)?, wan_ip(1));
    assert_eq!(client.source_port(4000).seen_by_tcp(INTERNET, 80)?, wan_ip(1));
    assert_eq!(client.source_port(4001).seen_by_tcp(INTERNET, 80)?, wan_ip(3));
    assert_eq!(client.source_port(4010).seen_by_tcp(INTERNET, 80)?, wan_ip(3));
    assert_eq!(client.source_port(4011).seen_by_tcp(INTERNET, 80)?, wan_ip(1));
    daemon.terminate()
}

#[test]
fn destinations_choose_the_wan() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80])?;
    let config =
        Config::of(&lab).filter(2, "partners", "protocol: all, dst: [203.0.113.11, 198.51.100.0/24]");
    let mut daemon = Daemon::start(&lab, &config)?;
    let client = lab.client(Ns::Client);

    let [inside_host, inside_net, inside_net_too, outside] = INTERNET_OTHERS;
    for to in [inside_host, inside_net, inside_net_too] {
        every_tcp_flow(client, to, 80, wan_ip(2));
        every_udp_flow(client, to, 80, wan_ip(2));
    }
    for to in [INTERNET, outside] {
        every_tcp_flow(client, to, 80, wan_ip(1));
        every_udp_flow(client, to, 80, wan_ip(1));
    }
    daemon.terminate()
}

#[test]
fn sources_choose_the_wan() -> Result<()> {
    let lab = Lab::builder().second_lan().build()?;
    let _servers = lab.serve_internet(&[80])?;
    let config = Config::of(&lab).filter(2, "guests", "protocol: all, src: [192.168.50.3, 192.168.60.0/24]");
    let mut daemon = Daemon::start(&lab, &config)?;

    every_tcp_flow(lab.client(Ns::Client).from(CLIENT_SECOND), INTERNET, 80, wan_ip(2));
    every_udp_flow(lab.client(Ns::Lan2), INTERNET, 80, wan_ip(2));
    every_tcp_flow(lab.client(Ns::Client).from(CLIENT), INTERNET, 80, wan_ip(1));
    daemon.terminate()
}

#[test]
fn icmp_chooses_the_wan() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80])?;
    let pings = lab.observe_ping(Ns::Internet)?;
    let config = Config::of(&lab).filter(2, "pings", "protocol: icmp");
    let mut daemon = Daemon::start(&lab, &config)?;

    for number in 0..FLOWS {
        let token = lab.ping(Ns::Client, None, INTERNET).with_context(|| format!("ping {number}"))?;
        assert_eq!(pings.source_of(token)?, wan_ip(2), "ping {number}");
    }
    every_tcp_flow(lab.client(Ns::Client), INTERNET, 80, wan_ip(1));
    daemon.terminate()
}

#[test]
fn every_selector_of_a_filter_must_match() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80, 81])?;
    let config = Config::of(&lab).filter(
        2,
        "narrow",
        "protocol: tcp, src: [192.168.50.3], dst: [203.0.113.0/24], sports: ['6000:6999'], dports: [80]",
    );
    let mut daemon = Daemon::start(&lab, &config)?;
    let right = lab.client(Ns::Client).from(CLIENT_SECOND).source_port(6000);

    assert_eq!(right.seen_by_tcp(INTERNET, 80)?, wan_ip(2));
    assert_eq!(right.source_port(6001).from(CLIENT).seen_by_tcp(INTERNET, 80)?, wan_ip(1));
    assert_eq!(right.source_port(6002).seen_by_tcp(INTERNET_OTHERS[1], 80)?, wan_ip(1));
    assert_eq!(right.source_port(7000).seen_by_tcp(INTERNET, 80)?, wan_ip(1));
    assert_eq!(right.source_port(6003).seen_by_tcp(INTERNET, 81)?, wan_ip(1));
    assert_eq!(right.source_port(6004).seen_by_udp(INTERNET, 80)?, wan_ip(1));
    daemon.terminate()
}

#[test]
fn the_first_matching_filter_wins() -> Result<()> {
    let lab = Lab::builder().wans(3).build()?;
    let _servers = lab.serve_internet(&[80, 443, 8080])?;
    let config = Config::of(&lab)
        .filter(2, "web", "protocol: tcp, dports: [80]")
        .filter(3, "more of the web", "protocol: tcp, dports: [80, 443]")
        .filter(3, "all else to one host", "protocol: all, dst: [203.0.113.11]");
    let mut daemon = Daemon::start(&lab, &config)?;
    let client = lab.client(Ns::Client);

    every_tcp_flow(client, INTERNET, 80, wan_ip(2));
    every_tcp_flow(client, INTERNET, 443, wan_ip(3));
    every_tcp_flow(client, INTERNET, 8080, wan_ip(1));
    assert_eq!(client.seen_by_tcp(INTERNET_OTHERS[0], 80)?, wan_ip(2));
    assert_eq!(client.seen_by_tcp(INTERNET_OTHERS[0], 8080)?, wan_ip(3));
    daemon.terminate()
}

#[test]
fn without_dst_a_filter_leaves_local_networks_out() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80, 81])?;
    let config = Config::of(&lab)
        .localnet("198.51.100.0/24")
        .filter(2, "all but local", "protocol: tcp, dports: [80]")
        .filter(2, "one local host", "protocol: tcp, dst: [198.51.100.10], dports: [81]");
    let mut daemon = Daemon::start(&lab, &config)?;
    let client = lab.client(Ns::Client);

    every_tcp_flow(client, INTERNET, 80, wan_ip(2));
    every_tcp_flow(client, INTERNET_OTHERS[1], 80, wan_ip(1));
    // A dst takes the place of the exception.
    every_tcp_flow(client, INTERNET_OTHERS[1], 81, wan_ip(2));
    every_tcp_flow(client, INTERNET, 81, wan_ip(1));
    daemon.terminate()
}

#[test]
fn filters_of_the_first_wan_and_disabled_ones_change_nothing() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80, 443])?;
    let config = Config::of(&lab)
        .filter(1, "ignored", "protocol: tcp, dports: [80]")
        .filter(2, "off", "enabled: false, protocol: tcp, dports: [443]")
        .filter(2, "web", "protocol: tcp, dports: [80]");
    let mut daemon = Daemon::start(&lab, &config)?;
    let client = lab.client(Ns::Client);

    every_tcp_flow(client, INTERNET, 80, wan_ip(2));
    every_tcp_flow(client, INTERNET, 443, wan_ip(1));
    daemon.terminate()
}

#[test]
fn two_hundred_and_fifty_six_filters_each_find_their_traffic() -> Result<()> {
    let lab = Lab::builder().wans(3).build()?;
    // Spread over the words of a bit vector: its ends, and both sides of a boundary.
    let ports = [3000, 3063, 3064, 3127, 3128, 3255];
    let _servers = lab.serve_internet(&ports)?;
    let mut config = Config::of(&lab);
    for port in 3000..3128 {
        config = config.filter(2, &format!("port {port}"), &format!("protocol: udp, dports: [{port}]"));
    }
    for port in 3128..3256 {
        config = config.filter(3, &format!("port {port}"), &format!("protocol: udp, dports: [{port}]"));
    }
    let mut daemon = Daemon::start(&lab, &config)?;
    for port in ports {
        let expected = if port < 3128 { wan_ip(2) } else { wan_ip(3) };
        assert_eq!(lab.client(Ns::Client).seen_by_udp(INTERNET, port)?, expected, "port {port}");
        assert_eq!(lab.client(Ns::Client).seen_by_tcp(INTERNET, port)?, wan_ip(1), "port {port}");
    }
    daemon.terminate()
}

#[test]
fn large_datagrams_leave_whole_by_one_wan() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80])?;
    let config = Config::of(&lab).filter(2, "datagrams", "protocol: udp, dports: [80]");
    let mut daemon = Daemon::start(&lab, &config)?;
    for _ in 0..10 {
        let socket = lab.client(Ns::Client).udp(INTERNET, 80)?;
        // Two fragments, of which only the first has ports.
        socket.send(&[b'x'; 2000])?;
        let mut answer = [0; 4096];
        let length = socket.recv(&mut answer).context("the answer to a fragmented datagram")?;
        assert!(answer[..length].starts_with(b"10.0.2.2:"));
        assert!(length > 2000);
    }
    daemon.terminate()
}

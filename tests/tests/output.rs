//! What the router itself sends: by the WAN of the filter, by the default when that WAN is dead, and as
//! the application wants it where it has chosen.

use anyhow::{Context, Result, ensure};
use multiwans_tests::topology::{CLIENT, INTERNET, INTERNET_OTHERS, wan_iface, wan_ip};
use multiwans_tests::wait::wait_until;
use multiwans_tests::{Config, Daemon, Lab, Ns};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

const FAILOVER: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(1);

/// Of protocols by their numbers.
const UDPLITE: u8 = 136;
const ICMP: u8 = 1;
const SCTP: u8 = 132;
const GRE: u8 = 47;
const ESP: u8 = 50;
const AH: u8 = 51;

fn own(rest: &str) -> String {
    format!("chainMangle: OUTPUT, {rest}")
}

/// The address an observer has seen, out of its answer.
fn seen(answer: &[u8]) -> Result<Ipv4Addr> {
    let text = String::from_utf8_lossy(answer);
    let first = text.split_whitespace().next().context("an empty answer")?;
    match first.parse::<SocketAddr>()?.ip() {
        IpAddr::V4(address) => Ok(address),
        IpAddr::V6(address) => address.to_ipv4_mapped().context("an IPv6 address"),
    }
}

/// A new unconnected socket in the router sends one datagram; whom does the internet see?
fn seen_unconnected(lab: &Lab, to: Ipv4Addr, port: u16) -> Result<Ipv4Addr> {
    let socket = lab.in_ns(Ns::Router, || UdpSocket::bind("0.0.0.0:0"))?;
    exchange(&socket, to, port)
}

fn exchange(socket: &UdpSocket, to: Ipv4Addr, port: u16) -> Result<Ipv4Addr> {
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send_to(b"who", (to, port))?;
    let mut answer = [0; 128];
    let (length, from) = socket.recv_from(&mut answer).with_context(|| format!("answer of {to}:{port}"))?;
    ensure!(from.port() == port, "an answer from {from}");
    seen(&answer[..length])
}

/// A TCP connection of an IPv6 socket to the IPv4 address, as Java makes them.
fn seen_mapped(lab: &Lab, to: Ipv4Addr, port: u16) -> Result<Ipv4Addr> {
    let stream: std::net::TcpStream = lab.in_ns(Ns::Router, || -> Result<_> {
        let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
        let address = SocketAddr::from((to.to_ipv6_mapped(), port));
        socket.connect_timeout(&address.into(), PATIENCE)?;
        Ok(socket.into())
    })?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    seen(line.as_bytes())
}

#[test]
fn tcp_and_udp_leave_by_the_filters_wan_and_by_the_default_while_it_is_dead() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80, 81, 53])?;
    let config = Config::of(&lab).filter(2, "own web", &own("protocol: tcp, dports: [80]")).filter(
        2,
        "own names",
        &own("protocol: udp, dports: [53]"),
    );
    let mut daemon = Daemon::start(&lab, &config)?;
    let router = lab.client(Ns::Router);
    let check = |expected: Ipv4Addr| -> Result<()> {
        for _ in 0..20 {
            assert_eq!(router.seen_by_tcp(INTERNET, 80)?, expected, "TCP");
            assert_eq!(seen_mapped(&lab, INTERNET, 80)?, expected, "TCP by an IPv6 socket");
            assert_eq!(router.seen_by_udp(INTERNET, 53)?, expected, "connected UDP");
            assert_eq!(seen_unconnected(&lab, INTERNET, 53)?, expected, "first datagram");
            assert_eq!(router.seen_by_tcp(INTERNET, 81)?, wan_ip(1), "no filter");
            assert_eq!(seen_unconnected(&lab, INTERNET, 80)?, wan_ip(1), "no filter");
        }
        // Forwarded traffic is none of these filters' business.
        assert_eq!(lab.client(Ns::Client).seen_by_tcp(INTERNET, 80)?, wan_ip(1));
        Ok(())
    };
    check(wan_ip(2))?;

    // A socket that lives through it all, one destination after the other.
    let socket = lab.in_ns(Ns::Router, || UdpSocket::bind("0.0.0.0:0"))?;
    assert_eq!(exchange(&socket, INTERNET, 53)?, wan_ip(2));
    assert_eq!(exchange(&socket, INTERNET, 81)?, wan_ip(1));
    assert_eq!(exchange(&socket, INTERNET_OTHERS[0], 53)?, wan_ip(2));

    lab.blackhole(2)?;
    daemon.wait_status("WAN2 to be OFF", FAILOVER, |s| !s.is_on(2))?;
    check(wan_ip(1))?;
    assert_eq!(exchange(&socket, INTERNET, 53)?, wan_ip(1));
    assert_eq!(exchange(&socket, INTERNET_OTHERS[1], 53)?, wan_ip(1));

    lab.heal(2)?;
    daemon.wait_status("WAN2 to be ON", FAILOVER * 2, |s| s.is_on(2))?;
    check(wan_ip(2))?;

    // The filters of the default are lifted, which comes to the same.
    lab.blackhole(1)?;
    daemon.wait_status("WAN2 to be the default", FAILOVER, |s| s.defaults_to(2))?;
    assert_eq!(router.seen_by_tcp(INTERNET, 80)?, wan_ip(2));
    assert_eq!(router.seen_by_tcp(INTERNET, 81)?, wan_ip(2));
    assert_eq!(seen_unconnected(&lab, INTERNET, 53)?, wan_ip(2));
    daemon.terminate()
}

#[test]
fn portless_protocols_leave_by_the_filters_wan_and_by_the_default_while_it_is_dead() -> Result<()> {
    let lab = Lab::builder().wans(3).build()?;
    let mut config = Config::of(&lab);
    for (protocol, name) in [(2, "icmp"), (2, "gre"), (3, "esp"), (3, "ah"), (2, "sctp")] {
        config = config.filter(protocol, &format!("own {name}"), &own(&format!("protocol: {name}")));
    }
    let mut daemon = Daemon::start(&lab, &config)?;
    let check = |expected: [u8; 5]| -> Result<()> {
        for (protocol, wan) in [ICMP, GRE, ESP, AH, SCTP].into_iter().zip(expected) {
            let mut observer = lab.observe_protocol(Ns::Internet, protocol)?;
            for number in 0..5 {
                let part = format!("packet {number} of {protocol}");
                // The form of an echo reply, so that nobody answers.
                let payload = [[0; 8].as_slice(), part.as_bytes()].concat();
                lab.send_protocol(Ns::Router, protocol, None, INTERNET, &payload)?;
                let source = observer.source_of(part.as_bytes()).with_context(|| part.clone())?;
                assert_eq!(source, wan_ip(wan), "{part}");
            }
            // Bound to an address: the application's choice.
            lab.send_protocol(Ns::Router, protocol, Some(wan_ip(1)), INTERNET, b"12345678bound")?;
            assert_eq!(observer.source_of(b"bound")?, wan_ip(1), "protocol {protocol}, bound");
        }
        lab.sh(Ns::Router, &format!("ping -n -c 1 -W 1 {INTERNET}"))?;
        // A local network is none of it.
        lab.sh(Ns::Router, &format!("ping -n -c 1 -W 1 {CLIENT}"))?;
        Ok(())
    };
    check([2, 2, 3, 3, 2])?;
    lab.blackhole(2)?;
    daemon.wait_status("WAN2 to be OFF", FAILOVER, |s| !s.is_on(2))?;
    check([1, 1, 3, 3, 1])?;
    lab.heal(2)?;
    daemon.wait_status("WAN2 to be ON", FAILOVER * 2, |s| s.is_on(2))?;
    check([2, 2, 3, 3, 2])?;
    daemon.terminate()
}

#[test]
fn what_an_application_has_chosen_stays_chosen() -> Result<()> {
    let lab = Lab::builder().wans(3).build()?;
    let _servers = lab.serve_internet(&[80])?;
    let config = Config::of(&lab).filter(2, "everything", &own("protocol: all"));
    let mut daemon = Daemon::start(&lab, &config)?;
    let router = lab.client(Ns::Router);
    assert_eq!(router.seen_by_tcp(INTERNET, 80)?, wan_ip(2), "a socket that chose nothing");

    // By address.
    for k in [1, 3] {
        let bound = router.from(wan_ip(k));
        assert_eq!(bound.seen_by_tcp(INTERNET, 80)?, wan_ip(k));
        assert_eq!(bound.seen_by_udp(INTERNET, 80)?, wan_ip(k));
        let socket = lab.in_ns(Ns::Router, || UdpSocket::bind((wan_ip(k), 0)))?;
        assert_eq!(exchange(&socket, INTERNET, 80)?, wan_ip(k));
    }
    // By device and by mark; a stream each, then datagrams.
    type Choice<'a> = (&'a str, &'a dyn Fn(&Socket) -> std::io::Result<()>, Ipv4Addr);
    let device = wan_iface(3);
    let by_device = |socket: &Socket| socket.bind_device(Some(device.as_bytes()));
    let by_mark = |socket: &Socket| socket.set_mark(3);
    let by_foreign_mark = |socket: &Socket| socket.set_mark(0x10000);
    let choices: [Choice<'_>; 3] = [
        ("device", &by_device, wan_ip(3)),
        ("mark", &by_mark, wan_ip(3)),
        ("another program's mark", &by_foreign_mark, wan_ip(1)),
    ];
    for (name, choose, expected) in choices {
        let (stream, connected, free) = in_router(&lab, choose)?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        assert_eq!(seen(line.as_bytes())?, expected, "TCP by {name}");
        connected.send(b"who")?;
        let mut answer = [0; 128];
        let length = connected.recv(&mut answer)?;
        assert_eq!(seen(&answer[..length])?, expected, "connected UDP by {name}");
        assert_eq!(exchange(&free, INTERNET, 80)?, expected, "unconnected UDP by {name}");
    }
    daemon.terminate()
}

/// A connected stream, a connected and an unconnected datagram socket in the router, each after a choice.
fn in_router(
    lab: &Lab,
    choose: &dyn Fn(&Socket) -> std::io::Result<()>,
) -> Result<(std::net::TcpStream, UdpSocket, UdpSocket)> {
    let sockets = lab.in_ns(Ns::Router, || -> std::io::Result<[Socket; 3]> {
        Ok([
            Socket::new(Domain::IPV4, Type::STREAM, None)?,
            Socket::new(Domain::IPV4, Type::DGRAM, None)?,
            Socket::new(Domain::IPV4, Type::DGRAM, None)?,
        ])
    })?;
    for socket in &sockets {
        choose(socket)?;
        socket.set_read_timeout(Some(PATIENCE))?;
    }
    let [stream, connected, free] = sockets;
    let to = SocketAddr::from((INTERNET, 80)).into();
    stream.connect_timeout(&to, PATIENCE)?;
    connected.connect(&to)?;
    Ok((stream.into(), connected.into(), free.into()))
}

#[test]
fn a_socket_that_connects_anew_is_judged_anew() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80, 81])?;
    let config = Config::of(&lab).filter(2, "own", &own("protocol: udp, dports: [80]"));
    let mut daemon = Daemon::start(&lab, &config)?;
    let socket = lab.in_ns(Ns::Router, || Socket::new(Domain::IPV4, Type::DGRAM, None))?;
    for (port, expected) in [(80, 2), (81, 1), (80, 2)] {
        socket.connect(&SocketAddr::from((INTERNET, port)).into())?;
        let udp: UdpSocket = socket.try_clone()?.into();
        udp.set_read_timeout(Some(PATIENCE))?;
        udp.send(b"who")?;
        let mut answer = [0; 128];
        let length = udp.recv(&mut answer)?;
        assert_eq!(seen(&answer[..length])?, wan_ip(expected), "port {port}");
        disconnect(&socket)?;
    }
    daemon.terminate()
}

/// As `getaddrinfo` does between the addresses it compares (connect(2), AF_UNSPEC).
fn disconnect(socket: &Socket) -> Result<()> {
    use std::os::fd::AsRawFd;
    let address =
        libc::sockaddr { sa_family: libc::sa_family_t::try_from(libc::AF_UNSPEC)?, sa_data: [0; 14] };
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr>())?;
    // SAFETY: an open socket and an address of the length given.
    let result = unsafe { libc::connect(socket.as_raw_fd(), &raw const address, length) };
    ensure!(result == 0, "{}", std::io::Error::last_os_error());
    Ok(())
}

#[test]
fn another_namespace_below_the_same_cgroup_is_not_steered() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80])?;
    // The client's sockets are of this very process, so of the same cgroup as the router's.
    let config = Config::of(&lab).filter(2, "own", &own("protocol: all"));
    let mut daemon = Daemon::start(&lab, &config)?;
    let client = lab.client(Ns::Client);
    for _ in 0..10 {
        assert_eq!(client.seen_by_tcp(INTERNET, 80)?, wan_ip(1));
        assert_eq!(client.seen_by_udp(INTERNET, 80)?, wan_ip(1));
        let socket = lab.in_ns(Ns::Client, || UdpSocket::bind("0.0.0.0:0"))?;
        assert_eq!(exchange(&socket, INTERNET, 80)?, wan_ip(1));
    }
    let stream = client.connect(INTERNET, 80)?;
    assert_eq!(Socket::from(stream).mark()?, 0, "a socket of another namespace was marked");
    let stream = lab.client(Ns::Router).connect(INTERNET, 80)?;
    assert_eq!(Socket::from(stream).mark()?, 2, "the router's is");
    daemon.terminate()
}

#[test]
fn specific_routes_win_and_come_and_go() -> Result<()> {
    let lab = Lab::builder().wans(3).build()?;
    let _servers = lab.serve_internet(&[80])?;
    let config = Config::of(&lab).filter(2, "own", &own("protocol: all"));
    let mut daemon = Daemon::start(&lab, &config)?;
    let to = INTERNET_OTHERS[1];
    let via_third = format!("route add {to}/32 via 10.0.3.1 dev eth3");
    // Without translation a wrong source address is seen, or never answered.
    lab.sh(Ns::Router, "iptables -t nat -F POSTROUTING")?;
    let _client = CLIENT;
    let mark = || -> Result<u32> {
        let socket = lab.in_ns(Ns::Router, || Socket::new(Domain::IPV4, Type::DGRAM, None))?;
        socket.connect(&SocketAddr::from((to, 80)).into())?;
        Ok(socket.mark()?)
    };
    let check = |expected: u8| -> Result<()> {
        let steered = if expected == 2 { 2 } else { 0 };
        wait_until("the programs to know the route", FAILOVER, || mark().is_ok_and(|mark| mark == steered))?;
        assert_eq!(seen_unconnected(&lab, to, 80)?, wan_ip(expected));
        assert_eq!(lab.client(Ns::Router).seen_by_tcp(to, 80)?, wan_ip(expected));
        Ok(())
    };
    check(2)?;
    lab.sh(Ns::Router, &format!("ip {via_third}"))?;
    check(3)?;
    assert_eq!(seen_unconnected(&lab, INTERNET, 80)?, wan_ip(2));
    lab.sh(Ns::Router, &format!("ip {}", via_third.replace("add", "del")))?;
    check(2)?;
    // A table of another program's, before ours.
    lab.feed(
        Ns::Router,
        "ip -batch -",
        &format!("route add {to}/32 via 10.0.3.1 dev eth3 table 700\nrule add priority 5000 lookup 700\n"),
    )?;
    check(3)?;
    // The router's own addresses, and its LAN.
    let _own = lab.observe_udp(Ns::Router, &[wan_ip(2)], 7000)?;
    let _lan = lab.observe_udp(Ns::Client, &[CLIENT], 7000)?;
    assert_eq!(seen_unconnected(&lab, wan_ip(2), 7000)?, wan_ip(2));
    assert_ne!(seen_unconnected(&lab, CLIENT, 7000)?, wan_ip(2));
    daemon.terminate()
}

#[test]
fn filters_of_ports_sources_and_order() -> Result<()> {
    let lab = Lab::builder().wans(3).build()?;
    let _servers = lab.serve_internet(&[80, 81, 82])?;
    let config = Config::of(&lab)
        .filter(2, "one host", &own("protocol: all, dst: [203.0.113.11]"))
        .filter(2, "as the default's address", &own("protocol: tcp, src: [10.0.1.2], dports: [81]"))
        .filter(2, "as another's address", &own("protocol: tcp, src: [10.0.3.2], dports: [82]"))
        .filter(3, "the rest", &own("protocol: all, dst: [203.0.113.0/24]"))
        .filter(3, "one port", &own("protocol: udp, sports: [4000], dports: [80]"));
    let mut daemon = Daemon::start(&lab, &config)?;
    let router = lab.client(Ns::Router);
    assert_eq!(router.seen_by_tcp(INTERNET_OTHERS[0], 80)?, wan_ip(2));
    assert_eq!(router.seen_by_tcp(INTERNET, 80)?, wan_ip(3));
    assert_eq!(router.seen_by_tcp(INTERNET, 81)?, wan_ip(2));
    assert_eq!(router.seen_by_tcp(INTERNET, 82)?, wan_ip(3));
    assert_eq!(router.seen_by_tcp(INTERNET_OTHERS[1], 80)?, wan_ip(1));
    assert_eq!(router.source_port(4000).seen_by_udp(INTERNET_OTHERS[1], 80)?, wan_ip(3));
    assert_eq!(router.source_port(4001).seen_by_udp(INTERNET_OTHERS[1], 80)?, wan_ip(1));
    // The same order by rules.
    let mut observer = lab.observe_protocol(Ns::Internet, GRE)?;
    for (to, wan) in [(INTERNET_OTHERS[0], 2), (INTERNET, 3), (INTERNET_OTHERS[1], 1)] {
        let part = format!("gre to {to}");
        lab.send_protocol(Ns::Router, GRE, None, to, part.as_bytes())?;
        assert_eq!(observer.source_of(part.as_bytes())?, wan_ip(wan), "{part}");
    }
    daemon.terminate()
}

#[test]
fn udplite_connected_or_not() -> Result<()> {
    let lab = Lab::builder().build()?;
    let config = Config::of(&lab).filter(2, "own", &own("protocol: udplite, dports: [80]"));
    let mut daemon = Daemon::start(&lab, &config)?;
    let mut observer = lab.observe_protocol(Ns::Internet, UDPLITE)?;
    for (connected, port, wan) in [(true, 80, 2), (false, 80, 2), (true, 81, 1), (false, 81, 1)] {
        let part = format!("{connected} {port}");
        lab.in_ns(Ns::Router, || -> Result<()> {
            let protocol = Protocol::from(i32::from(UDPLITE));
            let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(protocol))?;
            let to = SocketAddr::from((INTERNET, port)).into();
            if connected {
                socket.connect(&to)?;
                socket.send(part.as_bytes())?;
            } else {
                socket.send_to(part.as_bytes(), &to)?;
            }
            Ok(())
        })?;
        assert_eq!(observer.source_of(part.as_bytes())?, wan_ip(wan), "{part}");
    }
    daemon.terminate()
}

#[test]
fn an_ipv6_socket_sends_datagrams_to_mapped_addresses() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[53])?;
    let config = Config::of(&lab).filter(2, "own", &own("protocol: udp, dports: [53]"));
    let mut daemon = Daemon::start(&lab, &config)?;
    let socket = lab.in_ns(Ns::Router, || UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send_to(b"who", (INTERNET.to_ipv6_mapped(), 53))?;
    let mut answer = [0; 128];
    let (length, _) = socket.recv_from(&mut answer)?;
    assert_eq!(seen(&answer[..length])?, wan_ip(2));
    daemon.terminate()
}

#[test]
fn rules_with_ports_stand_and_are_not_repaired() -> Result<()> {
    let lab = Lab::builder().build()?;
    let config = Config::of(&lab).filter(2, "sctp", &own("protocol: sctp, dports: [9000]")).filter(
        2,
        "udplite",
        &own("protocol: udplite, sports: [7]"),
    );
    let mut daemon = Daemon::start(&lab, &config)?;
    let rules = || -> Result<String> { lab.sh(Ns::Router, "ip rule show") };
    daemon.wait_status("WAN2 on", FAILOVER, |s| s.is_on(2))?;
    wait_until("the rules", FAILOVER, || rules().is_ok_and(|rules| rules.contains("dport 9000")))?;
    let written = rules()?;
    // Each look at the rules is asked for by a disturbance, and its end seen by the repair.
    for round in 1..=3 {
        lab.sh(Ns::Router, "ip rule del priority 30000")?;
        wait_until("the repair", FAILOVER, || daemon.log().matches("rule 30000").count() >= round)?;
        assert_eq!(rules()?, written);
    }
    let told: Vec<String> =
        daemon.log().lines().filter(|line| line.contains("WARN")).map(str::to_owned).collect();
    assert!(told.iter().all(|line| line.contains("rule 30000")), "{told:#?}");
    assert_eq!(told.len(), 3, "{told:#?}");
    assert!(!daemon.log().contains("deleted"), "{}", daemon.log());
    daemon.terminate()
}

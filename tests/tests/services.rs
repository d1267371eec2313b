//! UDP services of the router itself on every address, asked by every WAN: they answer from the address
//! they were asked at, though they do not know it.

use anyhow::{Context, Result, ensure};
use multiwans_tests::daemon::binary;
use multiwans_tests::topology::{INTERNET, INTERNET_OTHERS, wan_ip};
use multiwans_tests::wait::wait_until;
use multiwans_tests::{Config, Daemon, Lab, Ns};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

const FAILOVER: Duration = Duration::from_secs(10);
const PORT: u16 = 7000;

/// Callers from two addresses ask by every WAN in turn; each takes an answer only from where it asked.
fn everyone_is_answered(lab: &Lab, wans: &[u8]) -> Result<()> {
    for number in 0..10 {
        for &k in wans {
            for caller in [INTERNET, INTERNET_OTHERS[1]] {
                let seen = lab.client(Ns::Internet).from(caller).seen_by_udp(wan_ip(k), PORT);
                let seen = seen.with_context(|| format!("question {number} of {caller} by WAN{k}"))?;
                assert_eq!(seen, caller);
            }
        }
    }
    Ok(())
}

#[test]
fn a_service_on_every_address_answers_by_the_wan_it_was_asked_by() -> Result<()> {
    let lab = Lab::builder().wans(3).build()?;
    // There before the daemon, as services are.
    let _service = lab.observe_udp(Ns::Router, &[Ipv4Addr::UNSPECIFIED], PORT)?;
    // Answers are nothing for a filter.
    let filter = "chainMangle: OUTPUT, protocol: udp, sports: [7000]";
    let mut daemon = Daemon::start(&lab, &Config::of(&lab).filter(3, "own", filter))?;
    everyone_is_answered(&lab, &[1, 2, 3])?;

    // One socket that asks by one WAN, then by the other.
    let socket = lab.in_ns(Ns::Internet, || UdpSocket::bind((INTERNET, 0)))?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    for k in [2, 1, 3, 1, 2, 2] {
        socket.send_to(b"who", (wan_ip(k), PORT))?;
        let (_, from) = socket.recv_from(&mut [0; 128])?;
        assert_eq!(from, SocketAddr::from((wan_ip(k), PORT)));
    }

    lab.blackhole(1)?;
    daemon.wait_status("WAN2 to be the default", FAILOVER, |s| s.defaults_to(2))?;
    everyone_is_answered(&lab, &[2, 3])?;
    lab.heal(1)?;
    daemon.wait_status("WAN1 to be the default", FAILOVER * 2, |s| s.defaults_to(1))?;
    everyone_is_answered(&lab, &[1, 2, 3])?;
    daemon.terminate()
}

/// Every way to ask the router by a WAN: TCP, ICMP, a UDP service and a real DNS server.
fn every_service_answers(lab: &Lab, wans: &[u8]) -> Result<()> {
    everyone_is_answered(lab, wans)?;
    for &k in wans {
        for caller in [INTERNET, INTERNET_OTHERS[1]] {
            let context = || format!("{caller} by WAN{k}");
            let client = lab.client(Ns::Internet).from(caller);
            assert_eq!(client.seen_by_tcp(wan_ip(k), PORT).with_context(context)?, caller);
            let to = wan_ip(k);
            lab.sh(Ns::Internet, &format!("ping -n -c 1 -W 2 -I {caller} {to}")).with_context(context)?;
            let dig = format!("dig +short +tries=1 +time=2 -b {caller} @{to} www.example.org");
            assert_eq!(lab.sh(Ns::Internet, &dig).with_context(context)?.trim(), "192.0.2.1", "{caller} {k}");
        }
    }
    Ok(())
}

#[test]
fn every_service_answers_by_every_wan_through_restarts_and_failovers() -> Result<()> {
    let lab = Lab::builder().wans(3).build()?;
    let _udp = lab.observe_udp(Ns::Router, &[Ipv4Addr::UNSPECIFIED], PORT)?;
    let _tcp = lab.observe_tcp(Ns::Router, PORT)?;
    let _dns = lab.serve_dns(Ns::Router, 53, &["address=/example.org/192.0.2.1"])?;
    ensure!(every_service_answers(&lab, &[2]).is_err(), "the lab proves nothing");
    // A filter takes nothing of what is an answer.
    let config = Config::of(&lab).filter(3, "own", "chainMangle: OUTPUT, protocol: all");
    let mut daemon = Daemon::start(&lab, &config)?;
    every_service_answers(&lab, &[1, 2, 3])?;

    // As somebody's session of SSH into the router.
    let session = lab.client(Ns::Internet).from(INTERNET).tcp_session(wan_ip(2), PORT)?;
    daemon.terminate()?;
    let mut daemon = Daemon::start(&lab, &config)?;
    every_service_answers(&lab, &[1, 2, 3]).context("started anew")?;

    lab.blackhole(1)?;
    daemon.wait_status("WAN2 to be the default", FAILOVER, |s| s.defaults_to(2))?;
    every_service_answers(&lab, &[2, 3]).context("with WAN1 dead")?;
    daemon.kill()?;
    let mut daemon = Daemon::start(&lab, &config)?;
    every_service_answers(&lab, &[2, 3]).context("killed and started anew")?;
    lab.heal(1)?;
    daemon.wait_status("WAN1 to be the default", FAILOVER * 2, |s| s.defaults_to(1))?;
    every_service_answers(&lab, &[1, 2, 3]).context("with WAN1 back")?;
    assert!(session.finish()?.messages > 100);
    daemon.terminate()
}

#[test]
fn without_the_daemon_only_the_default_wan_is_answered() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _service = lab.observe_udp(Ns::Router, &[Ipv4Addr::UNSPECIFIED], PORT)?;
    everyone_is_answered(&lab, &[1])?;
    ensure!(everyone_is_answered(&lab, &[2]).is_err(), "the lab proves nothing");
    Ok(())
}

#[test]
fn services_in_ipv6_sockets_and_in_connected_ones_answer_too() -> Result<()> {
    let lab = Lab::builder().build()?;
    let both = lab.in_ns(Ns::Router, || -> std::io::Result<Socket> {
        let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_only_v6(false)?;
        socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT)).into())?;
        Ok(socket)
    })?;
    // As TLS over UDP is served: one socket listens, and each peer gets one that is connected to it.
    let listener = lab.in_ns(Ns::Router, || listening(PORT + 1))?;
    let stop = AtomicBool::new(false);
    let mut daemon = Daemon::start(&lab, &Config::of(&lab))?;
    thread::scope(|scope| -> Result<()> {
        scope.spawn(|| serve(&UdpSocket::from(both), &stop));
        scope.spawn(|| {
            let listener = UdpSocket::from(listener);
            listener.set_read_timeout(Some(Duration::from_millis(50))).ok();
            while !stop.load(Ordering::Relaxed) {
                let Ok((_, peer)) = listener.recv_from(&mut [0; 128]) else { continue };
                let answer = lab.in_ns(Ns::Router, || -> std::io::Result<usize> {
                    let socket = listening(PORT + 1)?;
                    socket.connect(&SockAddr::from(peer))?;
                    socket.send(format!("{peer} ").as_bytes())
                });
                answer.ok();
            }
        });
        let asked = (|| {
            everyone_is_answered(&lab, &[1, 2])?;
            for k in [1, 2] {
                let seen = lab.client(Ns::Internet).from(INTERNET).seen_by_udp(wan_ip(k), PORT + 1);
                assert_eq!(seen.with_context(|| format!("connected, by WAN{k}"))?, INTERNET);
            }
            Ok(())
        })();
        stop.store(true, Ordering::Relaxed);
        asked
    })?;
    daemon.terminate()
}

fn listening(port: u16) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
    Ok(socket)
}

fn serve(socket: &UdpSocket, stop: &AtomicBool) {
    // A test without a time limit would hang on a broken service.
    socket.set_read_timeout(Some(Duration::from_millis(50))).ok();
    while !stop.load(Ordering::Relaxed) {
        let Ok((_, peer)) = socket.recv_from(&mut [0; 128]) else { continue };
        let address = match peer.ip() {
            IpAddr::V6(address) => address.to_ipv4_mapped().unwrap_or(Ipv4Addr::UNSPECIFIED),
            IpAddr::V4(address) => address,
        };
        socket.send_to(format!("{address}:{} ", peer.port()).as_bytes(), peer).ok();
    }
}

#[test]
fn a_flood_of_forged_questions_leaves_the_service_working() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _service = lab.observe_udp(Ns::Router, &[Ipv4Addr::UNSPECIFIED], PORT)?;
    let mut daemon = Daemon::start(&lab, &Config::of(&lab))?;
    // More questioners than the table holds: 100 000 ports and addresses, to an open and to a closed port.
    lab.in_ns(Ns::Internet, || -> Result<()> {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255)))?;
        for number in 0..100_000u32 {
            let mut packet = vec![0x45, 0, 0, 29, 0, 0, 0, 0, 64, 17, 0, 0];
            packet.extend_from_slice(&[203, 0, 113, 100 + (number % 100) as u8]);
            packet.extend_from_slice(&wan_ip(2).octets());
            let port = if number % 4 == 0 { PORT + 9 } else { PORT };
            packet.extend_from_slice(&(1024 + (number / 2 % 60_000) as u16).to_be_bytes());
            packet.extend_from_slice(&port.to_be_bytes());
            packet.extend_from_slice(&[0, 9, 0, 0, b'?']);
            // A full queue is part of a flood.
            socket.send_to(&packet, &SocketAddr::from((wan_ip(2), 0)).into()).ok();
        }
        Ok(())
    })?;
    // It did arrive: most of the open port's part of it was seen by the program.
    wait_until("the flood to be counted", FAILOVER, || counted(&daemon, "asked").is_ok_and(|n| n > 40_000))?;
    everyone_is_answered(&lab, &[1, 2])?;
    daemon.terminate()
}

/// What the programs have counted under a name.
fn counted(daemon: &Daemon<'_>, name: &str) -> Result<u64> {
    let socket = daemon.control_socket();
    let output = Command::new(binary()?).args(["status", "--json", "--socket"]).arg(socket).output()?;
    let status: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    status["datapath"]["packets"][name].as_u64().context("no such counter")
}

//! The programs of the router's sockets: attached wherever cgroup2 is, beside others, and gone with the
//! daemon however it ends.

use anyhow::{Context, Result, ensure};
use multiwans_tests::router_files::Cgroups;
use multiwans_tests::topology::{INTERNET, wan_ip};
use multiwans_tests::wait::wait_until;
use multiwans_tests::{Config, Daemon, Lab, Ns, Residue};
use std::fs;
use std::net::UdpSocket;
use std::time::Duration;

/// The kernel frees a program some time after the last who used it.
const GRACE: Duration = Duration::from_secs(5);

fn config(lab: &Lab) -> Config {
    Config::of(lab)
        .filter(2, "own web", "chainMangle: OUTPUT, protocol: tcp, dports: [80]")
        .filter(2, "own names", "chainMangle: OUTPUT, protocol: udp, dports: [53]")
        .filter(2, "own pings", "chainMangle: OUTPUT, protocol: icmp")
}

fn seen_unconnected(lab: &Lab, port: u16) -> Result<String> {
    let socket = lab.in_ns(Ns::Router, || UdpSocket::bind("0.0.0.0:0"))?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    socket.send_to(b"who", (INTERNET, port))?;
    let mut answer = [0; 128];
    let length = socket.recv(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..length]).split(':').next().unwrap_or_default().to_owned())
}

/// The numbers of a process' links to cgroups.
fn cgroup_links(pid: u32) -> Result<Vec<u32>> {
    let mut links = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        let Ok(text) = fs::read_to_string(entry?.path()) else { continue };
        if text.lines().any(|line| line == "link_type:\tcgroup") {
            let number = text.lines().find_map(|line| line.strip_prefix("link_id:\t"));
            links.push(number.context("a link without a number")?.trim().parse()?);
        }
    }
    Ok(links)
}

fn links_are_gone(lab: &Lab, links: &[u32]) -> Result<()> {
    wait_until("the links to be gone", GRACE, || {
        let standing = lab.sh(Ns::Router, "bpftool link show").unwrap_or_default();
        !links.iter().any(|link| standing.lines().any(|line| line.starts_with(&format!("{link}: "))))
    })
    .map(drop)
}

#[test]
fn nothing_is_left_after_a_stop_and_after_a_kill() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80, 53])?;
    let before = Residue::take(&lab)?;
    for kill in [false, true, false] {
        let mut daemon = Daemon::start(&lab, &config(&lab))?;
        assert_eq!(lab.client(Ns::Router).seen_by_tcp(INTERNET, 80)?, wan_ip(2));
        let links = cgroup_links(daemon.pid())?;
        assert_eq!(links.len(), 4, "one for each program");
        if kill {
            daemon.kill()?;
            links_are_gone(&lab, &links)?;
            // What the router sends is unmarked again, so it follows the main table.
            assert_eq!(lab.client(Ns::Router).seen_by_tcp(INTERNET, 80)?, wan_ip(1));
            assert_eq!(seen_unconnected(&lab, 53)?, wan_ip(1).to_string());
        } else {
            daemon.terminate()?;
            links_are_gone(&lab, &links)?;
            before.check_same(&Residue::take(&lab)?)?;
        }
    }
    Ok(())
}

#[test]
fn two_daemons_programs_both_run() -> Result<()> {
    // Both attach to the one root there is; each sees the other's sockets, and leaves them alone.
    let (one, two) = (Lab::builder().build()?, Lab::builder().build()?);
    let _servers = (one.serve_internet(&[80, 53])?, two.serve_internet(&[80, 53])?);
    let mut first = Daemon::start(&one, &config(&one))?;
    let mut second = Daemon::start(&two, &config(&two))?;
    for lab in [&one, &two, &one] {
        assert_eq!(lab.client(Ns::Router).seen_by_tcp(INTERNET, 80)?, wan_ip(2));
        assert_eq!(seen_unconnected(lab, 53)?, wan_ip(2).to_string());
    }
    first.terminate()?;
    assert_eq!(two.client(Ns::Router).seen_by_tcp(INTERNET, 80)?, wan_ip(2));
    second.terminate()
}

#[test]
fn without_a_mounted_cgroup2_nothing_is_lost() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80, 53])?;
    lab.router_files().set_cgroups(Cgroups::NotMounted);
    let mut daemon = Daemon::start(&lab, &config(&lab))?;
    assert_eq!(cgroup_links(daemon.pid())?.len(), 4);
    assert_eq!(lab.client(Ns::Router).seen_by_tcp(INTERNET, 80)?, wan_ip(2));
    daemon.terminate()
}

#[test]
fn without_any_cgroup2_rules_do_and_the_log_says_what_is_lost() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80, 81, 53])?;
    lab.router_files().set_cgroups(Cgroups::Unreachable);
    let before = Residue::take(&lab)?;
    let mut daemon = Daemon::start(&lab, &config(&lab))?;
    assert!(cgroup_links(daemon.pid())?.is_empty());
    let log = daemon.log();
    ensure!(log.contains("cgroup2 is mounted nowhere") && log.contains("UDP services on 0.0.0.0"), "{log}");
    let check = |expected: u8| -> Result<()> {
        let router = lab.client(Ns::Router);
        assert_eq!(router.seen_by_tcp(INTERNET, 80)?, wan_ip(expected));
        assert_eq!(router.seen_by_udp(INTERNET, 53)?, wan_ip(expected));
        assert_eq!(seen_unconnected(&lab, 53)?, wan_ip(expected).to_string());
        assert_eq!(router.seen_by_tcp(INTERNET, 81)?, wan_ip(1));
        assert_eq!(router.from(wan_ip(1)).seen_by_tcp(INTERNET, 80)?, wan_ip(1), "bound");
        Ok(())
    };
    check(2)?;
    lab.blackhole(2)?;
    daemon.wait_status("WAN2 to be OFF", GRACE * 2, |s| s.is_off(2))?;
    check(1)?;
    daemon.terminate()?;
    before.check_same(&Residue::take(&lab)?)
}

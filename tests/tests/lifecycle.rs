//! Starts and stops, clean and not: the router afterwards is the router before.

use anyhow::{Context, Result};
use multiwans_tests::topology::{INTERNET, wan_ip};
use multiwans_tests::wait::wait_until;
use multiwans_tests::{Config, Daemon, Lab, Ns, Residue};
use nix::sys::signal::Signal;
use std::time::Duration;

const FAILOVER: Duration = Duration::from_secs(10);
const START: Duration = Duration::from_secs(15);

fn web_config(lab: &Lab) -> Config {
    Config::of(lab).filter(2, "web", "protocol: tcp, dports: [80]")
}

fn stop_leaves_nothing(signal: Signal, rp_filter: u8) -> Result<()> {
    let lab = Lab::builder().second_lan().rp_filter(rp_filter).build()?;
    // One interface differs from the rest; it must get its own value back.
    lab.sysctl(Ns::Router, "ipv4/conf/lan2/rp_filter", "2")?;
    let _servers = lab.serve_internet(&[80, 443])?;
    let before = Residue::take(&lab)?;
    let mut daemon = Daemon::start(&lab, &web_config(&lab))?;
    assert!(before.check_same(&Residue::take(&lab)?).is_err(), "a running daemon shows");
    assert_eq!(lab.client(Ns::Client).seen_by_tcp(INTERNET, 80)?, wan_ip(2));

    daemon.stop(signal)?;
    before.check_same(&Residue::take(&lab)?)?;
    assert_eq!(lab.client(Ns::Client).seen_by_tcp(INTERNET, 80)?, wan_ip(1));
    Ok(())
}

#[test]
fn sigterm_leaves_nothing() -> Result<()> {
    stop_leaves_nothing(Signal::SIGTERM, 1)
}

#[test]
fn sigint_leaves_nothing() -> Result<()> {
    stop_leaves_nothing(Signal::SIGINT, 0)
}

#[test]
fn sigquit_leaves_nothing() -> Result<()> {
    stop_leaves_nothing(Signal::SIGQUIT, 2)
}

#[test]
fn a_stop_during_a_failover_leaves_the_best_link_as_default() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80])?;
    let before = Residue::take(&lab)?;
    let mut daemon = Daemon::start(&lab, &web_config(&lab))?;
    lab.blackhole(1)?;
    daemon.wait_status("WAN2 to be the default", FAILOVER, |s| s.defaults_to(2))?;

    daemon.terminate()?;
    assert_eq!(lab.default_gateway()?, Some(2));
    assert_eq!(lab.client(Ns::Client).seen_by_tcp(INTERNET, 80)?, wan_ip(2));
    let after = Residue::take(&lab)?.without_default_route();
    before.without_default_route().check_same(&after)
}

#[test]
fn a_failover_and_its_return_leave_nothing() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80])?;
    let before = Residue::take(&lab)?;
    let mut daemon = Daemon::start(&lab, &web_config(&lab))?;
    lab.pull_cable(1)?;
    daemon.wait_status("WAN2 to be the default", FAILOVER, |s| s.defaults_to(2))?;
    lab.plug_cable(1)?;
    daemon.wait_status("WAN1 to be the default", FAILOVER * 2, |s| s.defaults_to(1))?;
    daemon.terminate()?;
    assert_eq!(lab.default_gateway()?, Some(1));
    before.check_same(&Residue::take(&lab)?)
}

#[test]
fn after_a_kill_a_new_start_doubles_nothing_and_a_stop_removes_all() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80, 443])?;
    let before = Residue::take(&lab)?;
    let mut first = Daemon::start(&lab, &web_config(&lab))?;
    let subjects = ["ip rule", "ip route", "rp_filter", "/etc/iproute2"];
    let running = Residue::take(&lab)?;
    let programs = running.lines("bpftool net show").len();

    for round in 0..2 {
        first.kill()?;
        first =
            Daemon::start(&lab, &web_config(&lab)).with_context(|| format!("start after kill {round}"))?;
        let again = Residue::take(&lab)?;
        running.only(&subjects).check_same(&again.only(&subjects))?;
        assert_eq!(again.lines("bpftool net show").len(), programs, "{:?}", again.lines("bpftool net show"));
        assert_eq!(again.lines("pins"), running.lines("pins"));
        for _ in 0..20 {
            assert_eq!(lab.client(Ns::Client).seen_by_tcp(INTERNET, 80)?, wan_ip(2));
            assert_eq!(lab.client(Ns::Client).seen_by_tcp(INTERNET, 443)?, wan_ip(1));
        }
    }
    lab.pull_cable(1)?;
    lab.client(Ns::Client).wait_seen(wan_ip(2), INTERNET, 443, Duration::from_secs(1))?;
    lab.plug_cable(1)?;
    first.wait_status("WAN1 to be the default", FAILOVER * 2, |s| s.defaults_to(1))?;

    first.terminate()?;
    before.check_same(&Residue::take(&lab)?)
}

#[test]
fn a_session_survives_start_and_stop() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80])?;
    let session = lab.client(Ns::Client).tcp_session(INTERNET, 80)?;
    let stream = lab.client(Ns::Client).udp_stream(INTERNET, 80)?;
    // The filter says WAN2 for new flows; these two began on WAN1.
    let mut daemon = Daemon::start(&lab, &web_config(&lab))?;
    daemon.terminate()?;
    let (tcp, udp) = (session.finish()?, stream.finish()?);
    assert_eq!(tcp.retransmits, 0, "{tcp:?}");
    assert_eq!((udp.lost, udp.seen.as_slice()), (0, [wan_ip(1)].as_slice()), "{udp:?}");
    Ok(())
}

#[test]
fn a_router_without_a_mounted_bpf_file_system_will_do() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80])?;
    lab.router_files().unmount_bpf()?;
    let mut daemon = Daemon::start(&lab, &web_config(&lab))?;
    let steered = || lab.client(Ns::Client).seen_by_tcp(INTERNET, 80).is_ok_and(|seen| seen == wan_ip(2));
    wait_until("steering", Duration::from_secs(1), steered)?;
    daemon.terminate()
}

#[test]
fn signals_during_the_start_do_not_delay_it() -> Result<()> {
    let lab = Lab::builder().build()?;
    let before = Residue::take(&lab)?;
    let mut daemon = Daemon::spawn(&lab, &Config::of(&lab))?;
    wait_until("the start is told", START, || daemon.log().contains(" starts: "))?;
    // Each of these that meets the kernel's verifier at work used to make the start take half a minute.
    wait_until("both links are on", START, || {
        let _ = daemon.signal(Signal::SIGHUP);
        daemon.status().is_ok_and(|status| status.is_on(1) && status.is_on(2))
    })?;
    daemon.terminate()?;
    before.check_same(&Residue::take(&lab)?)
}

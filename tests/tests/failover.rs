//! Links that die and come back under traffic.

use anyhow::Result;
use multiwans_tests::topology::{INTERNET, INTERNET_OTHERS, wan_ip};
use multiwans_tests::{Config, Daemon, Lab, Ns};
use std::time::Duration;

/// A provider that swallows packets, with the lab's probes (200 ms apart, 1 s of patience).
const BLACKHOLE_NOTICED: Duration = Duration::from_secs(10);
/// The kernel says so at once.
const CABLE_NOTICED: Duration = Duration::from_secs(1);
const RETURN_NOTICED: Duration = Duration::from_secs(15);

#[test]
fn a_blackholed_default_wan_is_left_and_taken_again() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80])?;
    let mut daemon = Daemon::start(&lab, &Config::of(&lab))?;
    let client = lab.client(Ns::Client);
    assert_eq!(client.seen_by_tcp(INTERNET, 80)?, wan_ip(1));

    lab.blackhole(1)?;
    client.wait_seen(wan_ip(2), INTERNET, 80, BLACKHOLE_NOTICED)?;
    daemon.wait_status("WAN2 to be the default", CABLE_NOTICED, |s| s.is_off(1) && s.defaults_to(2))?;
    for _ in 0..20 {
        assert_eq!(client.seen_by_tcp(INTERNET, 80)?, wan_ip(2));
    }
    assert_eq!(lab.default_gateway()?, Some(2));
    assert!(!daemon.status()?.wan(1).reason.is_empty());

    lab.heal(1)?;
    client.wait_seen(wan_ip(1), INTERNET, 80, RETURN_NOTICED)?;
    daemon.wait_status("WAN1 to be the default", CABLE_NOTICED, |s| s.is_on(1) && s.defaults_to(1))?;
    assert_eq!(lab.default_gateway()?, Some(1));
    daemon.terminate()
}

#[test]
fn a_dead_gateway_is_noticed_too() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80])?;
    let mut daemon = Daemon::start(&lab, &Config::of(&lab))?;
    lab.kill_gateway(1)?;
    lab.client(Ns::Client).wait_seen(wan_ip(2), INTERNET, 80, BLACKHOLE_NOTICED)?;
    lab.heal(1)?;
    lab.client(Ns::Client).wait_seen(wan_ip(1), INTERNET, 80, RETURN_NOTICED)?;
    daemon.terminate()
}

#[test]
fn a_pulled_cable_is_noticed_within_a_second() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80])?;
    let mut daemon = Daemon::start(&lab, &Config::of(&lab))?;
    lab.pull_cable(1)?;
    lab.client(Ns::Client).wait_seen(wan_ip(2), INTERNET, 80, CABLE_NOTICED)?;
    lab.plug_cable(1)?;
    lab.client(Ns::Client).wait_seen(wan_ip(1), INTERNET, 80, RETURN_NOTICED)?;
    daemon.terminate()
}

#[test]
fn one_dead_target_does_not_take_a_link_down() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80])?;
    let mut daemon = Daemon::start(&lab, &Config::of(&lab))?;
    // The first of the two that the configuration names; its other services go on.
    lab.sh(Ns::Internet, &format!("iptables -A INPUT -p icmp -d {INTERNET} -j DROP"))?;
    multiwans_tests::wait::stays_true("WAN1 on and default", Duration::from_secs(4), || {
        daemon.status().is_ok_and(|status| status.is_on(1) && status.is_on(2) && status.defaults_to(1))
    })?;
    daemon.terminate()
}

#[test]
fn a_standby_s_failure_and_return_cost_the_default_wan_nothing() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80, 443])?;
    let config = Config::of(&lab).filter(2, "https", "protocol: tcp, dports: [443]");
    let mut daemon = Daemon::start(&lab, &config)?;
    let session = lab.client(Ns::Client).tcp_session(INTERNET, 80)?;
    let stream = lab.client(Ns::Client).udp_stream(INTERNET, 80)?;
    assert_eq!(session.seen, wan_ip(1));

    lab.blackhole(2)?;
    daemon.wait_status("WAN2 off", BLACKHOLE_NOTICED, |s| s.is_off(2))?;
    lab.heal(2)?;
    daemon.wait_status("WAN2 on", RETURN_NOTICED, |s| s.is_on(2))?;
    lab.pull_cable(2)?;
    daemon.wait_status("WAN2 off", CABLE_NOTICED, |s| s.is_off(2))?;
    lab.plug_cable(2)?;
    daemon.wait_status("WAN2 on", RETURN_NOTICED, |s| s.is_on(2) && s.defaults_to(1))?;

    let (tcp, udp) = (session.finish()?, stream.finish()?);
    assert_eq!(tcp.retransmits, 0, "{tcp:?}");
    assert_eq!(udp.lost, 0, "{udp:?}");
    assert_eq!(udp.seen, [wan_ip(1)]);
    assert!(tcp.messages > 100 && udp.sent > 100, "{tcp:?} {udp:?}");
    daemon.terminate()
}

#[test]
fn a_lasting_udp_stream_moves_with_the_default_wan() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80])?;
    let mut daemon = Daemon::start(&lab, &Config::of(&lab))?;
    let stream = lab.client(Ns::Client).udp_stream(INTERNET, 80)?;
    assert_eq!(stream.seen, wan_ip(1));
    lab.pull_cable(1)?;
    lab.client(Ns::Client).wait_seen(wan_ip(2), INTERNET, 80, CABLE_NOTICED)?;
    // Answers to a stream that stayed with WAN1's translation would never come.
    let moved = Duration::from_secs(1);
    std::thread::sleep(moved);
    let udp = stream.finish()?;
    assert_eq!(udp.seen, [wan_ip(1), wan_ip(2)], "{udp:?}");
    daemon.terminate()
}

#[test]
fn the_new_default_wan_s_own_sessions_survive_a_failover() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80, 443])?;
    let config = Config::of(&lab).filter(2, "https", "protocol: tcp, dports: [443]");
    let mut daemon = Daemon::start(&lab, &config)?;
    let session = lab.client(Ns::Client).tcp_session(INTERNET, 443)?;
    assert_eq!(session.seen, wan_ip(2));

    lab.blackhole(1)?;
    lab.client(Ns::Client).wait_seen(wan_ip(2), INTERNET, 80, BLACKHOLE_NOTICED)?;
    lab.heal(1)?;
    lab.client(Ns::Client).wait_seen(wan_ip(1), INTERNET, 80, RETURN_NOTICED)?;
    assert_eq!(lab.client(Ns::Client).seen_by_tcp(INTERNET, 443)?, wan_ip(2));

    let tcp = session.finish()?;
    assert_eq!(tcp.retransmits, 0, "{tcp:?}");
    daemon.terminate()
}

#[test]
fn a_dead_wan_s_filtered_traffic_takes_the_default_until_it_returns() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[443])?;
    let config = Config::of(&lab).filter(2, "https", "protocol: udp, dports: [443]");
    let mut daemon = Daemon::start(&lab, &config)?;
    let client = lab.client(Ns::Client);
    assert_eq!(client.seen_by_udp(INTERNET, 443)?, wan_ip(2));
    lab.blackhole(2)?;
    client.wait_seen(wan_ip(1), INTERNET, 443, BLACKHOLE_NOTICED)?;
    lab.heal(2)?;
    client.wait_seen(wan_ip(2), INTERNET, 443, RETURN_NOTICED)?;
    daemon.terminate()
}

#[test]
fn three_wans_take_over_in_order() -> Result<()> {
    let lab = Lab::builder().wans(3).build()?;
    let _servers = lab.serve_internet(&[80])?;
    let mut daemon = Daemon::start(&lab, &Config::of(&lab))?;
    let client = lab.client(Ns::Client);
    let goes_by = |k, deadline| client.wait_seen(wan_ip(k), INTERNET, 80, deadline);

    goes_by(1, CABLE_NOTICED)?;
    lab.blackhole(1)?;
    goes_by(2, BLACKHOLE_NOTICED)?;
    lab.pull_cable(2)?;
    goes_by(3, CABLE_NOTICED)?;
    lab.plug_cable(2)?;
    goes_by(2, RETURN_NOTICED)?;
    lab.heal(1)?;
    goes_by(1, RETURN_NOTICED)?;
    daemon.terminate()
}

#[test]
fn with_every_link_down_the_first_to_return_carries_traffic() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80])?;
    let mut daemon = Daemon::start(&lab, &Config::of(&lab))?;
    let client = lab.client(Ns::Client);
    lab.blackhole(1)?;
    lab.blackhole(2)?;
    daemon.wait_status("both off", BLACKHOLE_NOTICED, |s| s.is_off(1) && s.is_off(2))?;
    assert!(daemon.log().contains("ERROR"), "it says so loudly");
    // What could still work goes on: the gateway itself answers.
    assert!(lab.ping(Ns::Client, None, std::net::Ipv4Addr::new(10, 0, 1, 1)).is_ok());

    lab.heal(2)?;
    client.wait_seen(wan_ip(2), INTERNET, 80, RETURN_NOTICED)?;
    lab.heal(1)?;
    client.wait_seen(wan_ip(1), INTERNET_OTHERS[2], 80, RETURN_NOTICED)?;
    daemon.terminate()
}

#[test]
fn a_link_that_is_down_at_the_start_is_left_out() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80])?;
    lab.blackhole(1)?;
    let mut daemon = Daemon::start(&lab, &Config::of(&lab))?;
    let client = lab.client(Ns::Client);
    client.wait_seen(wan_ip(2), INTERNET, 80, BLACKHOLE_NOTICED)?;
    lab.heal(1)?;
    client.wait_seen(wan_ip(1), INTERNET, 80, RETURN_NOTICED)?;
    daemon.terminate()
}

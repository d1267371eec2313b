//! The main table's specific routes: neither a filter nor the default WAN overrides them.

use anyhow::Result;
use multiwans_tests::topology::{CLIENT, INTERNET, INTERNET_OTHERS, LAN2_HOST, wan_ip};
use multiwans_tests::{Config, Daemon, Lab, Ns};
use std::time::Duration;

#[test]
fn a_static_route_wins_over_filters_and_the_default() -> Result<()> {
    let lab = Lab::builder().wans(3).build()?;
    let _servers = lab.serve_internet(&[80, 443])?;
    let [before, after, ..] = INTERNET_OTHERS;
    lab.sh(Ns::Router, &format!("ip route add {before}/32 via 10.0.2.1"))?;
    let config = Config::of(&lab).filter(3, "web", "protocol: tcp, dst: [0.0.0.0/0], dports: [80]");
    let mut daemon = Daemon::start(&lab, &config)?;
    let client = lab.client(Ns::Client);

    for _ in 0..20 {
        assert_eq!(client.seen_by_tcp(before, 80)?, wan_ip(2), "the filter says WAN3");
        assert_eq!(client.seen_by_tcp(before, 443)?, wan_ip(2), "the default is WAN1");
        assert_eq!(client.seen_by_tcp(INTERNET, 80)?, wan_ip(3));
    }
    // One that is added while the daemon runs.
    assert_eq!(client.seen_by_tcp(after, 443)?, wan_ip(1));
    lab.sh(Ns::Router, &format!("ip route add {after}/32 via 10.0.2.1"))?;
    assert_eq!(client.seen_by_tcp(after, 443)?, wan_ip(2));
    assert_eq!(client.seen_by_tcp(after, 80)?, wan_ip(2));

    daemon.terminate()?;
    let routes = lab.sh(Ns::Router, "ip route show")?;
    assert!(routes.contains(&before.to_string()) && routes.contains(&after.to_string()), "{routes}");
    Ok(())
}

#[test]
fn a_second_lan_is_reached_directly() -> Result<()> {
    let lab = Lab::builder().second_lan().build()?;
    let _internet = lab.serve_internet(&[80])?;
    let _there = lab.observe_tcp(Ns::Lan2, 80)?;
    let _here = lab.observe_tcp(Ns::Client, 80)?;
    let config = Config::of(&lab).filter(2, "web", "protocol: tcp, dst: [0.0.0.0/0], dports: [80]");
    let mut daemon = Daemon::start(&lab, &config)?;

    for _ in 0..20 {
        assert_eq!(lab.client(Ns::Client).seen_by_tcp(LAN2_HOST, 80)?, CLIENT);
        assert_eq!(lab.client(Ns::Lan2).seen_by_tcp(CLIENT, 80)?, LAN2_HOST);
        assert_eq!(lab.client(Ns::Client).seen_by_tcp(INTERNET, 80)?, wan_ip(2));
    }
    lab.blackhole(1)?;
    daemon.wait_status("WAN1 off", Duration::from_secs(10), |s| s.is_off(1))?;
    assert_eq!(lab.client(Ns::Client).seen_by_tcp(LAN2_HOST, 80)?, CLIENT);
    daemon.terminate()
}

#[test]
fn the_router_is_reached_from_the_lan_and_reaches_it() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _router = lab.observe_tcp(Ns::Router, 22)?;
    let _client = lab.observe_tcp(Ns::Client, 22)?;
    let config = Config::of(&lab).filter(2, "ssh", "protocol: tcp, dst: [0.0.0.0/0], dports: [22]");
    let mut daemon = Daemon::start(&lab, &config)?;
    let router = std::net::Ipv4Addr::new(192, 168, 50, 1);
    for _ in 0..20 {
        assert_eq!(lab.client(Ns::Client).seen_by_tcp(router, 22)?, CLIENT);
        assert_eq!(lab.client(Ns::Router).seen_by_tcp(CLIENT, 22)?, router);
    }
    daemon.terminate()
}

//! Interfaces that come and go under a running daemon.

use anyhow::Result;
use multiwans_tests::topology::{INTERNET, wan_ip};
use multiwans_tests::wait::wait_until;
use multiwans_tests::{Config, Daemon, Lab, Ns};
use std::time::Duration;

/// The kernel says so at once.
const NOTICED: Duration = Duration::from_secs(1);
/// Nothing hangs on how soon; until then its traffic takes the default WAN.
const STEERED: Duration = Duration::from_secs(5);
const RETURNED: Duration = Duration::from_secs(15);

fn web_config(lab: &Lab) -> Config {
    Config::of(lab).filter(2, "web", "protocol: udp, dports: [80]")
}

#[test]
fn a_lan_that_appears_later_is_steered() -> Result<()> {
    let lab = Lab::builder().second_lan_later().build()?;
    let _servers = lab.serve_internet(&[80, 443])?;
    let mut daemon = Daemon::start(&lab, &web_config(&lab))?;
    lab.connect_second_lan()?;
    lab.client(Ns::Lan2).wait_seen(wan_ip(2), INTERNET, 80, STEERED)?;
    assert_eq!(lab.client(Ns::Lan2).seen_by_udp(INTERNET, 443)?, wan_ip(1));

    lab.sh(Ns::Router, "ip link del lan2")?;
    assert_eq!(lab.client(Ns::Client).seen_by_udp(INTERNET, 80)?, wan_ip(2));
    assert!(daemon.status()?.is_on(1));
    daemon.terminate()
}

#[test]
fn a_recreated_standby_works_again() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80])?;
    let mut daemon = Daemon::start(&lab, &web_config(&lab))?;
    let client = lab.client(Ns::Client);
    client.wait_seen(wan_ip(2), INTERNET, 80, NOTICED)?;

    lab.delete_interface(2)?;
    client.wait_seen(wan_ip(1), INTERNET, 80, NOTICED)?;
    daemon.wait_status("WAN2 off", NOTICED, |s| s.is_off(2))?;
    lab.create_interface(2)?;
    client.wait_seen(wan_ip(2), INTERNET, 80, RETURNED)?;
    // And inbound: its marks are written by a program attached anew.
    lab.ping(Ns::Internet, Some(INTERNET), wan_ip(2))?;
    daemon.terminate()
}

#[test]
fn a_recreated_default_wan_works_again() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[443])?;
    let mut daemon = Daemon::start(&lab, &web_config(&lab))?;
    let client = lab.client(Ns::Client);

    lab.delete_interface(1)?;
    client.wait_seen(wan_ip(2), INTERNET, 443, NOTICED)?;
    lab.create_interface(1)?;
    client.wait_seen(wan_ip(1), INTERNET, 443, RETURNED)?;
    wait_until("the default route", NOTICED, || lab.default_gateway().is_ok_and(|k| k == Some(1)))?;
    daemon.terminate()
}

#[test]
fn an_interface_taken_down_and_up_again_works() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[443])?;
    let mut daemon = Daemon::start(&lab, &web_config(&lab))?;
    let client = lab.client(Ns::Client);
    lab.set_down(1)?;
    client.wait_seen(wan_ip(2), INTERNET, 443, NOTICED)?;
    lab.set_up(1)?;
    client.wait_seen(wan_ip(1), INTERNET, 443, RETURNED)?;
    daemon.terminate()
}

#[test]
fn an_address_lost_and_given_back_is_followed() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[443])?;
    let mut daemon = Daemon::start(&lab, &web_config(&lab))?;
    let client = lab.client(Ns::Client);
    let lasting = || lab.client(Ns::Client).source_port(50_443).seen_by_udp(INTERNET, 443);
    assert_eq!(lasting()?, wan_ip(1));
    lab.remove_address(1)?;
    client.wait_seen(wan_ip(2), INTERNET, 443, NOTICED)?;
    daemon.wait_status("WAN1 off", NOTICED, |s| s.is_off(1))?;
    // The flow's translation to the lost address is gone as well.
    wait_until("the lasting flow has moved", NOTICED, || lasting().is_ok_and(|seen| seen == wan_ip(2)))?;
    assert!(!daemon.log().contains("could not"), "nothing was tried that cannot be: {}", daemon.log());
    lab.add_address(1)?;
    client.wait_seen(wan_ip(1), INTERNET, 443, RETURNED)?;
    daemon.terminate()
}

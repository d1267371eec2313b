//! The lab itself, without the daemon: what its other tests take for granted.

use anyhow::Result;
use multiwans_tests::topology::{
    CLIENT, CLIENT_SECOND, INTERNET, INTERNET_OTHERS, LAN2_HOST, internet_addresses, wan_ip,
};
use multiwans_tests::wait::wait_until;
use multiwans_tests::{Lab, Ns};
use std::fs;
use std::net::Ipv4Addr;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
/// The far end of a cable hears of its carrier up to a second later (`linkwatch`), and an ARP request that was lost before
/// is repeated after another one.
const RECOVERY: Duration = Duration::from_secs(5);

#[test]
fn flows_leave_by_the_first_wan_and_are_seen_with_its_address() -> Result<()> {
    let lab = Lab::builder().wans(3).second_lan().build()?;
    let addresses: Vec<Ipv4Addr> = internet_addresses().collect();
    let _tcp = lab.observe_tcp(Ns::Internet, 80)?;
    let _udp = lab.observe_udp(Ns::Internet, &addresses, 53)?;
    let pings = lab.observe_ping(Ns::Internet)?;
    for address in addresses {
        assert_eq!(lab.client(Ns::Client).seen_by_tcp(address, 80)?, wan_ip(1));
        assert_eq!(lab.client(Ns::Lan2).seen_by_tcp(address, 80)?, wan_ip(1));
        assert_eq!(lab.client(Ns::Client).seen_by_udp(address, 53)?, wan_ip(1));
        let token = lab.ping(Ns::Client, None, address)?;
        assert_eq!(pings.source_of(token)?, wan_ip(1));
    }
    Ok(())
}

#[test]
fn hosts_of_the_lans_see_each_others_own_addresses() -> Result<()> {
    let lab = Lab::builder().second_lan().build()?;
    let _tcp = lab.observe_tcp(Ns::Lan2, 80)?;
    let client = lab.client(Ns::Client);
    assert_eq!(client.seen_by_tcp(LAN2_HOST, 80)?, CLIENT);
    let second = client.from(CLIENT_SECOND).source_port(4000);
    assert_eq!(second.seen_by_tcp(LAN2_HOST, 80)?, CLIENT_SECOND);
    Ok(())
}

#[test]
fn an_answer_that_leaves_by_the_wrong_wan_does_not_arrive() -> Result<()> {
    let lab = Lab::builder().rp_filter(0).build()?;
    let _server = lab.observe_tcp(Ns::Client, 80)?;
    for k in [1, 2] {
        lab.forward_port(k, 8080, CLIENT, 80)?;
    }
    assert_eq!(lab.client(Ns::Internet).seen_by_tcp(wan_ip(1), 8080)?.octets()[..2], [100, 64]);
    assert!(lab.client(Ns::Internet).seen_by_tcp(wan_ip(2), 8080).is_err());
    Ok(())
}

#[test]
fn each_fault_stops_traffic_and_its_end_lets_it_flow_again() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _tcp = lab.observe_tcp(Ns::Internet, 80)?;
    let passes = || lab.client(Ns::Client).seen_by_tcp(INTERNET, 80).is_ok();
    let gateway_answers = || lab.ping(Ns::Router, None, Ipv4Addr::new(10, 0, 1, 1)).is_ok();
    let carrier = || lab.sh(Ns::Router, "ip link show eth1").is_ok_and(|link| link.contains("LOWER_UP"));

    lab.blackhole(1)?;
    assert!(!passes() && gateway_answers() && carrier());
    lab.heal(1)?;
    assert!(passes());

    lab.kill_gateway(1)?;
    assert!(!passes() && !gateway_answers() && carrier());
    lab.heal(1)?;
    assert!(passes());

    lab.pull_cable(1)?;
    wait_until("the carrier to go", SECOND, || !carrier())?;
    assert!(!passes());
    lab.plug_cable(1)?;
    wait_until("the carrier to come", SECOND, carrier)?;
    wait_until("traffic to pass", RECOVERY, passes)?;

    lab.remove_address(1)?;
    lab.add_address(1)?;
    lab.sh(Ns::Router, "ip route replace default via 10.0.1.1")?;
    assert!(passes());

    lab.delete_interface(1)?;
    assert!(lab.sh(Ns::Router, "ip link show eth1").is_err());
    lab.create_interface(1)?;
    lab.sh(Ns::Router, "ip route replace default via 10.0.1.1")?;
    wait_until("traffic to pass", RECOVERY, passes)?;

    lab.set_down(1)?;
    assert_eq!(lab.default_gateway()?, None);
    lab.set_up(1)?;
    Ok(())
}

#[test]
fn sessions_tell_what_they_suffered() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _tcp = lab.observe_tcp(Ns::Internet, 80)?;
    let _udp = lab.observe_udp(Ns::Internet, &[INTERNET], 53)?;
    let start = || -> Result<_> {
        let client = lab.client(Ns::Client);
        Ok((client.tcp_session(INTERNET, 80)?, client.udp_stream(INTERNET, 53)?))
    };

    let (tcp, udp) = start()?;
    std::thread::sleep(Duration::from_millis(300));
    let (tcp, udp) = (tcp.finish()?, udp.finish()?);
    assert!(tcp.messages > 10 && tcp.retransmits == 0, "{tcp:?}");
    assert!(udp.sent > 10 && udp.lost == 0, "{udp:?}");
    assert_eq!(udp.seen, [wan_ip(1)]);

    let (tcp, udp) = start()?;
    std::thread::sleep(Duration::from_millis(100));
    lab.blackhole(1)?;
    std::thread::sleep(Duration::from_millis(300));
    lab.heal(1)?;
    std::thread::sleep(Duration::from_millis(100));
    let (tcp, udp) = (tcp.finish()?, udp.finish()?);
    assert!(tcp.retransmits > 0 && tcp.slowest > Duration::from_millis(200), "{tcp:?}");
    assert!(udp.lost > 5 && udp.lost < udp.sent, "{udp:?}");
    Ok(())
}

#[test]
fn a_reset_session_says_so() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _tcp = lab.observe_tcp(Ns::Internet, 80)?;
    let session = lab.client(Ns::Client).tcp_session(INTERNET_OTHERS[0], 80)?;
    lab.sh(Ns::Router, "iptables -I FORWARD -p tcp --dport 80 -j REJECT --reject-with tcp-reset")?;
    std::thread::sleep(Duration::from_millis(200));
    assert!(session.finish().is_err());
    Ok(())
}

#[test]
fn a_dropped_lab_leaves_nothing() -> Result<()> {
    let lab = Lab::builder().wans(3).second_lan().build()?;
    let name = lab.name().to_owned();
    let files = lab.router_files().run();
    assert_eq!(namespaces_of(&name), 7);
    assert!(files.is_dir());
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    assert!(mounts.contains(&name));

    drop(lab);
    assert_eq!(namespaces_of(&name), 0);
    assert!(!files.exists());
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    assert!(!mounts.contains(&name));
    Ok(())
}

#[test]
fn a_kept_lab_stays_until_it_is_removed() -> Result<()> {
    let name = format!("keep{}", std::process::id());
    let mut lab = Lab::builder().wans(1).name(&name).build()?;
    lab.keep();
    let full_name = lab.name().to_owned();
    drop(lab);
    assert!(Lab::builder().name(&name).build().is_err(), "a second one of the same name");

    let opened = Lab::open(&name)?;
    assert_eq!(opened.wans(), 1);
    drop(opened);
    assert_eq!(namespaces_of(&full_name), 4);
    assert_eq!(Lab::remove(&name)?, 4);
    assert_eq!(namespaces_of(&full_name), 0);
    assert!(Lab::open(&name).is_err());
    Ok(())
}

#[test]
fn the_lab_has_no_link_to_the_machine() -> Result<()> {
    let lab = Lab::builder().build()?;
    let gateway_of_the_machine = "ip route get 1.1.1.1";
    assert!(lab.sh(Ns::Internet, gateway_of_the_machine).is_err());
    for (place, _) in lab.places() {
        for line in lab.sh(place, "ip -o link show")?.lines() {
            let is_ours = line.contains(" lo: ") || line.contains(&format!("link-netns {}-", lab.name()));
            assert!(is_ours, "{place}: {line}");
        }
    }
    Ok(())
}

fn namespaces_of(lab: &str) -> usize {
    let start = format!("{lab}-");
    let entries = fs::read_dir("/run/netns").expect("the lab made this directory");
    entries
        .filter(|entry| {
            let entry = entry.as_ref().expect("a directory that can be listed");
            entry.file_name().to_string_lossy().starts_with(&start)
        })
        .count()
}

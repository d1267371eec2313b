//! Links, addresses, routes and the router's firewall of a new lab.

use crate::Lab;
use crate::topology::{
    CLIENT, CLIENT_SECOND, LAN2_HOST, LAN2_ROUTER, Ns, ROUTER, gateway, internet_addresses, internet_link,
    isp_uplink, wan_iface, wan_ip,
};
use crate::wait::wait_until;
use anyhow::{Context, Result};
use std::fmt::Write as _;
use std::time::Duration;

/// The index of a router link's other end. Linux delays the news of a carrier by up to a second when
/// both ends of a veth pair have the same index, as ends in different namespaces may.
const PEER_INDEX: u32 = 1000;

/// The news of a carrier takes a second at the worst, and then a busy machine's time.
const SETTLE_TIME: Duration = Duration::from_secs(5);

pub(crate) fn build(lab: &Lab, rp_filter: u8, with_second_lan: bool) -> Result<()> {
    let places: Vec<Ns> = lab.places().map(|(place, _)| place).collect();
    for &place in &places {
        sysctls(lab, place, rp_filter)?;
    }
    router(lab)?;
    client(lab)?;
    if with_second_lan {
        second_lan(lab)?;
    }
    internet(lab)?;
    for k in 1..=lab.wans() {
        isp(lab, k)?;
    }
    lab.feed(
        Ns::Router,
        "ip -batch -",
        &format!("route add default via {} dev {}\n", gateway(1), wan_iface(1)),
    )?;
    firewall(lab)?;
    places.into_iter().try_for_each(|place| settle(lab, place))
}

/// Waits until the kernel has noticed every carrier of a place: a link drops packets until then, and
/// its routes are listed as down.
pub(crate) fn settle(lab: &Lab, place: Ns) -> Result<()> {
    let noticed = wait_until("the carriers' notice", SETTLE_TIME, || {
        lab.sh(place, "ip route show table all").is_ok_and(|routes| !routes.contains("linkdown"))
    });
    noticed.map(drop).with_context(|| format!("in {place}"))
}

/// Makes the two ends of a link between the router and an ISP, and configures the router's.
pub(crate) fn wan_link(lab: &Lab, k: u8) -> Result<()> {
    let iface = wan_iface(k);
    let isp = lab.namespace(Ns::Isp(k)).name();
    let batch = format!(
        "link add {iface} type veth peer name cust index {PEER_INDEX} netns {isp}\n\
         address add {}/24 dev {iface}\n\
         link set {iface} up\n",
        wan_ip(k)
    );
    lab.feed(Ns::Router, "ip -batch -", &batch)?;
    let batch = format!("address add {}/24 dev cust\nlink set cust up\n", gateway(k));
    lab.feed(Ns::Isp(k), "ip -batch -", &batch)?;
    Ok(())
}

/// Before there are links: what a new one gets is the `default` of this moment.
fn sysctls(lab: &Lab, place: Ns, router_rp_filter: u8) -> Result<()> {
    // An ISP forwards only what it would route back to where it came from (BCP 38).
    let (forwards, rp_filter) = match place {
        Ns::Router => ("1", router_rp_filter),
        Ns::Isp(_) => ("1", 1),
        Ns::Client | Ns::Lan2 | Ns::Internet => ("0", 0),
    };
    let rp_filter = rp_filter.to_string();
    for scope in ["all", "default"] {
        lab.sysctl(place, &format!("ipv4/conf/{scope}/rp_filter"), &rp_filter)?;
        // Without redirects a test's route changes only when the test changes it.
        lab.sysctl(place, &format!("ipv4/conf/{scope}/send_redirects"), "0")?;
        lab.sysctl(place, &format!("ipv4/conf/{scope}/accept_redirects"), "0")?;
        // Missing on a kernel without IPv6, and then nothing is to be turned off.
        lab.sysctl(place, &format!("ipv6/conf/{scope}/disable_ipv6"), "1").ok();
    }
    lab.sysctl(place, "ipv4/ip_forward", forwards)
}

fn router(lab: &Lab) -> Result<()> {
    let client = lab.namespace(Ns::Client).name();
    let batch = format!(
        "link set lo up\n\
         link add eth0 type veth peer name eth0 index {PEER_INDEX} netns {client}\n\
         address add {ROUTER}/24 dev eth0\n\
         link set eth0 up\n"
    );
    lab.feed(Ns::Router, "ip -batch -", &batch)?;
    Ok(())
}

fn client(lab: &Lab) -> Result<()> {
    let batch = format!(
        "link set lo up\n\
         address add {CLIENT}/24 dev eth0\n\
         address add {CLIENT_SECOND}/24 dev eth0\n\
         link set eth0 up\n\
         route add default via {ROUTER}\n"
    );
    lab.feed(Ns::Client, "ip -batch -", &batch)?;
    Ok(())
}

/// Connects the second LAN's namespace.
pub(crate) fn second_lan(lab: &Lab) -> Result<()> {
    let host = lab.namespace(Ns::Lan2).name();
    let batch = format!(
        "link add lan2 type veth peer name eth0 index {PEER_INDEX} netns {host}\n\
         address add {LAN2_ROUTER}/24 dev lan2\n\
         link set lan2 up\n"
    );
    lab.feed(Ns::Router, "ip -batch -", &batch)?;
    let batch = format!(
        "link set lo up\n\
         address add {LAN2_HOST}/24 dev eth0\n\
         link set eth0 up\n\
         route add default via {LAN2_ROUTER}\n"
    );
    lab.feed(Ns::Lan2, "ip -batch -", &batch)?;
    Ok(())
}

fn internet(lab: &Lab) -> Result<()> {
    let mut batch = "link set lo up\n".to_owned();
    for address in internet_addresses() {
        writeln!(batch, "address add {address}/32 dev lo")?;
    }
    lab.feed(Ns::Internet, "ip -batch -", &batch)?;
    Ok(())
}

fn isp(lab: &Lab, k: u8) -> Result<()> {
    wan_link(lab, k)?;
    let internet = lab.namespace(Ns::Internet).name();
    let (here, there) = (isp_uplink(k), internet_link(k));
    let batch = format!(
        "link set lo up\n\
         link add uplink type veth peer name isp{k} netns {internet}\n\
         address add {here}/30 dev uplink\n\
         link set uplink up\n"
    );
    lab.feed(Ns::Isp(k), "ip -batch -", &batch)?;
    let network = format!("10.0.{k}.0/24");
    let batch = format!(
        "address add {there}/30 dev isp{k}\n\
         link set isp{k} up\n\
         route add {network} via {here}\n"
    );
    lab.feed(Ns::Internet, "ip -batch -", &batch)?;
    lab.feed(Ns::Isp(k), "ip -batch -", &format!("route add default via {there}\n"))?;
    Ok(())
}

fn firewall(lab: &Lab) -> Result<()> {
    let mut rules = "*nat\n".to_owned();
    for k in 1..=lab.wans() {
        writeln!(rules, "-A POSTROUTING -o {} -j MASQUERADE", wan_iface(k))?;
    }
    rules.push_str("COMMIT\n");
    lab.feed(Ns::Router, "iptables-restore", &rules)?;
    Ok(())
}

//! The Bash tool's own example configuration, as it is but for its addresses, on a router like the one it
//! was written for.

use anyhow::{Context, Result, ensure};
use multiwans_tests::status::{State, Status};
use multiwans_tests::topology::{INTERNET, wan_ip};
use multiwans_tests::wait::wait_until;
use multiwans_tests::{Daemon, Lab, Ns, Residue};
use nix::mount::{MsFlags, mount};
use std::ffi::CStr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::{fs, io};

/// `1 + ping.count` rounds of its own `ping.timeout` (3 s), and the work.
const FAILOVER: Duration = Duration::from_secs(15);
const PATIENCE: Duration = Duration::from_secs(2);

/// The example's interfaces and addresses, and what a lab has for them. The rest of it stays to the letter.
const ADAPTED: [(&str, &str); 7] = [
    // The first WAN before the second: what one becomes is not what the other was.
    (
        "ip: 10.0.2.2\n    mask: 24\n    gateway: 10.0.2.1\n",
        "ip: 10.0.1.2\n    mask: 24\n    gateway: 10.0.1.1\n",
    ),
    (
        "ip: 10.0.3.2\n    mask: 24\n    gateway: 10.0.3.1\n",
        "ip: 10.0.2.2\n    mask: 24\n    gateway: 10.0.2.1\n",
    ),
    ("- 200.160.0.8 #", "- 203.0.113.10 #"),
    ("- 1.1.1.1     #", "- 203.0.113.11 #"),
    ("- 8.8.8.8     #", "- 198.51.100.10 #"),
    ("    - 1.1.1.1\n    - 8.8.8.8\n", "    - 203.0.113.10\n    - 198.51.100.10\n"),
    ("host: smtp.empresa.com.br", "host: 198.51.100.11"),
];

fn adapted() -> Result<String> {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../multiwans/tests/config/valid/seed-example.yaml");
    let mut text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    for (from, to) in ADAPTED {
        ensure!(text.matches(from).count() == 1, "{from:?} is not in the example once");
        text = text.replace(from, to);
    }
    Ok(text)
}

/// Gives the router's WANs the example's names: enp0s2 and enp0s3.
fn rename(lab: &Lab) -> Result<()> {
    for (old, new, k) in [("eth1", "enp0s2", 1), ("eth2", "enp0s3", 2)] {
        let batch = format!("link set {old} down\nlink set {old} name {new}\nlink set {new} up\n");
        lab.feed(Ns::Router, "ip -batch -", &batch)?;
        lab.sh(Ns::Router, &format!("iptables -t nat -A POSTROUTING -o {new} -j MASQUERADE"))?;
        wait_until("the carrier", PATIENCE, || {
            lab.sh(Ns::Router, &format!("ping -n -c 1 -W 1 10.0.{k}.1")).is_ok()
        })?;
    }
    lab.sh(Ns::Router, "ip route add default via 10.0.1.1 dev enp0s2").map(drop)
}

/// Its status file is in `/tmp`: not in the machine's, in a test. The daemon has other mounts than the machine
/// by the time this runs.
fn own_tmp(command: &mut Command) {
    let mount = || {
        let none = None::<&CStr>;
        mount(Some(c"tmpfs"), c"/tmp", Some(c"tmpfs"), MsFlags::empty(), none).map_err(io::Error::from)
    };
    // SAFETY: between fork and exec this makes one system call and allocates nothing.
    unsafe { command.pre_exec(mount) };
}

fn on(status: &Status, k: u8) -> bool {
    status.wan(k).state == State::On
}

#[test]
fn the_seeds_example_runs_with_nothing_but_its_addresses_changed() -> Result<()> {
    let lab = Lab::builder().build()?;
    rename(&lab)?;
    let _servers = lab.serve_internet(&[25, 80, 110, 443, 465, 587, 995, 8080])?;
    let _dns = lab.serve_dns(Ns::Internet, 53, &["address=/google.com/a.dns.br/203.0.113.11"])?;
    let before = Residue::take(&lab)?;

    let mut daemon = Daemon::spawn_with(&lab, &adapted()?, own_tmp)?;
    daemon.wait_ready()?;
    daemon.wait_status("both WANs ON", FAILOVER, |s| on(s, 1) && on(s, 2) && s.defaults_to(1))?;
    let path = format!("/proc/{}/root/tmp/.multiwans.status", daemon.pid());
    let file = || fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(file(), "enp0s2:ON\nenp0s3:ON\n");
    // Its targets that are names are asked for over each WAN.
    for name in ["google.com", "a.dns.br"] {
        wait_until(name, FAILOVER, || daemon.log().matches(&format!("{name} is 203.0.113.11")).count() == 2)?;
    }

    let (client, router) = (lab.client(Ns::Client), lab.client(Ns::Router));
    let check = |web: u8, post: u8, rest: u8| -> Result<()> {
        for port in [80, 443] {
            assert_eq!(client.seen_by_tcp(INTERNET, port)?, wan_ip(web), "HTTP/HTTPS: {port}");
            assert_eq!(client.seen_by_udp(INTERNET, port)?, wan_ip(rest), "of TCP alone: {port}");
            assert_eq!(router.seen_by_tcp(INTERNET, port)?, wan_ip(rest), "of the LAN alone: {port}");
        }
        for port in [25, 110, 587, 465, 995] {
            assert_eq!(router.seen_by_tcp(INTERNET, port)?, wan_ip(post), "POP/SMTP: {port}");
            assert_eq!(router.seen_by_udp(INTERNET, port)?, wan_ip(rest), "of TCP alone: {port}");
            assert_eq!(client.seen_by_tcp(INTERNET, port)?, wan_ip(rest), "of the router alone: {port}");
        }
        assert_eq!(client.seen_by_tcp(INTERNET, 8080)?, wan_ip(rest));
        assert_eq!(router.seen_by_tcp(INTERNET, 8080)?, wan_ip(rest));
        Ok(())
    };
    check(2, 2, 1)?;

    // Its default dies: everything by the other one.
    lab.blackhole(1)?;
    daemon.wait_status("WAN2 to be the default", FAILOVER, |s| s.defaults_to(2))?;
    check(2, 2, 2).context("with WAN1 dead")?;
    wait_until("the status file", PATIENCE, || file() == "enp0s2:OFF\nenp0s3:ON\n")?;
    lab.heal(1)?;
    daemon.wait_status("WAN1 to be the default", FAILOVER, |s| s.defaults_to(1))?;
    check(2, 2, 1).context("with WAN1 back")?;

    // The WAN of its filters dies: everything by the default.
    lab.blackhole(2)?;
    daemon.wait_status("WAN2 to be OFF", FAILOVER, |s| !on(s, 2))?;
    check(1, 1, 1).context("with WAN2 dead")?;
    lab.heal(2)?;
    daemon.wait_status("WAN2 to be ON", FAILOVER, |s| on(s, 2))?;
    check(2, 2, 1).context("with WAN2 back")?;

    daemon.terminate()?;
    assert!(daemon.log().contains("stopped; nothing of multiwans is left in the kernel"), "{}", daemon.log());
    before.check_same(&Residue::take(&lab)?)
}

//! Other software on the router: its rules, routes, marks and packet filters stay its own.

use anyhow::Result;
use multiwans_tests::topology::{INTERNET, INTERNET_OTHERS, wan_ip};
use multiwans_tests::{Config, Daemon, Lab, Ns, Residue};

/// A table and a mark bit that another program uses.
const FOREIGN_STATE: &str = "\
rule add from 192.168.50.99 lookup 300 priority 5000
rule add fwmark 0x10000/0x10000 to 198.51.100.10 lookup 300 priority 90
route add default via 10.0.2.1 table 300
route add 198.51.100.128/25 via 10.0.2.1 table 301
route add blackhole 203.0.113.200/32 proto 188
";

#[test]
fn rules_routes_and_filters_of_others_are_untouched() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80])?;
    lab.feed(Ns::Router, "ip -batch -", FOREIGN_STATE)?;
    for interface in ["eth0", "eth2"] {
        lab.sh(Ns::Router, &format!("tc qdisc add dev {interface} clsact"))?;
        for direction in ["ingress", "egress"] {
            let filter = format!(
                "tc filter add dev {interface} {direction} prio 10 protocol ip u32 match u32 0 0 classid 1:1"
            );
            lab.sh(Ns::Router, &filter)?;
        }
    }
    let before = Residue::take(&lab)?;
    let config = Config::of(&lab).filter(2, "web", "protocol: tcp, dports: [80]");
    let mut daemon = Daemon::start(&lab, &config)?;
    assert_eq!(lab.client(Ns::Client).seen_by_tcp(INTERNET, 80)?, wan_ip(2));

    let running = Residue::take(&lab)?;
    for subject in
        ["ip rule show", "ip route show table all", "tc filter show dev eth0 ingress", "iptables-save"]
    {
        for line in before.lines(subject) {
            assert!(running.lines(subject).contains(line), "{subject} lost {line}");
        }
    }
    daemon.terminate()?;
    before.check_same(&Residue::take(&lab)?)
}

#[test]
fn mark_bits_outside_the_mask_are_kept_and_obeyed() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80, 443])?;
    lab.feed(Ns::Router, "ip -batch -", FOREIGN_STATE)?;
    lab.sh(Ns::Router, "iptables -t mangle -A PREROUTING -i eth0 -j MARK --or-mark 0x10000")?;
    let both = "FORWARD -i eth0 -p tcp --dport 80 -m mark --mark 0x10002/0x100ff -j ACCEPT";
    lab.sh(Ns::Router, &format!("iptables -t mangle -A {both}"))?;
    let config = Config::of(&lab).filter(2, "web", "protocol: tcp, dports: [80]");
    let mut daemon = Daemon::start(&lab, &config)?;
    let client = lab.client(Ns::Client);

    for _ in 0..20 {
        assert_eq!(client.seen_by_tcp(INTERNET, 80)?, wan_ip(2));
        assert_eq!(client.seen_by_tcp(INTERNET, 443)?, wan_ip(1));
        // The other program's rule comes first and knows its own bit.
        assert_eq!(client.seen_by_tcp(INTERNET_OTHERS[1], 443)?, wan_ip(2));
    }
    let rules = lab.sh(Ns::Router, "iptables-save -c -t mangle")?;
    let rule = rules.lines().find(|line| line.contains("--dport 80")).unwrap_or_default();
    let packets = rule.trim_start_matches('[').split(':').next().unwrap_or_default();
    assert!(packets.parse::<u32>().is_ok_and(|packets| packets >= 20), "{rule}");
    daemon.terminate()
}

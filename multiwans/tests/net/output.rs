//! Rules for the router's own traffic: written, changed, repaired and removed in a namespace.

use multiwans::config::{Chain, Config, Filter, PortRange, Protocol};
use multiwans::engine::command::Routes;
use multiwans::net::{Change, Kernel};

use crate::bench::*;

fn filter(description: &str, protocol: Protocol, dst: &[&str]) -> Filter {
    Filter {
        description: description.to_owned(),
        note: None,
        chain: Chain::Output,
        protocol,
        src: Vec::new(),
        src_files: Vec::new(),
        dst: dst.iter().map(|net| net.parse().expect("net")).collect(),
        dst_files: Vec::new(),
        sports: Vec::new(),
        dports: Vec::new(),
    }
}

fn own(filters: Vec<Filter>) -> Config {
    let mut config = config(&[1, 2, 3]);
    for wan in &mut config.wans {
        wan.order_failover = Some(wan.mark.get());
    }
    config.localnets = vec!["10.0.0.0/8".parse().expect("net")];
    for (n, filter) in (1..).zip(filters) {
        // In turn to WAN 2 and 3.
        config.wans[if n % 2 == 1 { 1 } else { 2 }].filters.push(filter);
    }
    config
}

fn wish_steered(steered: &[u8]) -> Routes {
    Routes { steered: steered.iter().map(|n| mark(*n)).collect(), ..wish(&[1, 2, 3], Some(1)) }
}

/// Rules from our first for the router's own traffic on.
fn output_rules() -> Vec<String> {
    rules().into_iter().filter(|rule| rule >= &"30040".to_owned() && rule < &"30100".to_owned()).collect()
}

/// Where the router would send a packet of its own: the interface.
fn way(what: &str) -> String {
    let route = ip(&format!("route get {what}"));
    route.split_whitespace().skip_while(|word| *word != "dev").nth(1).expect("a device").to_owned()
}

#[test]
fn rules_are_written_changed_and_removed() {
    alone(|| async {
        (1..=3).for_each(link);
        let before = residue();
        let to_internet = filter("icmp", Protocol::Icmp, &[]);
        let to_vpn = filter("vpn", Protocol::All, &["10.8.0.0/16"]);
        let mut kernel = Kernel::new(&own(vec![to_internet, to_vpn])).unwrap();
        kernel.apply(&wish_steered(&[])).await.unwrap();
        assert_eq!(output_rules(), [""; 0]);

        let changes = kernel.apply(&wish_steered(&[2, 3])).await.unwrap();
        assert_eq!(changes, [Change::OutputRules(9)]);
        assert_eq!(
            output_rules(),
            [
                "30040: not from 0.0.0.0 fwmark 0 iif lo goto 30070 proto 109",
                "30041: from all goto 30050 proto 109",
                "30050: from all to 224.0.0.0/4 goto 30070 proto 109",
                "30050: from all to 255.255.255.255 goto 30070 proto 109",
                "30050: from all to 10.0.0.0/8 goto 30053 proto 109",
                "30051: from all ipproto icmp lookup WAN2 proto 109",
                "30051: from all to 10.8.0.0/16 lookup WAN3 proto 109",
                "30052: from all goto 30070 proto 109",
                "30053: from all nop proto 109",
                "30054: from all to 10.8.0.0/16 lookup WAN3 proto 109",
                "30055: from all goto 30070 proto 109",
                "30070: from all nop proto 109",
            ]
        );
        assert_eq!(kernel.apply(&wish_steered(&[2, 3])).await.unwrap(), []);
        assert_eq!(way("9.9.9.9 ipproto icmp"), "wan2");
        assert_eq!(way("9.9.9.9 ipproto udp"), "wan1");
        assert_eq!(way("9.9.9.9 ipproto icmp mark 0x10000"), "wan1", "a mark was chosen");
        assert_eq!(way("9.9.9.9 ipproto icmp from 10.0.1.2"), "wan1", "a source was chosen");
        assert_eq!(way("10.9.0.1 ipproto icmp"), "wan1", "a local network");
        assert_eq!(way("10.8.0.1 ipproto icmp"), "wan3", "a local network that a filter names");

        // The other block, and back; each time nothing of the one before stays.
        assert_eq!(kernel.apply(&wish_steered(&[3])).await.unwrap(), [Change::OutputRules(8)]);
        assert_eq!(way("9.9.9.9 ipproto icmp"), "wan1");
        assert!(output_rules().contains(&"30041: from all goto 30060 proto 109".to_owned()));
        assert_eq!(kernel.apply(&wish_steered(&[2, 3])).await.unwrap(), [Change::OutputRules(9)]);
        assert_eq!(output_rules().len(), 12);

        kernel.apply(&wish_steered(&[])).await.unwrap();
        assert_eq!(output_rules(), [""; 0]);
        kernel.apply(&wish_steered(&[2])).await.unwrap();
        kernel.remove(Some(mark(1))).await.unwrap();
        ip("route del default");
        assert_eq!(residue(), before);
    });
}

#[test]
fn what_others_do_to_them_is_repaired() {
    alone(|| async {
        (1..=3).for_each(link);
        let filters = vec![filter("icmp", Protocol::Icmp, &[]), filter("rest", Protocol::All, &[])];
        let mut kernel = Kernel::new(&own(filters)).unwrap();
        kernel.apply(&wish_steered(&[2, 3])).await.unwrap();
        let right = |rules: &[String]| {
            // Whichever block they are in now.
            rules.iter().map(|rule| rule.replace("3006", "3005")).collect::<Vec<_>>()
        };
        let wanted = right(&output_rules());
        for rule in output_rules() {
            let (priority, _) = rule.split_once(':').expect("a priority");
            for vandalism in [
                format!("rule del priority {priority} protocol 109"),
                format!("rule add priority {priority} to 8.8.8.8 lookup 1 protocol 109"),
            ] {
                // The block in force moves with each repair.
                if ip("-4 rule").lines().any(|line| line.starts_with(&format!("{priority}:"))) {
                    ip(&vandalism);
                    assert!(!kernel.apply(&wish_steered(&[2, 3])).await.unwrap().is_empty(), "{vandalism}");
                }
                assert_eq!(right(&output_rules()), wanted, "{vandalism}");
                assert_eq!(way("9.9.9.9 ipproto icmp"), "wan2");
                assert_eq!(way("9.9.9.9 ipproto udp"), "wan3");
            }
        }
        // Another run adopts them.
        let filters = vec![filter("icmp", Protocol::Icmp, &[]), filter("rest", Protocol::All, &[])];
        let mut second = Kernel::new(&own(filters)).unwrap();
        assert_eq!(second.apply(&wish_steered(&[2, 3])).await.unwrap(), []);
    });
}

#[test]
fn rules_with_ports_are_found_as_they_were_written() {
    alone(|| async {
        (1..=3).for_each(link);
        let port = |first, last| vec![PortRange { first, last }];
        let with = |protocol, sports, dports| Filter { sports, dports, ..filter("own", protocol, &[]) };
        let config = own(vec![
            with(Protocol::Sctp, Vec::new(), port(9000, 9000)),
            with(Protocol::Udplite, port(7, 7), Vec::new()),
            with(Protocol::Sctp, port(1, 9), port(80, 89)),
            with(Protocol::Udp, port(5, 5), port(53, 53)),
        ]);
        let mut kernel = Kernel::new(&config).unwrap();
        kernel.apply(&wish_steered(&[2, 3])).await.unwrap();
        let written = output_rules();
        for ports in ["dport 9000", "sport 7 ", "sport 1-9 dport 80-89", "sport 5 dport 53"] {
            assert!(written.iter().any(|rule| rule.contains(ports)), "{ports}: {written:?}");
        }
        for _ in 0..2 {
            assert_eq!(kernel.apply(&wish_steered(&[2, 3])).await.unwrap(), []);
            assert_eq!(output_rules(), written);
        }
        let mut second = Kernel::new(&config).unwrap();
        assert_eq!(second.apply(&wish_steered(&[2, 3])).await.unwrap(), []);
        assert_eq!(output_rules(), written);
        ip("rule add priority 30051 ipproto sctp dport 9001 lookup 1 protocol 109");
        assert!(!kernel.apply(&wish_steered(&[2, 3])).await.unwrap().is_empty());
        assert_eq!(kernel.apply(&wish_steered(&[2, 3])).await.unwrap(), []);
    });
}

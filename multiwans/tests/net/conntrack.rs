//! Entries of the connection tracking table: those that must move go, all others stay.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use multiwans::net::conntrack::{Conntrack, Deleted, Entry, Select, Tracking, Transport, Zone};

use crate::bench::*;

const WAN_1: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 2);
const WAN_2: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

/// Makes an entry by hand. `more`: options of conntrack(8).
fn insert(protocol: &str, client: &str, port: u16, link: Option<Ipv4Addr>, more: &str) {
    let nat = link.map(|link| format!("--src-nat {link}")).unwrap_or_default();
    let state = if protocol == "tcp" { "--state ESTABLISHED" } else { "" };
    sh(&format!(
        "conntrack -I -p {protocol} -s {client} -d 8.8.8.8 --sport {port} --dport 53 {state} -t 600 {nat} {more}"
    ));
}

/// The table that every test begins with.
fn fill() {
    insert("udp", "192.168.0.9", 1001, Some(WAN_1), "");
    insert("tcp", "192.168.0.9", 1002, Some(WAN_1), "-u ASSURED,SEEN_REPLY");
    insert("udp", "192.168.0.9", 1003, Some(WAN_2), "");
    insert("udp", "192.168.0.9", 1004, Some(WAN_2), "-u SEEN_REPLY");
    insert("udp", "192.168.0.9", 1007, Some(WAN_1), "-w 5");
    // The router's own session from that address, untranslated: it cannot move.
    insert("udp", "10.0.1.2", 1005, None, "");
    insert("udp", "192.168.0.9", 1006, None, "");
}

async fn list(conntrack: &mut Conntrack, select: Select) -> Vec<Entry> {
    match conntrack.dump(select).await.unwrap() {
        Tracking::On(entries) => entries,
        Tracking::NotLoaded => panic!("no connection tracking in this kernel"),
    }
}

async fn ports(conntrack: &mut Conntrack, select: Select) -> BTreeSet<u16> {
    list(conntrack, select).await.iter().map(|entry| entry.original.ports().0).collect()
}

#[test]
fn only_what_is_translated_to_the_address_goes() {
    alone(|| async {
        for at_once in [true, false] {
            sh("conntrack -F 2>&1");
            fill();
            let mut conntrack = Conntrack::open().unwrap();
            assert_eq!(ports(&mut conntrack, Select::All).await, (1001..=1007).collect());
            if at_once {
                let deleted = conntrack.delete_from_address(WAN_1).await.unwrap();
                // 6.1 does not know this use of filters yet, and falls back by itself.
                let either = [Deleted::AtOnce, Deleted::OneByOne(3)].map(Tracking::On);
                assert!(either.contains(&deleted), "{deleted:?}");
            } else {
                let deleted = conntrack.delete_one_by_one(WAN_1).await.unwrap();
                assert_eq!(deleted, Tracking::On(Deleted::OneByOne(3)));
            }
            assert_eq!(ports(&mut conntrack, Select::All).await, (1003..=1006).collect());
            // Nobody's address: nothing.
            conntrack.delete_from_address(Ipv4Addr::new(9, 9, 9, 9)).await.unwrap();
            conntrack.delete_from_address(Ipv4Addr::UNSPECIFIED).await.unwrap();
            assert_eq!(ports(&mut conntrack, Select::All).await, (1003..=1006).collect());
        }
    });
}

#[test]
fn ipv6_entries_are_not_touched() {
    alone(|| async {
        sh("conntrack -I -p udp -s fd00::9 -d fd00::8 --sport 1 --dport 2 -t 600");
        fill();
        let mut conntrack = Conntrack::open().unwrap();
        conntrack.delete_from_address(WAN_1).await.unwrap();
        conntrack.delete_from_address(WAN_2).await.unwrap();
        assert_eq!(ports(&mut conntrack, Select::All).await, [1005, 1006].into());
        assert!(sh("conntrack -L -f ipv6 2>/dev/null").contains("fd00::9"));
    });
}

#[test]
fn entries_are_listed_with_their_state() {
    alone(|| async {
        fill();
        let mut conntrack = Conntrack::open().unwrap();
        assert_eq!(ports(&mut conntrack, Select::Translated).await, [1001, 1002, 1003, 1004, 1007].into());
        assert_eq!(ports(&mut conntrack, Select::TranslatedUnanswered).await, [1001, 1003, 1007].into());
        let all = list(&mut conntrack, Select::All).await;
        let of = |port: u16| all.iter().find(|e| e.original.ports().0 == port).unwrap();
        let tcp = of(1002);
        assert_eq!(
            (tcp.original.protocol, tcp.seen_reply, tcp.assured, tcp.source_nat),
            (6, true, true, true)
        );
        assert_eq!((tcp.reply.source, tcp.reply.destination), (Ipv4Addr::new(8, 8, 8, 8), WAN_1));
        assert_eq!(tcp.zone, Zone::Default);
        assert!(!tcp.destination_nat && tcp.id.is_some());
        assert_eq!(of(1007).zone, Zone::Both(5));
    });
}

#[test]
fn one_entry_is_deleted_exactly() {
    alone(|| async {
        // Equal tuples in two zones.
        insert("udp", "192.168.0.9", 1, Some(WAN_1), "");
        insert("udp", "192.168.0.9", 1, Some(WAN_1), "-w 5");
        insert("udp", "192.168.0.9", 2, Some(WAN_1), "");
        sh("conntrack -I -p icmp -s 192.168.0.9 -d 8.8.8.8 --icmp-type 8 --icmp-code 0 --icmp-id 77 -t 600");
        sh("conntrack -I -p 50 -s 192.168.0.9 -d 8.8.8.8 -t 600");
        let mut conntrack = Conntrack::open().unwrap();
        let mut left = list(&mut conntrack, Select::All).await;
        assert_eq!(left.len(), 5);
        assert!(left.iter().any(|e| e.original.transport == Transport::Icmp { id: 77, kind: 8, code: 0 }));
        assert!(
            left.iter().any(|e| e.original.protocol == 50 && e.original.transport == Transport::Addresses)
        );
        left.sort_by_key(|e| (e.zone != Zone::Both(5), e.original.protocol, e.original.ports()));
        while let Some(entry) = left.pop() {
            assert!(conntrack.delete(&entry).await.unwrap());
            assert!(!conntrack.delete(&entry).await.unwrap(), "gone already");
            let now = list(&mut conntrack, Select::All).await;
            assert_eq!(now.len(), left.len());
            assert!(left.iter().all(|e| now.contains(e)));
        }
    });
}

#[test]
fn a_later_entry_with_the_same_tuple_is_another_one() {
    alone(|| async {
        insert("udp", "192.168.0.9", 1, Some(WAN_1), "");
        let mut conntrack = Conntrack::open().unwrap();
        let mut old = list(&mut conntrack, Select::All).await.remove(0);
        old.id = old.id.map(|id| id ^ 1);
        assert!(!conntrack.delete(&old).await.unwrap());
        assert_eq!(list(&mut conntrack, Select::All).await.len(), 1);
    });
}

#[test]
fn what_was_answered_since_it_was_listed_stays() {
    alone(|| async {
        let mut conntrack = Conntrack::open().unwrap();
        insert("udp", "192.168.0.9", 1, Some(WAN_1), "");
        insert("udp", "192.168.0.9", 2, Some(WAN_1), "");
        insert("udp", "192.168.0.9", 3, Some(WAN_1), "");
        insert("udp", "192.168.0.9", 3, Some(WAN_1), "-w 5");
        sh("conntrack -I -p icmp -s 192.168.0.9 -d 8.8.8.8 --icmp-type 8 --icmp-code 0 --icmp-id 77 -t 600 \
            --src-nat 10.0.1.2");
        let listed = list(&mut conntrack, Select::TranslatedUnanswered).await;
        assert_eq!(listed.len(), 5);
        // One is answered, one goes.
        sh("conntrack -U -p udp -s 192.168.0.9 --sport 1 -u SEEN_REPLY");
        sh("conntrack -D -p udp -s 192.168.0.9 --sport 2");
        for entry in &listed {
            let deleted = conntrack.delete_unanswered(entry).await.unwrap();
            let port = entry.original.ports().0;
            assert_eq!(deleted, ![1, 2].contains(&port), "{entry:?}");
            assert!(!conntrack.delete_unanswered(entry).await.unwrap(), "done already");
        }
        assert_eq!(ports(&mut conntrack, Select::All).await, [1].into());
    });
}

/// Real packets through a real masquerade: what the kernel writes is what we look for.
#[test]
fn masqueraded_traffic_is_found_and_moved() {
    alone(|| async {
        link(1);
        link(2);
        sh("echo 1 >/proc/sys/net/ipv4/ip_forward");
        // A client behind the router, in a namespace of its own that ends with its process.
        sh("unshare -n sleep 60 >/dev/null 2>&1 & echo $! >/run/client; \
            until [ \"$(readlink /proc/$(cat /run/client)/ns/net)\" != \"$(readlink /proc/self/ns/net)\" ]; do :; done");
        let client = |command: &str| sh(&format!("nsenter --net=/proc/$(cat /run/client)/ns/net {command}"));
        ip("link add lan0 type veth peer name eth0 netns $(cat /run/client)");
        ip("addr add 192.168.0.1/24 dev lan0");
        ip("link set lan0 up");
        client("ip addr add 192.168.0.9/24 dev eth0");
        client("ip link set eth0 up");
        client("ip route add default via 192.168.0.1");
        for n in [1, 2] {
            ip(&format!("route add 203.0.113.{n} via 10.0.{n}.1"));
            ip(&format!("neigh add 10.0.{n}.1 lladdr 02:00:00:00:00:01 dev wan{n}"));
            sh(&format!("iptables -t nat -A POSTROUTING -o wan{n} -j MASQUERADE"));
            client(&format!("bash -c 'echo x >/dev/udp/203.0.113.{n}/9'"));
        }
        let mut conntrack = Conntrack::open().unwrap();
        let found = list(&mut conntrack, Select::TranslatedUnanswered).await;
        let replies: BTreeSet<_> = found.iter().map(|entry| entry.reply.destination).collect();
        assert_eq!(replies, [WAN_1, WAN_2].into());
        conntrack.delete_from_address(WAN_1).await.unwrap();
        let left = list(&mut conntrack, Select::Translated).await;
        assert_eq!(left.iter().map(|entry| entry.reply.destination).collect::<Vec<_>>(), [WAN_2]);
        sh("kill $(cat /run/client)");
    });
}

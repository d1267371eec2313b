//! Policies replaced under traffic.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use multiwans::config::{Config, Filter, PortRange, Protocol};
use multiwans::policy::Policies;
use multiwans::types::MarkMask;

use crate::attach::Net;
use crate::config::{Kernel, config, filter};

/// Two policies that send all of the traffic to WAN 2, each by another dimension, and by filters of other
/// numbers. A packet that met parts of both would find no filter and go to WAN 1.
fn policies() -> [Config; 2] {
    let others = |count: u8| {
        let net = |number| format!("198.51.100.{number}/32").parse().unwrap();
        (0..count).map(move |number| Filter { dst: vec![net(number)], ..filter(Protocol::Udp) })
    };
    let by_destination = Filter { dst: vec!["203.0.113.0/24".parse().unwrap()], ..filter(Protocol::Udp) };
    let by_port = Filter { dports: vec![PortRange { first: 1, last: 65_535 }], ..filter(Protocol::All) };
    [(10, by_destination), (150, by_port)].map(|(count, taking)| {
        let filters = others(count).chain([taking]).collect();
        config(MarkMask::default(), &["192.168.0.0/16"], vec![vec![], filters])
    })
}

#[test]
fn no_packet_is_judged_by_parts_of_two_policies() {
    const SWAPS: usize = 60;
    let net = Net::new();
    let policies = policies();
    let mut kernel = Kernel::load(&policies[0]);
    kernel.steer(Some(1), &[1, 2]);
    net.attach_all(&mut kernel.datapath);
    let compiled = policies.map(|config| Policies::new(&config).unwrap());
    let (over, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                net.client.run(|| {
                    let socket = UdpSocket::bind("192.168.50.2:0").unwrap();
                    for port in (1..=65_535u16).cycle() {
                        if over.load(Ordering::Relaxed) {
                            break;
                        }
                        // A full queue of the interface is no matter here.
                        if socket.send_to(b"x", ("203.0.113.10", port)).is_ok() {
                            sent.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            });
        }
        let mut swaps = 0;
        for policy in compiled.iter().cycle().skip(1).take(SWAPS) {
            let before = sent.load(Ordering::Relaxed);
            let written = kernel.datapath.install_both(policy).unwrap();
            assert!(written.maps > 0);
            swaps += usize::from(sent.load(Ordering::Relaxed) > before);
        }
        over.store(true, Ordering::Relaxed);
        assert!(swaps > SWAPS / 2, "too little traffic while policies were replaced: {swaps}");
    });
    let [_, other, wanted] = net.counted();
    net.detach(&mut kernel.datapath);
    assert_eq!(other, 0, "of {wanted} packets, so many were judged by parts of both");
    assert!(wanted > 1_000, "{wanted}");
}

//! The router's own addresses, as they come and go.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use multiwans::datapath::SpecificMap;
use multiwans::types::MarkMask;
use multiwans_common::{Reason, own_bit};
use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, TestRunner};

use crate::config::{Kernel, config};
use crate::frame::Packet;
use crate::table::{CLIENT, steer, verdict};

fn kernel() -> (Kernel, SpecificMap) {
    let mut kernel = Kernel::load(&config(MarkMask::default(), &[], vec![vec![]]));
    kernel.steer(Some(1), &[1]);
    let map = kernel.datapath.take_specific().unwrap().unwrap();
    (kernel, map)
}

/// Steer knows the one and not the other.
fn check(kernel: &mut Kernel, own: &BTreeSet<Ipv4Addr>, all: &[Ipv4Addr]) {
    for address in all {
        let expected =
            if own.contains(address) { verdict(0, Reason::ToRouter) } else { verdict(1, Reason::Default) };
        let packet = Packet::udp(CLIENT, 4000, &address.to_string(), 53);
        assert_eq!(steer(kernel, &packet), expected, "{address} of {own:?}");
    }
}

/// Addresses of which several share a bit, and some none.
fn addresses() -> Vec<Ipv4Addr> {
    let bit = |address: &Ipv4Addr| own_bit(u32::from_ne_bytes(address.octets()));
    let hosts = || (0..=u16::MAX).map(|host| Ipv4Addr::from_bits(0xc0a8_0000 + u32::from(host)));
    let shared = bit(&Ipv4Addr::new(192, 168, 50, 1));
    let mut addresses: Vec<Ipv4Addr> = hosts().filter(|address| bit(address) == shared).take(4).collect();
    assert_eq!(addresses.len(), 4);
    addresses.extend(hosts().filter(|address| bit(address) != shared).step_by(1000).take(4));
    addresses
}

#[test]
fn what_shares_its_bit_with_one_that_goes_stays_known() {
    let (mut kernel, mut map) = kernel();
    let all = addresses();
    let mut own: BTreeSet<Ipv4Addr> = all.iter().copied().collect();
    for address in &all {
        map.replace_own(own.clone()).unwrap();
        check(&mut kernel, &own, &all);
        own.remove(address);
    }
}

#[test]
fn own_addresses_are_known_after_any_changes() {
    let loaded = RefCell::new(kernel());
    let all = addresses();
    let sets = prop::collection::vec(prop::sample::subsequence(all.clone(), 0..=all.len()), 1..8);
    TestRunner::new(Cases { cases: 30, failure_persistence: None, ..Cases::default() })
        .run(&sets, |sets| {
            let (kernel, map) = &mut *loaded.borrow_mut();
            for own in sets {
                let own: BTreeSet<Ipv4Addr> = own.into_iter().collect();
                map.replace_own(own.clone()).unwrap();
                check(kernel, &own, &all);
            }
            Ok(())
        })
        .unwrap();
}

//! What the monitor sees, and how soon.

use std::time::{Duration, Instant};

use multiwans::engine::event::Interface;
use multiwans::net::{Changed, Monitor};

use crate::bench::*;

async fn interface(monitor: &mut Monitor, name: &str) -> Interface {
    let all = monitor.snapshot().await.unwrap();
    all.into_iter().find(|i| i.name.as_str() == name).unwrap_or_else(|| panic!("no {name}"))
}

/// Takes changes until nothing comes for a while.
async fn settle(monitor: &mut Monitor) -> Changed {
    let mut seen = Changed::default();
    while let Ok(changed) = tokio::time::timeout(Duration::from_millis(200), monitor.changed()).await {
        let changed = changed.unwrap();
        seen.interfaces |= changed.interfaces;
        seen.routes |= changed.routes;
        seen.rules |= changed.rules;
    }
    seen
}

#[test]
fn interfaces_as_they_are() {
    alone(|| async {
        link(1);
        ip("addr add 10.0.1.3/24 dev wan1");
        ip("addr add 10.8.0.1 peer 10.8.0.2 dev wan1");
        ip("link add br0 type bridge");
        ip("link add p1 type ifb");
        ip("link set p1 master br0");
        let mut monitor = Monitor::open().unwrap();
        let wan = interface(&mut monitor, "wan1").await;
        assert!(wan.up && wan.carrier && !wan.loopback && !wan.port);
        assert_eq!(wan.index, index("wan1"));
        let addresses: Vec<_> = wan.addresses.iter().map(|(ip, prefix)| format!("{ip}/{prefix}")).collect();
        assert_eq!(addresses, ["10.0.1.2/24", "10.8.0.1/32", "10.0.1.3/24"]);
        assert!(interface(&mut monitor, "lo").await.loopback);
        assert!(interface(&mut monitor, "p1").await.port);
        assert!(!interface(&mut monitor, "br0").await.port);
    });
}

#[test]
fn a_pulled_cable_is_seen_at_once() {
    alone(|| async {
        link(1);
        let mut monitor = Monitor::open().unwrap();
        settle(&mut monitor).await;
        assert!(interface(&mut monitor, "wan1").await.carrier);

        // The quickest of five: the machine may be busy, the monitor may not be slow.
        let mut quickest = Duration::MAX;
        for _ in 0..5 {
            // The blocking pool's threads are started by this one: they are in its namespace.
            let pull = tokio::task::spawn_blocking(|| {
                std::thread::sleep(Duration::from_millis(50));
                let begin = Instant::now();
                ip("link set isp1 down");
                begin
            });
            loop {
                assert!(monitor.changed().await.unwrap().interfaces);
                let now = interface(&mut monitor, "wan1").await;
                if !now.carrier {
                    assert!(now.up);
                    break;
                }
            }
            let seen = Instant::now();
            quickest = quickest.min(seen.saturating_duration_since(pull.await.unwrap()));
            ip("link set isp1 up");
            settle(&mut monitor).await;
        }
        assert!(quickest < Duration::from_millis(20), "{quickest:?}, with starting ip(8)");
    });
}

#[test]
fn kinds_of_changes_are_told_apart() {
    alone(|| async {
        link(1);
        let mut monitor = Monitor::open().unwrap();
        settle(&mut monitor).await;
        for (command, wanted) in [
            ("rule add priority 5 lookup 7", Changed { rules: true, ..Changed::default() }),
            ("route add default via 10.0.1.1 table 7", Changed { routes: true, ..Changed::default() }),
            ("route del default via 10.0.1.1 table 7", Changed { routes: true, ..Changed::default() }),
            ("route add 10.7.0.0/16 via 10.0.1.1", Changed::default()),
            ("addr add 10.9.0.1/32 dev wan1", Changed { interfaces: true, ..Changed::default() }),
        ] {
            ip(command);
            assert_eq!(settle(&mut monitor).await, wanted, "{command}");
        }
    });
}

#[test]
fn a_change_between_opening_and_the_first_dump_is_told() {
    alone(|| async {
        let mut monitor = Monitor::open().unwrap();
        ip("link add d0 type ifb");
        monitor.snapshot().await.unwrap();
        assert!(monitor.changed().await.unwrap().interfaces);
    });
}

#[test]
fn an_overrun_counts_as_a_change_of_everything() {
    alone(|| async {
        link(1);
        let mut monitor = Monitor::open().unwrap();
        settle(&mut monitor).await;
        // Nobody reads meanwhile: far more than any receive buffer holds.
        sh("for i in $(seq 1 6000); do echo addr add 10.1.$((i / 250)).$((i % 250 + 1))/32 dev wan1; done \
            | ip -batch - 2>/dev/null");
        let changed = monitor.changed().await.unwrap();
        assert_eq!(
            changed,
            Changed { interfaces: true, routes: true, rules: true, settings: true, filters: true }
        );
        settle(&mut monitor).await;
        // It goes on as before.
        assert_eq!(interface(&mut monitor, "wan1").await.addresses.len(), 6001);
        ip("rule add priority 5 lookup 7");
        assert_eq!(monitor.changed().await.unwrap(), Changed { rules: true, ..Changed::default() });
    });
}

#[test]
fn dropping_the_wait_loses_nothing() {
    alone(|| async {
        link(1);
        let mut monitor = Monitor::open().unwrap();
        settle(&mut monitor).await;
        drop(tokio::time::timeout(Duration::from_millis(1), monitor.changed()).await);
        ip("link set isp1 down");
        drop(tokio::time::timeout(Duration::ZERO, monitor.snapshot()).await);
        assert!(monitor.changed().await.unwrap().interfaces);
        assert!(!interface(&mut monitor, "wan1").await.carrier);
    });
}

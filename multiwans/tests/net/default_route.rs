//! The main table's default route, which is everybody's.

use multiwans::net::{Change, Kernel};

use crate::bench::*;

const OURS_1: &str = "default via 10.0.1.1 dev wan1 proto 109 src 10.0.1.2";
const OURS_2: &str = "default via 10.0.2.1 dev wan2 proto 109 src 10.0.2.2";

/// A router with two links and these default routes in the main table.
async fn router(standing: &[&str]) -> Kernel {
    link(1);
    link(2);
    for route in standing {
        ip(&format!("route append default {route}"));
    }
    Kernel::new(&config(&[1, 2])).unwrap()
}

#[test]
fn none_standing() {
    alone(|| async {
        let mut kernel = router(&[]).await;
        kernel.apply(&wish(&[1, 2], Some(1))).await.unwrap();
        assert_eq!(defaults(), [OURS_1]);
        kernel.apply(&wish(&[1, 2], Some(2))).await.unwrap();
        assert_eq!(defaults(), [OURS_2]);
        // No link, and a link that is not there: as it is.
        for untouched in [wish(&[1, 2], None), wish(&[2], Some(1))] {
            assert_eq!(
                kernel
                    .apply(&untouched)
                    .await
                    .unwrap()
                    .iter()
                    .filter(|c| c.to_string().contains("default route"))
                    .count(),
                0
            );
            assert_eq!(defaults(), [OURS_2]);
        }
        kernel.apply(&wish(&[1, 2], Some(2))).await.unwrap();
        kernel.remove(Some(mark(2))).await.unwrap();
        assert_eq!(defaults(), [OURS_2], "the best healthy link stays the default");
        // It is adopted by the next run.
        let mut kernel = Kernel::new(&config(&[1, 2])).unwrap();
        kernel.apply(&wish(&[1, 2], Some(1))).await.unwrap();
        assert_eq!(defaults(), [OURS_1]);
    });
}

#[test]
fn one_that_goes_there_is_not_touched() {
    alone(|| async {
        let mut kernel = router(&["via 10.0.1.1 dev wan1 proto dhcp src 10.0.1.2 mtu 1400"]).await;
        let before = residue();
        kernel.apply(&wish(&[1, 2], Some(1))).await.unwrap();
        assert_eq!(defaults(), ["default via 10.0.1.1 dev wan1 proto dhcp src 10.0.1.2 mtu 1400"]);
        kernel.remove(Some(mark(1))).await.unwrap();
        assert_eq!(residue(), before);
    });
}

#[test]
fn the_original_comes_back_with_every_attribute() {
    alone(|| async {
        let original = "via 10.0.1.1 dev wan1 proto dhcp src 10.0.1.2 mtu 1400 advmss 1300 initcwnd 20";
        let mut kernel = router(&[original]).await;
        let (before, original) = (residue(), defaults());
        // At failback.
        kernel.apply(&wish(&[1, 2], Some(2))).await.unwrap();
        assert_eq!(defaults(), [OURS_2]);
        kernel.apply(&wish(&[1, 2], Some(1))).await.unwrap();
        assert_eq!(defaults(), original);
        assert_eq!(kernel.apply(&wish(&[1, 2], Some(1))).await.unwrap(), []);
        // At stop, for its own link and when no link is healthy, also after a crash.
        for last in [Some(mark(1)), None] {
            kernel.apply(&wish(&[1, 2], Some(2))).await.unwrap();
            assert_eq!(defaults(), [OURS_2]);
            drop(kernel);
            kernel = Kernel::new(&config(&[1, 2])).unwrap();
            assert_eq!(kernel.apply(&wish(&[1, 2], Some(2))).await.unwrap(), []);
            kernel.remove(last).await.unwrap();
            assert_eq!(residue(), before);
        }
    });
}

#[test]
fn at_stop_another_healthy_link_stays_the_default() {
    alone(|| async {
        let mut kernel = router(&["via 10.0.1.1 dev wan1 proto static"]).await;
        kernel.apply(&wish(&[1, 2], Some(2))).await.unwrap();
        kernel.remove(Some(mark(2))).await.unwrap();
        assert_eq!(defaults(), [OURS_2]);
        assert_eq!(sh("ls -A /run"), "");
    });
}

#[test]
fn one_with_a_metric_stays_and_is_enough_where_it_leads_there() {
    alone(|| async {
        let dhcp = "default via 10.0.1.1 dev wan1 proto dhcp metric 100";
        let mut kernel = router(&["via 10.0.1.1 dev wan1 proto dhcp metric 100"]).await;
        kernel.apply(&wish(&[1, 2], Some(1))).await.unwrap();
        assert_eq!(defaults(), [dhcp]);
        kernel.apply(&wish(&[1, 2], Some(2))).await.unwrap();
        assert_eq!(defaults(), [OURS_2, dhcp]);
        kernel.apply(&wish(&[1, 2], Some(1))).await.unwrap();
        assert_eq!(defaults(), [dhcp], "ours goes when the rest leads there");
        kernel.apply(&wish(&[1, 2], Some(2))).await.unwrap();
        kernel.remove(Some(mark(1))).await.unwrap();
        assert_eq!(defaults(), [dhcp]);
    });
}

#[test]
fn several_next_hops_come_back_at_stop() {
    alone(|| async {
        let hops = "proto static nexthop via 10.0.1.1 dev wan1 weight 3 nexthop via 10.0.2.1 dev wan2";
        let mut kernel = router(&[hops]).await;
        let before = residue();
        kernel.apply(&wish(&[1, 2], Some(1))).await.unwrap();
        assert_eq!(defaults(), [OURS_1]);
        kernel.apply(&wish(&[1, 2], Some(2))).await.unwrap();
        kernel.remove(Some(mark(2))).await.unwrap();
        assert_eq!(residue(), before);
    });
}

#[test]
fn nexthop_objects_come_back_at_stop() {
    alone(|| async {
        link(1);
        link(2);
        ip("nexthop add id 11 via 10.0.1.1 dev wan1");
        ip("nexthop add id 12 via 10.0.2.1 dev wan2");
        ip("nexthop add id 20 group 11/12");
        for id in [11, 20] {
            ip(&format!("route replace default nhid {id} proto static"));
            let before = residue();
            let mut kernel = Kernel::new(&config(&[1, 2])).unwrap();
            kernel.apply(&wish(&[1, 2], Some(2))).await.unwrap();
            assert_eq!(defaults(), [OURS_2]);
            kernel.remove(Some(mark(1))).await.unwrap();
            assert_eq!(residue(), before);
        }
    });
}

#[test]
fn somebody_elses_newer_route_is_not_overwritten_by_the_original() {
    alone(|| async {
        let mut kernel = router(&["via 10.0.1.1 dev wan1 proto dhcp"]).await;
        kernel.apply(&wish(&[1, 2], Some(2))).await.unwrap();
        ip("route replace default via 10.0.2.1 dev wan2 proto dhcp");
        kernel.apply(&wish(&[1, 2], Some(2))).await.unwrap();
        kernel.remove(None).await.unwrap();
        assert_eq!(defaults(), ["default via 10.0.2.1 dev wan2 proto dhcp"]);
    });
}

#[test]
fn the_original_is_the_one_of_the_start_whoever_replaces_it_meanwhile() {
    alone(|| async {
        let original = "via 10.0.1.1 dev wan1 proto static src 10.0.1.2 mtu 1400";
        let mut kernel = router(&[original]).await;
        let (before, original) = (residue(), defaults());
        kernel.apply(&wish(&[1, 2], Some(1))).await.unwrap();
        let told = |changes: &[Change]| changes.iter().map(ToString::to_string).collect::<Vec<_>>();
        for round in 0..2 {
            ip("route replace default via 10.0.2.1 dev wan2");
            let changes = kernel.apply(&wish(&[1, 2], Some(1))).await.unwrap();
            assert_eq!(
                told(&changes),
                [
                    "main default route via 10.0.1.1 dev wan1 was replaced by default via 10.0.2.1 dev wan2 proto \
                 boot table main; put back"
                ]
            );
            assert_eq!(defaults(), original, "{round}");
            ip("route del default");
            let changes = kernel.apply(&wish(&[1, 2], Some(1))).await.unwrap();
            assert_eq!(told(&changes), ["main default route via 10.0.1.1 dev wan1 was gone; put back"]);
            assert_eq!(defaults(), original);
        }
        // While another link is the default; theirs does not come back with that link, nor ever.
        kernel.apply(&wish(&[1, 2], Some(2))).await.unwrap();
        assert_eq!(defaults(), [OURS_2]);
        ip("route replace default via 10.0.1.1 dev wan1");
        kernel.apply(&wish(&[1, 2], Some(2))).await.unwrap();
        assert_eq!(defaults(), [OURS_2]);
        ip("route replace default via 10.0.2.1 dev wan2");
        assert_eq!(kernel.apply(&wish(&[1, 2], Some(2))).await.unwrap(), []);
        let changes = kernel.apply(&wish(&[1, 2], Some(1))).await.unwrap();
        assert_eq!(
            told(&changes),
            [
                "original default route restored: default via 10.0.1.1 dev wan1 proto static table main, in the \
             place of default via 10.0.2.1 dev wan2 proto boot table main"
            ]
        );
        assert_eq!(defaults(), original);
        // Also after a crash, and at the stop.
        kernel.apply(&wish(&[1, 2], Some(2))).await.unwrap();
        drop(kernel);
        let mut kernel = Kernel::new(&config(&[1, 2])).unwrap();
        kernel.apply(&wish(&[1, 2], Some(2))).await.unwrap();
        ip("route replace default via 10.0.1.9 dev wan1");
        kernel.apply(&wish(&[1, 2], Some(2))).await.unwrap();
        kernel.remove(Some(mark(1))).await.unwrap();
        assert_eq!(residue(), before);
    });
}

#[test]
fn one_that_comes_after_the_start_is_the_original_where_there_was_none() {
    alone(|| async {
        let mut kernel = router(&[]).await;
        kernel.apply(&wish(&[1, 2], Some(1))).await.unwrap();
        ip("route replace default via 10.0.1.1 dev wan1 proto dhcp mtu 1400");
        let theirs = defaults();
        assert_eq!(kernel.apply(&wish(&[1, 2], Some(1))).await.unwrap(), []);
        kernel.apply(&wish(&[1, 2], Some(2))).await.unwrap();
        assert_eq!(defaults(), [OURS_2]);
        kernel.apply(&wish(&[1, 2], Some(1))).await.unwrap();
        assert_eq!(defaults(), theirs);
        // Its interface is made anew: so is the route, which is the original then.
        kernel.apply(&wish(&[1, 2], Some(2))).await.unwrap();
        ip("link del wan1");
        link(1);
        kernel.apply(&wish(&[1, 2], Some(2))).await.unwrap();
        ip("route replace default via 10.0.1.1 dev wan1 proto dhcp mtu 1300");
        let theirs = defaults();
        kernel.apply(&wish(&[1, 2], Some(2))).await.unwrap();
        assert_eq!(defaults(), [OURS_2]);
        kernel.apply(&wish(&[1, 2], Some(1))).await.unwrap();
        assert_eq!(defaults(), theirs);
    });
}

#[test]
fn an_original_whose_interface_is_gone_does_not_come_back() {
    alone(|| async {
        let mut kernel = router(&["via 10.0.1.1 dev wan1 proto dhcp"]).await;
        kernel.apply(&wish(&[1, 2], Some(2))).await.unwrap();
        ip("link del wan1");
        link(1);
        // Another index: the original says nothing about this interface.
        kernel.apply(&wish(&[1, 2], Some(1))).await.unwrap();
        assert_eq!(defaults(), [OURS_1]);
        kernel.remove(Some(mark(1))).await.unwrap();
        assert_eq!(defaults(), [OURS_1]);
    });
}

#[test]
fn a_full_internet_table_does_not_slow_it_down() {
    alone(|| async {
        let mut kernel =
            router(&["via 10.0.1.1 dev wan1 proto static", "via 10.0.1.1 dev wan1 metric 7"]).await;
        // 0.0.0.0/8 and /1 share the default route's leaf.
        ip("route add 0.0.0.0/1 via 10.0.2.1");
        ip("route add 0.0.0.0/8 via 10.0.2.1");
        sh("for i in $(seq 0 199999); do \
                echo route add $((1 + i / 65536)).$((i / 256 % 256)).$((i % 256)).0/24 via 10.0.1.1 proto bgp; \
            done | ip -batch -");
        kernel.apply(&wish(&[1, 2], Some(1))).await.unwrap();
        let begin = std::time::Instant::now();
        kernel.apply(&wish(&[1, 2], Some(2))).await.unwrap();
        let took = begin.elapsed();
        assert!(took < std::time::Duration::from_millis(20), "{took:?}");
        assert_eq!(defaults(), [OURS_2, "default via 10.0.1.1 dev wan1 metric 7"]);
    });
}

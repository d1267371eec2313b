//! Rules, WAN tables, table names, rp_filter.

use multiwans::net::{Error, Kernel};

use crate::bench::*;

#[test]
fn a_second_run_finds_nothing_to_do_and_a_stop_leaves_nothing() {
    alone(|| async {
        link(1);
        link(2);
        sh(
            "cd /proc/sys/net/ipv4/conf; echo 1 >all/rp_filter; echo 0 >wan1/rp_filter; echo 1 >wan2/rp_filter",
        );
        let before = residue();

        let mut kernel = Kernel::new(&config(&[1, 2, 3])).unwrap();
        let changes = kernel.apply(&wish(&[1, 2], None)).await.unwrap();
        assert!(!changes.is_empty());
        assert_eq!(
            rules()[1..14],
            [
                "30000: from all lookup main suppress_prefixlength 0 proto 109",
                "30010: from all iif wan1 lookup main proto 109",
                "30010: from all iif wan2 lookup main proto 109",
                "30010: from all iif wan3 [detached] lookup main proto 109",
                "30015: from all fwmark 0x1/0xff lookup WAN1 proto 109",
                "30015: from all fwmark 0x2/0xff lookup WAN2 proto 109",
                "30015: from all fwmark 0x3/0xff lookup WAN3 proto 109",
                "30020: from 10.0.1.2 lookup WAN1 proto 109",
                "30020: from 10.0.2.2 lookup WAN2 proto 109",
                "30020: from 10.0.3.2 lookup WAN3 proto 109",
                "30025: from all oif wan1 lookup WAN1 proto 109",
                "30025: from all oif wan2 lookup WAN2 proto 109",
                "30025: from all oif wan3 [detached] lookup WAN3 proto 109",
            ]
        );
        assert_eq!(routes("1"), ["default via 10.0.1.1 dev wan1 proto 109 src 10.0.1.2"]);
        assert_eq!(routes("WAN2"), ["default via 10.0.2.1 dev wan2 proto 109 src 10.0.2.2"]);
        assert_eq!(routes("3"), [""; 0]);
        assert_eq!(sh("cd /proc/sys/net/ipv4/conf; cat wan1/rp_filter wan2/rp_filter"), "2\n2\n");

        assert_eq!(kernel.apply(&wish(&[1, 2], None)).await.unwrap(), []);
        kernel.remove(None).await.unwrap();
        assert_eq!(residue(), before);
        kernel.remove(None).await.unwrap();
    });
}

#[test]
fn what_others_have_is_left_alone() {
    alone(|| async {
        link(1);
        link(2);
        // The same as ours but for the protocol; ours but for the priority; and a route in the way in our own table.
        ip("rule add priority 30000 lookup main suppress_prefixlength 0 protocol static");
        ip("rule add priority 30015 fwmark 0x1/0xff lookup 1 protocol static");
        ip("rule add priority 29999 from 10.0.1.2 lookup 1 protocol 109");
        ip("rule add priority 30100 from 10.0.1.2 lookup 1 protocol 109");
        ip("route add default via 10.0.2.1 dev wan2 table 1 proto static");
        ip("route add 10.77.0.0/16 via 10.0.1.1 table 1 proto 109");
        ip("route add default via 10.0.2.1 dev wan2 table 1000 proto 109");
        sh("echo '9 nine' >/etc/iproute2/rt_tables.d/other.conf");
        let before = residue();

        let mut kernel = Kernel::new(&config(&[1, 2])).unwrap();
        kernel.apply(&wish(&[1, 2], None)).await.unwrap();
        assert_eq!(
            routes("1")[..2],
            [
                "default via 10.0.1.1 dev wan1 proto 109 src 10.0.1.2",
                "default via 10.0.2.1 dev wan2 proto static",
            ],
            "ours is asked first"
        );
        assert_eq!(kernel.apply(&wish(&[1, 2], None)).await.unwrap(), []);

        // Somebody puts a route before ours: ours goes first again, theirs stays.
        ip("route prepend default via 10.0.2.1 dev wan2 table 1 proto boot");
        assert_eq!(kernel.apply(&wish(&[1, 2], None)).await.unwrap().len(), 2);
        assert!(routes("1")[0].contains("proto 109"));
        assert_eq!(kernel.apply(&wish(&[1, 2], None)).await.unwrap(), []);
        ip("route del default via 10.0.2.1 dev wan2 table 1 proto boot");

        kernel.remove(None).await.unwrap();
        assert_eq!(residue(), before);
    });
}

#[test]
fn after_a_crash_the_next_run_adopts_or_removes_what_is_there() {
    alone(|| async {
        link(1);
        link(2);
        link(3);
        sh("echo 1 >/proc/sys/net/ipv4/conf/wan1/rp_filter; echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter");
        let before = residue();
        let mut crashed = Kernel::new(&config(&[1, 2])).unwrap();
        crashed.apply(&wish(&[1, 2], None)).await.unwrap();
        drop(crashed);

        // The same configuration: nothing to do.
        let mut kernel = Kernel::new(&config(&[1, 2])).unwrap();
        assert_eq!(kernel.apply(&wish(&[1, 2], None)).await.unwrap(), []);
        drop(kernel);

        // Another one: other WANs, other priorities. Nothing of the old one stays.
        let mut changed = config(&[1, 3]);
        changed.daemon.rule_priority = 20000;
        ip("rule add priority 20020 from 10.0.9.9 lookup 9 protocol 109");
        let mut kernel = Kernel::new(&changed).unwrap();
        kernel.apply(&wish(&[1, 3], None)).await.unwrap();
        assert_eq!(routes("2"), [""; 0]);
        assert!(rules().iter().all(|rule| !rule.starts_with("300")), "{:?}", rules());
        assert_eq!(rules().iter().filter(|rule| rule.contains("proto 109")).count(), 9);
        assert_eq!(kernel.apply(&wish(&[1, 3], None)).await.unwrap(), []);
        kernel.remove(None).await.unwrap();
        assert_eq!(residue(), before);
    });
}

#[test]
fn routes_come_back_with_their_interface() {
    alone(|| async {
        link(1);
        link(2);
        let mut kernel = Kernel::new(&config(&[1, 2])).unwrap();
        kernel.apply(&wish(&[1, 2], Some(1))).await.unwrap();

        // Down, and the engine does not know yet: an error that says so, and the rest is done.
        ip("link set wan1 down");
        ip("route del default table 2");
        let error = kernel.apply(&wish(&[1, 2], Some(2))).await.unwrap_err();
        assert!(matches!(error.failures[..], [Error::InterfaceDown { .. }]), "{error}");
        assert_eq!(routes("2"), ["default via 10.0.2.1 dev wan2 proto 109 src 10.0.2.2"]);
        assert!(defaults()[0].contains("wan2"));

        // It knows: the kernel has taken the routes away by itself.
        assert_eq!(kernel.apply(&wish(&[2], Some(2))).await.unwrap(), []);
        ip("link set wan1 up");
        assert_eq!(kernel.apply(&wish(&[1, 2], Some(2))).await.unwrap().len(), 1);
        assert_eq!(routes("1").len(), 1);

        ip("addr del 10.0.1.2/24 dev wan1");
        let error = kernel.apply(&wish(&[1, 2], Some(2))).await.unwrap_err();
        assert!(matches!(error.failures[..], [Error::NoAddress { .. }]), "{error}");

        // Made anew: another index, and strict again.
        ip("link del wan1");
        kernel.apply(&wish(&[2], Some(2))).await.unwrap();
        link(1);
        kernel.apply(&wish(&[1, 2], Some(2))).await.unwrap();
        assert_eq!(routes("1").len(), 1);
        ip("link del wan1");
        kernel.remove(Some(mark(2))).await.unwrap();
    });
}

#[test]
fn a_gateway_outside_the_prefix_is_taken_as_a_neighbour() {
    alone(|| async {
        link(1);
        let mut config = config(&[1]);
        config.wans[0].gateway = "172.31.255.1".parse().unwrap();
        let mut kernel = Kernel::new(&config).unwrap();
        kernel.apply(&wish(&[1], None)).await.unwrap();
        assert_eq!(routes("1"), ["default via 172.31.255.1 dev wan1 proto 109 src 10.0.1.2 onlink"]);
        assert_eq!(kernel.apply(&wish(&[1], None)).await.unwrap(), []);
    });
}

#[test]
fn a_route_that_changes_is_never_missing_and_the_old_one_goes() {
    alone(|| async {
        link(1);
        let mut kernel = Kernel::new(&config(&[1])).unwrap();
        kernel.apply(&wish(&[1], Some(1))).await.unwrap();
        let mut moved = config(&[1]);
        moved.wans[0].gateway = "10.0.1.254".parse().unwrap();
        let mut kernel = Kernel::new(&moved).unwrap();
        kernel.apply(&wish(&[1], Some(1))).await.unwrap();
        assert_eq!(routes("1"), ["default via 10.0.1.254 dev wan1 proto 109 src 10.0.1.2"]);
        assert_eq!(defaults(), ["default via 10.0.1.254 dev wan1 proto 109 src 10.0.1.2"]);
    });
}

#[test]
fn a_missing_directory_is_made_and_removed_again_also_after_a_crash() {
    alone(|| async {
        link(1);
        sh("umount /etc/iproute2/rt_tables.d; mount -t tmpfs none /etc/iproute2");
        drop({
            let mut kernel = Kernel::new(&config(&[1])).unwrap();
            kernel.apply(&wish(&[1], None)).await.unwrap();
            kernel
        });
        assert!(sh("cat /etc/iproute2/rt_tables.d/multiwans-*.conf").contains("1\tWAN1\n"));
        let mut kernel = Kernel::new(&config(&[1])).unwrap();
        kernel.apply(&wish(&[1], None)).await.unwrap();
        kernel.remove(None).await.unwrap();
        assert_eq!(sh("ls -A /etc/iproute2"), "");
    });
}

#[test]
fn rp_filter_that_somebody_else_changes_meanwhile_is_theirs() {
    alone(|| async {
        link(1);
        link(2);
        let conf = "/proc/sys/net/ipv4/conf";
        sh(&format!(
            "echo 0 >{conf}/all/rp_filter; echo 1 >{conf}/wan1/rp_filter; echo 0 >{conf}/wan2/rp_filter"
        ));
        let mut kernel = Kernel::new(&config(&[1, 2])).unwrap();
        kernel.apply(&wish(&[1, 2], None)).await.unwrap();
        assert_eq!(sh(&format!("cat {conf}/wan1/rp_filter {conf}/wan2/rp_filter")), "2\n0\n");
        sh(&format!("echo 0 >{conf}/wan1/rp_filter"));
        kernel.remove(None).await.unwrap();
        assert_eq!(sh(&format!("cat {conf}/wan1/rp_filter")), "0\n");
    });
}

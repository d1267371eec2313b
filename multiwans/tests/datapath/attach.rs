//! Attaching to real interfaces, by both ways there are: real packets are marked, others' filters stay,
//! and nothing is left. Needs iproute2 and iptables.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::thread;
use std::time::{Duration, Instant};

use multiwans::config::{Config, Filter, Protocol};
use multiwans::datapath::{Attachment, Datapath, DatapathError, LoadOptions};
use multiwans::engine::command::{Role, Steering};
use multiwans::policy::Policies;
use multiwans::types::{IfIndex, IfName, MarkMask};

use crate::config::{config, filter, mark, port};
use crate::support::Netns;

/// The best way this kernel has, and the one every kernel has.
const WAYS: [Option<Attachment>; 2] = [None, Some(Attachment::Clsact)];
const CLSACT: Option<Attachment> = Some(Attachment::Clsact);
/// Goes to WAN 2; other ports to WAN 1.
const FILTERED: u16 = 80;
/// Others' filters: of another kind at the first priority, and of our kind. Neither matches our packets:
/// one that did would end the search before us.
const FOREIGN: [&str; 2] = [
    "prio 1 protocol ip u32 match ip dst 198.51.100.0/24 classid 1:1",
    "prio 2 protocol all bpf bytecode 1,6_0_0_0, classid 1:1",
];

/// `client` (eth0) — eth0 `router` wan1, wan2 — `isp`.
pub(crate) struct Net {
    router: Netns,
    pub(crate) client: Netns,
    _isp: Netns,
}

impl Net {
    pub(crate) fn new() -> Self {
        let (router, client, isp) = (Netns::new(), Netns::new(), Netns::new());
        router.cable("eth0", "192.168.50.1/24", &client, "eth0", "192.168.50.2/24");
        router.cable("wan1", "10.0.1.2/24", &isp, "wan1", "10.0.1.1/24");
        router.cable("wan2", "10.0.2.2/24", &isp, "wan2", "10.0.2.1/24");
        router.sysctl("ipv4/ip_forward", "1");
        client.ip("route add default via 192.168.50.1");
        for number in [1, 2] {
            let rule = format!("-t mangle -A PREROUTING -i eth0 -p udp -m mark --mark {number}/0xff");
            router.command("iptables", &rule);
        }
        let net = Self { router, client, _isp: isp };
        net.settle();
        net
    }

    /// Waits until the kernel has noticed every carrier: an interface gets its queueing discipline then.
    fn settle(&self) {
        let deadline = Instant::now() + Duration::from_secs(5);
        while ["eth0", "wan1", "wan2"].iter().any(|iface| self.shown(iface)[0].contains("noop")) {
            assert!(Instant::now() < deadline, "a carrier was not noticed");
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn roles(&self, wanted: &[(&str, Role)]) -> BTreeMap<IfIndex, (IfName, Role)> {
        wanted
            .iter()
            .map(|(name, role)| (IfIndex(self.router.index(name)), (IfName::new(name).unwrap(), *role)))
            .collect()
    }

    fn all(&self) -> BTreeMap<IfIndex, (IfName, Role)> {
        self.roles(&[("eth0", Role::Inside), ("wan1", Role::Wan(mark(1))), ("wan2", Role::Wan(mark(2)))])
    }

    fn attach(
        &self,
        datapath: &mut Datapath,
        roles: &BTreeMap<IfIndex, (IfName, Role)>,
    ) -> Vec<DatapathError> {
        self.router.run(|| datapath.attach(roles))
    }

    pub(crate) fn attach_all(&self, datapath: &mut Datapath) {
        let errors = self.attach(datapath, &self.all());
        assert!(errors.is_empty(), "{errors:?}");
    }

    pub(crate) fn detach(&self, datapath: &mut Datapath) {
        let errors = self.router.run(|| datapath.detach());
        assert!(errors.is_empty(), "{errors:?}");
    }

    /// Others put `clsact` on an interface, and their filters in both directions.
    fn add_foreign(&self, iface: &str) {
        self.router.command("tc", &format!("qdisc add dev {iface} clsact"));
        for direction in ["ingress", "egress"] {
            for filter in FOREIGN {
                self.add_filter(iface, direction, filter);
            }
        }
    }

    fn add_filter(&self, iface: &str, direction: &str, filter: &str) {
        let line = format!("filter add dev {iface} {direction} {filter}");
        let words: Vec<String> = line.split(' ').map(|word| word.replace('_', " ")).collect();
        let output = self.router.run(|| std::process::Command::new("tc").args(&words).output().unwrap());
        assert!(output.status.success(), "tc {line}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Qdiscs and filters of an interface as `tc` shows them, one line an object.
    fn shown(&self, iface: &str) -> Vec<String> {
        let mut text = self.router.command("tc", &format!("qdisc show dev {iface}"));
        for direction in ["ingress", "egress"] {
            text += &self.router.command("tc", &format!("filter show dev {iface} {direction}"));
        }
        text.lines().map(|line| line.trim_end().to_owned()).collect()
    }

    /// How many filters of ours an interface has, where there are no links.
    fn ours(&self, iface: &str) -> usize {
        self.shown(iface).iter().filter(|line| line.contains("multiwans_")).count()
    }

    fn has_clsact(&self, iface: &str) -> bool {
        self.shown(iface).iter().any(|line| line.contains("clsact"))
    }

    /// Sends one datagram through the router and returns which mark it carried past our programs.
    fn mark_of(&self, port: u16) -> Option<u8> {
        let before = self.counted();
        self.client.run(|| {
            let socket = UdpSocket::bind("192.168.50.2:0").unwrap();
            socket.send_to(b"x", ("203.0.113.10", port)).unwrap();
        });
        // A veth hands the packet over before `send` returns or in the softirq right behind it.
        for _ in 0..20 {
            let after = self.counted();
            if let Some(number) = (1..=2).find(|number| after[*number] > before[*number]) {
                return u8::try_from(number).ok();
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        None
    }

    /// Packets by mark; index 0 is not used.
    pub(crate) fn counted(&self) -> [u64; 3] {
        let rules = self.router.command("iptables-save", "-c -t mangle");
        let count = |number: u8| {
            let rule = rules.lines().find(|line| line.contains(&format!("--mark {number:#x}/0xff"))).unwrap();
            rule.trim_start_matches('[').split(':').next().unwrap().parse().unwrap()
        };
        [0, count(1), count(2)]
    }

    fn assert_steered(&self) {
        assert_eq!(self.mark_of(FILTERED), Some(2));
        assert_eq!(self.mark_of(443), Some(1));
    }
}

fn loaded(attachment: Option<Attachment>) -> Datapath {
    let filters = vec![vec![], vec![Filter { dports: vec![port(FILTERED)], ..filter(Protocol::Udp) }]];
    let config: Config = config(MarkMask::default(), &["192.168.0.0/16"], filters);
    let policies = Policies::new(&config).unwrap();
    let mut datapath =
        Datapath::load(&config, &policies, LoadOptions { attachment, ..LoadOptions::default() }).unwrap();
    let usable = [1, 2].map(|number| (mark(number), IfIndex(u32::from(number)))).into();
    datapath.steer(&Steering { default: Some(mark(1)), usable }).unwrap();
    datapath
}

#[test]
fn packets_are_marked_while_attached_and_nothing_is_left() {
    for way in WAYS {
        let net = Net::new();
        let before = ["eth0", "wan1", "wan2"].map(|iface| net.shown(iface));
        let mut datapath = loaded(way);
        for _ in 0..2 {
            assert_eq!(net.mark_of(FILTERED), None);
            net.attach_all(&mut datapath);
            net.assert_steered();
            net.attach_all(&mut datapath); // changes nothing
            net.assert_steered();
            net.detach(&mut datapath);
            assert_eq!(net.mark_of(FILTERED), None);
            assert_eq!(["eth0", "wan1", "wan2"].map(|iface| net.shown(iface)), before, "{way:?}");
        }
    }
}

#[test]
fn clsact_filters_are_one_for_each_direction() {
    let net = Net::new();
    let mut datapath = loaded(CLSACT);
    net.attach_all(&mut datapath);
    assert_eq!((net.ours("eth0"), net.ours("wan1")), (2, 1));
    // An inside interface that becomes a WAN and back.
    for (role, filters) in [(Role::Wan(mark(1)), 1), (Role::Inside, 2)] {
        let errors = net.attach(&mut datapath, &net.roles(&[("eth0", role)]));
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!((net.ours("eth0"), net.ours("wan1")), (filters, 0));
        assert!(!net.has_clsact("wan1"));
    }
}

#[test]
fn filters_of_others_stay_and_do_not_keep_packets_from_us() {
    for way in WAYS {
        let net = Net::new();
        net.add_foreign("eth0");
        let before = net.shown("eth0");
        let mut datapath = loaded(way);
        net.attach_all(&mut datapath);
        net.assert_steered();
        let late = "prio 9 protocol ip u32 match u32 0 0 classid 1:9";
        net.add_filter("eth0", "ingress", late);
        net.assert_steered();
        net.detach(&mut datapath);
        let after = net.shown("eth0");
        assert!(before.iter().all(|line| after.contains(line)), "{way:?}: {before:#?} {after:#?}");
        assert_eq!(net.ours("eth0"), 0);
        net.router.command("tc", "filter del dev eth0 ingress prio 9");
        assert_eq!(net.shown("eth0"), before, "{way:?}");
    }
}

#[test]
fn a_qdisc_of_others_stays_even_when_empty() {
    let net = Net::new();
    net.router.command("tc", "qdisc add dev eth0 clsact");
    let before = net.shown("eth0");
    let mut datapath = loaded(CLSACT);
    net.attach_all(&mut datapath);
    net.detach(&mut datapath);
    assert_eq!(net.shown("eth0"), before);
}

#[test]
fn our_qdisc_stays_while_others_use_it() {
    let net = Net::new();
    let mut datapath = loaded(CLSACT);
    net.attach_all(&mut datapath);
    net.add_filter("eth0", "egress", "prio 5 protocol ip u32 match u32 0 0 classid 1:1");
    net.detach(&mut datapath);
    assert!(net.has_clsact("eth0"));
    assert!(net.shown("eth0").iter().any(|line| line.contains("u32")));
    assert_eq!(net.ours("eth0"), 0);
}

#[test]
fn what_a_killed_daemon_left_goes_also_where_the_next_one_has_nothing_to_do() {
    let net = Net::new();
    net.router.command("tc", "qdisc add dev wan2 clsact");
    for filter in FOREIGN {
        net.add_filter("wan2", "ingress", filter);
    }
    let before = net.shown("wan2");
    let mut killed = loaded(CLSACT);
    net.attach_all(&mut killed);
    std::mem::forget(killed);
    assert_eq!((net.ours("eth0"), net.ours("wan1"), net.ours("wan2")), (2, 1, 1));

    let mut datapath = loaded(CLSACT);
    let errors = net.attach(&mut datapath, &net.roles(&[("eth0", Role::Inside)]));
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!((net.ours("eth0"), net.ours("wan1"), net.ours("wan2")), (2, 0, 0));
    assert!(!net.has_clsact("wan1"));
    assert_eq!(net.shown("wan2"), before);
    net.assert_steered();
    // Later interfaces too are ours alone.
    net.attach_all(&mut datapath);
    assert_eq!((net.ours("eth0"), net.ours("wan1"), net.ours("wan2")), (2, 1, 1));
    net.detach(&mut datapath);
    assert!(!net.has_clsact("eth0") && !net.has_clsact("wan1"));
    assert_eq!(net.shown("wan2"), before);
}

#[test]
fn an_interface_or_qdisc_that_vanished_is_no_error() {
    for way in WAYS {
        let net = Net::new();
        let mut datapath = loaded(way);
        net.attach_all(&mut datapath);
        net.router.ip("link del wan2");
        let rest = net.roles(&[("eth0", Role::Inside), ("wan1", Role::Wan(mark(1)))]);
        let errors = net.attach(&mut datapath, &rest);
        assert!(errors.is_empty(), "{way:?}: {errors:?}");
        if net.has_clsact("eth0") {
            net.router.command("tc", "qdisc del dev eth0 clsact");
        }
        net.router.ip("link del wan1");
        net.detach(&mut datapath);
    }
}

#[test]
fn what_somebody_took_off_is_attached_again() {
    let net = Net::new();
    let mut datapath = loaded(CLSACT);
    net.attach_all(&mut datapath);
    let audit = |datapath: &mut Datapath| net.router.run(|| datapath.audit(&net.all()));
    let mut audited = |vandalise: &dyn Fn()| {
        vandalise();
        let (repaired, errors) = audit(&mut datapath);
        assert!(errors.is_empty(), "{errors:?}");
        net.assert_steered();
        assert_eq!((net.ours("eth0"), net.ours("wan1")), (2, 1));
        repaired
    };
    let again = |program, iface| format!("program multiwans_{program} was taken off {iface}; attached again");
    assert_eq!(audited(&|| ()), [""; 0]);
    assert_eq!(
        audited(&|| drop(net.router.command("tc", "filter del dev eth0 ingress"))),
        [again("steer", "eth0")]
    );
    assert_eq!(
        audited(&|| drop(net.router.command("tc", "qdisc del dev wan1 clsact"))),
        [again("wan", "wan1")]
    );
    // Somebody's filters stand where ours were: theirs stay.
    let theirs = RefCell::new(Vec::new());
    let taken_over = audited(&|| {
        net.router.command("tc", "qdisc del dev eth0 clsact");
        net.add_foreign("eth0");
        theirs.replace(net.shown("eth0"));
    });
    assert_eq!(taken_over, [again("steer", "eth0"), again("learn", "eth0")]);
    let now = net.shown("eth0");
    assert!(theirs.take().iter().all(|line| now.contains(line)), "{now:?}");
    assert_eq!(audited(&|| ()), [""; 0]);
    net.detach(&mut datapath);
    assert_eq!((net.ours("eth0"), net.has_clsact("eth0"), net.has_clsact("wan1")), (0, true, false));
}

#[test]
fn a_renamed_interface_is_cleaned_too() {
    let net = Net::new();
    let mut datapath = loaded(CLSACT);
    net.attach_all(&mut datapath);
    net.router.ip("link set wan1 down");
    net.router.ip("link set wan1 name uplink");
    net.detach(&mut datapath);
    assert!(!net.has_clsact("uplink"));
}

#[test]
fn the_older_ingress_qdisc_serves_wans_only() {
    let net = Net::new();
    for iface in ["eth0", "wan1"] {
        net.router.command("tc", &format!("qdisc add dev {iface} ingress"));
    }
    let before = ["eth0", "wan1"].map(|iface| net.shown(iface));
    let mut datapath = loaded(CLSACT);
    let errors = net.attach(&mut datapath, &net.all());
    assert!(
        matches!(errors.as_slice(), [DatapathError::IngressQdisc { iface }] if iface.as_str() == "eth0"),
        "{errors:?}"
    );
    let ours = net.router.command("tc", "filter show dev wan1 ingress");
    assert!(ours.contains("multiwans_wan"), "{ours}");
    net.detach(&mut datapath);
    assert_eq!(["eth0", "wan1"].map(|iface| net.shown(iface)), before);

    let mut datapath = loaded(None);
    if datapath.attachment() == Attachment::Tcx {
        net.attach_all(&mut datapath);
        net.assert_steered();
    }
}

//! Configurations and a loaded data path to run packets through.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use multiwans::config::{
    Alerts, Chain, Company, Config, Daemon, Dns, Filter, Flows, Hooks, LogLevel, Ping, PortRange, Probe,
    Protocol, Wan,
};
use multiwans::datapath::{Datapath, LoadOptions, Program};
use multiwans::engine::command::Steering;
use multiwans::policy::Policies;
use multiwans::types::{IfIndex, IfName, MarkMask, WanMark};
use multiwans_common::{Program as Counting, Reason, Special, Traffic};

use crate::frame::{CONTEXT_LEN, Context, Packet};

/// Verdict of all programs: `TC_ACT_UNSPEC`.
const UNSPEC: u32 = u32::MAX;

pub(crate) fn mark(number: u8) -> WanMark {
    WanMark::new(number).unwrap()
}

pub(crate) fn filter(protocol: Protocol) -> Filter {
    Filter {
        description: "filter".into(),
        note: None,
        chain: Chain::Prerouting,
        protocol,
        src: Vec::new(),
        src_files: Vec::new(),
        dst: Vec::new(),
        dst_files: Vec::new(),
        sports: Vec::new(),
        dports: Vec::new(),
    }
}

pub(crate) fn port(number: u16) -> PortRange {
    PortRange { first: number, last: number }
}

/// WANs 1, 2, … with these filters, in this order.
pub(crate) fn config(mask: MarkMask, localnets: &[&str], filters: Vec<Vec<Filter>>) -> Config {
    let wans = (1u8..)
        .zip(filters)
        .map(|(number, filters)| Wan {
            description: format!("WAN{number}"),
            note: None,
            mark: mark(number),
            fwmark: mask.encode(mark(number)).unwrap(),
            order_failover: Some(number),
            iface: IfName::new(&format!("eth{number}")).unwrap(),
            ip: Ipv4Addr::new(10, 0, number, 2),
            prefix_len: 24,
            gateway: Ipv4Addr::new(10, 0, number, 1),
            dns: Vec::new(),
            targets: Vec::new(),
            filters,
        })
        .collect();
    Config {
        company: Company::default(),
        daemon: Daemon {
            run_interval: Duration::from_secs(20),
            status_file: PathBuf::from("/nonexistent"),
            control_socket: PathBuf::from("/nonexistent"),
            mark_mask: mask,
            log_level: LogLevel::default(),
            rule_priority: 30_000,
        },
        flows: Flows { max: 4_096 },
        alerts: Alerts { max: 2, interval: Duration::from_secs(1800) },
        ping: Ping { count: 1, timeout: Duration::from_secs(3), targets: Vec::new() },
        probe: Probe { interval: Duration::from_secs(1) },
        hooks: Hooks { dir: PathBuf::new(), timeout: Duration::from_secs(30) },
        dns: Dns { retry: 1, timeout: Duration::from_secs(2), servers: Vec::new() },
        localnets: localnets.iter().map(|net| net.parse().unwrap()).collect(),
        email: None,
        wans,
    }
}

/// A loaded data path.
pub(crate) struct Kernel {
    pub(crate) datapath: Datapath,
}

/// What a packet came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) mark: u32,
    pub(crate) reason: Reason,
}

impl Kernel {
    pub(crate) fn load(config: &Config) -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "these tests load programs into the kernel: run them as root"
        );
        assert!(Datapath::is_built_in(), "no eBPF object: run `cargo xtask build-ebpf` first");
        let policies = Policies::new(config).unwrap();
        let datapath = Datapath::load(config, &policies, LoadOptions::default()).unwrap();
        Self { datapath }
    }

    /// Interface of WAN k: 100 + k. None exists; only learn compares them.
    pub(crate) fn steer(&mut self, default: Option<u8>, usable: &[u8]) {
        let usable: BTreeMap<WanMark, IfIndex> =
            usable.iter().map(|number| (mark(*number), IfIndex(100 + u32::from(*number)))).collect();
        self.datapath.steer(&Steering { default: default.map(mark), usable }).unwrap();
    }

    pub(crate) fn run(&mut self, program: Program, frame: &[u8], context: Context) -> Verdict {
        self.run_counted(program, frame, context).0
    }

    /// The same, and what was counted for the reason.
    pub(crate) fn run_counted(
        &mut self,
        program: Program,
        frame: &[u8],
        context: Context,
    ) -> (Verdict, Traffic) {
        let counting = counting(program);
        let before = self.datapath.reasons(counting).unwrap();
        let mut out = [0; CONTEXT_LEN];
        let (verdict, _) = self.datapath.test_run(program, frame, &context.bytes(), &mut out).unwrap();
        assert_eq!(verdict, UNSPEC, "others' programs must still run");
        let after = self.datapath.reasons(counting).unwrap();
        let counted: Vec<(Reason, Traffic)> = before
            .iter()
            .zip(&after)
            .filter(|(before, after)| before != after)
            .map(|((reason, before), (_, after))| (*reason, difference(*before, *after)))
            .collect();
        assert_eq!(counted.len(), 1, "each packet is counted once: {counted:?}");
        (Verdict { mark: Context::mark_of(&out), reason: counted[0].0 }, counted[0].1)
    }

    /// Many packets, and how many were counted for each reason: to read the counters takes longer than a packet.
    pub(crate) fn run_many(
        &mut self,
        program: Program,
        packets: impl Iterator<Item = Packet>,
        context: Context,
    ) -> Vec<(Reason, u64)> {
        let counting = counting(program);
        let before = self.datapath.reasons(counting).unwrap();
        for packet in packets {
            let mut out = [0; CONTEXT_LEN];
            self.datapath.test_run(program, &packet.frame(), &context.bytes(), &mut out).unwrap();
        }
        let after = self.datapath.reasons(counting).unwrap();
        let counted = |((reason, before), (_, after)): (&(Reason, Traffic), &(Reason, Traffic))| {
            (*reason, difference(*before, *after).packets)
        };
        before.iter().zip(&after).map(counted).filter(|(_, packets)| *packets > 0).collect()
    }

    /// All that was special about what a program saw until now.
    pub(crate) fn special(&self, program: Program) -> Vec<(Special, Traffic)> {
        let counts = self.datapath.special(counting(program)).unwrap();
        counts.into_iter().filter(|(_, traffic)| *traffic != Traffic::default()).collect()
    }
}

/// What a program counts as.
fn counting(program: Program) -> Counting {
    match program {
        Program::Steer => Counting::Steer,
        Program::Wan => Counting::Wan,
        Program::Learn => Counting::Learn,
    }
}

pub(crate) fn difference(before: Traffic, after: Traffic) -> Traffic {
    Traffic { packets: after.packets - before.packets, bytes: after.bytes - before.bytes }
}

//! A router of its own for every test: a network namespace, and a mount namespace for the files that would be shared.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use multiwans::config::{Alerts, Company, Config, Daemon, Dns, Flows, Hooks, LogLevel, Ping, Probe, Wan};
use multiwans::engine::command::Routes;
use multiwans::types::{IfIndex, IfName, MarkMask, WanMark};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Runs `test` in a thread that is alone in its namespaces. They end with it.
pub(crate) fn alone<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    assert!(nix::unistd::geteuid().is_root(), "these tests make network namespaces: run them as root");
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("unshare");
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("make mounts private");
        for shared in ["/etc/iproute2/rt_tables.d", "/run"] {
            mount(Some("tmpfs"), shared, Some("tmpfs"), MsFlags::empty(), none).expect("mount tmpfs");
        }
        ip("link set lo up");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async {
            tokio::time::timeout(Duration::from_secs(60), test()).await.expect("in time")
        });
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs a shell command and gives back its output.
pub(crate) fn sh(command: &str) -> String {
    let output = Command::new("sh").args(["-ec", command]).output().expect("sh");
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Runs `ip`.
pub(crate) fn ip(arguments: &str) -> String {
    sh(&format!("ip {arguments}"))
}

/// `ip rule`, without the spaces at the ends of its lines.
pub(crate) fn rules() -> Vec<String> {
    ip("-4 rule").lines().map(|line| line.trim().replace('\t', " ")).collect()
}

/// A table's routes; none where there is no such table.
pub(crate) fn routes(table: &str) -> Vec<String> {
    let text = sh(&format!("ip -4 route show table {table} 2>/dev/null || true"));
    text.lines().map(|line| line.trim().to_owned()).collect()
}

/// The default routes of the main table.
pub(crate) fn defaults() -> Vec<String> {
    routes("main").into_iter().filter(|line| line.starts_with("default")).collect()
}

/// Everything we could leave something in, as text.
pub(crate) fn residue() -> String {
    sh("ip rule; ip -4 route show table all; cd /proc/sys/net/ipv4/conf; grep . */rp_filter; \
        ls -A /etc/iproute2/rt_tables.d /run")
}

/// WAN `n`: interface `wan<n>`, 10.0.n.2/24, gateway 10.0.n.1 on the other end `isp<n>` of its cable.
pub(crate) fn link(n: u8) {
    ip(&format!("link add wan{n} type veth peer name isp{n}"));
    ip(&format!("link set isp{n} up"));
    ip(&format!("addr add 10.0.{n}.2/24 dev wan{n}"));
    ip(&format!("link set wan{n} up"));
}

pub(crate) fn mark(n: u8) -> WanMark {
    WanMark::new(n).expect("mark")
}

pub(crate) fn index(iface: &str) -> IfIndex {
    IfIndex(nix::net::if_::if_nametoindex(iface).expect(iface))
}

/// The wish that the engine would have: these WANs are there, that one is the default.
pub(crate) fn wish(present: &[u8], default: Option<u8>) -> Routes {
    let present: BTreeMap<_, _> = present.iter().map(|n| (mark(*n), index(&format!("wan{n}")))).collect();
    Routes { present, default: default.map(mark), ..Routes::default() }
}

/// A configuration with these WANs.
pub(crate) fn config(wans: &[u8]) -> Config {
    let mask = MarkMask::default();
    let second = Duration::from_secs(1);
    let wan = |n: &u8| Wan {
        description: format!("WAN {n}"),
        note: None,
        mark: mark(*n),
        fwmark: mask.encode(mark(*n)).expect("fits"),
        order_failover: Some(*n),
        iface: IfName::new(&format!("wan{n}")).expect("name"),
        ip: Ipv4Addr::new(10, 0, *n, 2),
        prefix_len: 24,
        gateway: Ipv4Addr::new(10, 0, *n, 1),
        dns: Vec::new(),
        targets: Vec::new(),
        filters: Vec::new(),
    };
    Config {
        company: Company::default(),
        daemon: Daemon {
            run_interval: 20 * second,
            status_file: "/run/status".into(),
            control_socket: "/run/control.sock".into(),
            mark_mask: mask,
            log_level: LogLevel::default(),
            rule_priority: 30000,
        },
        flows: Flows { max: 4_096 },
        alerts: Alerts { max: 2, interval: 1800 * second },
        ping: Ping { count: 1, timeout: 3 * second, targets: Vec::new() },
        probe: Probe { interval: second },
        hooks: Hooks { dir: "scripts".into(), timeout: 30 * second },
        dns: Dns { retry: 1, timeout: 2 * second, servers: Vec::new() },
        localnets: Vec::new(),
        email: None,
        wans: wans.iter().map(wan).collect(),
    }
}

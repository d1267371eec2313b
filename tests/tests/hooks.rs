//! Hooks that do as they should, and hooks that do not.

use anyhow::{Context, Result};
use multiwans_tests::topology::{INTERNET, wan_ip};
use multiwans_tests::wait::{wait_for, wait_until};
use multiwans_tests::{Config, Daemon, Lab, Ns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(5);
/// The kernel tells of a pulled cable at once.
const CABLE_NOTICED: Duration = Duration::from_secs(1);
const RETURN_NOTICED: Duration = Duration::from_secs(15);

/// The folder of hooks beside the configuration of a lab's daemon.
struct Scripts<'a>(&'a Lab);

impl Scripts<'_> {
    fn path(&self, below: &str) -> PathBuf {
        self.0.router_files().run().join("scripts").join(below)
    }

    /// Adds a hook in the shell's language.
    fn hook(&self, below: &str, body: &str) -> Result<()> {
        let path = self.path(below);
        fs::create_dir_all(path.parent().context("no folder")?)?;
        fs::write(&path, format!("#!/bin/sh\n{body}\n"))?;
        self.mode(below, 0o755)
    }

    fn mode(&self, below: &str, mode: u32) -> Result<()> {
        Ok(fs::set_permissions(self.path(below), fs::Permissions::from_mode(mode))?)
    }

    /// What the hooks wrote to `trace` where they run.
    fn trace(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("trace")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Waits until the trace is this.
    fn wait_trace(&self, expected: &[&str]) -> Result<()> {
        wait_until("the hooks' trace", SOON, || self.trace() == expected)
            .map(drop)
            .with_context(|| format!("{:?} instead of {expected:?}", self.trace()))
    }
}

/// Memory that a process has in use, in kB.
fn resident(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// The processes of a test that sleep under a word of its own; killed when this value is dropped, for a hook
/// may leave some running, and so may a test that fails.
struct Sleepers(String);

impl Sleepers {
    /// A time that no other test's processes sleep for, of this run or of one beside it.
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        Self(format!("36{:02}.{}", NEXT.fetch_add(1, Ordering::Relaxed), std::process::id()))
    }

    fn find(&self) -> Vec<Pid> {
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let found = processes.filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let line = fs::read_to_string(entry.path().join("cmdline")).ok()?;
            line.split('\0').any(|argument| argument == self.0).then(|| Pid::from_raw(pid))
        });
        found.collect()
    }
}

impl Drop for Sleepers {
    fn drop(&mut self) {
        for pid in self.find() {
            // It may have ended just now.
            kill(pid, Signal::SIGKILL).ok();
        }
    }
}

#[test]
fn hooks_run_on_changes_in_order_and_know_what_happened() -> Result<()> {
    let lab = Lab::builder().build()?;
    let scripts = Scripts(&lab);
    let tell = "echo $0 $MULTIWANS_WAN $MULTIWANS_PREVIOUS-$MULTIWANS_STATE $MULTIWANS_DEFAULT >> trace";
    scripts.hook("eth1/up/x", tell)?;
    scripts.hook("eth1/down/10-ten", tell)?;
    scripts.hook("eth1/down/9-fails", &format!("{tell}; echo oh; echo no >&2; exit 3"))?;
    scripts.hook("eth1/down/09-first", "env | grep MULTIWANS_ | sort > environment; id -u; pwd")?;
    let mut daemon = Daemon::start(&lab, &Config::of(&lab))?;
    // At the start as well, but each state once however often it is probed.
    scripts.wait_trace(&["/run/scripts/eth1/up/x WAN1 UNKNOW-ON WAN1"])?;

    lab.pull_cable(1)?;
    scripts.wait_trace(&[
        "/run/scripts/eth1/up/x WAN1 UNKNOW-ON WAN1",
        "/run/scripts/eth1/down/9-fails WAN1 ON-OFF WAN2",
        "/run/scripts/eth1/down/10-ten WAN1 ON-OFF WAN2",
    ])?;
    assert_eq!(
        fs::read_to_string(scripts.path("environment"))?,
        "MULTIWANS_DEFAULT=WAN2\nMULTIWANS_FWMARK=0x1/0xff\nMULTIWANS_GATEWAY=10.0.1.1\nMULTIWANS_IFACE=eth1\n\
         MULTIWANS_IP=10.0.1.2\nMULTIWANS_MARK=1\nMULTIWANS_PREVIOUS=ON\nMULTIWANS_REASON=no carrier\n\
         MULTIWANS_STATE=OFF\nMULTIWANS_TABLE=1\nMULTIWANS_WAN=WAN1\n"
    );
    lab.plug_cable(1)?;
    daemon.wait_status("WAN1 on", RETURN_NOTICED, |s| s.is_on(1))?;
    wait_until("the fourth hook", SOON, || scripts.trace().len() == 4)?;
    assert_eq!(scripts.trace()[3], "/run/scripts/eth1/up/x WAN1 OFF-ON WAN1");

    let log = daemon.log();
    for line in [
        "hook eth1/down/09-first: 0",
        "hook eth1/down/09-first: /run/scripts",
        "hook eth1/down/9-fails: oh",
        "hook eth1/down/9-fails: no",
        "ERROR: hook eth1/down/9-fails failed with exit code 3",
        "hook eth1/down/10-ten done in",
    ] {
        assert!(log.contains(line), "{line}\n{log}");
    }
    daemon.terminate()?;
    assert_eq!(scripts.trace().len(), 4, "a stop changes no state");
    Ok(())
}

#[test]
fn what_is_not_to_be_trusted_is_not_run() -> Result<()> {
    let lab = Lab::builder().build()?;
    let scripts = Scripts(&lab);
    let run = "echo $0 >> trace";
    scripts.hook("eth1/up/good", run)?;
    scripts.hook("eth1/up/not-executable", run)?;
    scripts.mode("eth1/up/not-executable", 0o644)?;
    scripts.hook("eth1/up/world-writable", run)?;
    scripts.mode("eth1/up/world-writable", 0o777)?;
    scripts.hook("eth1/up/of-a-user", run)?;
    std::os::unix::fs::chown(scripts.path("eth1/up/of-a-user"), Some(1000), None)?;
    symlink("/no/where", scripts.path("eth1/up/dangling"))?;
    scripts.hook("eth2/up/in-an-open-folder", run)?;
    scripts.mode("eth2/up", 0o777)?;
    let mut daemon = Daemon::start(&lab, &Config::of(&lab))?;
    scripts.wait_trace(&["/run/scripts/eth1/up/good"])?;
    let log = wait_for("the warnings", SOON, || {
        let log = daemon.log();
        let all = [
            "WARN: hook eth1/up/dangling is not run: it is a link to what cannot be found",
            "WARN: hook eth1/up/of-a-user is not run: /run/scripts/eth1/up/of-a-user must be owned by root",
            "WARN: hook eth1/up/world-writable is not run: /run/scripts/eth1/up/world-writable must not be writable",
            "WARN: no hooks of eth2/up are run: /run/scripts/eth2/up must not be writable by others than root",
        ];
        all.iter().all(|line| log.contains(line)).then_some(log)
    })
    .with_context(|| daemon.log())?;
    assert!(!log.contains("not-executable"), "a note is no hook\n{log}");
    daemon.terminate()?;
    assert_eq!(scripts.trace().len(), 1);
    Ok(())
}

#[test]
fn a_hook_gone_wild_harms_nothing_else() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80])?;
    let scripts = Scripts(&lab);
    let sleepers = Sleepers::new();
    let hour = &sleepers.0;
    scripts.hook("eth1/down/1-loud", "head -c 100000000 /dev/zero | tr '\\0' x; echo loud >> trace")?;
    scripts.hook("eth1/down/2-forks", &format!("sleep {hour} >&- 2>&- &\necho forks >> trace"))?;
    scripts.hook("eth1/down/3-asleep", &format!("sleep {hour} & sleep {hour}; echo never >> trace"))?;
    scripts.hook("eth1/down/4-after", "echo after >> trace")?;
    scripts.hook("eth1/up/back", "echo back >> trace")?;
    scripts.hook("eth2/down/quick", "echo quick >> trace")?;
    let config = Config::of(&lab).extra("hooks: {timeout: 12}");
    let mut daemon = Daemon::start(&lab, &config)?;
    scripts.wait_trace(&["back"])?;
    let before = resident(daemon.pid())?;

    let client = lab.client(Ns::Client);
    lab.pull_cable(1)?;
    client.wait_seen(wan_ip(2), INTERNET, 80, CABLE_NOTICED)?;
    wait_until("the first hooks", Duration::from_secs(10), || scripts.trace().len() == 3)?;
    assert_eq!(scripts.trace()[1..], ["loud", "forks"]);
    let grown = resident(daemon.pid())?.saturating_sub(before);
    assert!(grown < 8_000, "{grown} kB more");
    wait_until("the sleepers", SOON, || sleepers.find().len() == 3)?;

    // While it sleeps: failover goes on, and the other interface's hooks.
    lab.plug_cable(1)?;
    client.wait_seen(wan_ip(1), INTERNET, 80, RETURN_NOTICED)?;
    lab.pull_cable(2)?;
    wait_until("eth2's hook", SOON, || scripts.trace().last().is_some_and(|last| last == "quick"))?;

    wait_until("the rest", Duration::from_secs(30), || scripts.trace().len() == 6)?;
    assert_eq!(scripts.trace(), ["back", "loud", "forks", "quick", "after", "back"]);
    // After a timeout the whole group is ended; what another hook left running goes on.
    wait_until("the end of all but one sleeper", SOON, || sleepers.find().len() == 1)?;
    let log = daemon.log();
    assert!(log.contains("ERROR: hook eth1/down/3-asleep ran longer than hooks.timeout (12 s)"), "{log}");
    assert!(log.contains("WARN: hook eth1/down/1-loud: 99999"), "{log}");
    assert!(log.len() < 1_000_000, "{} bytes", log.len());
    daemon.terminate()
}

#[test]
fn whatever_a_hook_does_the_other_link_s_run_in_time_and_traffic_moves() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80])?;
    let scripts = Scripts(&lab);
    let sleepers = Sleepers::new();
    let hour = &sleepers.0;
    scripts.hook("eth2/down/quick", "date +%s.%N >> quick")?;
    scripts.hook("eth1/down/z-after", "echo after >> trace")?;
    let config = Config::of(&lab).extra("hooks: {timeout: 3}");
    let mut daemon = Daemon::start(&lab, &config)?;
    let client = lab.client(Ns::Client);
    // Each with what the log says of it in the end.
    let cases = [
        ("sleeps", format!("sleep {hour}"), "ran longer than hooks.timeout (3 s)"),
        ("deaf", format!("trap '' TERM; sleep {hour}; sleep {hour}"), "ran longer than hooks.timeout (3 s)"),
        // Out of the process group, and with the hook's output still open.
        ("daemonises", format!("setsid sh -c 'sleep {hour} & sleep {hour}' & echo started"), "done in"),
        (
            "prints",
            "head -c 100000000 /dev/zero | tr '\\0' x".to_owned(),
            "bytes more of its output are left out",
        ),
        ("prints-without-end", "yes".to_owned(), "ran longer than hooks.timeout (3 s)"),
        ("not-executable", String::new(), ""),
        ("to-nowhere", String::new(), "is a link to what cannot be found"),
    ];
    for (round, (name, body, told)) in cases.iter().enumerate() {
        let below = format!("eth1/down/{name}");
        match *name {
            "to-nowhere" => symlink("/no/where", scripts.path(&below))?,
            _ => scripts.hook(&below, body)?,
        }
        if *name == "not-executable" {
            scripts.mode(&below, 0o644)?;
        }
        lab.pull_cable(1)?;
        client.wait_seen(wan_ip(2), INTERNET, 80, CABLE_NOTICED).context(*name)?;
        lab.pull_cable(2)?;
        let quick = || fs::read_to_string(scripts.path("quick")).unwrap_or_default().lines().count();
        wait_until("eth2's hook", CABLE_NOTICED, || quick() == round + 1).context(*name)?;
        // And what comes after it in its own queue, once it is done with.
        wait_until("the next hook", Duration::from_secs(20), || scripts.trace().len() == round + 1)
            .with_context(|| format!("{name}\n{}", daemon.log()))?;
        wait_until("its end in the log", SOON, || {
            let log = daemon.log();
            log.lines().any(|line| {
                line.contains(&format!("hook {below} ")) && line.contains(told) || told.is_empty()
            }) || log.lines().any(|line| line.contains(&format!("hook {below}: ")) && line.contains(told))
        })
        .with_context(|| format!("{name}: {told}\n{}", daemon.log()))?;
        fs::remove_file(scripts.path(&below))?;
        lab.plug_cable(1)?;
        lab.plug_cable(2)?;
        daemon.wait_status("both on", RETURN_NOTICED, |s| s.is_on(1) && s.is_on(2))?;
    }
    assert!(!daemon.log().contains("hook eth1/down/not-executable"), "{}", daemon.log());
    // What left the group goes on: two sleepers of one hook. Everything else was ended.
    wait_until("the end of the others", SOON, || sleepers.find().len() == 2)
        .with_context(|| format!("{:?}", sleepers.find()))?;
    daemon.terminate()
}

#[test]
fn a_stop_waits_for_no_hook_for_long() -> Result<()> {
    let lab = Lab::builder().build()?;
    let scripts = Scripts(&lab);
    scripts.hook("eth1/up/deaf", "trap '' TERM; echo begun >> trace; while :; do sleep 0.1; done")?;
    let mut daemon = Daemon::start(&lab, &Config::of(&lab))?;
    scripts.wait_trace(&["begun"])?;
    let started = std::time::Instant::now();
    daemon.terminate()?;
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    assert!(daemon.log().contains("WARN: hook eth1/up/deaf was ended"), "{}", daemon.log());
    Ok(())
}

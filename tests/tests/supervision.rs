//! Under systemd: the unit file, the notifications, the watchdog, the capabilities, the journal.

use anyhow::{Context, Result, ensure};
use multiwans_tests::topology::{INTERNET, wan_ip};
use multiwans_tests::wait::{stays_true, wait_for, wait_until};
use multiwans_tests::{Config, Daemon, Lab, Ns, daemon};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../multiwans.service");

fn web_config(lab: &Lab) -> Config {
    Config::of(lab).filter(2, "web", "protocol: tcp, dports: [80]")
}

/// Listens for datagrams below the lab's `/run`.
fn listen(lab: &Lab, path: &str) -> Result<UnixDatagram> {
    let path = lab.router_files().run().join(path);
    fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
    let socket = UnixDatagram::bind(&path).with_context(|| format!("cannot listen on {}", path.display()))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn receive(socket: &UnixDatagram) -> Option<String> {
    let mut buffer = [0; 16 * 1024];
    let length = socket.recv(&mut buffer).ok()?;
    Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// The unit as it would be installed, with the program that was just built.
fn unit_of_this_build(directory: &Path) -> Result<PathBuf> {
    let unit = fs::read_to_string(UNIT)?;
    let binary = daemon::binary()?;
    let path = directory.join("multiwans.service");
    fs::write(&path, unit.replace("/usr/local/sbin/multiwans", &binary.to_string_lossy()))?;
    Ok(path)
}

#[test]
fn the_unit_is_valid_and_confined() -> Result<()> {
    let directory = std::env::temp_dir().join(format!("multiwans-unit-{}", std::process::id()));
    fs::create_dir_all(&directory)?;
    let unit = unit_of_this_build(&directory)?;
    let verified = Command::new("systemd-analyze").arg("verify").arg(&unit).output()?;
    let said = String::from_utf8_lossy(&verified.stderr).into_owned();
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("multiwans")).collect();
    ensure!(verified.status.success() && ours.is_empty(), "{}: {said}", verified.status);

    let secured = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager"])
        .arg(&unit)
        .output()?;
    let text = String::from_utf8_lossy(&secured.stdout).into_owned();
    let score = text.lines().rfind(|line| line.contains("Overall exposure level"));
    let score =
        score.and_then(|line| line.split(": ").nth(1)?.split_whitespace().next()?.parse::<f32>().ok());
    // 9.6 without any of it. What is open is open for hooks.
    ensure!(score.is_some_and(|score| score < 5.0), "{score:?}\n{text}");
    fs::remove_dir_all(&directory)?;
    Ok(())
}

#[test]
fn the_service_manager_is_told_of_readiness_state_life_and_stop() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80])?;
    let socket = listen(&lab, "notify")?;
    lab.blackhole(2)?;
    let mut daemon = Daemon::spawn_with(&lab, &web_config(&lab), |command| {
        command.env("NOTIFY_SOCKET", "/run/notify").env("WATCHDOG_USEC", "400000");
    })?;
    let mut heard = Vec::new();
    wait_until("READY=1", Duration::from_secs(15), || {
        heard.extend(receive(&socket));
        heard.last().is_some_and(|told| told.lines().any(|line| line == "READY=1"))
    })
    .with_context(|| format!("{heard:?}"))?;
    // Ready is ready: judged, routed, steered.
    let status = daemon.status()?;
    assert!(status.is_on(1) && status.is_off(2) && status.defaults_to(1), "{status:?}");
    let ready = heard.last().cloned().unwrap_or_default();
    assert!(
        ready.contains("STATUS=default WAN1; 1 of 2 links ON; WAN2 OFF: no reply from any of"),
        "{ready}"
    );
    assert_eq!(lab.client(Ns::Client).seen_by_tcp(INTERNET, 80)?, wan_ip(1));

    lab.heal(2)?;
    wait_for("the news", Duration::from_secs(15), || {
        receive(&socket).filter(|told| told == "STATUS=default WAN1; 2 of 2 links ON\n")
    })?;

    // Twice within the limit of 0.4 s; and never again once the process hangs.
    let beats = |time: Duration| {
        let mut beats = 0;
        stays_true("listening", time, || {
            beats += std::iter::from_fn(|| receive(&socket)).filter(|told| told == "WATCHDOG=1\n").count();
            true
        })
        .map(|()| beats)
    };
    let alive = beats(Duration::from_secs(2))?;
    assert!((7..=11).contains(&alive), "{alive}");
    daemon.signal(Signal::SIGSTOP)?;
    beats(Duration::from_millis(300))?;
    assert_eq!(beats(Duration::from_secs(1))?, 0);
    daemon.signal(Signal::SIGCONT)?;
    assert!(beats(Duration::from_secs(1))? > 2);

    daemon.terminate()?;
    let last: Vec<String> = std::iter::from_fn(|| receive(&socket)).collect();
    assert!(last.iter().any(|told| told.lines().any(|line| line == "STOPPING=1")), "{last:?}");
    Ok(())
}

/// The capabilities the unit leaves, by name.
fn unit_capabilities() -> Result<Vec<String>> {
    let unit = fs::read_to_string(UNIT)?;
    let lines = unit.lines().filter_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    Ok(lines.flat_map(str::split_whitespace).map(str::to_owned).collect())
}

#[test]
fn the_units_capabilities_are_enough() -> Result<()> {
    // linux/capability.h
    let numbers = BTreeMap::from([
        ("CAP_CHOWN", 0),
        ("CAP_DAC_OVERRIDE", 1),
        ("CAP_FOWNER", 3),
        ("CAP_KILL", 5),
        ("CAP_SETGID", 6),
        ("CAP_SETUID", 7),
        ("CAP_NET_BIND_SERVICE", 10),
        ("CAP_NET_ADMIN", 12),
        ("CAP_NET_RAW", 13),
        ("CAP_PERFMON", 38),
        ("CAP_BPF", 39),
    ]);
    let named = unit_capabilities()?;
    let kept: Vec<u64> = named.iter().filter_map(|name| numbers.get(name.as_str()).copied()).collect();
    assert_eq!(kept.len(), named.len(), "{named:?}");

    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80, 443])?;
    let mut daemon = Daemon::spawn_with(&lab, &web_config(&lab), |command| {
        let drop_others = move || {
            // 63 is the most that a set of capabilities can hold; beyond the last there is EINVAL.
            for capability in (0..64u64).filter(|capability| !kept.contains(capability)) {
                // SAFETY: this option takes a number and no memory.
                unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
            }
            Ok::<(), io::Error>(())
        };
        // SAFETY: between fork and exec this makes system calls only.
        unsafe { command.pre_exec(drop_others) };
    })?;
    daemon.wait_ready()?;
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid()))?;
    assert!(status.lines().any(|line| line == "CapEff:\t000000c0000034eb"), "{status}");
    let client = lab.client(Ns::Client);
    assert_eq!(client.seen_by_tcp(INTERNET, 80)?, wan_ip(2));
    lab.pull_cable(1)?;
    client.wait_seen(wan_ip(2), INTERNET, 443, Duration::from_secs(2))?;
    // The audit has its own questions to the kernel.
    lab.sh(Ns::Router, "ip rule del priority 30000")?;
    wait_until("healing", Duration::from_secs(1), || {
        daemon.log().contains("rule 30000: from all lookup main")
    })?;
    stays_true("no complaint by the audit", Duration::from_secs(11), || {
        !daemon.log().contains("ERROR") && !daemon.log().contains("cannot be looked at")
    })?;
    daemon.terminate()
}

#[test]
fn the_journal_gets_each_line_once_with_level_and_facility() -> Result<()> {
    let lab = Lab::builder().build()?;
    let socket = listen(&lab, "systemd/journal/socket")?;
    let log = lab.router_files().run().join("stderr");
    let mut daemon = Daemon::spawn_with(&lab, &web_config(&lab), |command| {
        let Ok((file, metadata)) =
            fs::File::create(&log).and_then(|file| Ok((file.try_clone()?, file.metadata()?)))
        else {
            return;
        };
        command.env("JOURNAL_STREAM", format!("{}:{}", metadata.dev(), metadata.ino())).stderr(file);
    })?;
    // As the journal does it: whatever comes is taken at once. The daemon waits for its journal.
    let entries = Arc::new(Mutex::new(Vec::new()));
    let stop = Arc::new(AtomicBool::new(false));
    let reader = {
        let (entries, stop) = (Arc::clone(&entries), Arc::clone(&stop));
        socket.set_nonblocking(false)?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                if let (Some(entry), Ok(mut entries)) = (receive(&socket), entries.lock()) {
                    entries.push(entry);
                }
            }
        })
    };
    let find = |words: &str| {
        wait_for(words, Duration::from_secs(15), || {
            let entries = entries.lock().ok()?;
            entries.iter().find(|entry| entry.contains(words)).cloned()
        })
    };
    let entry = find("default is WAN1")?;
    for field in ["PRIORITY=6", "SYSLOG_IDENTIFIER=multiwans", "SYSLOG_FACILITY=3"] {
        // A value is written in one line, or with its length before it.
        let (name, value) = field.split_once('=').unwrap_or_default();
        let there =
            entry.contains(field) || entry.split(name).nth(1).is_some_and(|rest| rest.contains(value));
        assert!(there, "{field} in {entry:?}");
    }
    daemon.wait_ready()?;
    lab.pull_cable(1)?;
    assert!(find("OFF: no carrier")?.contains("PRIORITY"));
    daemon.terminate()?;
    find("of multiwans only the default route is left: default via 10.0.2.1 dev eth2 ")?;
    stop.store(true, Ordering::Relaxed);
    reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))?;
    assert_eq!(fs::read_to_string(&log)?, "", "nothing twice");
    Ok(())
}

#[test]
fn lines_in_a_file_look_as_syslog_writes_them() -> Result<()> {
    let lab = Lab::builder().build()?;
    let config = web_config(&lab).to_string().replace("daemon: {", "daemon: {logLevel: warn, ");
    let run = |more: &[&str]| -> Result<String> {
        fs::write(lab.router_files().run().join("config.yaml"), &config)?;
        let mut child = daemon::command(&lab)?
            .args(["run", "-c", "/run/config.yaml"])
            .args(more)
            .stderr(fs::File::create(lab.router_files().run().join("lines"))?)
            .spawn()?;
        lab.pull_cable(2)?;
        let text = || fs::read_to_string(lab.router_files().run().join("lines")).unwrap_or_default();
        let told = wait_until("a warning", Duration::from_secs(15), || text().contains("no carrier"));
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(child.id())?), Signal::SIGTERM)?;
        child.wait()?;
        lab.plug_cable(2)?;
        told.map(|_| text())
    };
    let quiet = run(&[])?;
    assert!(!quiet.contains("INFO") && quiet.contains(": WARN: WAN2 (eth2): OFF: no carrier"), "{quiet}");
    let words: Vec<&str> = quiet.lines().next().unwrap_or_default().split_whitespace().collect();
    assert!(words[2].split(':').count() == 3 && words[4].starts_with("multiwans["), "{words:?}");
    // The option comes before the key.
    assert!(run(&["--log-level", "info"])?.contains("INFO: multiwans 0.1.0 starts"));
    Ok(())
}

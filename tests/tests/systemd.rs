//! The installed unit under a real systemd: a Debian 12 booted in the place of the lab's router. Its root
//! comes from `cargo xtask systemd`, which runs these tests; they share it, so they run one by one.

use anyhow::{Context, Result, ensure};
use multiwans_tests::smtp::Options;
use multiwans_tests::status::{State, Status};
use multiwans_tests::topology::{INTERNET, wan_ip};
use multiwans_tests::wait::{stays_true, wait_until};
use multiwans_tests::{Config, Lab, Machine, Ns, Residue};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);
/// The programs' verification by a debug build, and the judgement of a link that is dead.
const START: Duration = Duration::from_secs(30);
const WEB: &str = "protocol: tcp, dports: [80]";
const OWN_WEB: &str = "chainMangle: OUTPUT, protocol: tcp, dports: [80]";

fn config(lab: &Lab) -> Config {
    Config::of(lab).status_file("/tmp/.multiwans.status")
}

/// A machine with the daemon installed and this configuration, not started yet.
fn machine(lab: &Lab, config: &Config, drop_in: &str) -> Result<Machine> {
    let machine = Machine::boot(lab)?;
    machine.write("/etc/multiwans/config.yaml", &config.to_string())?;
    machine.write("/etc/systemd/system/multiwans.service.d/test.conf", &format!("[Service]\n{drop_in}\n"))?;
    machine.sh("systemctl daemon-reload")?;
    Ok(machine)
}

fn status(machine: &Machine) -> Result<Status> {
    Status::parse(&machine.sh("multiwans status --json || true")?)
}

fn wait_status(machine: &Machine, what: &str, is_so: impl Fn(&Status) -> bool) -> Result<()> {
    let waited = wait_until(what, START, || status(machine).is_ok_and(|status| is_so(&status)));
    waited.map(drop).with_context(|| format!("{:?}", status(machine)))
}

fn journal(machine: &Machine) -> String {
    machine.sh("journalctl --no-pager -o cat -u multiwans").unwrap_or_else(|error| format!("{error:#}"))
}

#[test]
#[ignore = "cargo xtask systemd runs it"]
fn a_service_s_life() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80, 443])?;
    let config = config(&lab).filter(2, "web", WEB).filter(2, "own", OWN_WEB);
    let machine = machine(&lab, &config, "")?;
    let client = lab.client(Ns::Client);
    let before = Residue::take(&lab)?;

    // Not active before every link is judged and all is in force.
    lab.blackhole(2)?;
    machine.sh("systemctl start --no-block multiwans")?;
    wait_until("active", START, || {
        let state = machine.unit("ActiveState").unwrap_or_default();
        assert!(["activating", "active"].contains(&state.as_str()), "{state}");
        state == "active"
    })?;
    let judged = status(&machine)?;
    assert!(judged.wans.iter().all(|wan| wan.state != State::Unknown) && judged.is_off(2), "{judged:?}");
    assert_eq!(client.seen_by_tcp(INTERNET, 80)?, wan_ip(1));
    let text = machine.sh("systemctl status --no-pager multiwans")?;
    ensure!(text.contains("Status: \"default WAN1; 1 of 2 links ON; WAN2 OFF: no reply from"), "{text}");
    lab.heal(2)?;
    wait_status(&machine, "WAN2 on", |status| status.is_on(2))?;
    assert_eq!(client.seen_by_tcp(INTERNET, 80)?, wan_ip(2));
    // A process of another service of this machine.
    let own = format!("systemd-run --quiet --pipe --wait bash -c 'head -n1 </dev/tcp/{INTERNET}/80'");
    ensure!(machine.sh(&own)?.starts_with(&format!("{}:", wan_ip(2))), "{}", machine.sh(&own)?);

    // Monitoring, which is another service and another user, reads the status file.
    let file = machine.sh("runuser -u nobody -- cat /tmp/.multiwans.status")?;
    ensure!(file.contains("eth1") && file.contains("ON"), "{file}");

    // In the journal by its own protocol: priorities, facility, identifier.
    let lines = machine.sh("journalctl --no-pager -o json -u multiwans _COMM=multiwans")?;
    let lines: Vec<Value> = lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let line = |text: &str| {
        let found = lines.iter().find(|line| line["MESSAGE"].as_str().is_some_and(|it| it.contains(text)));
        found.with_context(|| format!("{text} in {lines:?}"))
    };
    let (starts, off) = (line("starts: 2 WANs")?, line("WAN2 (eth2): OFF: no reply")?);
    assert_eq!((starts["PRIORITY"].as_str(), off["PRIORITY"].as_str()), (Some("6"), Some("4")));
    for (field, value) in
        [("SYSLOG_IDENTIFIER", "multiwans"), ("SYSLOG_FACILITY", "3"), ("_TRANSPORT", "journal")]
    {
        assert_eq!(off[field].as_str(), Some(value), "{field} of {off}");
    }

    // A restart breaks no session of the default link. (One of another link breaks when it sends in the gap:
    // MASQUERADE gives up a translation whose packet leaves by another interface.)
    let sessions = [client.tcp_session(INTERNET, 443)?, client.tcp_session(INTERNET, 443)?];
    machine.sh("systemctl restart multiwans")?;
    for session in sessions {
        let report = session.finish()?;
        assert!(report.messages > 10, "{report:?}");
    }

    machine.sh("systemctl stop multiwans")?;
    assert_eq!(machine.unit("Result")?, "success");
    before.check_same(&Residue::take(&lab)?)?;
    ensure!(!machine.path("/tmp/.multiwans.status").exists(), "the status file is still there");
    let left = machine.sh("ls -A /run/multiwans /etc/iproute2/rt_tables.d 2>/dev/null || true")?;
    ensure!(!left.contains("sock") && !left.contains("multiwans-"), "{left}");
    Ok(())
}

#[test]
#[ignore = "cargo xtask systemd runs it"]
fn a_reload_says_why_not() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80])?;
    let config = config(&lab);
    let machine = machine(&lab, &config, "")?;
    machine.sh("systemctl start multiwans")?;
    let client = lab.client(Ns::Client);
    let pid = machine.unit("MainPID")?;

    machine.write("/etc/multiwans/config.yaml", &config.clone().filter(2, "web", WEB).to_string())?;
    machine.sh("systemctl reload multiwans")?;
    // `systemctl reload` has waited for it.
    assert_eq!(client.seen_by_tcp(INTERNET, 80)?, wan_ip(2));

    for (text, why) in [
        (
            config.to_string().replace("runInterval: 10", "runInterval: 1"),
            "config.yaml:1:23: daemon.runInterval (1) must be",
        ),
        (
            config.to_string().replace("gateway: 10.0.2.1", "gateway: 10.0.2.7"),
            "WAN2.gateway 10.0.2.1 -> 10.0.2.7: needs a restart",
        ),
    ] {
        machine.write("/etc/multiwans/config.yaml", &text)?;
        let output = machine.run("systemctl reload multiwans")?;
        ensure!(!output.status.success(), "{output:?}");
        let text = machine.sh("systemctl status --no-pager --full multiwans")?;
        ensure!(text.contains(why) && text.contains("active (running)"), "{text}");
        // From the daemon with its priority, and from the command that the operator's request ran.
        let priority = machine.sh("journalctl --no-pager -o cat -p err -u multiwans")?;
        ensure!(priority.contains(why), "{priority}");
        assert_eq!(client.seen_by_tcp(INTERNET, 80)?, wan_ip(2));
    }
    // By the signal, too: the manager sees a reload that it did not ask for.
    machine.write("/etc/multiwans/config.yaml", &config.to_string())?;
    machine.sh("systemctl kill --kill-who=main --signal=HUP multiwans")?;
    wait_until("the filter's removal", SOON, || {
        client.seen_by_tcp(INTERNET, 80).is_ok_and(|s| s == wan_ip(1))
    })?;
    wait_until("the reload's end", SOON, || {
        machine.unit("ActiveState").is_ok_and(|state| state == "active")
    })?;
    assert_eq!(machine.unit("MainPID")?, pid);
    assert_eq!(machine.unit("NRestarts")?, "0");
    machine.sh("systemctl stop multiwans").map(drop)
}

#[test]
#[ignore = "cargo xtask systemd runs it"]
fn what_hangs_or_dies_is_started_anew_and_adopts_what_it_left() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80, 443])?;
    let before = Residue::take(&lab)?;
    let machine = machine(&lab, &config(&lab).filter(2, "web", WEB), "WatchdogSec=3s\nRestartSec=500ms")?;
    machine.sh("systemctl start multiwans")?;
    let client = lab.client(Ns::Client);
    let session = client.tcp_session(INTERNET, 443)?;
    assert_eq!(session.seen, wan_ip(1));
    for (restarts, signal, result) in [("1", "STOP", "watchdog"), ("2", "KILL", "killed")] {
        let pid = machine.unit("MainPID")?;
        machine.sh(&format!("kill -{signal} {pid}"))?;
        wait_until("a new process", START, || {
            machine.unit("NRestarts").is_ok_and(|n| n == restarts)
                && machine.unit("ActiveState").is_ok_and(|state| state == "active")
        })
        .with_context(|| journal(&machine))?;
        assert_ne!(machine.unit("MainPID")?, pid, "{result}");
        assert_eq!(client.seen_by_tcp(INTERNET, 80)?, wan_ip(2));
    }
    let systemd = machine.sh("journalctl --no-pager -o cat -u multiwans _PID=1")?;
    ensure!(systemd.contains("Watchdog timeout") && systemd.contains("status=9/KILL"), "{systemd}");
    let report = session.finish()?;
    assert!(report.messages > 10, "{report:?}");
    machine.sh("systemctl stop multiwans")?;
    before.check_same(&Residue::take(&lab)?)
}

/// Says of each thing that hooks do whether it could be done.
const HOOK: &str = r#"#!/bin/sh
try() {
    name=$1
    shift
    if said=$("$@" 2>&1); then echo "$name ok"; else echo "$name failed: $said"; fi >>/etc/multiwans/said
}
try etc touch /etc/hook-was-here
try ip ip route replace 192.0.2.0/24 dev eth1
try firewall iptables -t mangle -A PREROUTING -j RETURN
try runuser runuser -u nobody -- id
try su su -s /bin/sh nobody -c id
try chown chown nobody /etc/hook-was-here
try systemctl systemctl start helper
try tmp touch /tmp/hook-was-here
try root cat /root/key
try var touch /var/lib/hook-was-here
try usr touch /usr/hook-was-here
try mount mount -t tmpfs none /mnt
echo end >>/etc/multiwans/said
"#;

#[test]
#[ignore = "cargo xtask systemd runs it"]
fn hooks_and_ifupdown_do_their_work_in_the_sandbox() -> Result<()> {
    let lab = Lab::builder().build()?;
    let machine = machine(&lab, &config(&lab), "")?;
    machine.write("/root/key", "secret")?;
    machine.write(
        "/etc/systemd/system/helper.service",
        "[Service]\nType=oneshot\nExecStart=touch /run/helped\n",
    )?;
    machine.write("/etc/multiwans/scripts/eth1/up/try", HOOK)?;
    let hook = machine.path("/etc/multiwans/scripts/eth1/up/try");
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755))?;
    // As an administrator has it: a static address, and a script of the package's kind.
    let interfaces = "iface eth2 inet static\n    address 10.0.2.2/24\n    up touch /etc/ifup-was-here\n";
    machine.write("/etc/network/interfaces", interfaces)?;
    machine.sh("mkdir -p /run/network; echo eth2=eth2 >>/run/network/ifstate; systemctl daemon-reload")?;
    machine
        .sh("rm -f /etc/hook-was-here /etc/ifup-was-here /etc/multiwans/said; systemctl start multiwans")?;

    let said = || fs::read_to_string(machine.path("/etc/multiwans/said")).unwrap_or_default();
    wait_until("the hook's end", START, || said().ends_with("end\n")).with_context(|| journal(&machine))?;
    let said = said();
    for name in ["etc", "ip", "firewall", "runuser", "su", "chown", "systemctl", "tmp", "root", "var"] {
        ensure!(said.contains(&format!("{name} ok\n")), "{name}:\n{said}");
    }
    ensure!(said.contains("usr failed") && said.contains("mount failed"), "{said}");
    ensure!(machine.path("/tmp/hook-was-here").exists() && machine.path("/run/helped").exists(), "{said}");
    assert_eq!(fs::metadata(machine.path("/etc/hook-was-here"))?.uid(), 65_534);

    machine.sh("ip link set eth2 down")?;
    wait_status(&machine, "WAN2 off", |status| status.is_off(2))?;
    wait_status(&machine, "WAN2 on", |status| status.is_on(2)).with_context(|| journal(&machine))?;
    ensure!(machine.path("/etc/ifup-was-here").exists(), "{}", journal(&machine));
    ensure!(!journal(&machine).contains("WARN"), "{}", journal(&machine));
    machine.sh("systemctl stop multiwans; rm -r /etc/multiwans/scripts; iptables -t mangle -F; : >/etc/network/interfaces").map(drop)
}

#[test]
#[ignore = "cargo xtask systemd runs it"]
fn mails_go_with_a_password_that_systemd_keeps() -> Result<()> {
    let lab = Lab::builder().build()?;
    let server = lab.mail_server(&Options::plain(25).login("router", "hunter2"))?;
    let email = format!("email: {{host: {INTERNET}, to: noc@example.org, tls: none, username: router}}");
    let credential = "LoadCredential=email-password:/etc/multiwans/email-password";
    let machine = machine(&lab, &config(&lab).extra(&email), credential)?;
    machine.write("/etc/multiwans/email-password", "hunter2\n")?;
    machine.sh("chmod 600 /etc/multiwans/email-password; systemctl start multiwans")?;
    server.wait_mail("START", 0, START).with_context(|| journal(&machine))?;
    assert_eq!(server.logins()[0], "router PLAIN plain");
    // The credential is the daemon's alone, and still there for a reload.
    machine.write(
        "/etc/multiwans/config.yaml",
        &config(&lab).extra(&email.replace("noc@", "two@")).to_string(),
    )?;
    machine.sh("systemctl reload multiwans")?;
    machine.sh("systemctl stop multiwans")?;
    server.wait_mail("STOP", 1, SOON)?;
    stays_true("no more mails", Duration::from_millis(200), || server.mails().len() == 2)?;
    assert_eq!(server.mails()[1].recipients(), ["two@example.org"]);
    ensure!(!journal(&machine).contains("hunter2"), "the password in the journal");
    Ok(())
}

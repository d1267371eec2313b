//! What the daemon tells: `multiwans status`, and the status file that monitoring reads.

use anyhow::Result;
use multiwans_tests::daemon::binary;
use multiwans_tests::wait::wait_until;
use multiwans_tests::{Config, Daemon, Lab};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const SECOND: Duration = Duration::from_secs(1);

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[test]
fn the_status_follows_the_links() -> Result<()> {
    let lab = Lab::builder().build()?;
    let mut daemon = Daemon::start(&lab, &Config::of(&lab))?;
    let status = daemon.status()?;
    assert_eq!(status.default.as_deref(), Some("WAN1"));
    assert_eq!(status.wans.len(), 2);
    assert_eq!((status.wan(2).iface.as_str(), status.wan(2).mark), ("eth2", 2));
    assert!(status.is_on(1) && status.is_on(2));

    // `since` counts whole seconds: the failure is to fall into another one than the start.
    wait_until("another second", 2 * SECOND, || status.wan(2).since.as_u64() < Some(unix_seconds()))?;
    lab.pull_cable(2)?;
    daemon.wait_status("WAN2 off", SECOND, |s| s.is_off(2))?;
    let off = daemon.status()?;
    assert!(off.is_on(1) && off.defaults_to(1));
    assert!(!off.wan(2).reason.is_empty());
    assert_ne!(off.wan(2).since, status.wan(2).since, "since tells when it changed");
    assert_eq!(off.wan(1).since, status.wan(1).since);
    daemon.terminate()
}

#[test]
fn the_status_file_has_one_line_a_link_and_goes_with_the_daemon() -> Result<()> {
    let lab = Lab::builder().build()?;
    let mut daemon = Daemon::start(&lab, &Config::of(&lab))?;
    let file = daemon.status_file();
    let says = |wanted: &str| fs::read_to_string(&file).is_ok_and(|text| text == wanted);

    wait_until("both on", SECOND, || says("eth1:ON\neth2:ON\n"))?;
    assert_eq!(file.metadata()?.permissions().mode() & 0o777, 0o644);
    lab.pull_cable(2)?;
    wait_until("eth2 off", SECOND, || says("eth1:ON\neth2:OFF\n"))?;
    daemon.terminate()?;
    assert!(!file.exists());
    Ok(())
}

#[test]
fn the_status_file_is_never_written_through_a_link() -> Result<()> {
    let lab = Lab::builder().build()?;
    let run = lab.router_files().run();
    let victim = run.join("config-victim");
    fs::write(&victim, "precious")?;
    std::os::unix::fs::symlink("/run/config-victim", run.join("status"))?;
    let mut daemon = Daemon::spawn(&lab, &Config::of(&lab))?;
    // Whether it refuses to start or replaces the link, the file behind it stays.
    std::thread::sleep(SECOND);
    assert_eq!(fs::read_to_string(&victim)?, "precious");
    daemon.kill()
}

#[test]
fn without_a_daemon_the_status_says_so() -> Result<()> {
    let lab = Lab::builder().build()?;
    let socket = lab.router_files().run().join("none.sock");
    for form in [&["status"][..], &["status", "--json"]] {
        let output = Command::new(binary()?).args(form).arg("--socket").arg(&socket).output()?;
        assert!(!output.status.success());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("none.sock"), "{said}");
        assert!(output.stdout.is_empty());
    }
    Ok(())
}

#[test]
fn the_control_socket_moves_where_the_configuration_says() -> Result<()> {
    let lab = Lab::builder().build()?;
    let text = Config::of(&lab).to_string();
    let text = text.replace("daemon: {", "daemon: {controlSocket: /run/elsewhere.sock, ");
    let mut daemon = Daemon::spawn(&lab, &text)?;
    let socket = lab.router_files().run().join("elsewhere.sock");
    let answers = || {
        let output = Command::new(binary()?).args(["status"]).arg("--socket").arg(&socket).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        anyhow::Ok(text.contains("WAN1") && text.contains("WAN2"))
    };
    wait_until("an answer", Duration::from_secs(15), || answers().unwrap_or(false))?;
    assert!(!daemon.control_socket().exists());
    daemon.terminate()?;
    assert!(!socket.exists(), "the socket goes with the daemon");
    Ok(())
}

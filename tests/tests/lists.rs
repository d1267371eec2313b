//! Lists of prefixes in files.

use anyhow::{Context, Result};
use multiwans_tests::daemon::run_to_end;
use multiwans_tests::topology::{INTERNET, INTERNET_OTHERS, wan_ip};
use multiwans_tests::wait::wait_until;
use multiwans_tests::{Config, Daemon, Lab, Ns};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(5);

/// Packs a file where it is.
fn gzip(path: &Path) -> Result<()> {
    anyhow::ensure!(Command::new("gzip").arg(path).status().context("gzip")?.success(), "gzip");
    Ok(())
}

#[test]
fn lists_steer_are_read_anew_and_stay_when_they_break() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80])?;
    let [neighbour, far, far_neighbour, ..] = INTERNET_OTHERS;
    // `/run` in the daemon's view, the configuration's folder.
    let run = lab.router_files().run();
    fs::create_dir(run.join("lists"))?;
    let (plain, packed) = (run.join("lists/plain.txt"), run.join("lists/packed"));
    fs::write(&plain, format!("# ours\r\n\r\n{INTERNET}\t; a host\r\n"))?;
    fs::write(&packed, "198.51.100.8/30 # two hosts\n")?;
    gzip(&packed)?;
    fs::rename(run.join("lists/packed.gz"), &packed)?;
    let config = Config::of(&lab).filter(
        2,
        "listed",
        "protocol: tcp, dstFiles: [lists/plain.txt, /run/lists/packed], dst: [192.0.2.0/24]",
    );
    let mut daemon = Daemon::start(&lab, &config)?;
    let client = lab.client(Ns::Client);
    let seen = |host| client.seen_by_tcp(host, 80);
    let [.., last] = INTERNET_OTHERS;
    for (host, wan) in [(INTERNET, 2), (far, 2), (far_neighbour, 2), (last, 2), (neighbour, 1)] {
        assert_eq!(seen(host)?, wan_ip(wan), "{host}");
    }

    fs::write(&plain, format!("{neighbour}/32\n"))?;
    assert_eq!(daemon.reload()?, "reloaded: 1 filter changed (\"listed\")\n");
    assert_eq!((seen(INTERNET)?, seen(neighbour)?, seen(far)?), (wan_ip(1), wan_ip(2), wan_ip(2)));

    // Broken: what it was stays, and what else changed is taken.
    fs::write(&plain, format!("{INTERNET}/32\n10.0.0.0/40\n"))?;
    let without_other = config.to_string().replace(", /run/lists/packed", "");
    daemon.write_config(&without_other)?;
    let told = "/run/lists/plain.txt:2:1: prefix (10.0.0.0/40) must be an IPv4 address or a prefix";
    let said = daemon.reload_keeping_a_list()?;
    assert!(said.contains(&format!("a list stays as it was: {told}")), "{said}");
    let kept = || -> Result<String> { Ok(daemon.status_json()?["kept"].to_string()) };
    assert!(kept()?.contains(told), "{}", kept()?);
    wait_until("the error in the log", SOON, || {
        daemon.log().lines().any(|line| line.contains("ERROR") && line.contains(told))
    })
    .context(daemon.log())?;
    assert_eq!((seen(INTERNET)?, seen(neighbour)?, seen(far)?), (wan_ip(1), wan_ip(2), wan_ip(1)));
    fs::remove_file(&plain)?;
    daemon.reload_keeping_a_list()?;
    assert_eq!(seen(neighbour)?, wan_ip(2));

    // Mended.
    fs::write(&plain, format!("{INTERNET}\n"))?;
    daemon.reload()?;
    assert_eq!((seen(INTERNET)?, seen(neighbour)?), (wan_ip(2), wan_ip(1)));
    assert_eq!(kept()?, "[]");
    daemon.terminate()
}

#[test]
fn at_the_start_a_broken_list_is_refused_and_check_tells_of_lists() -> Result<()> {
    let lab = Lab::builder().build()?;
    let run = lab.router_files().run();
    let config = run.join("lists.yaml");
    let body = "protocol: all, srcFiles: lists.txt, dstFiles: [lists.txt, none.txt]";
    fs::write(
        &config,
        Config::of(&lab)
            .filter(2, "a", body)
            .filter(2, "b", "protocol: tcp, dstFiles: lists.txt")
            .to_string(),
    )?;
    fs::write(run.join("lists.txt"), "10.0.0.0/8\n192.0.2.0/24x\n")?;
    for command in ["run", "check"] {
        let output = run_to_end(&lab, &[command, "-c", "/run/lists.yaml"])?;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{said}");
        assert!(said.contains("/run/lists.txt:2:1: prefix (192.0.2.0/24x) must be"), "{said}");
        assert!(
            said.contains("dstFiles[1] (none.txt) must be a file that can be read: No such file"),
            "{said}"
        );
        assert!(said.contains("[WAN \"WAN2\", filter \"a\"]"), "{said}");
    }
    fs::write(run.join("lists.txt"), "10.0.0.0/8\n192.0.2.0/24\n")?;
    fs::write(run.join("none.txt"), "# nothing\n")?;
    let output = run_to_end(&lab, &["check", "-c", "/run/lists.yaml"])?;
    let (stdout, stderr) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("warning: WANS[1].filters[0].dstFiles[1] (none.txt) has no prefix"), "{stderr}");
    let lines: Vec<Vec<&str>> = stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    assert!(lines.contains(&vec!["lists.txt", "2", "2"]), "{stdout}");
    assert!(lines.contains(&vec!["none.txt", "0", "1"]), "{stdout}");
    Ok(())
}

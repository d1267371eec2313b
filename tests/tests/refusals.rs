//! What is refused: one clear reason, exit code 1, and nothing started.

use anyhow::{Context, Result};
use multiwans_tests::daemon::{binary, end_of, run_to_end};
use multiwans_tests::topology::{INTERNET, wan_ip};
use multiwans_tests::{Config, Daemon, Lab, Ns, Residue};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Output;

/// The user that Debian calls nobody.
const NOBODY: u32 = 65534;

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn a_second_start_is_refused_and_the_first_goes_on() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80])?;
    let config = Config::of(&lab).filter(2, "web", "protocol: tcp, dports: [80]");
    let mut first = Daemon::start(&lab, &config)?;
    let running = Residue::take(&lab)?;

    fs::write(lab.router_files().run().join("config-second.yaml"), config.to_string())?;
    let second = run_to_end(&lab, &["run", "-c", "/run/config-second.yaml"])?;
    assert_eq!(second.status.code(), Some(1), "{}", said(&second));
    assert!(said(&second).contains("already"), "{}", said(&second));

    running.check_same(&Residue::take(&lab)?)?;
    assert!(first.status()?.defaults_to(1));
    assert_eq!(lab.client(Ns::Client).seen_by_tcp(INTERNET, 80)?, wan_ip(2));
    first.terminate()
}

#[test]
fn an_ordinary_user_is_refused() -> Result<()> {
    let lab = Lab::builder().build()?;
    let run = lab.router_files().run();
    fs::write(run.join("config.yaml"), Config::of(&lab).to_string())?;
    // A copy: the checkout may be where nobody else may look.
    let copy = run.join("config-multiwans");
    fs::copy(binary()?, &copy)?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
    let before = Residue::take(&lab)?;

    let mut refused = std::process::Command::new("/run/config-multiwans");
    lab.router_files().show_on_exec(&mut refused)?;
    lab.namespace(Ns::Router).enter_on_exec(&mut refused);
    // SAFETY: between fork and exec this makes two system calls and allocates nothing.
    unsafe {
        refused.pre_exec(|| {
            nix::unistd::setgid(NOBODY.into())?;
            nix::unistd::setuid(NOBODY.into())?;
            Ok(())
        });
    }
    let output = end_of(refused.args(["run", "-c", "/run/config.yaml"]))?;
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("root"), "{}", said(&output));
    before.check_same(&Residue::take(&lab)?)
}

#[test]
fn a_broken_configuration_is_refused_with_its_lines() -> Result<()> {
    let lab = Lab::builder().build()?;
    let good = Config::of(&lab).filter(2, "web", "protocol: tcp, dports: [80]").to_string();
    let run = lab.router_files().run();
    let before = Residue::take(&lab)?;
    // A text of the good one, what takes its place, and a word that the message must have.
    let breaks = [
        ("mark: 2", "mark: 300", "mark"),
        ("mark: 2", "mark: 1", "mark"),
        ("gateway: 10.0.2.1", "gateway: 10.0.2.999", "gateway"),
        ("orderFailover: 2", "orderFailover: 3", "orderFailover"),
        ("iface: eth2", "ifcae: eth2", "iface"),
        ("mask: 24", "mask: 33", "mask"),
        ("protocol: tcp, dports", "protocol: icmp, dports", "dports"),
        ("dports: [80]", "dports: ['90:80']", "dports"),
        ("description: WAN2", "description: WAN1", "description"),
        ("runInterval: 10", "runInterval: 9", "runInterval"),
    ];
    for (text, broken, word) in breaks {
        let config = good.replace(text, broken);
        let line = 1 + good[..good.find(text).context("the good one has it")?].matches('\n').count();
        fs::write(run.join("config-broken.yaml"), &config)?;
        for arguments in
            [["check", "-c", "/run/config-broken.yaml"], ["run", "-c", "/run/config-broken.yaml"]]
        {
            let output = run_to_end(&lab, &arguments)?;
            let said = said(&output);
            assert_eq!(output.status.code(), Some(1), "{broken}: {said}");
            assert!(said.contains("config-broken.yaml:"), "{broken}: no file in {said}");
            assert!(said.contains(word), "{broken}: no {word} in {said}");
            // A value that stands twice may be named where it stands the second time only.
            assert!(said.contains(&format!(":{line}:")), "{broken}: no line {line} in {said}");
        }
    }
    before.check_same(&Residue::take(&lab)?)
}

#[test]
fn every_problem_is_reported_in_one_run() -> Result<()> {
    let lab = Lab::builder().build()?;
    let good = Config::of(&lab).to_string();
    let bad = good.replace("mask: 24", "mask: 99").replace("runInterval: 10", "runInterval: 5");
    fs::write(lab.router_files().run().join("config-bad.yaml"), bad)?;
    let output = run_to_end(&lab, &["check", "-c", "/run/config-bad.yaml"])?;
    assert_eq!(output.status.code(), Some(1));
    for place in ["daemon.runInterval (5)", "WANS[0].mask (99)", "WANS[1].mask (99)"] {
        assert_eq!(said(&output).matches(place).count(), 1, "{place} in {}", said(&output));
    }
    Ok(())
}

#[test]
fn a_good_configuration_passes_the_check() -> Result<()> {
    let lab = Lab::builder().build()?;
    fs::write(lab.router_files().run().join("config-good.yaml"), Config::of(&lab).to_string())?;
    let output = run_to_end(&lab, &["check", "-c", "/run/config-good.yaml"])?;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    for word in ["WAN1", "WAN2", "eth1", "eth2"] {
        assert!(said(&output).contains(word), "no {word} in the summary: {}", said(&output));
    }
    Ok(())
}

#[test]
fn a_configuration_that_is_not_there_is_refused() -> Result<()> {
    let lab = Lab::builder().build()?;
    for arguments in [["check", "-c", "/run/none.yaml"], ["run", "-c", "/run/none.yaml"]] {
        let output = run_to_end(&lab, &arguments)?;
        assert_eq!(output.status.code(), Some(1));
        assert!(said(&output).contains("/run/none.yaml"), "{}", said(&output));
    }
    Ok(())
}

//! Errors that reach a mailbox, and servers and passwords that are not as they should be.

use anyhow::{Context, Result, ensure};
use multiwans_tests::smtp::{MailServer, Options};
use multiwans_tests::topology::INTERNET;
use multiwans_tests::wait::{stays_true, wait_until};
use multiwans_tests::{Config, Daemon, Lab, daemon};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// The first judgement of every link and 2 s of collecting, on two busy cores.
const MAIL_TIME: Duration = Duration::from_secs(15);
/// A blackholed link noticed, or a returned one trusted.
const FAILOVER: Duration = Duration::from_secs(15);
/// `daemon.runInterval` of a lab.
const RUN: Duration = Duration::from_secs(10);

fn config(email: &str, lab: &Lab) -> Config {
    Config::of(lab).extra(&format!(
        "email: {{host: {INTERNET}, from: router@example.org, to: noc@example.org, {email}}}"
    ))
}

fn hook(lab: &Lab, below: &str, body: &str) -> Result<PathBuf> {
    let path = lab.router_files().run().join("scripts").join(below);
    fs::create_dir_all(path.parent().context("no folder")?)?;
    fs::write(&path, format!("#!/bin/sh\n{body}\n"))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

fn secret_file(lab: &Lab, name: &str, secret: &str) -> Result<()> {
    let path = lab.router_files().run().join(name);
    fs::create_dir_all(path.parent().context("no folder")?)?;
    fs::write(&path, secret)?;
    Ok(fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?)
}

/// How often a text is in all plain parts.
fn count(server: &MailServer, text: &str) -> usize {
    server.mails().iter().map(|mail| mail.text("plain").matches(text).count()).sum()
}

#[test]
fn a_failing_hook_makes_one_error_mail_of_its_link() -> Result<()> {
    let lab = Lab::builder().build()?;
    let server = lab.mail_server(&Options::plain(25))?;
    hook(&lab, "eth2/up/modem", "[ ! -e broken ] || { echo the modem is silent; exit 3; }")?;
    let mut daemon = Daemon::start(&lab, &config("port: 25", &lab))?;
    let start = server.wait_mail("START", 0, MAIL_TIME)?;
    assert!(!start.text("plain").contains("hook"), "{start:?}");

    lab.blackhole(2)?;
    server.wait_mail("ERROR", 1, MAIL_TIME)?;
    fs::write(lab.router_files().run().join("scripts/broken"), "")?;
    lab.heal(2)?;
    daemon.wait_status("WAN2 on", FAILOVER, |s| s.is_on(2))?;
    // Without the hook it would be a WARNING: the link is back.
    let mail = server.wait_mail("ERROR", 2, RUN)?;
    for part in ["plain", "html"] {
        let text = mail.text(part);
        let line = text
            .find("hook eth2/up/modem failed with exit code 3 after")
            .with_context(|| format!("{mail:?}"))?;
        assert!(text[line..].contains("it said last: the modem is silent"), "{text}");
        let (wan1, wan2) = (text.find("WAN1 (eth1): ON"), text.find("WAN2 (eth2): ON"));
        assert!(wan1 < wan2 && wan2.is_some_and(|wan2| wan2 < line), "it is WAN2's\n{text}");
    }
    stays_true("one mail", RUN * 2, || server.mails().len() == 3)
        .with_context(|| format!("{:?}", server.kinds()))?;
    daemon.terminate()?;
    assert_eq!(count(&server, "the modem is silent"), 1);
    Ok(())
}

#[test]
fn hooks_that_go_on_failing_keep_to_alerts_max() -> Result<()> {
    let lab = Lab::builder().build()?;
    let server = lab.mail_server(&Options::plain(25))?;
    for number in 1..=4 {
        hook(&lab, &format!("eth2/down/{number}"), "sleep 7; exit 3")?;
    }
    let mut daemon = Daemon::start(&lab, &config("port: 25", &lab))?;
    server.wait_mail("START", 0, MAIL_TIME)?;
    lab.blackhole(2)?;
    daemon.wait_logged("hook eth2/down/4 failed with exit code 3", Duration::from_secs(60))?;
    // The change and one more: `alerts.max` is 2, and the link is OFF all the time.
    stays_true("two mails", RUN + RUN / 2, || server.mails().len() <= 3)
        .with_context(|| format!("{:?}", server.kinds()))?;
    assert_eq!(server.kinds(), ["START", "ERROR", "ERROR"]);
    assert!(count(&server, "failed with exit code 3") < 4);
    // Nothing is lost: what no mail told is in the next.
    lab.heal(2)?;
    wait_until("a mail of the return", FAILOVER, || count(&server, "WAN2 (eth2): ON: ") == 2)
        .with_context(|| format!("{:?}", server.kinds()))?;
    for number in 1..=4 {
        assert_eq!(
            count(&server, &format!("hook eth2/down/{number} failed with exit code 3")),
            1,
            "{number}"
        );
    }
    daemon.terminate()
}

#[test]
fn what_goes_wrong_on_the_way_out_is_in_the_stop_mail() -> Result<()> {
    let lab = Lab::builder().build()?;
    let server = lab.mail_server(&Options::plain(25))?;
    hook(&lab, "eth2/up/endless", "exec sleep 60")?;
    let mut daemon = Daemon::start(&lab, &config("port: 25", &lab))?;
    server.wait_mail("START", 0, MAIL_TIME)?;
    daemon.terminate()?;
    let stop = server.wait_mail("STOP", 1, Duration::from_secs(1))?;
    assert!(stop.text("plain").contains("hook eth2/up/endless was ended after"), "{stop:?}");
    Ok(())
}

#[test]
fn a_message_refused_for_good_is_dropped_and_the_next_one_tried() -> Result<()> {
    let lab = Lab::builder().build()?;
    let server = lab.mail_server(&Options::plain(25).refuses_messages())?;
    let mut daemon = Daemon::start(&lab, &config("port: 25", &lab))?;
    daemon.wait_logged("is dropped: message refused: 554 5.7.1 this looks like spam", MAIL_TIME)?;
    stays_true("not tried again", Duration::from_secs(7), || server.connections() == 1)?;
    daemon.terminate()?;
    assert_eq!(server.connections(), 2, "STOP is another mail");
    let log = daemon.log();
    assert_eq!(log.matches("ERROR: mail \"").count(), 2, "{log}");
    // A mail about a mail that cannot be sent would be one more that cannot be sent.
    assert!(!log.contains("mail \"ERROR"), "{log}");
    Ok(())
}

#[test]
fn a_server_that_falls_silent_is_left_and_a_later_mail_says_when_it_was_written() -> Result<()> {
    let lab = Lab::builder().build()?;
    let server = lab.mail_server(&Options::plain(25).mute())?;
    let mut daemon = Daemon::start(&lab, &config("port: 25", &lab))?;
    wait_until("the START mail on its way", MAIL_TIME, || server.connections() == 1)?;
    let log = "is waiting: connection to 203.0.113.10:25: no answer within 60 s";
    daemon.wait_logged(log, Duration::from_secs(75))?;
    drop(server);
    daemon
        .wait_logged("still waiting", MAIL_TIME)
        .or_else(|_| daemon.wait_logged("Connection refused", MAIL_TIME))?;
    let server = lab.mail_server(&Options::plain(25))?;
    let mail = server.wait_mail("START", 0, Duration::from_secs(60))?;
    let written = mail.text("plain").lines().find_map(|line| line.strip_prefix("Mail written:"));
    let written = written.with_context(|| format!("{mail:?}"))?.trim();
    let seconds = Command::new("date").args(["-d", written, "+%s"]).output()?;
    let seconds: f64 = String::from_utf8_lossy(&seconds.stdout).trim().parse()?;
    let late = mail.at() - seconds;
    assert!((60.0..180.0).contains(&late), "written {written}, {late} s before it came");
    daemon.terminate()
}

#[test]
fn a_password_file_may_change_while_the_daemon_runs() -> Result<()> {
    let lab = Lab::builder().build()?;
    let server = lab.mail_server(&Options::plain(25).login("router", "second"))?;
    secret_file(&lab, "password", "first\n")?;
    let config = config("port: 25, tls: none, username: router, passwordFile: /run/password", &lab);
    let mut daemon = Daemon::start(&lab, &config)?;
    daemon.wait_logged("is dropped: login refused: 535", MAIL_TIME)?;
    secret_file(&lab, "password", "second\n")?;
    lab.blackhole(2)?;
    let mail = server.wait_mail("ERROR", 0, MAIL_TIME)?;
    assert_eq!(mail.text("user"), "router");
    // Between two versions it may be gone for a moment.
    fs::remove_file(lab.router_files().run().join("password"))?;
    lab.heal(2)?;
    wait_until("the WARNING", MAIL_TIME * 2, || count(&server, "WAN2 (eth2): ON: ") == 1)?;
    let log = daemon.log();
    let told = "WARN: the password that was read before is used: email.passwordFile (/run/password) must be readable";
    assert!(log.contains(told), "{log}");
    daemon.terminate()
}

#[test]
fn the_password_may_be_a_systemd_credential() -> Result<()> {
    let lab = Lab::builder().build()?;
    let server = lab.mail_server(&Options::plain(25).login("router", "credible"))?;
    let login = config("port: 25, tls: none, username: router", &lab);
    let mut without = Daemon::spawn(&lab, &login)?;
    let ended = without.wait(MAIL_TIME)?;
    assert!(
        !ended.success() && without.log().contains("email.username needs a password"),
        "{}",
        without.log()
    );

    secret_file(&lab, "credentials/email-password", "credible")?;
    let mut daemon = Daemon::spawn_with(&lab, &login, |command| {
        command.env("CREDENTIALS_DIRECTORY", "/run/credentials");
    })?;
    assert_eq!(server.wait_mail("START", 0, MAIL_TIME)?.text("user"), "router");
    daemon.terminate()
}

#[test]
fn the_password_is_nowhere() -> Result<()> {
    let lab = Lab::builder().build()?;
    // One that nothing else contains; the forms are PLAIN's and LOGIN's.
    let password = "q7zund-Kq\"x";
    let forms = [password.to_owned(), base64(password)?, base64(&format!("\0router\0{password}"))?];
    let forms: Vec<&str> = forms.iter().map(|form| form.trim_end_matches('=')).collect();
    let clean = |what: &str, text: &str| -> Result<()> {
        ensure!(!text.is_empty(), "{what} is empty");
        ensure!(forms.iter().all(|form| !text.contains(form)), "the password is in {what}:\n{text}");
        Ok(())
    };
    hook(&lab, "eth1/up/all", "env > environment; tr '\\0' ' ' < /proc/$PPID/cmdline >> environment")?;
    for right in [true, false] {
        let expected = if right { password } else { "another" };
        let options = Options::plain(25).login("router", expected).quotes_passwords();
        let server = lab.mail_server(&options)?;
        let config = config(&format!("port: 25, tls: none, username: router, password: '{password}'"), &lab);
        let mut daemon = Daemon::start(&lab, &config)?;
        if right {
            let mail = server.wait_mail("START", 0, MAIL_TIME)?;
            clean("the mail", &format!("{mail:?}").replace("\\\"", "\""))?;
        } else {
            daemon.wait_logged("is dropped: the server's answer quotes the password", MAIL_TIME)?;
        }
        clean("the status", &format!("{:?}", daemon.status()?))?;
        daemon.terminate()?;
        clean("the log", &daemon.log())?;
    }
    clean(
        "a hook's environment",
        &fs::read_to_string(lab.router_files().run().join("scripts/environment"))?,
    )?;

    let run = lab.router_files().run();
    let shown = |arguments: &[&str], config: &Config| -> Result<String> {
        fs::write(run.join("shown.yaml"), config.to_string())?;
        let output = daemon::run_to_end(&lab, arguments)?;
        Ok(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
    };
    let login = |rest: &str| config(&format!("username: router, password: '{password}'{rest}"), &lab);
    clean("check", &shown(&["check", "-c", "/run/shown.yaml"], &login(""))?)?;
    clean("check of a wrong file", &shown(&["check", "-c", "/run/shown.yaml"], &login(", port: x"))?)?;
    clean("mail-test", &shown(&["mail-test", "-c", "/run/shown.yaml"], &login(", tls: none"))?)
}

fn base64(text: &str) -> Result<String> {
    let file = std::env::temp_dir().join(format!("multiwans-base64-{}", std::process::id()));
    fs::write(&file, text)?;
    let output = Command::new("base64").arg("-w0").arg(&file).output()?;
    fs::remove_file(&file)?;
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn names_beyond_ascii_arrive_in_subject_and_both_parts() -> Result<()> {
    let lab = Lab::builder().build()?;
    let server = lab.mail_server(&Options::plain(25))?;
    let config = config("port: 25", &lab).filter(2, "vídeo", "protocol: udp, dports: [5004]");
    let mut daemon = Daemon::spawn_with(&lab, &config, |command| {
        let rename = || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUTS)?;
            nix::unistd::sethostname("roteador-são-joão").map_err(io::Error::from)
        };
        // SAFETY: between fork and exec this makes system calls only.
        unsafe { command.pre_exec(rename) };
    })?;
    let mail = server.wait_mail("START", 0, MAIL_TIME)?;
    assert!(mail.text("subject").contains(": roteador-são-joão ("), "{mail:?}");
    for part in ["plain", "html"] {
        assert!(
            mail.text(part).contains("vídeo") && mail.text(part).contains("roteador-são-joão"),
            "{mail:?}"
        );
    }
    daemon.terminate()
}

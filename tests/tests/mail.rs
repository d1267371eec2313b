//! Mails that a real server receives, and servers that do not do their part.

use anyhow::{Context, Result};
use multiwans_tests::smtp::{MailServer, Options};
use multiwans_tests::topology::INTERNET;
use multiwans_tests::wait::{stays_true, wait_until};
use multiwans_tests::{Config, Daemon, Lab, daemon};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

/// The first judgement of every link and 2 s of collecting, on two busy cores.
const MAIL_TIME: Duration = Duration::from_secs(15);

/// A blackholed link noticed, or a returned one trusted.
const FAILOVER: Duration = Duration::from_secs(15);

fn config(lab: &Lab, email: &str) -> Config {
    let to = if email.contains(" to: ") { "" } else { "to: noc@example.org, " };
    Config::of(lab)
        .filter(2, "web", "protocol: tcp, dports: [80]")
        .extra("company: {name: Açúcar & Cia, department: T.I., site: 'https://example.org/'}")
        .extra(&format!("email: {{host: {INTERNET}, from: router@example.org, {to}{email}}}"))
}

fn tls_config(lab: &Lab, server: &MailServer, email: &str) -> Config {
    config(lab, &format!("caFile: {}, {email}", server.ca_file()))
}

#[test]
fn a_router_s_day_is_told_by_mail() -> Result<()> {
    let lab = Lab::builder().build()?;
    let server = lab.mail_server(&Options::plain(587).starttls().login("router", "pässwort"))?;
    let config = tls_config(&lab, &server, "port: 587, username: router, password: pässwort");
    let mut daemon = Daemon::start(&lab, &config)?;
    let start = server.wait_mail("START", 0, MAIL_TIME)?;
    assert!(start.encrypted() && start.text("user") == "router", "{start:?}");
    assert_eq!(start.text("type"), "multipart/alternative");

    lab.blackhole(1)?;
    let error = server.wait_mail("ERROR", 1, MAIL_TIME)?;
    lab.heal(1)?;
    let warning = server.wait_mail("WARNING", 2, MAIL_TIME * 2)?;
    daemon.terminate()?;
    let stop = server.wait_mail("STOP", 3, Duration::from_secs(1))?;

    for (mail, word) in
        [(&start, "ON"), (&error, "OFF: no reply"), (&warning, "was OFF for"), (&stop, "stopping")]
    {
        for part in ["plain", "html"] {
            let text = mail.text(part);
            for expected in
                [word, "WAN1", "eth2", "10.0.2.2/24", "web", "dports 80", "T.I.", "Daemon started"]
            {
                assert!(text.contains(expected), "{expected} in {part} of {mail:?}");
            }
        }
        assert!(mail.text("plain").contains("AÇÚCAR & CIA"), "{mail:?}");
        assert!(mail.text("html").contains("AÇÚCAR &amp; CIA"), "{mail:?}");
    }
    assert!(!daemon.log().contains("pässwort"), "the password in the log");
    assert_eq!(error.text("plain").matches("OFF: no reply").count(), 1, "{error:?}");
    Ok(())
}

#[test]
fn a_server_that_is_down_gets_its_mails_later() -> Result<()> {
    let lab = Lab::builder().build()?;
    let mut daemon = Daemon::start(&lab, &config(&lab, "port: 25"))?;
    daemon.wait_logged("is waiting: connection to", MAIL_TIME)?;
    assert!(daemon.log().contains("Connection refused"), "{}", daemon.log());
    let server = lab.mail_server(&Options::plain(25))?;
    let start = server.wait_mail("START", 0, Duration::from_secs(30))?;
    // The subject has the time it was written, which is not the time it arrives.
    let written = start.text("plain").lines().find(|line| line.starts_with("Mail written:"));
    assert!(written.is_some(), "{start:?}");
    daemon.terminate()?;
    assert_eq!(server.kinds(), ["START", "STOP"]);
    Ok(())
}

#[test]
fn a_mail_survives_the_outage_that_it_reports() -> Result<()> {
    let lab = Lab::builder().build()?;
    let server = lab.mail_server(&Options::plain(25))?;
    let mut daemon = Daemon::start(&lab, &config(&lab, "port: 25"))?;
    server.wait_mail("START", 0, MAIL_TIME)?;
    lab.blackhole(1)?;
    lab.blackhole(2)?;
    daemon.wait_status("both off", FAILOVER, |s| s.is_off(1) && s.is_off(2))?;
    // Long enough that the mail is written and tried in vain.
    stays_true("no mail gets through", Duration::from_secs(5), || server.mails().len() == 1)?;
    lab.heal(2)?;
    let error = server.wait_mail("ERROR", 1, Duration::from_secs(40));
    let error = error.with_context(|| daemon.log())?;
    assert!(error.text("plain").contains("all links are down"), "{error:?}");
    server.wait_mail("WARNING", 2, Duration::from_secs(1)).ok();
    daemon.terminate()
}

#[test]
fn a_refused_password_is_told_and_shown_nowhere() -> Result<()> {
    let lab = Lab::builder().build()?;
    let options = Options::plain(587).starttls().login("router", "right").quotes_passwords();
    let server = lab.mail_server(&options)?;
    let config = tls_config(&lab, &server, "port: 587, username: router, password: hunter2");
    let mut daemon = Daemon::start(&lab, &config)?;
    daemon.wait_logged("is dropped", MAIL_TIME)?;
    // Not tried again: servers lock accounts for that.
    stays_true("one login", Duration::from_secs(7), || server.logins().len() == 1)?;
    daemon.terminate()?;
    assert_eq!(server.logins(), ["router PLAIN tls", "router PLAIN tls"], "START and STOP");
    assert_eq!(server.mails().len(), 0);
    let log = daemon.log();
    assert!(log.contains("ERROR") && !log.contains("hunter2") && !log.contains("aHVudGVyMg"), "{log}");
    Ok(())
}

#[test]
fn one_refused_recipient_loses_no_other() -> Result<()> {
    let lab = Lab::builder().build()?;
    let server =
        lab.mail_server(&Options::plain(25).refuses("gone@example.org").defers("late@example.org", 2))?;
    let config = Config::of(&lab).extra(&format!(
        "email: {{host: {INTERNET}, to: 'gone@example.org, noc@example.org, late@example.org, root'}}"
    ));
    let mut daemon = Daemon::start(&lab, &config)?;
    let first = server.wait_mail("START", 0, MAIL_TIME)?;
    assert_eq!(first.recipients()[0], "noc@example.org");
    assert!(first.recipients()[1].starts_with("root@"), "{first:?}");
    let second = server.wait_mail("START", 1, Duration::from_secs(30))?;
    assert_eq!(second.recipients(), ["late@example.org"]);
    let log = daemon.log();
    assert!(
        log.contains("is not delivered to gone@example.org: recipient gone@example.org refused: 550 5.1.1"),
        "{log}"
    );
    assert!(log.contains("is waiting: recipient late@example.org refused: 451"), "{log}");
    daemon.terminate()
}

#[test]
fn an_unknown_certificate_gets_neither_mail_nor_password() -> Result<()> {
    let lab = Lab::builder().build()?;
    let server = lab.mail_server(&Options::plain(465).implicit_tls().login("router", "hunter2"))?;
    let login = "port: 465, username: router, password: hunter2";
    let mut daemon = Daemon::start(&lab, &config(&lab, login))?;
    daemon.wait_logged("failed: invalid peer certificate: UnknownIssuer; it must be valid", MAIL_TIME)?;
    daemon.terminate()?;
    assert_eq!((server.logins().len(), server.mails().len()), (0, 0));

    let mut daemon = Daemon::start(&lab, &tls_config(&lab, &server, login))?;
    let start = server.wait_mail("START", 0, MAIL_TIME)?;
    assert!(start.encrypted() && start.text("user") == "router", "{start:?}");
    daemon.terminate()
}

#[test]
fn starttls_wants_a_certificate_it_knows_too() -> Result<()> {
    let lab = Lab::builder().build()?;
    let server = lab.mail_server(&Options::plain(587).starttls())?;
    let mut daemon = Daemon::start(&lab, &config(&lab, "port: 587"))?;
    daemon.wait_logged("STARTTLS failed: invalid peer certificate: UnknownIssuer", MAIL_TIME)?;
    daemon.terminate()?;
    assert_eq!(server.mails().len(), 0);
    Ok(())
}

#[test]
fn a_password_is_not_sent_in_the_clear_unless_told_to() -> Result<()> {
    let lab = Lab::builder().build()?;
    let server = lab.mail_server(&Options::plain(25).login("router", "hunter2"))?;
    let mut daemon = Daemon::start(&lab, &config(&lab, "username: router, password: hunter2"))?;
    daemon.wait_logged("unless email.tls is none", MAIL_TIME)?;
    daemon.terminate()?;
    assert_eq!(server.logins().len(), 0);

    let mut daemon = Daemon::start(&lab, &config(&lab, "tls: none, username: router, password: hunter2"))?;
    server.wait_mail("START", 0, MAIL_TIME)?;
    daemon.terminate()?;
    assert_eq!(server.logins()[0], "router PLAIN plain");
    Ok(())
}

#[test]
fn without_a_login_any_certificate_is_better_than_none() -> Result<()> {
    let lab = Lab::builder().build()?;
    let server = lab.mail_server(&Options::plain(25).starttls())?;
    let mut daemon = Daemon::start(&lab, &config(&lab, "port: 25"))?;
    assert!(server.wait_mail("START", 0, MAIL_TIME)?.encrypted());
    daemon.terminate()
}

#[test]
fn without_the_section_there_are_no_mails() -> Result<()> {
    let lab = Lab::builder().build()?;
    let server = lab.mail_server(&Options::plain(25))?;
    let mut daemon = Daemon::start(&lab, &Config::of(&lab))?;
    let tasks = fs::read_dir(format!("/proc/{}/task", daemon.pid()))?;
    for task in tasks {
        assert_ne!(fs::read_to_string(task?.path().join("comm"))?.trim(), "mail");
    }
    daemon.terminate()?;
    assert_eq!(server.connections(), 0);
    Ok(())
}

/// It waits for TLS, and who asks for STARTTLS waits for its greeting.
#[test]
fn mail_test_says_what_a_silent_server_may_want() -> Result<()> {
    let lab = Lab::builder().build()?;
    let server = lab.mail_server(&Options::plain(465).implicit_tls())?;
    let run = lab.router_files().run();
    fs::write(run.join("test.yaml"), tls_config(&lab, &server, "port: 465, tls: starttls").to_string())?;
    let out = run.join("out");
    let mut command = daemon::command(&lab)?;
    command.args(["mail-test", "-c", "/run/test.yaml"]).stdout(fs::File::create(&out)?);
    let mut process = command.spawn()?;
    let told = wait_until("a word while it waits", Duration::from_secs(30), || {
        let text = fs::read_to_string(&out).unwrap_or_default();
        text.contains("no answer within 5 s, waiting for up to 60 s")
            && text.contains("(port 465) email.tls must be implicit")
    });
    process.kill()?;
    process.wait()?;
    told.map(drop)
}

#[test]
fn mail_test_tells_each_step() -> Result<()> {
    let lab = Lab::builder().build()?;
    let server = lab.mail_server(
        &Options::plain(587).starttls().login("router", "hunter2").refuses("gone@example.org"),
    )?;
    let run = lab.router_files().run();
    fs::write(run.join("right"), "hunter2\n")?;
    fs::set_permissions(run.join("right"), fs::Permissions::from_mode(0o644))?;
    fs::create_dir_all(run.join("credentials"))?;
    fs::write(run.join("credentials/email-password"), "hunter2")?;
    let mail_test = |email: &str| -> Result<(bool, String, String)> {
        fs::write(
            run.join("test.yaml"),
            tls_config(&lab, &server, &format!("port: 587, {email}")).to_string(),
        )?;
        let mut command = daemon::command(&lab)?;
        let output = command
            .args(["mail-test", "-c", "/run/test.yaml"])
            .env("CREDENTIALS_DIRECTORY", "/run/credentials")
            .output()?;
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Ok((output.status.success(), text(&output.stdout), text(&output.stderr)))
    };

    let (good, out, err) = mail_test("username: router, passwordFile: /run/right")?;
    assert!(good, "{out}{err}");
    let steps: Vec<&str> = out.lines().collect();
    let address = format!("{INTERNET}:587");
    assert_eq!(
        steps[..6],
        [
            &format!("server {INTERNET} port 587"),
            &format!("connected to {address}"),
            "encrypted by STARTTLS (certificate valid)",
            "logged in",
            "sender router@example.org accepted",
            "recipient noc@example.org accepted",
        ]
    );
    assert!(steps[6].starts_with("message accepted: ") && steps[7].starts_with("delivered: TEST: "), "{out}");
    assert!(err.contains("email.passwordFile (/run/right) must be readable by its owner only"), "{err}");

    let (good, out, err) = mail_test("username: router")?;
    assert!(good, "the systemd credential: {out}{err}");

    let (good, out, err) = mail_test("username: router, password: wrong")?;
    assert!(!good && err.contains("login refused: 535") && !out.contains("logged in"), "{out}{err}");
    assert!(!err.contains("wrong"), "{err}");

    let (good, out, err) =
        mail_test("username: router, password: hunter2, to: [noc@example.org, gone@example.org]")?;
    assert!(!good && err.contains("recipient gone@example.org refused: 550"), "{out}{err}");
    assert!(out.contains("recipient noc@example.org accepted") && out.contains("message accepted"), "{out}");

    let (good, _, err) = mail_test("username: router, passwordFile: /run/none")?;
    assert!(!good && err.contains("email.passwordFile (/run/none) must be readable: No such file"), "{err}");

    let (good, _, err) = mail_test("tls: implicit, username: router, password: hunter2")?;
    assert!(!good && err.contains("the server speaks no TLS here"), "{err}");

    drop(server);
    Ok(())
}

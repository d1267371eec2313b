//! Mails that a real server receives, and servers that do not do their part.

use anyhow::Result;
use multiwans_tests::smtp::{MailServer, Options};
use multiwans_tests::topology::INTERNET;
use multiwans_tests::{Config, Daemon, Lab};
use std::time::Duration;

/// The first judgement of every link and 2 s of collecting, on two busy cores.
const MAIL_TIME: Duration = Duration::from_secs(15);

fn config(lab: &Lab, email: &str) -> Config {
    Config::of(lab)
        .filter(2, "web", "protocol: tcp, dports: [80]")
        .extra("company: {name: Açúcar & Cia, department: T.I., site: 'https://example.org/'}")
        .extra(&format!(
            "email: {{host: {INTERNET}, from: router@example.org, to: noc@example.org, {email}}}"
        ))
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
    Ok(())
}

//! At debug level the programs tell what they decided of each packet; otherwise they are silent.

use anyhow::Result;
use multiwans_tests::topology::{CLIENT, INTERNET, wan_ip};
use multiwans_tests::wait::wait_until;
use multiwans_tests::{Config, Daemon, Lab, Ns};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn config(lab: &Lab) -> Config {
    Config::of(lab).filter(2, "web", "protocol: tcp, dports: [80]")
}

#[test]
fn at_debug_level_each_decision_is_told() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80, 443])?;
    let mut daemon = Daemon::start_at(&lab, &config(&lab), "debug")?;
    let client = lab.client(Ns::Client);
    assert_eq!(client.source_port(50_080).seen_by_tcp(INTERNET, 80)?, wan_ip(2));
    let client = lab.client(Ns::Client);
    assert_eq!(client.source_port(50_443).seen_by_tcp(INTERNET, 443)?, wan_ip(1));

    let told = |program: &str, parts: [String; 2]| {
        let log = daemon.log();
        log.lines().any(|line| line.contains(program) && parts.iter().all(|part| line.contains(part)))
    };
    for (program, from, to, decision) in [
        ("steer: ", format!("{CLIENT}:50080"), format!("{INTERNET}:80 "), "filter mark 2"),
        ("steer: ", format!("{CLIENT}:50443"), format!("{INTERNET}:443 "), "default mark 1"),
        ("learn: ", format!("{INTERNET}:80"), format!("{CLIENT}:50080 "), "learned mark 2"),
    ] {
        let parts = [format!("{from} -> {to}"), decision.to_owned()];
        wait_until(&format!("{program}{parts:?}"), 2 * SECOND, || told(program, parts.clone()))?;
    }
    daemon.terminate()
}

#[test]
fn otherwise_the_programs_are_silent() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80])?;
    let mut daemon = Daemon::start_at(&lab, &config(&lab), "info")?;
    for _ in 0..20 {
        assert_eq!(lab.client(Ns::Client).seen_by_tcp(INTERNET, 80)?, wan_ip(2));
    }
    daemon.terminate()?;
    assert!(!daemon.log().contains("steer"), "{}", daemon.log());
    assert!(daemon.log().contains("default is WAN1"), "{}", daemon.log());
    Ok(())
}

//! What `multiwans status` says of traffic.

use anyhow::{Context, Result};
use multiwans_tests::topology::{INTERNET, wan_ip};
use multiwans_tests::wait::wait_until;
use multiwans_tests::{Config, Daemon, Lab, Ns};
use std::time::Duration;

const WEB: &str = "protocol: tcp, dports: [80]";
const STREAM: &str = "protocol: udp, dports: [80]";

/// Packets of the filter with this description.
fn took(daemon: &Daemon<'_>, description: &str) -> Result<u64> {
    let status = daemon.status_json()?;
    let filters = status["datapath"]["filters"].as_array().context("no filters")?;
    let found = filters.iter().find(|filter| filter["description"] == description);
    found
        .and_then(|filter| filter["packets"].as_u64())
        .with_context(|| format!("{description} in {filters:?}"))
}

#[test]
fn a_filter_counts_on_over_reloads_and_for_flows_it_chose_long_ago() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80])?;
    let mut daemon = Daemon::start(&lab, &Config::of(&lab).filter(2, "stream", STREAM))?;
    let stream = lab.client(Ns::Client).udp_stream(INTERNET, 80)?;
    assert_eq!(stream.seen, wan_ip(2));
    let goes_on = |least: u64| {
        wait_until("the filter to count", Duration::from_secs(10), || {
            took(&daemon, "stream").is_ok_and(|packets| packets > least)
        })
    };
    goes_on(20)?;
    let before = took(&daemon, "stream")?;
    // It has another number then, and the flow is in the table.
    daemon.write_config(&Config::of(&lab).filter(2, "web", WEB).filter(2, "stream", STREAM))?;
    daemon.reload()?;
    assert!(took(&daemon, "stream")? >= before, "what was counted stays counted");
    goes_on(before + 20)?;
    assert_eq!(took(&daemon, "web")?, 0);
    // Another filter of that name begins anew.
    daemon.write_config(&Config::of(&lab).filter(2, "stream", "protocol: udp, dports: [81]"))?;
    daemon.reload()?;
    assert_eq!(took(&daemon, "stream")?, 0);

    let report = stream.finish()?;
    assert_eq!(report.seen, [wan_ip(2)], "no flow moved");
    let out = daemon.counter(&["wans", "2", "out", "packets"])?;
    assert!(out >= u64::from(report.sent), "{out} of {} packets", report.sent);
    daemon.terminate()
}

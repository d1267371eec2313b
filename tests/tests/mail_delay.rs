//! Mail delays no failover. That nothing of it can is a property of the daemon's loop, which has its own
//! test (`the_loop_waits_for_nothing_of_mail`); here it is measured.

use anyhow::{Context, Result};
use multiwans_tests::smtp::Options;
use multiwans_tests::topology::{INTERNET, Ns, gateway, wan_iface};
use multiwans_tests::wait::{wait_for, wait_until};
use multiwans_tests::{Config, Daemon, Lab};
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

const MAIL_TIME: Duration = Duration::from_secs(15);
const NOTICED: Duration = Duration::from_secs(15);
/// Failovers of each daemon.
const ROUNDS: usize = 20;
/// Medians of the two daemons without mail differed by up to 1.8 ms on two busy cores, where single failovers
/// take up to 70 ms: this finds whoever waits for something, and no fraction of a millisecond. Whoever waits
/// for a server that says nothing waits for a minute.
const NOISE: Duration = Duration::from_millis(10);

/// The kernel's own account of a router's links and routes.
struct Monitor {
    process: Child,
    file: PathBuf,
}

impl Monitor {
    fn start(lab: &Lab) -> Result<Self> {
        let file = lab.router_files().run().join("monitor");
        let mut command = lab.namespace(Ns::Router).command("ip");
        command
            .args(["-o", "-ts", "monitor", "link", "route"])
            .stdin(Stdio::null())
            .stdout(File::create(&file)?);
        Ok(Self { process: command.spawn().context("cannot run ip monitor")?, file })
    }

    fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.file).unwrap_or_default();
        text.split_inclusive('\n').filter(|line| line.ends_with('\n')).map(str::to_owned).collect()
    }

    /// Waits for the main default route by a WAN, from line `from` on; its line, and its time.
    fn wait_default(&self, k: u8, from: usize) -> Result<(usize, Duration)> {
        let route = format!("] default via {} dev {} ", gateway(k), wan_iface(k));
        self.wait(&route, from)
    }

    /// Waits for a line with this text that is about no other routing table.
    fn wait(&self, text: &str, from: usize) -> Result<(usize, Duration)> {
        wait_for(text, NOTICED, || {
            let lines = self.lines();
            let is_it = |line: &String| line.contains(text) && !line.contains(" table ");
            let at = from + lines.get(from..)?.iter().position(is_it)?;
            Some((at, time(&lines[at])?))
        })
        .with_context(|| self.lines().join(""))
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// The time of day in `[2026-11-22T11:02:31.123456] …`.
fn time(line: &str) -> Option<Duration> {
    let (_, clock) = line.split_once(']')?.0.split_once('T')?;
    let mut parts = clock.splitn(3, ':');
    let (hours, minutes): (u64, u64) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let seconds: f64 = parts.next()?.parse().ok()?;
    Some(Duration::from_secs(hours * 3600 + minutes * 60) + Duration::from_secs_f64(seconds))
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}

#[test]
fn mail_that_goes_nowhere_delays_no_failover_and_hangs_no_stop() -> Result<()> {
    let mail = |lab: &Lab, host: &str| {
        Config::of(lab).extra(&format!("email: {{host: {host}, to: noc@example.org}}"))
    };
    let lab = || Lab::builder().build();
    // Twice without: what those two differ by is the machine's noise.
    let kinds = ["no mail", "no mail either", "a server that says nothing", "a resolver that says nothing"];
    let labs = [lab()?, lab()?, lab()?, lab()?];
    let tarpit = labs[2].mail_server(&Options::plain(25).tarpit(Duration::from_secs(3600)))?;
    // Wherever the machine's resolver is.
    for k in 1..=2 {
        labs[3].sh(Ns::Isp(k), "iptables -t raw -A PREROUTING -p udp --dport 53 -j DROP")?;
    }
    labs[3].sh(Ns::Router, "iptables -t raw -A PREROUTING -i lo -p udp --dport 53 -j DROP")?;
    let configs = [
        Config::of(&labs[0]),
        Config::of(&labs[1]),
        mail(&labs[2], &INTERNET.to_string()),
        mail(&labs[3], "mail.example"),
    ];
    let mut daemons = Vec::new();
    let mut monitors = Vec::new();
    for (lab, config) in labs.iter().zip(&configs) {
        daemons.push(Daemon::start(lab, config)?);
        monitors.push(Monitor::start(lab)?);
    }
    wait_until("the START mail in the tarpit", MAIL_TIME, || tarpit.connections() == 1)?;

    let mut times = [const { Vec::new() }; 4];
    for round in 0..ROUNDS {
        // Each begins as often: who comes after whom could matter.
        for turn in 0..labs.len() {
            let which = (round + turn) % labs.len();
            let (lab, monitor, times) = (&labs[which], &monitors[which], &mut times[which]);
            let from = monitor.lines().len();
            lab.pull_cable(1)?;
            let (lost_at, lost) = monitor.wait(&format!(" {}@", wan_iface(1)), from)?;
            let (moved_at, moved) = monitor.wait_default(2, lost_at)?;
            times.push(moved.saturating_sub(lost));
            lab.plug_cable(1)?;
            monitor.wait_default(1, moved_at)?;
        }
    }
    let medians = times.each_mut().map(|times| median(times));
    for (kind, median) in kinds.iter().zip(medians) {
        println!(
            "from the lost carrier to the other default route, median of {ROUNDS}: {median:?} with {kind}"
        );
    }
    assert!(medians.iter().all(|median| *median <= medians[0].max(medians[1]) + NOISE), "{times:?}");

    assert_eq!(tarpit.mails().len(), 0);
    for daemon in &mut daemons {
        let stop = Instant::now();
        daemon.terminate()?;
        assert!(stop.elapsed() < Duration::from_secs(8), "the stop took {:?}", stop.elapsed());
    }
    for daemon in &daemons[2..] {
        let log = daemon.log();
        assert!(log.contains("could not be delivered before the stop"), "{log}");
        assert!(!log.contains("\" sent to "), "{log}");
    }
    Ok(())
}

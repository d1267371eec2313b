//! The largest flow table there can be.

use anyhow::{Context, Result};
use multiwans_tests::daemon::run_to_end;
use multiwans_tests::topology::{CLIENT, INTERNET, wan_ip};
use multiwans_tests::wait::wait_until;
use multiwans_tests::{Config, Daemon, KernelProgram, Lab, Ns, PacketContext, raw};
use std::env;
use std::fs;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// What `flows.max` may be at most.
const MAX: u64 = 4_194_304;
/// How many flows are put into it.
const FLOWS_VARIABLE: &str = "MULTIWANS_TEST_FLOWS";
const TCP: u8 = 6;
const SYN_ACK: u8 = 0x12;
const ACK: u8 = 0x10;
/// The table is walked through every ten seconds or, a large one, fifty times as long as that takes.
const SWEEP: Duration = Duration::from_secs(600);

/// A flow of the inside: whom it talks to, and from which port.
fn flow(number: u32) -> (Ipv4Addr, u16) {
    let port = u16::try_from(1024 + number % 60_000).unwrap_or(1024);
    (Ipv4Addr::from(0x1400_0001 + number / 60_000), port)
}

/// A frame with a TCP segment of ours, without data, to the loopback's address: that is where test runs take
/// place.
fn segment(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), flags: u8) -> Vec<u8> {
    let mut segment = [from.1.to_be_bytes(), to.1.to_be_bytes()].concat();
    segment.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    let mut frame = vec![0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2, 8, 0];
    frame.extend(raw::ipv4(from.0, to.0, TCP, 0, 0, &segment));
    frame
}

/// The daemon's programs, and WAN 2 as they know it.
struct Filler<'a> {
    lab: &'a Lab,
    steer: KernelProgram,
    learn: KernelProgram,
    wan: PacketContext,
}

impl<'a> Filler<'a> {
    fn new(lab: &'a Lab, daemon: &Daemon<'_>) -> Result<Self> {
        let index = lab.in_ns(Ns::Router, || nix::net::if_::if_nametoindex("eth2"))?;
        Ok(Self {
            lab,
            steer: KernelProgram::of(lab, daemon, "multiwans_steer")?,
            learn: KernelProgram::of(lab, daemon, "multiwans_learn")?,
            wan: PacketContext { mark: 2, ingress_ifindex: index },
        })
    }

    /// Has each flow answered by WAN 2, and the inside acknowledge that: they are established.
    fn fill(&self, count: u32) -> Result<()> {
        self.lab.in_ns(Ns::Router, || {
            (0..count).try_for_each(|number| {
                let (remote, port) = flow(number);
                let answer = segment((remote, 443), (CLIENT, port), SYN_ACK);
                self.learn.run(&answer, self.wan)?;
                let acknowledged = segment((CLIENT, port), (remote, 443), ACK);
                self.steer.run(&acknowledged, PacketContext::default()).map(drop)
            })
        })
    }

    /// Of some flows' next packets, far from each other: how many stay on their WAN, and what one takes at the
    /// median, in nanoseconds.
    fn look_up(&self, count: u32) -> Result<(u32, u32)> {
        const PACKETS: u32 = 50_000;
        self.lab.in_ns(Ns::Router, || {
            let (mut stay, mut times) = (0, Vec::new());
            for number in (0..count).cycle().step_by(7919).take(PACKETS as usize) {
                let (remote, port) = flow(number);
                let packet = segment((CLIENT, port), (remote, 443), ACK);
                let (mark, ns) = self.steer.run(&packet, PacketContext::default())?;
                stay += u32::from(mark == 2);
                times.push(ns);
            }
            times.sort_unstable();
            Ok((stay * 1000 / PACKETS, times[times.len() / 2]))
        })
    }
}

/// Nanoseconds on a CPU of the daemon's thread that looks after the table.
fn time_of_keeper(daemon: &Daemon<'_>) -> Result<Duration> {
    for task in fs::read_dir(format!("/proc/{}/task", daemon.pid()))? {
        let path = task?.path();
        if fs::read_to_string(path.join("comm"))?.trim() == "flows" {
            let text = fs::read_to_string(path.join("schedstat"))?;
            let time = text.split(' ').next().context("no time")?.parse()?;
            return Ok(Duration::from_nanos(time));
        }
    }
    anyhow::bail!("the daemon has no thread \"flows\"")
}

/// What the kernel says the daemon's table takes, in bytes.
fn memory_of_table(lab: &Lab, daemon: &Daemon<'_>) -> Result<u64> {
    for entry in fs::read_dir(format!("/proc/{}/fdinfo", daemon.pid()))? {
        let info = fs::read_to_string(entry?.path()).unwrap_or_default();
        let number = |key: &str| info.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
        let Some(id) = number("map_id:") else { continue };
        if lab.sh(Ns::Router, &format!("bpftool map show id {id}"))?.contains("name MW_FLOWS ") {
            return Ok(number("memlock:").context("no memory")?.parse()?);
        }
    }
    anyhow::bail!("the daemon has no flow table")
}

#[test]
fn a_table_of_four_million_flows() -> Result<()> {
    let count: u32 = match env::var(FLOWS_VARIABLE) {
        Ok(text) => text.parse().with_context(|| format!("{FLOWS_VARIABLE} ({text}) must be a number"))?,
        Err(_) => 100_000,
    };
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80])?;
    let config = |max: u64| {
        Config::of(&lab)
            .filter(2, "web", "protocol: tcp, dports: [80]")
            .extra(&format!("flows: {{max: {max}}}"))
    };
    // One more is refused, with its place.
    fs::write(lab.router_files().run().join("more.yaml"), config(MAX + 1).to_string())?;
    let refused = run_to_end(&lab, &["run", "-c", "/run/more.yaml"])?;
    let said = String::from_utf8(refused.stderr)?;
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        said.contains("/run/more.yaml:5:14: flows.max (4194305) must be an integer 1024..4194304"),
        "{said}"
    );

    let begin = Instant::now();
    let mut daemon = Daemon::start_at(&lab, &config(MAX), "info")?;
    println!("ready after {:?}", begin.elapsed());
    let bytes = daemon.counter(&["flows", "bytes"])?;
    assert_eq!(daemon.counter(&["flows", "max"])?, MAX);
    assert_eq!(memory_of_table(&lab, &daemon)?, bytes);
    let in_use = || daemon.counter(&["flows", "bytes_in_use"]);
    assert!((1..1 << 20).contains(&in_use()?), "{} of {bytes} bytes in use at the start", in_use()?);
    let told = format!("the flow table holds {MAX} flows in {} KiB", bytes / 1024);
    assert!(daemon.log().contains(&told), "{}", daemon.log());
    println!("{told}");

    let client = lab.client(Ns::Client);
    let sessions = (client.tcp_session(INTERNET, 80)?, client.udp_stream(INTERNET, 80)?);
    let filler = Filler::new(&lab, &daemon)?;
    filler.fill(1000)?;
    let (stay, few) = filler.look_up(1000)?;
    assert_eq!(stay, 1000, "{}", daemon.status_json()?["datapath"]["programs"]);
    let begin = Instant::now();
    filler.fill(count)?;
    println!("{count} flows made in {:?}", begin.elapsed());
    let (stay, many) = filler.look_up(count)?;
    println!(
        "a packet of a known flow: {few} ns of a thousand, {many} ns of {count}, test run and all; {stay} of 1000 stay"
    );

    let entries = || daemon.counter(&["flows", "entries"]);
    let most = u64::from(count).min(MAX * 15 / 16 - 1);
    let waiting = Instant::now();
    wait_until("all flows to be counted", SWEEP, || entries().is_ok_and(|now| now >= most)).with_context(
        || daemon.status_json().map_or_else(|e| e.to_string(), |s| s["datapath"]["flows"].to_string()),
    )?;
    println!(
        "{} entries told after {:?}: {}",
        entries()?,
        waiting.elapsed(),
        daemon.status_json()?["datapath"]["flows"]
    );
    if u64::from(count) < MAX * 15 / 16 {
        assert_eq!(stay, 1000);
        assert_eq!(daemon.counter(&["packets", "learn_failed"])?, 0);
        assert_eq!(daemon.counter(&["flows", "evicted", "lasting"])?, 0);
    }
    if u64::from(count) < MAX / 32 {
        // The burst took all of it.
        wait_until("what is not needed to be given back", SWEEP, || {
            in_use().is_ok_and(|now| now <= bytes / 4)
        })?;
    }
    println!("all walks since the start: {:?} of a CPU in {:?}", time_of_keeper(&daemon)?, begin.elapsed());
    assert_eq!(daemon.counter(&["flows", "bytes"])?, bytes, "memory does not grow");
    assert_eq!(client.seen_by_tcp(INTERNET, 80)?, wan_ip(2));
    let (tcp, udp) = (sessions.0.finish()?, sessions.1.finish()?);
    println!("{tcp:?} {udp:?}");
    assert_eq!((tcp.retransmits, udp.lost), (0, 0));
    let begin = Instant::now();
    daemon.terminate()?;
    println!("stopped in {:?}", begin.elapsed());
    Ok(())
}

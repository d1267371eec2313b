//! Where a router's time goes: perf on the router's CPU while it forwards.
//!
//! By the clock's interrupt, for virtual machines often have no other counter. Packet programs show under their names
//! (`bpf_prog_…_multiwans_steer`).

use crate::forwarding::{FRESH, Traffic};
use crate::options::Options;
use crate::policy::Policy;
use crate::router::{Router, Site};
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long packets are sent, with breaks to forget connections in.
const TIME: Duration = Duration::from_secs(3);
/// Samples a second: no multiple of a timer's rate, or it would see only the timer.
const RATE: &str = "3989";

/// Writes `profile-<plane>.txt` for each plane and shows its head.
pub(crate) fn run(options: &Options, cpu: usize) -> Result<()> {
    let traffic = if options.established { Traffic::Established } else { Traffic::Fresh };
    for plane in options.planes() {
        let site = Site::build(plane)?;
        for size in options.sizes().into_iter().take(1) {
            let policy = Policy::new(size);
            let router = site.install(&policy)?;
            let data = options.out.join("perf.data");
            let perf = record(cpu, &data)?;
            let sent = send(options, cpu, traffic, &policy, &router);
            stop(perf)?;
            let sent = sent?;
            let report = report(&data)?;
            let way = options.way().as_str();
            let head = format!(
                "# {}, {} filters, {} prefixes, {} flows, generator {way}, {sent} packets\n",
                plane.as_str(),
                size.filters,
                size.prefixes,
                traffic.as_str(),
            );
            let file = options.out.join(format!("profile-{}.txt", plane.as_str()));
            fs::write(&file, format!("{head}{report}"))?;
            println!("{head}{}", report.lines().take(40).collect::<Vec<_>>().join("\n"));
            println!("all of it: {}", file.display());
            router.remove()?;
        }
    }
    Ok(())
}

fn send(
    options: &Options,
    cpu: usize,
    traffic: Traffic,
    policy: &Policy,
    router: &Router<'_>,
) -> Result<usize> {
    let mut packets = traffic.packets(policy);
    if traffic == Traffic::Established {
        packets.truncate(router.establish(&packets, cpu)?);
    }
    let way = options.way();
    let mut generator = router.generator(way, &packets)?;
    let (start, mut sent) = (Instant::now(), 0);
    while start.elapsed() < TIME {
        if traffic == Traffic::Fresh {
            router.site.forget_connections()?;
            generator.rewind();
        }
        sent += router.pass(&mut generator, way, cpu, FRESH, options.burst())?.sent;
    }
    Ok(sent)
}

fn record(cpu: usize, data: &Path) -> Result<Child> {
    Command::new("perf")
        .args(["record", "--event", "cpu-clock:k", "--freq", RATE, "--cpu", &cpu.to_string(), "--output"])
        .arg(data)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot run perf (Debian's linux-perf)")
}

fn stop(mut perf: Child) -> Result<()> {
    kill(Pid::from_raw(i32::try_from(perf.id())?), Signal::SIGINT).context("perf has ended by itself")?;
    // It ends by the signal, after it has written everything.
    perf.wait().map(drop).context("perf")
}

fn own_name() -> Result<String> {
    fs::read_to_string("/proc/self/comm").context("cannot read our own name")
}

fn report(data: &Path) -> Result<String> {
    let output = Command::new("perf")
        .args(["report", "--stdio", "--sort", "symbol", "--percent-limit", "0.3", "--percentage", "relative"])
        // The softirqs that forward run in the sending thread's name; other work on that CPU does not.
        .args(["--comm", own_name()?.trim(), "--input"])
        .arg(data)
        .output()
        .context("cannot run perf")?;
    if !output.status.success() {
        bail!("perf report: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()).fold(
        String::new(),
        |mut all, line| {
            all.push_str(line.trim_end());
            all.push('\n');
            all
        },
    ))
}

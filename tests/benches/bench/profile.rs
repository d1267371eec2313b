//! Where a router's time goes: perf on the router's CPU while it forwards, in nanoseconds a packet of each function,
//! one data plane beside the other.
//!
//! By the clock's interrupt, for virtual machines often have no other counter: time with interrupts off counts for the
//! function that allows them again. Packet programs show under their names.

use crate::forwarding::{FRESH, Traffic};
use crate::machine::Machine;
use crate::options::Options;
use crate::policy::{Policy, Size};
use crate::report;
use crate::router::{Plane, Router, Site};
use anyhow::{Context, Result, bail};
use multiwans_tests::wait::wait_until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long packets are sent, with breaks to forget connections in.
const TIME: Duration = Duration::from_secs(4);
/// How long perf may take to begin.
const START_TIME: Duration = Duration::from_secs(20);
/// Samples a second: no multiple of a timer's rate, or it would see only the timer.
const RATE: &str = "3989";
/// Fewer samples say nothing; so few come where the machine is too busy to start perf in time.
const FEWEST: u32 = 2000;
/// Functions that a table shows.
const SHOWN: usize = 24;

/// Nanoseconds a packet by function.
type Functions = BTreeMap<String, f64>;

/// One plane's profile.
struct Profile {
    plane: Plane,
    /// Nanoseconds a packet, all of it.
    packet: f64,
    functions: Functions,
}

/// Writes `profile.md` and shows it.
pub(crate) fn run(options: &Options, cpu: usize) -> Result<()> {
    let sites: Vec<Site> = options.planes().into_iter().map(Site::build).collect::<Result<_>>()?;
    let machine = Machine::look()?;
    let mut text = format!(
        "{}, Linux {}, revision {}. Generator {}.\n",
        machine.cpu,
        machine.kernel,
        machine.commit,
        options.way().as_str()
    );
    for size in options.profiled_sizes() {
        let policy = Policy::new(size);
        let routers: Vec<Router<'_>> =
            sites.iter().map(|site| site.install(&policy)).collect::<Result<_>>()?;
        for traffic in Traffic::ALL {
            let profiles = routers
                .iter()
                .map(|router| profile(options, cpu, traffic, &policy, router))
                .collect::<Result<Vec<_>>>()?;
            table(&mut text, traffic, size, &profiles)?;
        }
        routers.into_iter().try_for_each(Router::remove)?;
    }
    let file = options.out.join("profile.md");
    fs::write(&file, &text).with_context(|| format!("cannot write {}", file.display()))?;
    println!("{text}");
    if options.record {
        report::record(report::PROFILE, &text)?;
    }
    Ok(())
}

fn profile(
    options: &Options,
    cpu: usize,
    traffic: Traffic,
    policy: &Policy,
    router: &Router<'_>,
) -> Result<Profile> {
    let mut packets = traffic.packets(policy);
    if traffic != Traffic::Fresh {
        packets.truncate(router.establish(&packets, cpu)?);
    }
    let way = options.way();
    let mut generator = router.generator(way, &packets)?;
    let data = options.out.join("perf.data");
    let perf = record(cpu, &data)?;
    let (start, mut sent, mut time) = (Instant::now(), 0, Duration::ZERO);
    let sending = (|| {
        while start.elapsed() < TIME {
            if traffic == Traffic::Fresh {
                router.site.forget_connections()?;
                generator.rewind();
            }
            let passed = router.pass(&mut generator, way, cpu, FRESH, options.burst())?;
            sent += passed.sent;
            time += passed.time;
        }
        anyhow::Ok(())
    })();
    stop(perf)?;
    sending?;
    // The kernel has one table for all namespaces: the next plane is not to search through what this one left.
    router.site.forget_connections()?;
    let packet = time.as_secs_f64() * 1e9 / sent as f64;
    let functions = shares(&data)?.into_iter().map(|(name, share)| (name, share * packet)).collect();
    Ok(Profile { plane: router.site.plane, packet, functions })
}

/// Perf at work.
fn record(cpu: usize, data: &Path) -> Result<Child> {
    if let Err(error) = fs::remove_file(data)
        && error.kind() != ErrorKind::NotFound
    {
        return Err(error).with_context(|| format!("cannot remove {}", data.display()));
    }
    let perf = Command::new("perf")
        .args(["record", "--event", "cpu-clock:k", "--freq", RATE, "--cpu", &cpu.to_string(), "--output"])
        .arg(data)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot run perf (Debian's linux-perf)")?;
    // It writes the file's head when it has opened its events.
    wait_until("perf", START_TIME, || fs::metadata(data).is_ok_and(|file| file.len() > 0))?;
    Ok(perf)
}

fn stop(mut perf: Child) -> Result<()> {
    kill(Pid::from_raw(i32::try_from(perf.id())?), Signal::SIGINT).context("perf has ended by itself")?;
    // It ends by the signal, after it has written everything.
    perf.wait().map(drop).context("perf")
}

/// The functions' shares of the time in the kernel, 1 in all.
fn shares(data: &Path) -> Result<Functions> {
    let output = Command::new("perf")
        .args(["report", "--stdio", "--sort", "symbol", "--show-nr-samples", "--field-separator", "\t"])
        // The softirqs that forward run in the sending threads; other work on that CPU does not. By number, for perf
        // does not see the names of threads that another CPU started.
        .args(["--pid", &std::process::id().to_string(), "--input"])
        .arg(data)
        .output()
        .context("cannot run perf")?;
    if !output.status.success() {
        bail!("perf report: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut samples = BTreeMap::<String, u32>::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let mut fields = line.split('\t').skip(1);
        let (Some(count), Some(symbol)) = (fields.next(), fields.next()) else { continue };
        let Ok(count) = count.trim().parse::<u32>() else { continue };
        // After the address space, `[k]`.
        let Some(name) = symbol.split_whitespace().nth(1) else { continue };
        *samples.entry(plain(name)).or_default() += count;
    }
    let all: u32 = samples.values().sum();
    if all < FEWEST {
        bail!("perf took {all} samples of the generator's process; it should be some {FEWEST} at least");
    }
    let share = |count: u32| f64::from(count) / f64::from(all);
    Ok(samples.into_iter().map(|(name, count)| (name, share(count))).collect())
}

/// `bpf_prog_<tag>_<name>` is the program's name.
fn plain(symbol: &str) -> String {
    let program = symbol.strip_prefix("bpf_prog_").and_then(|rest| rest.split_once('_'));
    program.map_or(symbol, |(_, name)| name).to_owned()
}

/// Functions sorted by what the last plane spends more in them than the first.
fn table(text: &mut String, traffic: Traffic, size: Size, profiles: &[Profile]) -> Result<()> {
    let (Some(first), Some(last)) = (profiles.first(), profiles.last()) else { return Ok(()) };
    let ns = |profile: &Profile, name: &str| profile.functions.get(name).copied().unwrap_or_default();
    let mut names: Vec<&String> = last.functions.keys().chain(first.functions.keys()).collect();
    names.sort_by(|a, b| {
        let more = |name: &str| ns(last, name) - ns(first, name);
        more(b).total_cmp(&more(a)).then(a.cmp(b))
    });
    names.dedup();
    let columns = profiles.iter().fold(String::new(), |all, profile| all + " | " + profile.plane.as_str());
    writeln!(
        text,
        "\n#### {} flows, {} filters, {} prefixes\n",
        traffic.as_str(),
        size.filters,
        size.prefixes
    )?;
    writeln!(text, "| ns a packet in{columns} |\n| ---{} |", " | --:".repeat(profiles.len()))?;
    let row = |name: &str, figures: &dyn Fn(&Profile) -> f64| {
        profiles.iter().fold(format!("| {name}"), |all, profile| format!("{all} | {:.0}", figures(profile)))
            + " |"
    };
    writeln!(text, "{}", row("**all**", &|profile| profile.packet))?;
    for name in names.into_iter().take(SHOWN) {
        writeln!(text, "{}", row(&format!("`{name}`"), &|profile| ns(profile, name)))?;
    }
    Ok(())
}

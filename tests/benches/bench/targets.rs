//! What the project set itself, and whether this run reached it. Only what was measured is judged.

use crate::generator::Way;
use crate::report::Report;
use crate::router::Plane;
use serde::Serialize;

/// A target that this run says something about.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Target {
    pub(crate) what: String,
    pub(crate) goal: String,
    pub(crate) measured: String,
    pub(crate) reached: bool,
}

/// The largest policy.
const LARGEST: (usize, usize) = (4_096, 1_000_000);

/// Judges them all. Forwarding is judged by packets from the LAN, as a router gets them.
pub(crate) fn judge(report: &Report) -> Vec<Target> {
    [
        forwarding(report, "fresh", (10, 1_000), 0.95),
        forwarding(report, "fresh", LARGEST, 0.92),
        forwarding(report, "established", LARGEST, 0.97),
        against_seed(report),
        loading(report),
        cold(report),
        memory(report),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn row<'a>(
    report: &'a Report,
    plane: Plane,
    traffic: &str,
    (filters, prefixes): (usize, usize),
) -> Option<&'a crate::forwarding::Row> {
    report.forwarding.iter().find(|row| {
        row.plane == plane.as_str()
            && row.way == Way::Lan.as_str()
            && row.traffic == traffic
            && (row.filters, row.prefixes) == (filters, prefixes)
    })
}

fn forwarding(report: &Report, traffic: &str, size: (usize, usize), least: f64) -> Option<Target> {
    let ratio = row(report, Plane::Multiwans, traffic, size)?.ratio?;
    Some(Target {
        what: format!("{traffic} flows, {} filters, {} prefixes, against nothing", size.0, size.1),
        goal: format!("at least {least}"),
        measured: ratio.text(3),
        reached: ratio.median >= least,
    })
}

fn against_seed(report: &Report) -> Option<Target> {
    const LEAST: f64 = 25.0;
    let size = (1_000, 1_000);
    let ours = row(report, Plane::Multiwans, "fresh", size)?.kpps.median;
    let seed = row(report, Plane::Seed, "fresh", size)?.kpps.median;
    Some(Target {
        what: "fresh flows, 1000 filters, against the Bash tool's rules".into(),
        goal: format!("at least {LEAST} ×"),
        measured: format!("{:.1} ×", ours / seed),
        reached: ours / seed >= LEAST,
    })
}

fn loading(report: &Report) -> Option<Target> {
    const LEAST: f64 = 5.0;
    let ms = |how: &str| {
        let rows = &report.load.as_ref()?.rows;
        Some(rows.iter().find(|row| row.how == how && row.prefixes == LARGEST.1)?.ms.median)
    };
    let times = ms("ipset restore")? / ms("multiwans")?;
    Some(Target {
        what: format!("{} prefixes from a file to active, against `ipset restore`", LARGEST.1),
        goal: format!("at least {LEAST} × faster"),
        measured: format!("{times:.1} ×"),
        reached: times >= LEAST,
    })
}

fn cold(report: &Report) -> Option<Target> {
    const MOST: f64 = 3.0;
    let ns = |size: (usize, usize)| {
        let rows = &report.programs.as_ref()?.test_runs;
        let row =
            rows.iter().find(|row| row.what == "steer, fresh flow" && (row.filters, row.prefixes) == size);
        Some(row?.cold.median)
    };
    let times = ns(LARGEST)? / ns((10, 10))?;
    Some(Target {
        what: "cold classification, 4096 filters and 1000000 prefixes against 10 and 10".into(),
        goal: format!("at most {MOST} ×"),
        measured: format!("{times:.2} ×"),
        reached: times <= MOST,
    })
}

fn memory(report: &Report) -> Option<Target> {
    const MOST_MIB: f64 = 160.0;
    let memory = &report.load.as_ref()?.memory;
    if (memory.filters, memory.prefixes) != LARGEST {
        return None;
    }
    Some(Target {
        what: format!("kernel memory with {} prefixes and {} flows", memory.prefixes, memory.flows),
        goal: format!("at most {MOST_MIB} MiB"),
        measured: format!("{:.1} MiB", memory.total_mib),
        reached: memory.total_mib <= MOST_MIB,
    })
}

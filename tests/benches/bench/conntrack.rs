//! Deleting the conntrack entries of a link that is gone: our one netlink request, our way on kernels that lack it,
//! and the pipeline of a shell script.

use crate::generator::Way;
use crate::options::Options;
use crate::policy::{Policy, Size};
use crate::router::{Plane, Router, Site};
use crate::stats::Spread;
use anyhow::{Result, bail};
use multiwans::net::conntrack::Conntrack;
use multiwans_tests::Ns;
use multiwans_tests::topology::wan_ip;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Entries to delete.
const ENTRIES: usize = 100_000;

/// One line of the table, in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    pub(crate) how: &'static str,
    pub(crate) entries: usize,
    pub(crate) ms: Spread,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum How {
    AtOnce,
    OneByOne,
    Shell,
}

impl How {
    const ALL: [Self; 3] = [Self::AtOnce, Self::OneByOne, Self::Shell];

    const fn as_str(self) -> &'static str {
        match self {
            Self::AtOnce => "multiwans: one request",
            Self::OneByOne => "multiwans: listed, one by one (kernels that cannot filter)",
            Self::Shell => "shell: conntrack -L | grep | awk | sort | xargs conntrack -D",
        }
    }
}

pub(crate) fn run(options: &Options, cpu: usize) -> Result<Vec<Row>> {
    eprintln!("conntrack: {ENTRIES} entries");
    let site = Site::build(Plane::Nothing)?;
    let policy = Policy::new(Size { filters: 1, prefixes: 1_000 });
    let router = site.install(&policy)?;
    let packets = policy.packets(ENTRIES);
    let mut generator = router.generator(Way::Lan, &packets)?;
    let mut samples: BTreeMap<How, Vec<f64>> = BTreeMap::new();
    // Making the entries takes longer than deleting them.
    let rounds = if options.quick { 1 } else { options.rounds().min(5) };
    for _ in 0..rounds {
        for how in How::ALL {
            site.forget_connections()?;
            generator.rewind();
            router.pass(&mut generator, Way::Lan, cpu, ENTRIES, Duration::from_secs(60))?;
            let before = site.connections()?;
            if before < ENTRIES {
                bail!("only {before} of {ENTRIES} entries were made");
            }
            let start = Instant::now();
            delete(&router, how)?;
            let time = start.elapsed();
            let left = site.connections()?;
            if left > ENTRIES / 1000 {
                bail!("{}: {left} of {before} entries are left", how.as_str());
            }
            samples.entry(how).or_default().push(time.as_secs_f64() * 1e3);
        }
    }
    router.remove()?;
    let rows = samples.into_iter().filter_map(|(how, samples)| {
        Some(Row { how: how.as_str(), entries: ENTRIES, ms: Spread::of(samples)? })
    });
    Ok(rows.collect())
}

fn delete(router: &Router<'_>, how: How) -> Result<()> {
    // All flows went out by WAN 1, which is gone now; WAN 2 is the default.
    let (gone, next) = (wan_ip(1), wan_ip(2));
    let lab = &router.site.lab;
    if how == How::Shell {
        let pipeline = format!(
            "conntrack -L --mark 0 --src-nat 2>/dev/null | grep -v 'dst={next} ' | awk '{{ n = 0; \
             for (i = 1; i <= NF; i++) if ($i ~ /^dst=/ && ++n == 2) print substr($i, 5) }}' | sort -u | \
             xargs -I {{}} conntrack -D --mark 0 --src-nat {{}} >/dev/null 2>&1"
        );
        let status = lab.namespace(Ns::Router).command("sh").args(["-c", &pipeline]).status()?;
        if !status.success() {
            bail!("the pipeline failed: {status}");
        }
        return Ok(());
    }
    lab.in_ns(Ns::Router, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut conntrack = Conntrack::open()?;
            match how {
                How::AtOnce => conntrack.delete_from_address(gone).await?,
                _ => conntrack.delete_one_by_one(gone).await?,
            };
            Ok(())
        })
    })
}

//! Packets a second through a router that masquerades, data plane against data plane.

use crate::frame::Datagram;
use crate::generator::{Generator, Way};
use crate::options::Options;
use crate::policy::{Policy, Size};
use crate::router::{FLOW_HOST, Passed, Plane, Router, Site};
use crate::stats::Spread;
use anyhow::{Context, Result};
use multiwans_tests::wait::pause;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// Frames for one burst of fresh flows: more than a burst sends, and less than half of the connections that a
/// kernel's table holds by default (262 144), so that it never comes to evict.
pub(crate) const FRESH: usize = 120_000;
/// Flows that are known: more than the nearest caches hold, and never two packets of one in a row. As bad as it gets.
const ESTABLISHED: usize = 16_384;
/// Flows that are known, and that caches hold.
const FEW: usize = 512;
/// Rounds before those that count: caches get warm, and a generator finds out how much fits into a burst.
const WARM_UPS: usize = 2;
/// What a deleted connection leaves to be done later (RCU) is done in this time.
const SETTLE_TIME: Duration = Duration::from_millis(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Traffic {
    Fresh,
    Established,
    FewEstablished,
}

impl Traffic {
    pub(crate) const ALL: [Self; 3] = [Self::Fresh, Self::Established, Self::FewEstablished];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Established => "established",
            Self::FewEstablished => "few established",
        }
    }

    pub(crate) fn packets(self, policy: &Policy) -> Vec<Datagram> {
        match self {
            Self::Fresh => policy.packets(FRESH),
            Self::Established => policy.flows(ESTABLISHED, FLOW_HOST),
            Self::FewEstablished => policy.flows(FEW, FLOW_HOST),
        }
    }
}

/// One line of the table.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    pub(crate) filters: usize,
    pub(crate) prefixes: usize,
    pub(crate) traffic: &'static str,
    pub(crate) way: &'static str,
    pub(crate) plane: &'static str,
    /// Packets a second that left the router, in thousands.
    pub(crate) kpps: Spread,
    /// Against `nothing` of the same round.
    pub(crate) ratio: Option<Spread>,
    /// The same with the generator's own time taken off both.
    pub(crate) router_ratio: Option<Spread>,
    /// Packets sent that did not leave the router, of a thousand.
    pub(crate) lost: f64,
}

/// The generator alone.
pub(crate) const GENERATOR: &str = "generator alone";

/// One round of one plane: nanoseconds a packet, and what was lost.
#[derive(Debug, Clone, Copy)]
struct Sample {
    ns: f64,
    sent: usize,
    lost: u64,
}

/// By way and plane; no plane: the generator alone.
type Samples = BTreeMap<(Way, Option<Plane>), Vec<Sample>>;

/// Measures all sizes.
pub(crate) fn run(options: &Options, cpu: usize) -> Result<Vec<Row>> {
    let sites: Vec<Site> = options.planes().into_iter().map(Site::build).collect::<Result<_>>()?;
    let mut rows = Vec::new();
    for size in options.sizes() {
        let cell = Cell::new(options, cpu, size, &sites)?;
        for traffic in Traffic::ALL {
            rows.extend(cell.measure(traffic)?);
        }
        cell.end()?;
    }
    Ok(rows)
}

/// One size on all data planes.
struct Cell<'a> {
    options: &'a Options,
    cpu: usize,
    policy: Policy,
    routers: Vec<Router<'a>>,
}

impl<'a> Cell<'a> {
    fn new(options: &'a Options, cpu: usize, size: Size, sites: &'a [Site]) -> Result<Self> {
        let policy = Policy::new(size);
        eprintln!("forwarding: {} filters, {} prefixes", size.filters, size.prefixes);
        let routers = sites.iter().map(|site| site.install(&policy)).collect::<Result<_>>()?;
        Ok(Self { options, cpu, policy, routers })
    }

    fn end(self) -> Result<()> {
        self.routers.into_iter().try_for_each(Router::remove)
    }

    fn measure(&self, traffic: Traffic) -> Result<Vec<Row>> {
        let packets = traffic.packets(&self.policy);
        let mut ready = Vec::new();
        for router in &self.routers {
            ready.push(match traffic {
                Traffic::Fresh => packets.len(),
                Traffic::Established | Traffic::FewEstablished => router
                    .establish(&packets, self.cpu)
                    .with_context(|| format!("no flows with {}", router.site.plane.as_str()))?,
            });
        }
        let mut samples = Samples::new();
        for way in self.options.ways() {
            let ready = self.routers.iter().zip(&ready);
            let mut generators: Vec<Generator> = ready
                .map(|(router, count)| router.generator(way, &packets[..*count]))
                .collect::<Result<_>>()?;
            for _ in 0..WARM_UPS {
                self.round(traffic, way, 0, &mut generators, &mut Samples::new())?;
            }
            for round in 0..self.options.rounds() {
                self.round(traffic, way, round, &mut generators, &mut samples)?;
            }
        }
        Ok(self.rows(traffic, &samples))
    }

    /// Every plane once; each round begins with another one.
    fn round(
        &self,
        traffic: Traffic,
        way: Way,
        round: usize,
        generators: &mut [Generator],
        samples: &mut Samples,
    ) -> Result<()> {
        let count = self.routers.len();
        for index in (0..count).map(|step| (step + round) % count) {
            let (router, generator) = (&self.routers[index], &mut generators[index]);
            let most = most(traffic, generator);
            if traffic == Traffic::Fresh {
                // Everybody's: the kernel has one table for all namespaces, and what others left in it lengthens its
                // chains for whoever comes later, or forwards less.
                self.routers.iter().try_for_each(|router| router.site.forget_connections())?;
                pause(SETTLE_TIME)?;
                generator.rewind();
            }
            let passed = router.pass(generator, way, self.cpu, most, self.options.burst())?;
            samples.entry((way, Some(router.site.plane))).or_default().push(sample(&passed));
        }
        let (router, generator) = (&self.routers[0], &mut generators[0]);
        let most = most(traffic, generator);
        let burst = router.pass_nothing(generator, way, self.cpu, most, self.options.burst())?;
        let alone = Passed { sent: burst.sent, received: burst.sent as u64, time: burst.time };
        samples.entry((way, None)).or_default().push(sample(&alone));
        Ok(())
    }

    fn rows(&self, traffic: Traffic, samples: &Samples) -> Vec<Row> {
        let mut rows = Vec::new();
        for ((way, plane), own) in samples {
            let alone = samples.get(&(*way, None));
            let nothing = samples.get(&(*way, Some(Plane::Nothing)));
            let rounds = || own.iter().enumerate();
            let ratio = nothing.filter(|_| plane.is_some()).and_then(|nothing| {
                Spread::of(rounds().map(|(round, sample)| nothing[round].ns / sample.ns))
            });
            let router_ratio = nothing.zip(alone).filter(|_| plane.is_some()).and_then(|(nothing, alone)| {
                Spread::of(rounds().map(|(round, sample)| {
                    (nothing[round].ns - alone[round].ns) / (sample.ns - alone[round].ns)
                }))
            });
            let Some(kpps) = Spread::of(own.iter().map(|sample| 1e6 / sample.ns)) else { continue };
            let sent: usize = own.iter().map(|sample| sample.sent).sum();
            let lost: u64 = own.iter().map(|sample| sample.lost).sum();
            rows.push(Row {
                filters: self.policy.size.filters,
                prefixes: self.policy.size.prefixes,
                traffic: traffic.as_str(),
                way: way.as_str(),
                plane: plane.map_or(GENERATOR, Plane::as_str),
                kpps,
                ratio,
                router_ratio,
                lost: 1000.0 * lost as f64 / sent as f64,
            });
        }
        rows
    }
}

/// Fresh flows only once each; known ones as often as the time allows.
fn most(traffic: Traffic, generator: &Generator) -> usize {
    match traffic {
        Traffic::Fresh => generator.frames(),
        Traffic::Established | Traffic::FewEstablished => usize::MAX,
    }
}

fn sample(passed: &Passed) -> Sample {
    Sample {
        ns: 1e9 / passed.per_second(),
        sent: passed.sent,
        lost: (passed.sent as u64).saturating_sub(passed.received),
    }
}

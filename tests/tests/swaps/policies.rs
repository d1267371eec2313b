//! Two policies that differ in everything, and a mixture of which would show.
//!
//! Whatever the client sends to the internet host, the old policy sends by [`OLD`] and the new one by [`NEW`].
//! No filter of either sends it by another WAN, and both take it by all four dimensions: addresses in lists,
//! ranges of ports. Their other filters are traps: for each way to take some dimensions of one policy and the rest of
//! the other there is one that matches then, and sends by [`TRAP`]. And the filter that takes the traffic has
//! another number in each policy, which in the other is that of a filter of [`TRAP`] or of none.

use anyhow::Result;
use fastrand::Rng;
use multiwans_tests::topology::internet_addresses;
use multiwans_tests::{Config, Lab};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// The WAN of what no filter takes: by neither policy what the client sends.
pub(crate) const DEFAULT: u8 = 1;
/// The WAN of what only a mixture takes.
pub(crate) const TRAP: u8 = 2;
/// The WAN of the first policy.
pub(crate) const OLD: u8 = 3;
/// The WAN of the second one.
pub(crate) const NEW: u8 = 4;
/// How many a lab must have.
pub(crate) const WANS: u8 = 4;

/// Lists that the filters share which are there to be many.
const LISTS: usize = 10;
/// Prefixes in lists, for each of these filters.
const PREFIXES: usize = 100;

/// What a dimension says so that it takes the client's packets, and so that it does not.
struct Selector {
    takes: &'static str,
    passes: &'static str,
}

/// Source, destination, source port, destination port.
const OLD_SELECTORS: [Selector; 4] = [
    Selector { takes: "src: [192.168.50.0/24]", passes: "src: [192.168.77.0/24]" },
    Selector { takes: "dstFiles: [old/takes]", passes: "dstFiles: [old/0]" },
    Selector { takes: "sports: [\"1000:65535\"]", passes: "sports: [\"1:999\"]" },
    Selector { takes: "dports: [\"5000:5999\"]", passes: "dports: [80, \"6000:6999\"]" },
];
const NEW_SELECTORS: [Selector; 4] = [
    Selector { takes: "src: [192.168.50.2/32, 192.168.50.128/25]", passes: "src: [192.168.50.3/32]" },
    Selector { takes: "dstFiles: [new/takes]", passes: "dstFiles: [new/1]" },
    Selector { takes: "sports: [\"9000:62000\"]", passes: "sports: [\"1:8999\"]" },
    Selector { takes: "dports: [\"4000:5050\", 5555]", passes: "dports: [\"5051:5554\"]" },
];

/// Makes the lists and the two configurations; each has so many filters beside those that matter.
pub(crate) fn write(lab: &Lab, filters: usize) -> Result<[Config; 2]> {
    // `/run` in the daemon's view, the configuration's folder.
    let run = lab.router_files().run();
    let mut rng = Rng::with_seed(4);
    let mut hosts = String::new();
    for address in internet_addresses() {
        writeln!(hosts, "{address}")?;
    }
    lists(&run.join("old"), filters, "203.0.113.0/24\n198.51.100.0/24\n192.0.2.0/24\n", &mut rng)?;
    lists(&run.join("new"), filters, &hosts, &mut rng)?;
    let base = || Config::of(lab).extra("flows: {max: 1048576}");
    let old = many(base(), "old", filters, &mut rng);
    let old = taking(traps(old, &OLD_SELECTORS, 0b1111), OLD, &OLD_SELECTORS);
    let new = traps(many(base(), "new", filters, &mut rng), &NEW_SELECTORS, 0);
    // Only for the numbers of those behind it.
    let new = ["one", "two"].iter().fold(new, |new, name| new.filter(TRAP, name, "protocol: sctp"));
    Ok([old, taking(new, NEW, &NEW_SELECTORS)])
}

/// The lists of a policy: one that has the internet host, and many that do not.
fn lists(folder: &Path, filters: usize, takes: &str, rng: &mut Rng) -> Result<()> {
    fs::create_dir(folder)?;
    fs::write(folder.join("takes"), takes)?;
    for number in 0..LISTS {
        let mut text = "# made at random, nowhere near the lab\n".to_owned();
        for _ in 0..(filters * PREFIXES / LISTS).max(1) {
            let [_, b, c, d] = rng.u32(..).to_be_bytes();
            writeln!(text, "{}.{b}.{c}.{d}/32", rng.u8(11..100))?;
        }
        fs::write(folder.join(number.to_string()), text)?;
    }
    Ok(())
}

/// Filters that take nothing of what is sent, and cost what filters cost.
fn many(config: Config, policy: &str, filters: usize, rng: &mut Rng) -> Config {
    (0..filters).fold(config, |config, number| {
        let protocol = if number % 2 == 0 { "tcp" } else { "udp" };
        let (port, list) = (rng.u16(1..60_000), number % LISTS);
        let body =
            format!("protocol: {protocol}, dstFiles: [{policy}/{list}], dports: [\"{port}:{}\"]", port + 100);
        config.filter(TRAP, &format!("f{number}"), &body)
    })
}

/// For each mixture of the dimensions a filter that only such a mixture matches: of those dimensions that its
/// number names, exclusive-or `of_others`, it takes the traffic, of the rest not.
fn traps(config: Config, selectors: &[Selector; 4], of_others: usize) -> Config {
    (1..0b1111usize).fold(config, |config, mixture| {
        let takes = |dimension: usize| (mixture ^ of_others) >> dimension & 1 == 1;
        let keys = selectors.iter().enumerate();
        let keys = keys.map(|(number, key)| if takes(number) { key.takes } else { key.passes });
        let keys = keys.collect::<Vec<_>>().join(", ");
        ["udp", "tcp"].iter().fold(config, |config, protocol| {
            config.filter(
                TRAP,
                &format!("trap {mixture} {protocol}"),
                &format!("protocol: {protocol}, {keys}"),
            )
        })
    })
}

/// The filters that take the client's traffic.
fn taking(config: Config, wan: u8, selectors: &[Selector; 4]) -> Config {
    let keys = selectors.each_ref().map(|key| key.takes).join(", ");
    ["udp", "tcp"].iter().fold(config, |config, protocol| {
        config.filter(wan, &format!("traffic {protocol}"), &format!("protocol: {protocol}, {keys}"))
    })
}

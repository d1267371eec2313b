//! Random policies, and how the daemon's configuration spells them.

use crate::{Config, Lab};
use fastrand::Rng;
use std::fmt;
use std::net::Ipv4Addr;

/// Filters of one WAN are fewer than one of these. Few make the default likely, many make overlaps so; a
/// search over bit vectors has its corners at multiples of 64; and there may be 4 096 together.
const MOST_FILTERS: [usize; 4] = [6, 70, 140, 800];

/// Nets of one list, at most.
const MOST_NETS: usize = 5;

/// Port ranges of one list, at most: iptables' multiport takes fifteen ports, a range counting for two.
const MOST_RANGES: usize = 5;

/// A network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Net {
    address: Ipv4Addr,
    length: u8,
}

impl Net {
    /// Around an address that packets have too.
    fn random(rng: &mut Rng, address: Ipv4Addr) -> Self {
        // Host and /24 boundaries are where tables of prefixes change their form; 0 is everything.
        let length = match rng.u8(..50) {
            0 => rng.u8(0..=7),
            1..10 => rng.u8(8..=16),
            10..20 => rng.u8(17..=23),
            20..30 => 24,
            30..40 => rng.u8(25..=31),
            _ => 32,
        };
        let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
        Self { address: Ipv4Addr::from_bits(address.to_bits() & mask), length }
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// Ports `first` to `last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ports {
    first: u16,
    last: u16,
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self { first, last } if first == last => write!(f, "{first}"),
            Self { first, last } => write!(f, "{first}:{last}"),
        }
    }
}

/// A filter for forwarded traffic.
#[derive(Debug, Clone)]
pub(crate) struct Filter {
    pub(crate) protocol: &'static str,
    pub(crate) src: Vec<Net>,
    pub(crate) dst: Vec<Net>,
    pub(crate) sports: Vec<Ports>,
    pub(crate) dports: Vec<Ports>,
}

const PORTED: [&str; 4] = ["tcp", "udp", "udplite", "sctp"];
const PORTLESS: [&str; 5] = ["all", "icmp", "gre", "esp", "ah"];

impl Filter {
    fn random(rng: &mut Rng) -> Self {
        let ported = rng.u8(..10) < 7;
        let protocol = *pick(rng, if ported { &PORTED } else { &PORTLESS });
        let mut ranges = |likely: u8| {
            let some = ported && rng.u8(..10) < likely;
            let count = if some { rng.usize(1..=MOST_RANGES) } else { 0 };
            (0..count).map(|_| random_range(rng)).collect()
        };
        let (sports, dports) = (ranges(2), ranges(7));
        // Mostly narrow: after a filter that takes nearly everything, the others are not asked.
        let src = if rng.u8(..10) < 8 { nets(rng, source) } else { Vec::new() };
        let dst = if rng.u8(..10) < 9 { nets(rng, destination) } else { Vec::new() };
        Self { protocol, src, dst, sports, dports }
    }

    /// Its keys in the daemon's configuration but the description.
    fn yaml(&self) -> String {
        let mut keys = format!("protocol: {}", self.protocol);
        let mut list = |key: &str, items: Vec<String>| {
            if !items.is_empty() {
                keys.push_str(&format!(", {key}: [{}]", items.join(", ")));
            }
        };
        list("src", self.src.iter().map(Net::to_string).collect());
        list("dst", self.dst.iter().map(Net::to_string).collect());
        // Quoted: YAML 1.1 takes 1:30 for a number in base 60.
        list("sports", self.sports.iter().map(|ports| format!("'{ports}'")).collect());
        list("dports", self.dports.iter().map(|ports| format!("'{ports}'")).collect());
        keys
    }
}

/// Filters of every WAN in order, and the local networks.
#[derive(Debug, Clone)]
pub struct Policy {
    pub(crate) localnets: Vec<Net>,
    /// Of WAN 1, 2, …
    pub(crate) filters: Vec<Vec<Filter>>,
}

impl Policy {
    /// One for so many WANs.
    pub fn random(rng: &mut Rng, wans: u8) -> Self {
        let localnets = nets(rng, destination);
        let filters = (0..wans)
            .map(|_| {
                let most = *pick(rng, &MOST_FILTERS);
                (0..rng.usize(..most)).map(|_| Filter::random(rng)).collect()
            })
            .collect();
        Self { localnets, filters }
    }

    /// The daemon's configuration.
    #[must_use]
    pub fn config(&self, lab: &Lab) -> Config {
        let localnets = self.localnets.iter().map(Net::to_string).collect();
        let mut config = Config::of(lab).localnets(localnets);
        for (k, filters) in (1..).zip(&self.filters) {
            for (number, filter) in filters.iter().enumerate() {
                config = config.filter(k, &format!("wan {k} filter {number}"), &filter.yaml());
            }
        }
        config
    }
}

fn nets(rng: &mut Rng, address: fn(&mut Rng) -> Ipv4Addr) -> Vec<Net> {
    (0..rng.usize(1..=MOST_NETS))
        .map(|_| {
            let address = address(rng);
            Net::random(rng, address)
        })
        .collect()
}

/// Where packets come from. A small world, so that prefixes nest and packets hit them.
pub(crate) fn source(rng: &mut Rng) -> Ipv4Addr {
    match rng.u8(..3) {
        0 => Ipv4Addr::new(172, 20, rng.u8(..2), host(rng)),
        1 => Ipv4Addr::new(100, 80, 0, host(rng)),
        _ => Ipv4Addr::new(130, 7, rng.u8(..3), host(rng)),
    }
}

/// Where packets go to: no network of the lab, or else its specific routes would decide.
pub(crate) fn destination(rng: &mut Rng) -> Ipv4Addr {
    match rng.u8(..4) {
        0 => Ipv4Addr::new(10, 200, rng.u8(..2), host(rng)),
        1 => Ipv4Addr::new(130, 7, rng.u8(..3), host(rng)),
        2 => Ipv4Addr::new(8, rng.u8(..3), rng.u8(..3), host(rng)),
        _ => Ipv4Addr::new(223, 255, 255, host(rng)),
    }
}

fn host(rng: &mut Rng) -> u8 {
    match rng.u8(..4) {
        0 => *pick(rng, &[0, 1, 2, 127, 128, 254, 255]),
        _ => rng.u8(..),
    }
}

/// A port as filters and packets have it.
pub(crate) fn port(rng: &mut Rng) -> u16 {
    match rng.u8(..4) {
        0 => *pick(rng, &[0, 1, 65_534, 65_535, 80, 443]),
        1 => rng.u16(..),
        _ => rng.u16(1000..1020),
    }
}

fn random_range(rng: &mut Rng) -> Ports {
    let (a, b) = (port(rng), port(rng));
    if rng.bool() { Ports { first: a, last: a } } else { Ports { first: a.min(b), last: a.max(b) } }
}

/// One of them.
pub(crate) fn pick<'a, T>(rng: &mut Rng, choices: &'a [T]) -> &'a T {
    &choices[rng.usize(..choices.len())]
}

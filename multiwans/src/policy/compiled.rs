//! The policy in the form the programs read, still as plain Rust values.

use std::collections::BTreeSet;

use ipnet::Ipv4Net;
use multiwans_common::{BITS_PER_WORD, MAX_FILTERS};

use super::Tuple;
use super::ports::Ports;
use super::prefixes::{Prefixes, Selector};
use super::vectors::{Classes, FilterSet};
use crate::config::{Chain, Config, Filter};
use crate::types::WanMark;

/// Both policies of a configuration.
#[derive(Debug, PartialEq, Eq)]
pub struct Policies {
    /// Forwarded traffic.
    pub forwarding: Compiled,
    /// The router's own.
    pub output: Compiled,
}

impl Policies {
    /// Compiles them.
    pub fn new(config: &Config) -> Result<Self, TooManyFilters> {
        Ok(Self { forwarding: Compiled::new(config)?, output: Compiled::of(config, Chain::Output)? })
    }
}

/// A compiled policy: the filters of one chain in evaluation order, and five dimensions of classes.
#[derive(Debug, PartialEq, Eq)]
pub struct Compiled {
    /// Where each filter sends, and where the search goes on when that WAN takes nothing.
    pub filters: Vec<CompiledFilter>,
    /// Sets of filters, by class.
    pub vectors: Vec<FilterSet>,
    /// Source addresses.
    pub sources: Prefixes,
    /// Destination addresses.
    pub destinations: Prefixes,
    /// Class of each IP protocol number.
    pub protocols: Vec<u32>,
    /// Source ports.
    pub source_ports: Ports,
    /// Destination ports.
    pub destination_ports: Ports,
}

/// One filter of the compiled policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompiledFilter {
    /// Its WAN.
    pub wan: WanMark,
    /// Number of the next filter that belongs to another WAN; the number of filters where there is none.
    pub skip_to: u32,
}

/// More filters than the programs can hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("filters ({count}) must be at most {MAX_FILTERS}")]
pub struct TooManyFilters {
    /// How many there are.
    pub count: usize,
}

/// The filters that steer forwarded traffic, in evaluation order.
pub fn forwarding_filters(config: &Config) -> impl Iterator<Item = (WanMark, &Filter)> {
    filters_of(config, Chain::Prerouting)
}

/// The filters of a chain that steer, in evaluation order: by WAN, then as they stand in the file. Those
/// of the WAN with order 1 steer nothing: it is where traffic goes anyway.
pub fn filters_of(config: &Config, chain: Chain) -> impl Iterator<Item = (WanMark, &Filter)> {
    config
        .wans
        .iter()
        .filter(|wan| wan.order_failover != Some(1))
        .flat_map(|wan| wan.filters.iter().map(move |filter| (wan.mark, filter)))
        .filter(move |(_, filter)| filter.chain == chain)
}

impl Compiled {
    /// Compiles the filters for forwarded traffic.
    pub fn new(config: &Config) -> Result<Self, TooManyFilters> {
        Self::of(config, Chain::Prerouting)
    }

    /// Compiles the filters of one chain.
    pub fn of(config: &Config, chain: Chain) -> Result<Self, TooManyFilters> {
        let source: Vec<(WanMark, &Filter)> = filters_of(config, chain).collect();
        if source.len() > MAX_FILTERS {
            return Err(TooManyFilters { count: source.len() });
        }
        let mut classes = Classes::new(source.len());
        let sources: Vec<Selector<'_>> = source.iter().map(|(_, filter)| source_selector(filter)).collect();
        let destinations: Vec<Selector<'_>> =
            source.iter().map(|(_, filter)| destination_selector(filter, &config.localnets)).collect();
        let source_ports: Vec<_> = source.iter().map(|(_, filter)| filter.sports.as_slice()).collect();
        let destination_ports: Vec<_> = source.iter().map(|(_, filter)| filter.dports.as_slice()).collect();

        let sources = Prefixes::compile(&sources, &mut classes);
        let destinations = Prefixes::compile(&destinations, &mut classes);
        let source_ports = Ports::compile(&source_ports, &mut classes);
        let destination_ports = Ports::compile(&destination_ports, &mut classes);
        let protocols = (0..=u8::MAX).map(|number| classes.class(&protocol_set(&source, number))).collect();
        Ok(Self {
            filters: with_skips(&source),
            vectors: classes.into_sets(),
            sources,
            destinations,
            protocols,
            source_ports,
            destination_ports,
        })
    }

    /// The WAN whose filter takes a packet, by the same steps as the programs: the first filter of all
    /// five sets whose WAN is usable and not the default.
    pub fn first_match(
        &self,
        packet: &Tuple,
        usable: &BTreeSet<WanMark>,
        default: Option<WanMark>,
    ) -> Option<WanMark> {
        let sets = [
            self.protocols[usize::from(packet.protocol)],
            self.sources.class_of(packet.source),
            self.destinations.class_of(packet.destination),
            self.source_ports.class_of(packet.source_port),
            self.destination_ports.class_of(packet.destination_port),
        ]
        .map(|class| self.vectors[class as usize].words());
        let mut position = 0;
        while position < self.filters.len() {
            let word = position / BITS_PER_WORD;
            let candidates =
                sets.iter().fold(u64::MAX << (position % BITS_PER_WORD), |bits, set| bits & set[word]);
            if candidates == 0 {
                position = (word + 1) * BITS_PER_WORD;
                continue;
            }
            let filter = self.filters[word * BITS_PER_WORD + candidates.trailing_zeros() as usize];
            if Some(filter.wan) != default && usable.contains(&filter.wan) {
                return Some(filter.wan);
            }
            position = filter.skip_to as usize;
        }
        None
    }
}

fn source_selector(filter: &Filter) -> Selector<'_> {
    if filter.src.is_empty() { Selector::Any } else { Selector::In(&filter.src) }
}

fn destination_selector<'a>(filter: &'a Filter, localnets: &'a [Ipv4Net]) -> Selector<'a> {
    if filter.dst.is_empty() { Selector::NotIn(localnets) } else { Selector::In(&filter.dst) }
}

fn protocol_set(filters: &[(WanMark, &Filter)], number: u8) -> FilterSet {
    let mut set = FilterSet::empty(filters.len());
    for (index, (_, filter)) in filters.iter().enumerate() {
        if filter.protocol.number().is_none_or(|own| own == number) {
            set.insert(index);
        }
    }
    set
}

fn with_skips(filters: &[(WanMark, &Filter)]) -> Vec<CompiledFilter> {
    let mut result: Vec<CompiledFilter> = Vec::with_capacity(filters.len());
    let mut next: Option<CompiledFilter> = None;
    for (index, (wan, _)) in filters.iter().enumerate().rev() {
        let skip_to = match next {
            Some(following) if following.wan == *wan => following.skip_to,
            // At most MAX_FILTERS, so it fits.
            _ => u32::try_from(index + 1).unwrap_or(u32::MAX),
        };
        let filter = CompiledFilter { wan: *wan, skip_to };
        next = Some(filter);
        result.push(filter);
    }
    result.reverse();
    result
}

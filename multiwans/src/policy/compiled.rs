//! The policy in the form the programs read, still as plain Rust values.

use std::collections::BTreeSet;

use ipnet::Ipv4Net;
use multiwans_common::dimension::Dimension as Kind;
use multiwans_common::filters::MAX_FILTERS;

use super::dimension::{Dimension, TooLarge};
use super::filters::{Entry, Filters};
use super::prefixes::Selector;
use super::search::first_match;
use super::{Tuple, ports, prefixes};
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
    pub fn new(config: &Config) -> Result<Self, CompileError> {
        Ok(Self { forwarding: Compiled::new(config)?, output: Compiled::of(config, Chain::Output)? })
    }
}

/// A compiled policy: the filters of one chain in evaluation order, and four dimensions of classes.
#[derive(Debug, PartialEq, Eq)]
pub struct Compiled {
    /// The filters.
    pub filters: Filters,
    /// By [`Kind`].
    pub dimensions: [Dimension; Kind::COUNT],
}

/// One filter of the compiled policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompiledFilter {
    /// Its WAN.
    pub wan: WanMark,
    /// Number of the next filter that belongs to another WAN; the number of filters where there is none.
    pub skip_to: u32,
}

/// A policy the programs cannot hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// Too many filters.
    #[error("filters ({count}) must be at most {MAX_FILTERS}")]
    TooManyFilters {
        /// How many there are.
        count: usize,
    },
    /// Too many prefixes, in too many combinations.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
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
    pub fn new(config: &Config) -> Result<Self, CompileError> {
        Self::of(config, Chain::Prerouting)
    }

    /// Compiles the filters of one chain.
    pub fn of(config: &Config, chain: Chain) -> Result<Self, CompileError> {
        let source: Vec<(WanMark, &Filter)> = filters_of(config, chain).collect();
        if source.len() > MAX_FILTERS {
            return Err(CompileError::TooManyFilters { count: source.len() });
        }
        let sources: Vec<Selector<'_>> = source.iter().map(|(_, filter)| source_selector(filter)).collect();
        let destinations: Vec<Selector<'_>> =
            source.iter().map(|(_, filter)| destination_selector(filter, &config.localnets)).collect();
        let source_ports: Vec<_> = source.iter().map(|(_, filter)| filter.sports.as_slice()).collect();
        let destination_ports: Vec<_> = source.iter().map(|(_, filter)| filter.dports.as_slice()).collect();
        let dimensions = [
            Dimension::new(Kind::Source, prefixes::compile(&sources))?,
            Dimension::new(Kind::Destination, prefixes::compile(&destinations))?,
            Dimension::new(Kind::SourcePort, ports::compile(&source_ports))?,
            Dimension::new(Kind::DestinationPort, ports::compile(&destination_ports))?,
        ];
        let entries: Vec<Entry> = with_skips(&source)
            .into_iter()
            .zip(&source)
            .zip(sources.iter().zip(&destinations))
            .map(|((compiled, (_, filter)), (source, destination))| Entry {
                filter: compiled,
                protocol: filter.protocol.number(),
                named: [
                    source.names(),
                    destination.names(),
                    !filter.sports.is_empty(),
                    !filter.dports.is_empty(),
                ],
            })
            .collect();
        Ok(Self { filters: Filters::new(&entries, &dimensions), dimensions })
    }

    /// The dimensions in which anything tells keys apart, a bit each by number ([`PolicySlot`](multiwans_common::PolicySlot)).
    pub fn used_dimensions(&self) -> u32 {
        Kind::ALL
            .into_iter()
            .zip(&self.dimensions)
            .fold(0, |used, (kind, dimension)| used | u32::from(dimension.has_root()) << kind as u32)
    }

    /// The WAN whose filter takes a packet; `None`: no filter does.
    pub fn first_match(
        &self,
        packet: &Tuple,
        usable: &BTreeSet<WanMark>,
        default: Option<WanMark>,
    ) -> Option<WanMark> {
        first_match(&self.filters, self.dimensions.each_ref(), packet, usable, default)
    }
}

fn source_selector(filter: &Filter) -> Selector<'_> {
    filter.sources().map_or(Selector::Any, Selector::In)
}

fn destination_selector<'a>(filter: &'a Filter, localnets: &'a [Ipv4Net]) -> Selector<'a> {
    filter.destinations().map_or(Selector::NotIn(localnets), Selector::In)
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

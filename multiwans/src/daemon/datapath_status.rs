//! `datapath` of `multiwans status --json`: the flow table and the counters.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::config::{Config, Filter};
use crate::datapath::{Datapath, DatapathError, Family, FlowReport, Version};
use crate::policy::forwarding_filters;
use crate::types::WanMark;
use multiwans_common::{Direction, FlowState, Program, Traffic};

/// `packets`: by reason; `programs`: by program and reason, with bytes; `special`: by program and what was special
/// about a packet, in the same form; `wans`: by mark and direction; `filters`: those for forwarded traffic, in order of evaluation; `flows`: the flow table.
pub(super) fn describe(
    datapath: &mut Datapath,
    config: &Config,
    filters: &FilterCounts,
    flows: &FlowReport,
) -> Result<Map<String, Value>, DatapathError> {
    let mut fields = Map::new();
    let mut packets: Map<String, Value> = Map::new();
    let mut programs = Map::new();
    for program in Program::ALL {
        let mut counts = Map::new();
        for (reason, count) in datapath.reasons(program)? {
            let name = reason.as_str().to_owned();
            let sum = packets.get(&name).and_then(Value::as_u64).unwrap_or(0) + count.packets;
            packets.insert(name.clone(), json!(sum));
            if count.packets > 0 {
                counts.insert(name, traffic(count));
            }
        }
        programs.insert(program.as_str().to_owned(), Value::Object(counts));
    }
    fields.insert("packets".to_owned(), Value::Object(packets));
    fields.insert("programs".to_owned(), Value::Object(programs));

    let mut special = Map::new();
    for program in Program::OF_PACKETS {
        let counts = datapath.special(program)?.into_iter().filter(|(_, count)| count.packets > 0);
        let counts = counts.map(|(special, count)| (special.as_str().to_owned(), traffic(count)));
        special.insert(program.as_str().to_owned(), Value::Object(counts.collect()));
    }
    fields.insert("special".to_owned(), Value::Object(special));

    let mut wans = Map::new();
    for wan in &config.wans {
        let in_out = json!({
            "in": traffic(datapath.wan_traffic(wan.mark, Direction::In)?),
            "out": traffic(datapath.wan_traffic(wan.mark, Direction::Out)?),
        });
        wans.insert(wan.mark.to_string(), in_out);
    }
    fields.insert("wans".to_owned(), Value::Object(wans));

    fields.insert("filters".to_owned(), filters.describe(datapath)?);
    fields.insert("flows".to_owned(), table(flows));
    Ok(fields)
}

/// What filters took, over all policies that they were part of.
#[derive(Default)]
pub(super) struct FilterCounts {
    /// Those of the policy in force, by their numbers, and what they took before it was.
    filters: Vec<(WanMark, Filter, Traffic)>,
}

impl FilterCounts {
    /// Nothing was counted yet.
    pub(super) fn new(config: &Config) -> Self {
        let filters = forwarding_filters(config);
        Self { filters: filters.map(|(wan, filter)| (wan, filter.clone(), Traffic::default())).collect() }
    }

    /// A policy with the filters of `config` replaced the one before. Filters that are as they were go on
    /// counting.
    pub(super) fn replaced(&mut self, datapath: &mut Datapath, config: &Config) -> Result<(), DatapathError> {
        let took = datapath.filter_traffic(Version::Replaced, self.count())?;
        let mut before: BTreeMap<(WanMark, String), Vec<(Filter, Traffic)>> = BTreeMap::new();
        let old = std::mem::take(self).filters;
        for ((wan, filter, carried), took) in old.into_iter().zip(took).rev() {
            let key = (wan, filter.description.clone());
            before.entry(key).or_default().push((filter, sum(carried, took)));
        }
        *self = Self::new(config);
        for (wan, filter, carried) in &mut self.filters {
            let Some(known) = before.get_mut(&(*wan, filter.description.clone())) else { continue };
            // The last is the first of equal ones.
            if let Some(place) = known.iter().rposition(|(known, _)| known == filter) {
                *carried = known.remove(place).1;
            }
        }
        Ok(())
    }

    /// The programs hold no more than a `u32` of them.
    fn count(&self) -> u32 {
        u32::try_from(self.filters.len()).unwrap_or(u32::MAX)
    }

    fn describe(&self, datapath: &mut Datapath) -> Result<Value, DatapathError> {
        let counts = datapath.filter_traffic(Version::InForce, self.count())?;
        let filters = self.filters.iter().zip(counts).map(|((wan, filter, carried), count)| {
            let count = sum(*carried, count);
            json!({ "mark": wan, "description": filter.description,
                    "packets": count.packets, "bytes": count.bytes })
        });
        Ok(filters.collect())
    }
}

fn sum(a: Traffic, b: Traffic) -> Traffic {
    Traffic { packets: a.packets.wrapping_add(b.packets), bytes: a.bytes.wrapping_add(b.bytes) }
}

fn table(report: &FlowReport) -> Value {
    let by_protocol: Map<String, Value> = Family::ALL
        .iter()
        .map(|family| {
            let states: Map<String, Value> = FlowState::ALL
                .iter()
                .map(|state| (*state, report.census.count(*family, *state)))
                .filter(|(_, count)| *count > 0)
                .map(|(state, count)| (state.as_str().to_owned(), json!(count)))
                .collect();
            (family.as_str().to_owned(), Value::Object(states))
        })
        .collect();
    json!({
        "max": report.max,
        "bytes": report.bytes,
        "bytes_in_use": report.bytes_in_use,
        "entries": report.census.total(),
        "counted_seconds_ago": report.counted.map(|counted| counted.elapsed().as_secs()),
        "by_protocol": by_protocol,
        "expired": report.expired,
        "evicted": { "passing": report.evicted_passing, "lasting": report.evicted_lasting },
    })
}

fn traffic(traffic: Traffic) -> Value {
    json!({ "packets": traffic.packets, "bytes": traffic.bytes })
}

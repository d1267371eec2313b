//! `datapath` of `multiwans status --json`: the flow table and the counters.

use serde_json::{Map, Value, json};

use crate::config::Config;
use crate::datapath::{Datapath, DatapathError, Family, FlowReport};
use crate::policy::forwarding_filters;
use multiwans_common::{Direction, FlowState, Program, Traffic};

/// `packets`: by reason; `programs`: by program and reason, with bytes; `wans`: by mark and direction;
/// `filters`: those for forwarded traffic, in order of evaluation; `flows`: the flow table.
pub(super) fn describe(
    datapath: &mut Datapath,
    config: &Config,
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

    let mut wans = Map::new();
    for wan in &config.wans {
        let in_out = json!({
            "in": traffic(datapath.wan_traffic(wan.mark, Direction::In)?),
            "out": traffic(datapath.wan_traffic(wan.mark, Direction::Out)?),
        });
        wans.insert(wan.mark.to_string(), in_out);
    }
    fields.insert("wans".to_owned(), Value::Object(wans));

    let filters: Vec<_> = forwarding_filters(config).collect();
    // The programs hold no more than that.
    let count = u32::try_from(filters.len()).unwrap_or(u32::MAX);
    let counts = datapath.filter_traffic(count)?;
    let filters: Vec<Value> = filters
        .iter()
        .zip(counts)
        .map(|((mark, filter), count)| {
            json!({ "mark": mark, "description": filter.description,
                    "packets": count.packets, "bytes": count.bytes })
        })
        .collect();
    fields.insert("filters".to_owned(), json!(filters));
    fields.insert("flows".to_owned(), table(flows));
    Ok(fields)
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
        "entries": report.census.total(),
        "by_protocol": by_protocol,
        "expired": report.expired,
        "evicted": { "passing": report.evicted_passing, "lasting": report.evicted_lasting },
    })
}

fn traffic(traffic: Traffic) -> Value {
    json!({ "packets": traffic.packets, "bytes": traffic.bytes })
}

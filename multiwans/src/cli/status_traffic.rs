//! The counters and the flow table for people: the compact form of `datapath` in the daemon's answer.

use std::fmt::Write as _;

use serde_json::Value;

use crate::engine::Status;

/// Filters that are shown; the others are in `--json`.
const FILTERS_MAX: usize = 20;

/// What is there of it; empty where the daemon told none.
pub(super) fn summary(status: &Status, datapath: &Value) -> String {
    let mut text = String::new();
    wans(&mut text, status, &datapath["wans"]);
    filters(&mut text, status, &datapath["filters"]);
    flows(&mut text, &datapath["flows"]);
    text
}

fn wans(text: &mut String, status: &Status, wans: &Value) {
    let rows: Vec<[String; 3]> = status
        .wans
        .iter()
        .filter_map(|wan| {
            let counters = wans.get(wan.mark.to_string())?;
            let (inward, outward) = (traffic(&counters["in"])?, traffic(&counters["out"])?);
            Some([super::plain(&wan.description), inward, outward])
        })
        .collect();
    if !rows.is_empty() {
        table(text, ["TRAFFIC", "IN", "OUT"], rows);
    }
}

fn filters(text: &mut String, status: &Status, filters: &Value) {
    let Some(filters) = filters.as_array() else { return };
    let wan_of = |mark: Option<u64>| {
        let found = status.wans.iter().find(|wan| Some(u64::from(wan.mark.get())) == mark);
        found.map_or_else(String::new, |wan| super::plain(&wan.description))
    };
    let mut rows: Vec<[String; 3]> = filters
        .iter()
        .filter(|filter| filter["packets"] != 0)
        .filter_map(|filter| {
            let description = super::plain(filter["description"].as_str()?);
            Some([description, wan_of(filter["mark"].as_u64()), traffic(filter)?])
        })
        .collect();
    let more = rows.len().saturating_sub(FILTERS_MAX);
    rows.truncate(FILTERS_MAX);
    if !rows.is_empty() {
        table(text, ["FILTER", "WAN", "TOOK"], rows);
    }
    if more > 0 {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  and {more} more filters that took traffic: --json");
    }
}

fn flows(text: &mut String, flows: &Value) {
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let Some(entries) = flows["entries"].as_u64() else { return };
    let _ =
        write!(text, "\nFlows: {entries} of {} ({})", number(&flows["max"]), size(number(&flows["bytes"])));
    if let Some(families) = flows["by_protocol"].as_object() {
        for (family, states) in families {
            let count: u64 = states.as_object().into_iter().flatten().map(|(_, count)| number(count)).sum();
            if count > 0 {
                let _ = write!(text, ", {family} {count}");
            }
        }
    }
    if let Some(seconds) = flows["counted_seconds_ago"].as_u64().filter(|seconds| *seconds > 0) {
        let _ = write!(text, ", counted {seconds} s ago");
    }
    let evicted = (number(&flows["evicted"]["passing"]), number(&flows["evicted"]["lasting"]));
    if evicted != (0, 0) {
        let _ = write!(text, "; removed for want of room: {} short-lived, {} lasting", evicted.0, evicted.1);
    }
    text.push('\n');
}

fn table(text: &mut String, header: [&str; 3], rows: Vec<[String; 3]>) {
    let rows: Vec<[String; 3]> = std::iter::once(header.map(str::to_owned)).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 3] = std::array::from_fn(width);
    text.push('\n');
    for row in &rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        let _ = writeln!(text, "  {}", line.trim_end());
    }
}

/// `12345 packets, 1.2 MiB`.
fn traffic(counters: &Value) -> Option<String> {
    let (packets, bytes) = (counters["packets"].as_u64()?, counters["bytes"].as_u64()?);
    Some(format!("{packets} packets, {}", size(bytes)))
}

fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut tenths = u128::from(bytes) * 10 / 1024;
    let mut unit = 0;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

#[cfg(test)]
mod tests {
    use serde::Deserialize as _;
    use serde_json::json;

    use super::*;

    #[test]
    fn sizes_have_a_unit() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_048_575, "1023.9 KiB"),
            (1_048_576, "1.0 MiB"),
            (u64::MAX, "16383.9 PiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn what_was_counted_is_shown_and_what_was_not_is_not() {
        let wan = |description, mark: u8| {
            json!({ "description": description, "iface": "eth1", "mark": mark, "state": "ON", "reason": "",
                    "since": 1, "order": 1, "address": "10.0.1.2/24", "usable": true, "last_rtt_ms": null,
                    "last_target": null })
        };
        let status = json!({ "default": "Fibre", "wans": [wan("Fibre", 1), wan("LTE", 2)] });
        let status = Status::deserialize(&status).unwrap();
        let count = |packets: u64, bytes: u64| json!({ "packets": packets, "bytes": bytes });
        let datapath = json!({
            "wans": { "1": { "in": count(10, 2048), "out": count(5, 300) },
                      "2": { "in": count(0, 0), "out": count(0, 0) } },
            "filters": [
                { "mark": 2, "description": "never\u{1b}", "packets": 0, "bytes": 0 },
                { "mark": 2, "description": "web", "packets": 7, "bytes": 700 },
            ],
            "flows": { "max": 1024, "bytes": 98_304, "entries": 3, "expired": 9, "counted_seconds_ago": 4,
                       "by_protocol": { "tcp": { "established": 2 }, "udp": { "single": 1 }, "icmp": {} },
                       "evicted": { "passing": 4, "lasting": 0 } },
        });
        assert_eq!(
            summary(&status, &datapath),
            "\n  TRAFFIC  IN                   OUT\n  \
               Fibre    10 packets, 2.0 KiB  5 packets, 300 B\n  \
               LTE      0 packets, 0 B       0 packets, 0 B\n\
             \n  FILTER  WAN  TOOK\n  \
               web     LTE  7 packets, 700 B\n\
             \nFlows: 3 of 1024 (96.0 KiB), tcp 2, udp 1, counted 4 s ago; removed for want of room: 4 short-lived, 0 lasting\n"
        );
        assert_eq!(summary(&status, &Value::Null), "");
    }
}

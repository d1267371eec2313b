//! `WANS[].filters[]`.

use std::sync::Arc;

use super::model::{Chain, Filter, ListFile, PortRange, Protocol};
use super::net;
use super::problem::{Report, Shown};
use super::scalar::{Rule, boolean, description, free_text, list_path};
use super::section::{Found, Section};
use super::unique::Unique;

pub(super) const KEYS: &[&str] = &[
    "description",
    "note",
    "enabled",
    "chainMangle",
    "protocol",
    "src",
    "srcFiles",
    "dst",
    "dstFiles",
    "sport",
    "sports",
    "dport",
    "dports",
];

/// Reads the enabled filters of a WAN called `wan`; `taken` are the descriptions of all filters so far.
pub(super) fn read_all(
    list: &Found<'_>,
    wan: &str,
    taken: &mut Unique<String>,
    report: &mut Report,
) -> Vec<Filter> {
    if list.text().is_some() {
        list.must_be("a list of filters", report);
        return Vec::new();
    }
    let mut filters = Vec::new();
    for item in list.items(report) {
        if let Some(filter) = read(item, wan, taken, report) {
            filters.push(filter);
        }
    }
    filters
}

fn read(item: Found<'_>, wan: &str, taken: &mut Unique<String>, report: &mut Report) -> Option<Filter> {
    let filter = Section::open(item.named("filter"), report)?;
    if !filter.with_default("enabled", boolean, true, report) {
        return None;
    }
    filter.check_keys(KEYS, report);

    let description = filter.required("description", description, report);
    if let (Some(description), Some(found)) = (&description, filter.find("description")) {
        let name = format!("filter \"{}\" of {wan}", Shown(description));
        if let Err(owner) = taken.take(description.clone(), &name, found.at.line) {
            let rule = format!("unique among enabled filters: {} has it, line {}", owner.name, owner.line);
            found.must_be(&rule, report);
        }
    }
    let note = filter.optional("note", free_text, report);
    let chain = filter.required("chainMangle", chain, report);
    let protocol = filter.required("protocol", protocol, report);
    let mut prefixes = |key| {
        let list = selector(&filter, key, report)?;
        Some(net::prefixes(&list, report))
    };
    let src = prefixes("src").unwrap_or_default();
    let dst = prefixes("dst").unwrap_or_default();
    let src_files = list_files(&filter, "srcFiles", report);
    let dst_files = list_files(&filter, "dstFiles", report);
    let sports = ports(&filter, ["sports", "sport"], protocol, report);
    let dports = ports(&filter, ["dports", "dport"], protocol, report);
    Some(Filter {
        description: description?,
        note,
        chain: chain?,
        protocol: protocol?,
        src,
        src_files,
        dst,
        dst_files,
        sports,
        dports,
    })
}

/// The files of a filter's lists; who reads files fills them.
fn list_files(filter: &Section<'_>, key: &str, report: &mut Report) -> Vec<ListFile> {
    let Some(list) = selector(filter, key, report) else { return Vec::new() };
    let mut files = Vec::new();
    for item in list.items(report) {
        if let Some(path) = item.read(list_path, report) {
            report.list(path.clone(), item.at, &item.path, item.text().unwrap_or_default());
            files.push(ListFile { path, nets: Arc::default() });
        }
    }
    files
}

/// A list that narrows the filter. An empty one narrows nothing, which is rarely what was meant.
fn selector<'s>(filter: &'s Section<'_>, key: &'s str, report: &mut Report) -> Option<Found<'s>> {
    let list = filter.find(key)?;
    if list.is_empty_list() {
        report.warning(list.at, &list.path, format_args!("the list is empty and counts as absent"));
    }
    Some(list)
}

/// Ports under either of their two names: the seed's example says `sport`, its code `sports`.
fn ports(
    filter: &Section<'_>,
    [name, other]: [&str; 2],
    protocol: Option<Protocol>,
    report: &mut Report,
) -> Vec<PortRange> {
    let list = match (filter.find(name), filter.find(other)) {
        (Some(_), Some(second)) => {
            report.error(
                second.at,
                &second.path,
                format_args!("\"{other}\" is another name for \"{name}\": only one of them may be given"),
            );
            return Vec::new();
        }
        (first, second) => first.or(second),
    };
    let Some(list) = list else { return Vec::new() };
    if list.is_empty_list() {
        report.warning(list.at, &list.path, format_args!("the list is empty and counts as absent"));
    } else if protocol.is_some_and(|protocol| !protocol.has_ports()) {
        report.error(list.at, &list.path, format_args!("ports need protocol tcp, udp, udplite or sctp"));
    }
    list.items(report).filter_map(|item| item.read(net::ports, report)).collect()
}

fn chain(text: &str) -> Rule<Chain> {
    match text.to_ascii_uppercase().as_str() {
        "PREROUTING" => Ok(Chain::Prerouting),
        "OUTPUT" => Ok(Chain::Output),
        _ => Err("PREROUTING or OUTPUT".into()),
    }
}

fn protocol(text: &str) -> Rule<Protocol> {
    match text.to_ascii_lowercase().as_str() {
        "all" => Ok(Protocol::All),
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        "udplite" => Ok(Protocol::Udplite),
        "sctp" => Ok(Protocol::Sctp),
        "icmp" => Ok(Protocol::Icmp),
        "gre" => Ok(Protocol::Gre),
        "esp" => Ok(Protocol::Esp),
        "ah" => Ok(Protocol::Ah),
        _ => Err("one of all, tcp, udp, udplite, sctp, icmp, gre, esp, ah".into()),
    }
}

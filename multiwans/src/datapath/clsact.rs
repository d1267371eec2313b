//! The `clsact` qdisc and the filters on it, as far as the loader library does not do it: removing the
//! qdisc that we added, finding a priority for our filters, and removing what a killed daemon left.

mod wire;

use std::collections::BTreeSet;
use std::io;

use aya::programs::TcAttachType;
use netlink_packet_route::tc::{TcHandle, TcHeader};

use self::wire::{Object, Wire};
use crate::types::IfIndex;

/// `TC_H_CLSACT` (linux/pkt_sched.h): the qdisc's parent, and that of `ingress`, its older form.
const PARENT: u32 = 0xffff_fff1;
/// `TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS)`: parent of ingress filters.
const INGRESS: u32 = 0xffff_fff2;
/// `TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_EGRESS)`: parent of egress filters.
const EGRESS: u32 = 0xffff_fff3;
/// `ETH_P_ALL` in network byte order: what our filters are for.
const ALL_PROTOCOLS: u16 = 3u16.to_be();

/// Removes filters of these programs from every interface, and with them a qdisc on which nothing else
/// is: who added it cannot be seen, but it was most likely the daemon that was killed.
pub(super) fn sweep(programs: &[&str]) -> io::Result<()> {
    let wire = Wire::open()?;
    let interfaces: BTreeSet<i32> =
        wire.qdiscs()?.into_iter().filter(takes_filters).map(|qdisc| qdisc.header.index).collect();
    let mut result = Ok(());
    for index in interfaces {
        // What goes wrong with one interface, say because it vanishes now, does not concern the others.
        result = result.and(sweep_one(&wire, index, programs));
    }
    result
}

fn sweep_one(wire: &Wire, index: i32, programs: &[&str]) -> io::Result<()> {
    let mut found = false;
    for parent in [INGRESS, EGRESS] {
        for filter in wire.filters(header(index, parent))? {
            if filter.program.is_some_and(|program| programs.contains(&program.as_str())) {
                found = true;
                gone_is_fine(wire.delete_filter(filter.header))?;
            }
        }
    }
    if found { remove_unused(wire, index) } else { Ok(()) }
}

/// Whether filters can be put on it by the parents above.
fn takes_filters(qdisc: &Object) -> bool {
    u32::from(qdisc.header.parent) == PARENT
}

/// Whether the interface has `ingress` instead of `clsact`. It knows one direction only and takes filters
/// for egress too, which then see what comes in.
pub(super) fn is_ingress_only(index: IfIndex) -> io::Result<bool> {
    let index = kernel_index(index);
    let qdiscs = Wire::open()?.qdiscs()?;
    Ok(qdiscs.iter().any(|q| q.header.index == index && takes_filters(q) && q.kind == "ingress"))
}

/// The earliest priority at which a filter of ours can be: one priority holds filters of one kind and
/// protocol only.
pub(super) fn free_priority(index: IfIndex, direction: TcAttachType) -> io::Result<u16> {
    let parent = match direction {
        TcAttachType::Ingress => INGRESS,
        TcAttachType::Egress => EGRESS,
        TcAttachType::Custom(parent) => parent,
    };
    let filters = Wire::open()?.filters(header(kernel_index(index), parent))?;
    let taken: BTreeSet<u16> = filters
        .iter()
        .filter(|filter| filter.kind != "bpf" || protocol(filter) != ALL_PROTOCOLS)
        .map(priority)
        .collect();
    Ok((1..u16::MAX).find(|priority| !taken.contains(priority)).unwrap_or(u16::MAX))
}

/// The names of the programs that are filters of the interface, in either direction.
pub(super) fn programs(index: IfIndex) -> io::Result<BTreeSet<String>> {
    let wire = Wire::open()?;
    let mut found = BTreeSet::new();
    for parent in [INGRESS, EGRESS] {
        let filters = wire.filters(header(kernel_index(index), parent))?;
        found.extend(filters.into_iter().filter_map(|filter| filter.program));
    }
    Ok(found)
}

/// Removes the qdisc, unless somebody's filter is still on it: it would go too.
pub(super) fn remove_if_unused(index: IfIndex) -> io::Result<()> {
    remove_unused(&Wire::open()?, kernel_index(index))
}

fn remove_unused(wire: &Wire, index: i32) -> io::Result<()> {
    for parent in [INGRESS, EGRESS] {
        if !wire.filters(header(index, parent))?.is_empty() {
            return Ok(());
        }
    }
    gone_is_fine(wire.delete_qdisc(header(index, PARENT)))
}

/// Takes an error that says that what is to be removed is not there (or its qdisc, or its interface) for
/// success.
fn gone_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENOENT | libc::EINVAL)) => {
            Ok(())
        }
        other => other,
    }
}

fn header(index: i32, parent: u32) -> TcHeader {
    TcHeader { index, parent: TcHandle::from(parent), ..TcHeader::default() }
}

/// Upper half of `tcm_info`.
fn priority(filter: &Object) -> u16 {
    (filter.header.info >> 16) as u16
}

/// Lower half of `tcm_info`, in network byte order.
fn protocol(filter: &Object) -> u16 {
    (filter.header.info & 0xffff) as u16
}

/// The kernel's own type is int.
fn kernel_index(index: IfIndex) -> i32 {
    i32::try_from(index.0).unwrap_or(i32::MAX)
}

//! Finding programs that somebody took off.
//!
//! What is attached is asked of things that are ours (the descriptors of our own links, the filters of the
//! interface), not of the kernel's list of all programs: that would need CAP_SYS_ADMIN.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;

use aya::Ebpf;

use super::{Attachment, Interfaces, PROGRAMS, classifier};
use crate::datapath::{DatapathError, clsact};
use crate::types::{IfIndex, IfName};

/// The kernel's number of a loaded program.
type ProgramId = u32;

/// A program that somebody took off an interface.
#[derive(Debug)]
pub(in crate::datapath) struct TakenOff {
    pub(in crate::datapath) index: IfIndex,
    name: IfName,
    program: &'static str,
}

impl fmt::Display for TakenOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "program {} was taken off {}; attached again", self.program, self.name)
    }
}

impl Interfaces {
    /// Looks whether every program still is where it was attached. Where one is not the interface is given
    /// up, for [`Interfaces::apply`] to do it anew.
    pub(in crate::datapath) fn give_up_broken(
        &mut self,
        ebpf: &mut Ebpf,
        errors: &mut Vec<DatapathError>,
    ) -> Vec<TakenOff> {
        let mut taken_off = Vec::new();
        for program in PROGRAMS {
            match self.missing(ebpf, program) {
                Ok(missing) => taken_off.extend(missing),
                Err(error) => errors.push(error),
            }
        }
        for TakenOff { index, program, .. } in &taken_off {
            let Some(attached) = self.attached.get_mut(index) else { continue };
            let Some(at) = attached.links.iter().position(|(linked, _)| linked == program) else { continue };
            let (_, dead) = attached.links.swap_remove(at);
            let dead = classifier(ebpf, program).map(|classifier| classifier.take_link(dead));
            if let (Ok(Ok(dead)), Attachment::Clsact) = (dead, self.attachment) {
                // Dropping it deletes whatever filter stands in its place by now, which is somebody else's.
                std::mem::forget(dead);
            }
        }
        for TakenOff { index, .. } in &taken_off {
            if let Some(rest) = self.attached.remove(index) {
                self.detach(ebpf, rest, errors);
            }
        }
        taken_off
    }

    /// Whether the interface carries its programs, as far as we know.
    pub(in crate::datapath) fn carries(&self, index: IfIndex) -> bool {
        self.attached.contains_key(&index)
    }

    /// Where this program should be and is not.
    fn missing(&self, ebpf: &mut Ebpf, program: &'static str) -> Result<Vec<TakenOff>, DatapathError> {
        let live = match self.attachment {
            Attachment::Tcx => {
                let info = classifier(ebpf, program)?.info();
                let id = info.map_err(|source| DatapathError::Program { program, source })?.id();
                live_links(id).map_err(DatapathError::Audit)?
            }
            Attachment::Clsact => {
                let mut live = BTreeSet::new();
                for index in self.attached.keys() {
                    if clsact::programs(*index).map_err(DatapathError::Audit)?.contains(program) {
                        live.insert(*index);
                    }
                }
                live
            }
        };
        let should_be = self
            .attached
            .iter()
            .filter(|(_, attached)| attached.links.iter().any(|(linked, _)| *linked == program));
        Ok(should_be
            .filter(|(index, _)| !live.contains(index))
            .map(|(index, attached)| TakenOff { index: *index, name: attached.name.clone(), program })
            .collect())
    }
}

/// The interfaces that a link of ours runs this program on. The kernel shows a link whose program was
/// detached by force (`bpftool link detach`) without an interface.
fn live_links(id: ProgramId) -> io::Result<BTreeSet<IfIndex>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc/self/fdinfo")? {
        // Descriptors come and go; the one of this very directory does.
        let Ok(text) = fs::read_to_string(entry?.path()) else { continue };
        if let Some(index) = live_link(&text, id) {
            found.insert(index);
        }
    }
    Ok(found)
}

/// `tcx_link_fdinfo` of the kernel writes `ifindex`, 0 for none, and `bpf_link_show_fdinfo` what stands before.
fn live_link(fdinfo: &str, id: ProgramId) -> Option<IfIndex> {
    let field = |name: &str| {
        let line = fdinfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(str::trim)
    };
    let is_it = field("link_type") == Some("tcx") && field("prog_id")?.parse() == Ok(id);
    let index = field("ifindex")?.parse().ok()?;
    (is_it && index != 0).then_some(IfIndex(index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detached_link_has_no_interface() {
        let shown = |link_type: &str, program: u32, index: u32| {
            format!(
                "pos:\t0\nflags:\t02000000\nmnt_id:\t15\nino:\t1061\nlink_type:\t{link_type}\nlink_id:\t7\n\
                 prog_tag:\ta04f5eef06a7f555\nprog_id:\t{program}\nifindex:\t{index}\nattach_type:\t46 (tcx_ingress)\n"
            )
        };
        assert_eq!(live_link(&shown("tcx", 12, 4), 12), Some(IfIndex(4)));
        assert_eq!(live_link(&shown("tcx", 12, 0), 12), None);
        assert_eq!(live_link(&shown("tcx", 13, 4), 12), None);
        assert_eq!(live_link(&shown("netkit", 12, 4), 12), None);
        assert_eq!(live_link("pos:\t0\nflags:\t02\n", 12), None);
    }
}

//! Finding programs that somebody took off.
//!
//! What is attached is asked of things that are ours (our own links, the filters of the interface), not of
//! the kernel's list of all programs: that would need CAP_SYS_ADMIN.

use std::collections::BTreeSet;
use std::fmt;

use aya::Ebpf;

use super::{Attachment, Interfaces, PROGRAMS, classifier};
use crate::datapath::held::{Held, Place};
use crate::datapath::{DatapathError, clsact};
use crate::types::{IfIndex, IfName};

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
        held: &[Held],
        errors: &mut Vec<DatapathError>,
    ) -> Vec<TakenOff> {
        let mut taken_off = Vec::new();
        for program in PROGRAMS {
            match self.missing(ebpf, held, program) {
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
    fn missing(
        &self,
        ebpf: &mut Ebpf,
        held: &[Held],
        program: &'static str,
    ) -> Result<Vec<TakenOff>, DatapathError> {
        let live = match self.attachment {
            Attachment::Tcx => {
                let info = classifier(ebpf, program)?.info();
                let id = info.map_err(|source| DatapathError::Program { program, source })?.id();
                let places = held.iter().filter(|link| link.program == id).map(|link| link.place);
                let interface = |place| match place {
                    Some(Place::Interface(index)) => Some(index),
                    _ => None,
                };
                places.filter_map(interface).collect()
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

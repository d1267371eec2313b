//! Attaching programs to interfaces and taking them off again.
//!
//! With TCX (Linux 6.6) a link is a file descriptor: it goes when the daemon goes, however that happens.
//! With `clsact` a filter stays by itself; what a killed daemon left is found by the program's name, on
//! every interface: the new daemon may have no use for some of them.
//! Programs and filters of others on the interface are never touched, and since all ours return
//! `TC_ACT_UNSPEC` they still run.

use std::collections::BTreeMap;
use std::io;

use aya::Ebpf;
use aya::programs::links::LinkOrder;
use aya::programs::tc::{self, NlOptions, SchedClassifierLinkId, TcAttachOptions, TcHandle};
use aya::programs::{ProgramError, SchedClassifier, TcAttachType};
use aya::sys::SyscallError;

mod audit;

use super::{DatapathError, clsact};
use crate::engine::command::Role;
use crate::types::{IfIndex, IfName};

/// Ingress of inside interfaces.
pub(super) const STEER: &str = "multiwans_steer";
/// Ingress of WANs.
pub(super) const WAN: &str = "multiwans_wan";
/// Egress of inside interfaces.
pub(super) const LEARN: &str = "multiwans_learn";
/// All of them.
pub(super) const PROGRAMS: [&str; 3] = [STEER, WAN, LEARN];

/// How the kernel takes programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attachment {
    /// Links of the multi-program interface, Linux 6.6.
    Tcx,
    /// Filters of the `clsact` qdisc.
    Clsact,
}

/// One interface with our programs on it.
struct Attached {
    index: IfIndex,
    name: IfName,
    role: Role,
    links: Vec<(&'static str, SchedClassifierLinkId)>,
    /// We added the qdisc, so we remove it.
    added_clsact: bool,
}

/// All interfaces with our programs on them.
pub(super) struct Interfaces {
    attachment: Attachment,
    attached: BTreeMap<IfIndex, Attached>,
    /// What a killed daemon left was removed, or cannot be there.
    swept: bool,
}

impl Interfaces {
    /// None yet.
    pub(super) fn new(attachment: Attachment) -> Self {
        let swept = attachment == Attachment::Tcx;
        Self { attachment, attached: BTreeMap::new(), swept }
    }

    /// How they are attached.
    pub(super) fn attachment(&self) -> Attachment {
        self.attachment
    }

    /// Makes the interfaces carry exactly these roles. Goes on past errors, so that one interface that
    /// vanished meanwhile does not keep the others waiting, and returns what went wrong.
    pub(super) fn apply(
        &mut self,
        ebpf: &mut Ebpf,
        wanted: &BTreeMap<IfIndex, (IfName, Role)>,
    ) -> Vec<DatapathError> {
        let mut errors = Vec::new();
        if !self.swept {
            self.swept = true;
            errors.extend(clsact::sweep(&PROGRAMS).map_err(DatapathError::Sweep).err());
        }
        let stale: Vec<IfIndex> = self
            .attached
            .iter()
            .filter(|(index, attached)| {
                wanted.get(index).is_none_or(|(_, role)| !same_programs(*role, attached.role))
            })
            .map(|(index, _)| *index)
            .collect();
        for index in stale {
            if let Some(attached) = self.attached.remove(&index) {
                self.detach(ebpf, attached, &mut errors);
            }
        }
        for (index, (name, role)) in wanted {
            if let Some(attached) = self.attached.get_mut(index) {
                attached.role = *role;
                attached.name = name.clone(); // an interface may be renamed
                continue;
            }
            match self.attach(ebpf, *index, name, *role) {
                Ok(attached) => {
                    self.attached.insert(*index, attached);
                }
                Err(error) => errors.push(error),
            }
        }
        errors
    }

    /// Takes everything off.
    pub(super) fn clear(&mut self, ebpf: &mut Ebpf) -> Vec<DatapathError> {
        self.apply(ebpf, &BTreeMap::new())
    }

    fn attach(
        &self,
        ebpf: &mut Ebpf,
        index: IfIndex,
        name: &IfName,
        role: Role,
    ) -> Result<Attached, DatapathError> {
        let added_clsact = self.attachment == Attachment::Clsact && prepare_clsact(index, name, role)?;
        let mut attached = Attached { index, name: name.clone(), role, links: Vec::new(), added_clsact };
        for &(program, direction) in programs_of(role) {
            match self.attach_program(ebpf, &attached, program, direction) {
                Ok(link) => attached.links.push((program, link)),
                Err(error) => {
                    // The first error says what is wrong; those of undoing it would only follow from it.
                    self.detach(ebpf, attached, &mut Vec::new());
                    return Err(error);
                }
            }
        }
        Ok(attached)
    }

    fn attach_program(
        &self,
        ebpf: &mut Ebpf,
        to: &Attached,
        program: &'static str,
        direction: TcAttachType,
    ) -> Result<SchedClassifierLinkId, DatapathError> {
        let options = match self.attachment {
            Attachment::Tcx => TcAttachOptions::TcxOrder(LinkOrder::first()),
            Attachment::Clsact => TcAttachOptions::Netlink(NlOptions {
                // Early, so that a filter of others that ends the search does not hide the packet from us.
                priority: clsact::free_priority(to.index, direction)
                    .map_err(|source| DatapathError::clsact(&to.name, source))?,
                handle: TcHandle::AUTO_ASSIGN,
                classid: None,
            }),
        };
        classifier(ebpf, program)?
            .attach_with_options(to.name.as_str(), direction, options)
            .map_err(|source| DatapathError::Attach { program, iface: to.name.clone(), source })
    }

    fn detach(&self, ebpf: &mut Ebpf, attached: Attached, errors: &mut Vec<DatapathError>) {
        for (program, link) in attached.links {
            let result = classifier(ebpf, program).and_then(|classifier| {
                classifier.detach(link).map_err(|source| DatapathError::Attach {
                    program,
                    iface: attached.name.clone(),
                    source,
                })
            });
            match result {
                // The interface has gone, and its programs with it, or somebody else removed them.
                Err(DatapathError::Attach { source, .. }) if is_gone(&source) => {}
                Err(error) => errors.push(error),
                Ok(()) => {}
            }
        }
        if attached.added_clsact
            && let Err(source) = clsact::remove_if_unused(attached.index)
        {
            errors.push(DatapathError::clsact(&attached.name, source));
        }
    }
}

/// The programs of a role with their direction.
fn programs_of(role: Role) -> &'static [(&'static str, TcAttachType)] {
    match role {
        Role::Wan(_) => &[(WAN, TcAttachType::Ingress)],
        // learn first: once packets are steered their answers are learned.
        Role::Inside => &[(LEARN, TcAttachType::Egress), (STEER, TcAttachType::Ingress)],
    }
}

/// Which WAN it is stands in a map; the programs are the same.
fn same_programs(a: Role, b: Role) -> bool {
    matches!((a, b), (Role::Wan(_), Role::Wan(_)) | (Role::Inside, Role::Inside))
}

/// A loaded classifier.
pub(super) fn classifier<'a>(
    ebpf: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut SchedClassifier, DatapathError> {
    ebpf.program_mut(name)
        .ok_or(DatapathError::Missing(name))?
        .try_into()
        .map_err(|source| DatapathError::Program { program: name, source })
}

/// Whether this kernel has TCX, found out by asking it about the loopback, which every namespace has.
pub(super) fn supported_attachment() -> Attachment {
    match SchedClassifier::query_tcx("lo", TcAttachType::Ingress) {
        Ok(_) => Attachment::Tcx,
        Err(_) => Attachment::Clsact,
    }
}

/// Adds the qdisc if it is not there. Returns whether it is ours to remove.
fn prepare_clsact(index: IfIndex, name: &IfName, role: Role) -> Result<bool, DatapathError> {
    match tc::qdisc_add_clsact(name.as_str()) {
        Ok(()) => return Ok(true),
        Err(error) if is_already_there(&error) => {}
        Err(source) => return Err(DatapathError::clsact(name, source)),
    }
    let needs_egress = programs_of(role).iter().any(|(_, direction)| *direction == TcAttachType::Egress);
    if needs_egress && clsact::is_ingress_only(index).map_err(|e| DatapathError::clsact(name, e))? {
        return Err(DatapathError::IngressQdisc { iface: name.clone() });
    }
    Ok(false)
}

fn is_already_there(error: &tc::TcError) -> bool {
    match error {
        tc::TcError::AlreadyAttached => true,
        tc::TcError::NetlinkError(error) => error.raw_os_error() == Some(libc::EEXIST),
        tc::TcError::IoError(error) => error.kind() == io::ErrorKind::AlreadyExists,
        _ => false,
    }
}

fn is_gone(error: &ProgramError) -> bool {
    let code = match error {
        ProgramError::SyscallError(SyscallError { io_error, .. }) => io_error.raw_os_error(),
        ProgramError::NetlinkError(error) => error.raw_os_error(),
        _ => None,
    };
    matches!(code, Some(libc::ENODEV | libc::ENOENT | libc::EINVAL))
}

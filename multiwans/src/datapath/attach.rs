//! Attaching programs to interfaces and taking them off again.
//!
//! With TCX (Linux 6.6) a link is a file descriptor: it goes when the daemon goes, however that happens.
//! With `clsact` a filter stays by itself; what a killed daemon left is found by the program's name.
//! Programs and filters of others on the interface are never touched, and since all ours return
//! `TC_ACT_UNSPEC` they still run.

use std::collections::BTreeMap;
use std::io;

use aya::Ebpf;
use aya::programs::links::LinkOrder;
use aya::programs::tc::{self, NlOptions, SchedClassifierLinkId, TcAttachOptions, TcHandle};
use aya::programs::{ProgramError, SchedClassifier, TcAttachType};
use aya::sys::SyscallError;

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

/// Priority of our filters where there is no TCX: early, so that a filter of others that ends the search
/// does not hide the packet from us.
const CLSACT_PRIORITY: u16 = 1;

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
}

impl Interfaces {
    /// None yet.
    pub(super) fn new(attachment: Attachment) -> Self {
        Self { attachment, attached: BTreeMap::new() }
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
                self.detach(ebpf, attached, !wanted.contains_key(&index), &mut errors);
            }
        }
        for (index, (name, role)) in wanted {
            if let Some(attached) = self.attached.get_mut(index) {
                attached.role = *role;
                attached.name = name.clone(); // an interface may be renamed
                continue;
            }
            match self.attach(ebpf, name, *role) {
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

    fn attach(&self, ebpf: &mut Ebpf, name: &IfName, role: Role) -> Result<Attached, DatapathError> {
        let added_clsact = self.attachment == Attachment::Clsact && prepare_clsact(name)?;
        let mut links = Vec::new();
        for &(program, direction) in programs_of(role) {
            let options = match self.attachment {
                Attachment::Tcx => TcAttachOptions::TcxOrder(LinkOrder::first()),
                Attachment::Clsact => TcAttachOptions::Netlink(NlOptions {
                    priority: CLSACT_PRIORITY,
                    handle: TcHandle::AUTO_ASSIGN,
                    classid: None,
                }),
            };
            let link = classifier(ebpf, program)?
                .attach_with_options(name.as_str(), direction, options)
                .map_err(|source| DatapathError::Attach { program, iface: name.clone(), source });
            match link {
                Ok(link) => links.push((program, link)),
                Err(error) => {
                    let half = Attached { name: name.clone(), role, links, added_clsact };
                    // The first error says what is wrong; those of undoing it would only follow from it.
                    self.detach(ebpf, half, false, &mut Vec::new());
                    return Err(error);
                }
            }
        }
        Ok(Attached { name: name.clone(), role, links, added_clsact })
    }

    /// `gone`: the interface may not exist any more, and its programs with it.
    fn detach(&self, ebpf: &mut Ebpf, attached: Attached, gone: bool, errors: &mut Vec<DatapathError>) {
        for (program, link) in attached.links {
            let result = classifier(ebpf, program).and_then(|classifier| {
                classifier.detach(link).map_err(|source| DatapathError::Attach {
                    program,
                    iface: attached.name.clone(),
                    source,
                })
            });
            match result {
                Err(DatapathError::Attach { source, .. }) if gone && is_no_such_device(&source) => {}
                Err(error) => errors.push(error),
                Ok(()) => {}
            }
        }
        if attached.added_clsact
            && let Err(source) = clsact::remove_if_unused(&attached.name)
        {
            errors.push(DatapathError::Clsact { iface: attached.name, source: source.into() });
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

/// Adds the qdisc if it is not there and removes what a killed daemon left on it. Returns whether the
/// qdisc is ours to remove: added now, or by the daemon whose programs were found.
fn prepare_clsact(name: &IfName) -> Result<bool, DatapathError> {
    let mut leftovers = false;
    for program in PROGRAMS {
        for direction in [TcAttachType::Ingress, TcAttachType::Egress] {
            // An error says that there is none, or no qdisc, which is added next.
            leftovers |= tc::qdisc_detach_program(name.as_str(), direction, program).is_ok();
        }
    }
    match tc::qdisc_add_clsact(name.as_str()) {
        Ok(()) => Ok(true),
        Err(error) if is_already_there(&error) => Ok(leftovers),
        Err(source) => Err(DatapathError::Clsact { iface: name.clone(), source: source.into() }),
    }
}

fn is_already_there(error: &tc::TcError) -> bool {
    match error {
        tc::TcError::AlreadyAttached => true,
        tc::TcError::NetlinkError(error) => error.raw_os_error() == Some(libc::EEXIST),
        tc::TcError::IoError(error) => error.kind() == io::ErrorKind::AlreadyExists,
        _ => false,
    }
}

fn is_no_such_device(error: &ProgramError) -> bool {
    let code = match error {
        ProgramError::SyscallError(SyscallError { io_error, .. }) => io_error.raw_os_error(),
        ProgramError::NetlinkError(error) => error.raw_os_error(),
        _ => None,
    };
    matches!(code, Some(libc::ENODEV | libc::ENOENT | libc::EINVAL))
}

//! Attaching the programs for the router's own sockets.
//!
//! A link is a file descriptor: it goes when the daemon goes, however that happens. Links always stand
//! beside those of others (the kernel takes `BPF_F_ALLOW_MULTI` for granted, and refuses to be told so),
//! and each program is asked in turn. Only where somebody attached a program without links and for itself
//! alone, the kernel refuses ours.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use aya::Ebpf;
use aya::programs::cgroup_skb::CgroupSkbLinkId;
use aya::programs::cgroup_sock_addr::CgroupSockAddrLinkId;
use aya::programs::{CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, CgroupSockAddr, ProgramError};

use super::held::{self, Held, ProgramId};
use super::{DatapathError, cgroup};

/// Datagrams on their way in.
const ASKED: &str = "multiwans_asked";
/// Connecting sockets and datagrams.
const SOCKETS: [&str; 3] = ["multiwans_connect4", "multiwans_connect6", "multiwans_sendmsg4"];
/// All of them, in the order they are attached.
const ALL: [&str; 4] = [ASKED, SOCKETS[0], SOCKETS[1], SOCKETS[2]];

/// One attached program's link.
enum Link {
    Asked(CgroupSkbLinkId),
    Socket(CgroupSockAddrLinkId),
}

/// The attached programs.
#[derive(Default)]
pub(super) struct Output {
    /// They were attached once, so they are to be.
    wanted: bool,
    links: BTreeMap<&'static str, Link>,
}

/// Has the kernel check the programs.
pub(super) fn load(ebpf: &mut Ebpf) -> Result<(), DatapathError> {
    for program in SOCKETS {
        sockets(ebpf, program)?.load().map_err(|source| DatapathError::Program { program, source })?;
    }
    asked(ebpf)?.load().map_err(|source| DatapathError::Program { program: ASKED, source })
}

impl Output {
    /// Attaches all, or none on an error.
    pub(super) fn attach(&mut self, ebpf: &mut Ebpf) -> Result<(), DatapathError> {
        if self.wanted {
            return Ok(());
        }
        let root = cgroup::open_root()?;
        for program in ALL {
            if let Err(error) = self.attach_one(ebpf, program, &root) {
                // The first error says what is wrong; those of undoing it would only follow from it.
                self.detach(ebpf);
                return Err(error);
            }
        }
        self.wanted = true;
        Ok(())
    }

    /// Attaches again what somebody has detached. Returns a line for each that runs again, and what could
    /// not be done, which is tried again by the next call.
    pub(super) fn audit(&mut self, ebpf: &mut Ebpf, held: &[Held]) -> (Vec<String>, Vec<DatapathError>) {
        let (mut again, mut errors) = (Vec::new(), Vec::new());
        if !self.wanted {
            return (again, errors);
        }
        for program in ALL {
            let attached = match id(ebpf, program) {
                Ok(id) => held.contains(&Held { program: id, place: Some(held::Place::Cgroup) }),
                Err(error) => {
                    errors.push(error);
                    continue;
                }
            };
            if attached {
                continue;
            }
            if let Some(dead) = self.links.remove(program) {
                // It is detached already: only its descriptor is closed.
                errors.extend(detach_one(ebpf, program, dead).err());
            }
            let root = cgroup::open_root().map_err(DatapathError::from);
            match root.and_then(|root| self.attach_one(ebpf, program, &root)) {
                Ok(()) => again
                    .push(format!("program {program} was taken off the root of the cgroups; attached again")),
                Err(error) => errors.push(error),
            }
        }
        (again, errors)
    }

    fn attach_one(
        &mut self,
        ebpf: &mut Ebpf,
        program: &'static str,
        root: &OwnedFd,
    ) -> Result<(), DatapathError> {
        let failed = |source| DatapathError::Cgroup { program, source };
        let mode = CgroupAttachMode::Single;
        let link = if program == ASKED {
            Link::Asked(asked(ebpf)?.attach(root, CgroupSkbAttachType::Ingress, mode).map_err(failed)?)
        } else {
            Link::Socket(sockets(ebpf, program)?.attach(root, mode).map_err(failed)?)
        };
        self.links.insert(program, link);
        Ok(())
    }

    /// Takes all off. Goes on past errors and returns them.
    pub(super) fn detach(&mut self, ebpf: &mut Ebpf) -> Vec<DatapathError> {
        self.wanted = false;
        let links = std::mem::take(&mut self.links).into_iter();
        links.filter_map(|(program, link)| detach_one(ebpf, program, link).err()).collect()
    }
}

fn detach_one(ebpf: &mut Ebpf, program: &'static str, link: Link) -> Result<(), DatapathError> {
    let result = match link {
        Link::Asked(link) => asked(ebpf)?.detach(link),
        Link::Socket(link) => sockets(ebpf, program)?.detach(link),
    };
    result.map_err(|source| DatapathError::Cgroup { program, source })
}

fn id(ebpf: &mut Ebpf, program: &'static str) -> Result<ProgramId, DatapathError> {
    let info = if program == ASKED { asked(ebpf)?.info() } else { sockets(ebpf, program)?.info() };
    Ok(info.map_err(|source: ProgramError| DatapathError::Program { program, source })?.id())
}

fn sockets<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut CgroupSockAddr, DatapathError> {
    ebpf.program_mut(name)
        .ok_or(DatapathError::Missing(name))?
        .try_into()
        .map_err(|source| DatapathError::Program { program: name, source })
}

fn asked(ebpf: &mut Ebpf) -> Result<&mut CgroupSkb, DatapathError> {
    ebpf.program_mut(ASKED)
        .ok_or(DatapathError::Missing(ASKED))?
        .try_into()
        .map_err(|source| DatapathError::Program { program: ASKED, source })
}

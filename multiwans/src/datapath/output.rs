//! Attaching the programs for the router's own sockets.
//!
//! A link is a file descriptor: it goes when the daemon goes, however that happens. Links always stand
//! beside those of others (the kernel takes `BPF_F_ALLOW_MULTI` for granted, and refuses to be told so),
//! and each program is asked in turn. Only where somebody attached a program without links and for itself
//! alone, the kernel refuses ours.

use aya::Ebpf;
use aya::programs::cgroup_skb::CgroupSkbLinkId;
use aya::programs::cgroup_sock_addr::CgroupSockAddrLinkId;
use aya::programs::{CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, CgroupSockAddr, ProgramError};

use super::{DatapathError, cgroup};

/// Connecting sockets and datagrams.
const SOCKETS: [&str; 3] = ["multiwans_connect4", "multiwans_connect6", "multiwans_sendmsg4"];
/// Datagrams on their way in.
const ASKED: &str = "multiwans_asked";

/// The attached programs; none at first.
#[derive(Default)]
pub(super) struct Output {
    asked: Option<CgroupSkbLinkId>,
    sockets: Vec<(&'static str, CgroupSockAddrLinkId)>,
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
        let result = self.try_attach(ebpf);
        if result.is_err() {
            // The first error says what is wrong; those of undoing it would only follow from it.
            self.detach(ebpf);
        }
        result
    }

    fn try_attach(&mut self, ebpf: &mut Ebpf) -> Result<(), DatapathError> {
        if self.asked.is_some() {
            return Ok(());
        }
        let root = cgroup::open_root()?;
        let failed = |program| move |source| DatapathError::Cgroup { program, source };
        let link = asked(ebpf)?.attach(&root, CgroupSkbAttachType::Ingress, CgroupAttachMode::Single);
        self.asked = Some(link.map_err(failed(ASKED))?);
        for program in SOCKETS {
            let link = sockets(ebpf, program)?.attach(&root, CgroupAttachMode::Single);
            self.sockets.push((program, link.map_err(failed(program))?));
        }
        Ok(())
    }

    /// Takes all off. Goes on past errors and returns them.
    pub(super) fn detach(&mut self, ebpf: &mut Ebpf) -> Vec<DatapathError> {
        let failed = |program| move |source: ProgramError| DatapathError::Cgroup { program, source };
        let mut errors = Vec::new();
        for (program, link) in self.sockets.drain(..) {
            let result = sockets(ebpf, program).and_then(|p| p.detach(link).map_err(failed(program)));
            errors.extend(result.err());
        }
        if let Some(link) = self.asked.take() {
            errors.extend(asked(ebpf).and_then(|p| p.detach(link).map_err(failed(ASKED))).err());
        }
        errors
    }
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

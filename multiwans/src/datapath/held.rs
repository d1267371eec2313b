//! The BPF links that this process holds, and whether they still are where they were attached.
//!
//! Who has the right can detach a link by force (`bpftool link detach`); its holder keeps a descriptor that
//! does nothing any more, and no event tells of it. The descriptors are asked, not the kernel's list of all
//! links: that would need CAP_SYS_ADMIN. Asking 70 descriptors takes 0.3 ms.

use std::fs;
use std::io;

use crate::types::IfIndex;

/// The kernel's number of a loaded program.
pub(super) type ProgramId = u32;

/// One link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) program: ProgramId,
    /// `None`: it was detached, or what it was attached to has gone.
    pub(super) place: Option<Place>,
}

/// Where a link is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Interface(IfIndex),
    Cgroup,
}

/// All of them.
pub(super) fn links() -> io::Result<Vec<Held>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc/self/fdinfo")? {
        // Descriptors come and go; the one of this very directory does.
        let Ok(text) = fs::read_to_string(entry?.path()) else { continue };
        found.extend(link(&text));
    }
    Ok(found)
}

/// `bpf_link_show_fdinfo` of the kernel writes the type and the program, then `tcx_link_fdinfo` an `ifindex` and
/// `bpf_cgroup_link_show_fdinfo` a `cgroup_id`: 0 once it is detached.
fn link(fdinfo: &str) -> Option<Held> {
    let field = |name: &str| {
        let line = fdinfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(str::trim)
    };
    let place = match field("link_type")? {
        "tcx" => Some(field("ifindex")?.parse().ok()?).filter(|n| *n != 0).map(IfIndex).map(Place::Interface),
        "cgroup" => Some(field("cgroup_id")?).filter(|id| *id != "0").map(|_| Place::Cgroup),
        _ => return None,
    };
    Some(Held { program: field("prog_id")?.parse().ok()?, place })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(link_type: &str, end: &str) -> Option<Held> {
        link(&format!(
            "pos:\t0\nflags:\t02000000\nmnt_id:\t15\nino:\t1061\nlink_type:\t{link_type}\nlink_id:\t7\n\
             prog_tag:\ta04f5eef06a7f555\nprog_id:\t12\n{end}"
        ))
    }

    #[test]
    fn a_detached_link_has_no_place() {
        let held = |place| Some(Held { program: 12, place });
        let tcx = |index: u32| shown("tcx", &format!("ifindex:\t{index}\nattach_type:\t46 (tcx_ingress)\n"));
        assert_eq!(tcx(4), held(Some(Place::Interface(IfIndex(4)))));
        assert_eq!(tcx(0), held(None));
        let cgroup = |id: u64| shown("cgroup", &format!("cgroup_id:\t{id}\nattach_type:\t10\n"));
        assert_eq!(cgroup(1), held(Some(Place::Cgroup)));
        assert_eq!(cgroup(0), held(None));
    }

    #[test]
    fn what_is_none_of_ours_is_none() {
        assert_eq!(shown("netkit", "ifindex:\t4\n"), None);
        assert_eq!(link("pos:\t0\nflags:\t02\n"), None);
        assert_eq!(link("pos:\t0\nmap_type:\t2\nprog_id:\t1\n"), None);
    }
}

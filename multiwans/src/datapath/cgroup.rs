//! The root of cgroup2, where programs see every socket of the machine.
//!
//! Every process is in the hierarchy whether it is mounted or not. Where it is mounted nowhere, a mount of
//! it that is attached to no directory does: nobody else sees it, and it goes with its descriptor.

use std::fs::{self, File};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;

/// The root of cgroup2 is not to be had.
#[derive(Debug, thiserror::Error)]
#[error("cgroup2 is mounted nowhere, and cannot be used without: {0}")]
pub struct CgroupRootError(#[source] pub io::Error);

/// Opens it.
pub(super) fn open_root() -> Result<OwnedFd, CgroupRootError> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(CgroupRootError)?;
    // One that something else was mounted over cannot be opened, or is no cgroup; the next may do.
    for path in roots(&mounts) {
        if let Ok(directory) = File::open(&path)
            && path.join("cgroup.procs").is_file()
        {
            return Ok(directory.into());
        }
    }
    mount_detached().map_err(CgroupRootError)
}

/// Where the root of a cgroup2 is mounted; a container's mount of its own part of it is not what we want.
///
/// A line of `mountinfo` (proc(5)): `36 35 98:0 /root /mount/point options - type source …`.
fn roots(mountinfo: &str) -> impl Iterator<Item = PathBuf> {
    mountinfo.lines().filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        (after.starts_with("cgroup2 ") && root == "/").then(|| PathBuf::from(unescaped(point)))
    })
}

/// The kernel writes spaces, tabs, line ends and backslashes as three octal digits.
fn unescaped(path: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .into_iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(path.to_owned(), |path, (code, character)| path.replace(code, character))
}

/// Linux 5.2; needs CAP_SYS_ADMIN.
fn mount_detached() -> io::Result<OwnedFd> {
    /// `FSOPEN_CLOEXEC`, `FSMOUNT_CLOEXEC` and `FSCONFIG_CMD_CREATE` (linux/mount.h).
    const CLOEXEC: libc::c_ulong = 1;
    const CREATE: libc::c_ulong = 6;
    let none: libc::c_ulong = 0;
    // SAFETY: the name ends with a zero and lives long enough; the kernel reads nothing else.
    let context = owned(unsafe { libc::syscall(libc::SYS_fsopen, c"cgroup2".as_ptr(), CLOEXEC) })?;
    let raw = std::os::fd::AsRawFd::as_raw_fd(&context);
    // SAFETY: an open descriptor and null pointers, which this command does not read.
    if unsafe { libc::syscall(libc::SYS_fsconfig, raw, CREATE, none, none, none) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: an open descriptor and two numbers.
    owned(unsafe { libc::syscall(libc::SYS_fsmount, raw, CLOEXEC, none) })
}

/// A system call's result as the descriptor it is.
fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    match RawFd::try_from(result) {
        // SAFETY: the kernel has just opened it for us, and nobody else knows it.
        Ok(descriptor) if descriptor >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_found_wherever_it_is_mounted() {
        let mounts = "\
24 30 0:22 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro
26 24 0:24 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
27 24 0:25 /docker/1 /mnt/part rw - cgroup2 cgroup2 rw
28 24 0:25 / /sys/fs/cgroup/uni\\040fied rw,relatime shared:9 - cgroup2 cgroup2 rw
";
        assert_eq!(roots(mounts).collect::<Vec<_>>(), [PathBuf::from("/sys/fs/cgroup/uni fied")]);
    }

    #[test]
    fn without_a_mount_the_hierarchy_can_be_had_all_the_same() {
        assert!(nix::unistd::geteuid().is_root(), "this test mounts: run it as root");
        let root = mount_detached().unwrap();
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&root));
        assert!(PathBuf::from(path).join("cgroup.procs").is_file());
    }
}

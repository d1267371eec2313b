//! Directories of the router's own, in the daemon's view of the file system.
//!
//! Network namespaces do not divide the file system: two daemons in two labs would share `/run`, the
//! names in `/etc/iproute2` and the pins in `/sys/fs/bpf`, with each other and with the machine. Each
//! lab's daemon therefore runs in a mount namespace where these three are the lab's. They live as long
//! as the lab, so that a daemon started after a crash finds what the first one left.

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};

const BASE: &str = "/run/multiwans-lab";

/// A lab's name for each directory, and what it stands in for.
const DIRECTORIES: [(&str, &str); 3] =
    [("run", "/run"), ("iproute2", "/etc/iproute2"), ("bpf", "/sys/fs/bpf")];

/// linux/capability.h
const CAP_SYS_ADMIN: libc::c_ulong = 21;

/// The lab's stand-ins for `/run`, `/etc/iproute2` and `/sys/fs/bpf`.
#[derive(Debug)]
pub struct RouterFiles {
    lab: String,
    base: PathBuf,
    cgroups: AtomicU8,
}

/// What a daemon finds of cgroup2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cgroups {
    /// As the machine has it.
    Mounted,
    /// Nothing has mounted it.
    NotMounted,
    /// Nothing has mounted it, and the daemon has not the capability to.
    Unreachable,
}

impl RouterFiles {
    pub(crate) fn create(lab: &str) -> Result<Self> {
        let base = base_of(lab);
        let files = Self { lab: lab.to_owned(), base, cgroups: AtomicU8::new(Cgroups::Mounted as u8) };
        for (name, original) in DIRECTORIES {
            let directory = files.base.join(name);
            fs::create_dir_all(&directory)
                .with_context(|| format!("cannot create {}", directory.display()))?;
            if name == "iproute2" {
                fs::create_dir_all(original).with_context(|| format!("cannot create {original}"))?;
                copy_tree(Path::new(original), &directory)?;
            }
        }
        mount(Some("bpf"), &files.bpf(), Some("bpf"), MsFlags::empty(), None::<&str>)
            .context("cannot mount a file system for BPF pins")?;
        Ok(files)
    }

    /// Where the daemon's `/run` is for everyone else.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        self.base.join("run")
    }

    /// Where the daemon's `/etc/iproute2` is for everyone else.
    #[must_use]
    pub fn iproute2(&self) -> PathBuf {
        self.base.join("iproute2")
    }

    /// Where the daemon's `/sys/fs/bpf` is for everyone else.
    #[must_use]
    pub fn bpf(&self) -> PathBuf {
        self.base.join("bpf")
    }

    /// Makes the router one where nothing has mounted a file system for BPF pins.
    ///
    /// # Errors
    /// When that has been done before.
    pub fn unmount_bpf(&self) -> Result<()> {
        umount2(&self.bpf(), MntFlags::MNT_DETACH).context("cannot unmount the BPF file system")
    }

    /// What daemons started from now on find of cgroup2.
    pub fn set_cgroups(&self, cgroups: Cgroups) {
        self.cgroups.store(cgroups as u8, Ordering::Relaxed);
    }

    /// Makes a command see the lab's directories in place of the machine's.
    ///
    /// # Errors
    /// Never in practice: the paths hold no NUL.
    pub fn show_on_exec(&self, command: &mut Command) -> Result<()> {
        let mut pairs = Vec::new();
        for (name, original) in DIRECTORIES {
            let ours = CString::new(self.base.join(name).as_os_str().as_bytes())?;
            pairs.push((ours, CString::new(original)?));
        }
        let cgroups = self.cgroups.load(Ordering::Relaxed);
        let hidden = if cgroups == Cgroups::Mounted as u8 { Vec::new() } else { cgroup_mounts()? };
        let enter = move || -> io::Result<()> {
            unshare(CloneFlags::CLONE_NEWNS)?;
            let (none, root) = (None::<&std::ffi::CStr>, c"/");
            // What is mounted from here on stays in here.
            mount(none, root, none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)?;
            // In reverse: /run comes last, because it hides the lab's directories.
            for (ours, original) in pairs.iter().rev() {
                mount(Some(ours.as_c_str()), original.as_c_str(), none, MsFlags::MS_BIND, none)?;
            }
            for path in &hidden {
                umount2(path.as_c_str(), MntFlags::MNT_DETACH)?;
            }
            if cgroups == Cgroups::Unreachable as u8 {
                // What is dropped here is missing after the exec.
                // SAFETY: five numbers.
                if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, CAP_SYS_ADMIN, 0, 0, 0) } != 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(())
        };
        // SAFETY: between fork and exec this makes system calls only; every path was made before, and
        // nix passes C strings through without allocating.
        unsafe { command.pre_exec(enter) };
        Ok(())
    }
}

impl Drop for RouterFiles {
    fn drop(&mut self) {
        remove(&self.lab);
    }
}

/// Removes a lab's directories, as far as there are any.
pub(crate) fn remove(lab: &str) {
    let base = base_of(lab);
    umount2(&base.join("bpf"), MntFlags::MNT_DETACH).ok();
    match fs::remove_dir_all(&base) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            eprintln!("cannot remove {}: {error}", base.display());
        }
        _ => {}
    }
    // Fails while another lab has something there, which is as it should be.
    fs::remove_dir(BASE).ok();
}

/// Where cgroup2 is mounted.
fn cgroup_mounts() -> Result<Vec<CString>> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read the mount table")?;
    let paths = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (path, kind) = (fields.next()?, fields.next()?);
        (kind == "cgroup2").then_some(path)
    });
    paths.map(|path| Ok(CString::new(path)?)).collect()
}

fn base_of(lab: &str) -> PathBuf {
    Path::new(BASE).join(lab)
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).with_context(|| format!("cannot list {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            fs::create_dir_all(&target)?;
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)
                .with_context(|| format!("cannot copy {}", entry.path().display()))?;
        }
    }
    Ok(())
}

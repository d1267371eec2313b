//! One named network namespace, made the way `ip netns` makes them, so that `ip -n NAME` finds it.

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

/// Where `ip netns` keeps its namespaces.
pub(crate) const NETNS_DIR: &str = "/run/netns";

/// A network namespace that exists until this value is dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    handle: File,
    keep: bool,
}

impl Namespace {
    /// Makes a namespace with nothing but a loopback, which is down.
    ///
    /// # Errors
    /// Without root, or when the name is taken.
    pub fn create(name: &str) -> Result<Self> {
        let path = path_of(name);
        prepare_directory()
            .with_context(|| format!("cannot make {NETNS_DIR} a shared mount (needs root)"))?;
        File::create_new(&path).with_context(|| format!("cannot create {}", path.display()))?;
        let bound = thread::scope(|scope| scope.spawn(|| bind_new_namespace(&path)).join());
        let bound = bound.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        if let Err(error) = bound {
            remove(name).ok();
            return Err(error)
                .with_context(|| format!("cannot make the network namespace {name} (needs root)"));
        }
        let mut namespace = Self::open(name)?;
        namespace.keep = false;
        Ok(namespace)
    }

    /// Opens a namespace that stays when this value is dropped.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn open(name: &str) -> Result<Self> {
        let handle = File::open(path_of(name)).with_context(|| format!("no network namespace {name}"))?;
        Ok(Self { name: name.to_owned(), handle, keep: true })
    }

    /// The name that `ip -n` takes.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that `nsenter --net=` takes.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        path_of(&self.name)
    }

    /// Leaves the namespace in place when this value is dropped.
    pub fn keep(&mut self) {
        self.keep = true;
    }

    /// Runs a closure on a thread inside the namespace. A socket made there stays there, wherever it
    /// is used afterwards.
    ///
    /// # Panics
    /// When the closure does, or the namespace cannot be entered.
    pub fn run<T: Send>(&self, action: impl FnOnce() -> T + Send) -> T {
        let enter_and_run = || {
            setns(&self.handle, CloneFlags::CLONE_NEWNET)
                .unwrap_or_else(|error| panic!("cannot enter {}: {error}", self.name));
            action()
        };
        let result = thread::scope(|scope| scope.spawn(enter_and_run).join());
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// A command that will run inside the namespace; `/sys` and the mounts below it stay the
    /// machine's, unlike under `ip netns exec`.
    #[must_use]
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        self.enter_on_exec(&mut command);
        command
    }

    /// Makes a command run inside the namespace.
    pub fn enter_on_exec(&self, command: &mut Command) {
        // A duplicate of its own: the command may outlive this value.
        let handle = self.handle.try_clone();
        let enter = move || match &handle {
            Ok(handle) => setns(handle, CloneFlags::CLONE_NEWNET).map_err(io::Error::from),
            Err(error) => Err(io::Error::from(error.kind())),
        };
        // SAFETY: between fork and exec this makes one system call and allocates nothing.
        unsafe { command.pre_exec(enter) };
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = remove(&self.name)
        {
            eprintln!("cannot remove the network namespace {}: {error}", self.name);
        }
    }
}

/// Unmounts and deletes a namespace's name; the namespace goes with its last process and socket.
pub(crate) fn remove(name: &str) -> io::Result<()> {
    let path = path_of(name);
    // EINVAL: not a mount point, the maker was interrupted before it mounted.
    match umount2(&path, MntFlags::MNT_DETACH) {
        Ok(()) | Err(nix::Error::EINVAL) => fs::remove_file(path),
        Err(error) => Err(error.into()),
    }
}

fn path_of(name: &str) -> PathBuf {
    Path::new(NETNS_DIR).join(name)
}

/// Makes the directory a shared mount of its own, as `ip netns add` does before the first namespace. Made
/// later by that, the mount would hide those of all namespaces before: their files could not be deleted
/// any more ("Device or resource busy").
fn prepare_directory() -> io::Result<()> {
    fs::create_dir_all(NETNS_DIR)?;
    // Two at a time would mount one upon the other. Let go of when the file is closed.
    let directory = File::open(NETNS_DIR)?;
    directory.lock()?;
    let share =
        || mount(None::<&str>, NETNS_DIR, None::<&str>, MsFlags::MS_SHARED | MsFlags::MS_REC, None::<&str>);
    match share() {
        // EINVAL: not a mount point yet.
        Err(nix::Error::EINVAL) => {
            let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
            mount(Some(NETNS_DIR), NETNS_DIR, None::<&str>, bind, None::<&str>)?;
            Ok(share()?)
        }
        result => Ok(result?),
    }
}

/// Moves the calling thread into a new namespace and mounts that on a file.
fn bind_new_namespace(path: &Path) -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    mount(Some("/proc/thread-self/ns/net"), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::ensure;

    fn ip(args: &[&str]) -> Result<()> {
        let output = Command::new("ip").args(args).output().context("cannot run ip")?;
        ensure!(output.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// Gives this thread a `/run` without anything in it, which nobody else sees.
    fn empty_run() -> Result<()> {
        unshare(CloneFlags::CLONE_NEWNS)?;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?;
        mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
        Ok(())
    }

    #[test]
    fn ours_and_those_of_ip_netns_do_not_hide_each_other() -> Result<()> {
        let check = || {
            empty_run()?;
            let mut kept = [Namespace::create("before")?, {
                ip(&["netns", "add", "theirs"])?;
                Namespace::create("after")?
            }];
            kept.iter_mut().for_each(Namespace::keep);
            for name in ["before", "theirs", "after"] {
                ip(&["-n", name, "link", "show", "lo"])?;
                Namespace::open(name)?.run(|| ());
            }
            remove("before").context("made before `ip netns add`")?;
            ip(&["netns", "del", "after"])?;
            remove("theirs").context("made by `ip netns add`")?;
            ensure!(fs::read_dir(NETNS_DIR)?.next().is_none(), "something is left");
            Ok(())
        };
        let result = thread::scope(|scope| scope.spawn(check).join());
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

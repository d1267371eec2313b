//! A Debian of its own in the place of the lab's router: its own files, processes and systemd, with the
//! router's network.
//!
//! `systemd-nspawn` boots it. The machine that the tests run on needs no systemd for that, and its network
//! stays as it is.

use crate::Lab;
use crate::topology::Ns;
use crate::wait::{wait_for, wait_until};
use anyhow::{Context, Result, bail};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::env;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

/// Where the machine's files are; `cargo xtask systemd` sets it.
pub const ROOT_VARIABLE: &str = "MULTIWANS_SYSTEMD_ROOT";

/// From its first process to `running`, and from the request to its end; three seconds here.
const BOOT_TIME: Duration = Duration::from_secs(60);

/// A machine that runs until this value is dropped.
#[derive(Debug)]
pub struct Machine {
    nspawn: Child,
    /// Its first process, as this machine numbers it.
    init: Pid,
    cgroups: Vec<PathBuf>,
    root: PathBuf,
}

impl Machine {
    /// Where its files are before it is booted.
    ///
    /// # Errors
    /// When nobody made them.
    pub fn root() -> Result<PathBuf> {
        let root = env::var_os(ROOT_VARIABLE).map(PathBuf::from);
        root.filter(|root| root.is_dir())
            .with_context(|| format!("{ROOT_VARIABLE} names no directory: run `cargo xtask systemd`"))
    }

    /// Boots it in the place of a lab's router.
    ///
    /// # Errors
    /// When it does not come up, with what it said.
    pub fn boot(lab: &Lab) -> Result<Self> {
        let root = Self::root()?;
        let log = root.with_extension("log");
        let log_file = File::create(&log)?;
        let cgroups = cgroups(lab.name())?;
        // Processes of a cgroup of its own: it may arrange everything below that as it likes.
        let enter: String =
            cgroups.iter().map(|c| format!("echo $$ >{}/cgroup.procs; ", c.display())).collect();
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("{enter} exec systemd-nspawn \"$@\""), "sh", "--quiet", "--boot"])
            .arg(format!("--directory={}", root.display()))
            .arg(format!("--machine={}", lab.name()))
            .arg(format!("--network-namespace-path={}", lab.namespace(Ns::Router).path().display()))
            // What a router has of the kernel.
            .args(["--capability=all", "--system-call-filter=bpf perf_event_open"])
            .args(["--register=no", "--keep-unit", "--console=passive", "--link-journal=no"])
            .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
            .stdin(Stdio::null())
            .stdout(log_file.try_clone()?)
            .stderr(log_file)
            .process_group(0);
        // SAFETY: between fork and exec this makes one system call and allocates nothing.
        unsafe {
            command.pre_exec(|| prctl::set_pdeathsig(Signal::SIGTERM).map_err(io::Error::from));
        }
        let nspawn = command.spawn().context("cannot run systemd-nspawn")?;
        let mut machine = Self { nspawn, init: Pid::from_raw(0), cgroups, root };
        let said = || fs::read_to_string(&log).unwrap_or_default();
        machine.init = machine.first_process().with_context(said)?;
        wait_until("the machine's start", BOOT_TIME, || {
            machine.sh("systemctl is-system-running").is_ok_and(|state| state.trim() == "running")
        })
        .with_context(|| format!("{:?} {}", machine.sh("systemctl --failed --no-pager"), said()))?;
        Ok(machine)
    }

    /// Runs lines of the shell in it; what they print.
    ///
    /// # Errors
    /// When they fail, with all they said.
    pub fn sh(&self, script: &str) -> Result<String> {
        let output = self.run(script)?;
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        if !output.status.success() {
            bail!("`{script}`: {}: {}{}", output.status, text(&output.stdout), text(&output.stderr));
        }
        Ok(text(&output.stdout))
    }

    /// The same, however they end.
    ///
    /// # Errors
    /// When they cannot be run.
    pub fn run(&self, script: &str) -> Result<Output> {
        let mut command = Command::new("nsenter");
        command
            .args(["-t", &self.init.to_string(), "-m", "-u", "-i", "-n", "-p", "-C", "--root", "--wd", "--"])
            .args(["sh", "-c", script])
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin");
        command.stdin(Stdio::null()).output().context("cannot run nsenter")
    }

    /// A path in it as it is found from outside, what it has mounted included.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        Path::new("/proc").join(self.init.to_string()).join("root").join(path.trim_start_matches('/'))
    }

    /// Writes one of its files, and the folders above it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// A property of the daemon's unit.
    ///
    /// # Errors
    /// When systemd does not answer.
    pub fn unit(&self, property: &str) -> Result<String> {
        let value = self.sh(&format!("systemctl show --value --property={property} multiwans"))?;
        Ok(value.trim().to_owned())
    }

    /// The first process of its cgroup: `init.scope` is what systemd makes for itself.
    fn first_process(&mut self) -> Result<Pid> {
        let places: Vec<PathBuf> =
            self.cgroups.iter().map(|cgroup| cgroup.join("payload/init.scope/cgroup.procs")).collect();
        let nspawn = &mut self.nspawn;
        let pid = wait_for("the machine's first process", BOOT_TIME, || {
            if let Ok(Some(status)) = nspawn.try_wait() {
                return Some(Err(status));
            }
            places
                .iter()
                .find_map(|place| fs::read_to_string(place).ok()?.lines().next()?.parse().ok())
                .map(Ok)
        })?;
        match pid {
            Ok(pid) => Ok(Pid::from_raw(pid)),
            Err(status) => bail!("systemd-nspawn ended: {status}"),
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if thread::panicking() {
            let journal = self.sh("journalctl --no-pager -o short-precise -u multiwans");
            eprintln!("--- journal\n{}---", journal.unwrap_or_else(|error| format!("{error:#}\n")));
        }
        if let Ok(pid) = i32::try_from(self.nspawn.id()) {
            // It turns the machine off.
            kill(Pid::from_raw(pid), Signal::SIGTERM).ok();
        }
        let ended = wait_for("the machine's end", BOOT_TIME, || self.nspawn.try_wait().ok().flatten());
        if ended.is_err() {
            self.nspawn.kill().ok();
            self.nspawn.wait().ok();
        }
        for cgroup in &self.cgroups {
            remove_cgroup(cgroup);
        }
        // What the next one must not find: the journal, the unit's drop-ins, the configuration.
        for left in ["var/log/journal", "etc/systemd/system/multiwans.service.d", "etc/multiwans/config.yaml"]
        {
            let path = self.root.join(left);
            fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path)).ok();
        }
    }
}

/// A cgroup of this name in cgroup2, and where systemd's own hierarchy stands beside it, in that.
fn cgroups(name: &str) -> Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let places: Vec<PathBuf> = mounts
        .lines()
        .filter(|line| line.contains(" - cgroup2 ") || line.contains(",name=systemd"))
        .filter_map(|line| Some(Path::new(line.split(' ').nth(4)?).join(name)))
        .collect();
    if places.is_empty() {
        bail!("cgroup2 is mounted nowhere");
    }
    for place in &places {
        fs::create_dir_all(place).with_context(|| format!("cannot create {}", place.display()))?;
    }
    Ok(places)
}

/// From the leaves up: only empty ones go.
fn remove_cgroup(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    fs::remove_dir(path).ok();
}

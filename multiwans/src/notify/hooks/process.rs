//! One run of one hook: a process group of its own, its output read as it comes, its time limited.

use std::ffi::OsString;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{SigHandler, Signal, killpg, signal};
use nix::unistd::Pid;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::output::Lines;

/// From TERM to KILL.
pub(super) const GRACE: Duration = Duration::from_secs(5);
/// How long a hook that runs when the daemon stops may go on before TERM…
pub(super) const STOP_PATIENCE: Duration = Duration::from_secs(2);
/// …and from there to KILL. Together well below what systemd waits for a service (90 s).
pub(super) const STOP_GRACE: Duration = Duration::from_secs(2);

/// Read at once: the capacity of a pipe.
const CHUNK: usize = 65_536;
/// The pause after each chunk once nothing more of it is logged. 65 MB/s then: quick enough for a hook
/// that prints much, slow enough that one that prints without end leaves the daemon its processor.
const PAUSE: Duration = Duration::from_millis(1);
/// Chunks read after the hook's end: a pipe holds one, processes it left behind may go on printing.
const LAST_CHUNKS: usize = 2;

/// What to run and how.
#[derive(Debug, Clone)]
pub(super) struct Run {
    /// Absolute, without links.
    pub(super) program: PathBuf,
    /// Its working directory.
    pub(super) directory: PathBuf,
    /// Its whole environment.
    pub(super) environment: Vec<(&'static str, OsString)>,
    /// How long it may take.
    pub(super) timeout: Duration,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ended {
    /// Of its main process.
    pub(super) status: ExitStatus,
    /// What made us end it.
    pub(super) ended_by_us: Option<Why>,
    /// Bytes of output that were not logged.
    pub(super) omitted: u64,
}

/// Why a hook is not waited for any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// `hooks.timeout` is over.
    Timeout,
    /// The daemon stops.
    Stop,
}

/// Runs it to its end. `log` gets its output line by line; once `stop` is true it is hurried.
///
/// It ends when its main process does. What it left running goes on, but its output goes nowhere then, as
/// with a service of `KillMode=process`; after a timeout the whole process group is killed.
///
/// # Errors
///
/// It could not be started, or not be watched; it does not run then.
pub(super) async fn run(
    run: Run,
    mut stop: watch::Receiver<bool>,
    mut log: impl FnMut(&str),
) -> io::Result<Ended> {
    let timeout = run.timeout;
    // Looking the program up may wait for a disk or a file server; the loop must not.
    let (mut child, output, exit) =
        tokio::task::spawn_blocking(move || start(&run)).await.map_err(io::Error::other)??;
    let group = Group(Pid::from_raw(child.id().cast_signed()));
    // Without these it could neither be bounded nor read.
    let watched = pipe::Receiver::from_owned_fd(output).and_then(|output| {
        // SAFETY: the descriptor is owned by the `OwnedFd`, which names it until it is dropped.
        Ok((output, unsafe { AsyncFd::register(exit) }?))
    });
    let (output, exit) = match watched {
        Ok(watched) => watched,
        Err(error) => {
            group.signal(Signal::SIGKILL);
            reap(child).await?;
            return Err(error);
        }
    };

    let mut lines = Lines::default();
    let mut buffer = vec![0; CHUNK];
    let mut patience = Patience { step: Step::Running, until: Instant::now() + timeout, why: None };
    let mut open = true;
    loop {
        tokio::select! {
            biased;
            _ = exit.readable() => break,
            () = sleep_until(patience.until), if patience.step != Step::Killed => patience.end(&group),
            Ok(_) = stop.wait_for(|stop| *stop), if patience.step == Step::Running && patience.why.is_none() => {
                patience.hurry();
            }
            read = read(&output, &mut buffer, lines.is_full()), if open => match read {
                Ok(0) | Err(_) => open = false,
                Ok(length) => lines.push(&buffer[..length], &mut log),
            },
        }
    }
    // Its number is its group's until it is reaped, so this hits no stranger.
    if patience.step != Step::Running {
        group.signal(Signal::SIGKILL);
    }
    for _ in 0..LAST_CHUNKS {
        match output.try_read(&mut buffer) {
            Ok(length) if length > 0 => lines.push(&buffer[..length], &mut log),
            _ => break,
        }
    }
    let status = child.wait()?;
    let ended_by_us = patience.why.filter(|_| patience.step != Step::Running);
    Ok(Ended { status, ended_by_us, omitted: lines.finish(log) })
}

/// How far it has come with ending a hook, and when the next step is due.
struct Patience {
    step: Step,
    until: Instant,
    why: Option<Why>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Running,
    Terminated,
    Killed,
}

impl Patience {
    /// The daemon stops.
    fn hurry(&mut self) {
        let until = Instant::now() + STOP_PATIENCE;
        if until < self.until {
            self.until = until;
            self.why = Some(Why::Stop);
        } else {
            self.why = Some(Why::Timeout);
        }
    }

    /// Its time is up.
    fn end(&mut self, group: &Group) {
        let why = *self.why.get_or_insert(Why::Timeout);
        match self.step {
            Step::Running => {
                group.signal(Signal::SIGTERM);
                // A stopped process takes a TERM only once it goes on.
                group.signal(Signal::SIGCONT);
                self.step = Step::Terminated;
                self.until += if why == Why::Stop { STOP_GRACE } else { GRACE };
            }
            Step::Terminated => {
                group.signal(Signal::SIGKILL);
                self.step = Step::Killed;
            }
            Step::Killed => {}
        }
    }
}

/// A process group whose leader has not been reaped.
struct Group(Pid);

impl Group {
    fn signal(&self, signal: Signal) {
        // The group exists as long as its leader is not reaped, a zombie too; and we are root.
        if let Err(error) = killpg(self.0, signal) {
            tracing::debug!(group = %self.0, %signal, %error, "a hook's process group could not be signalled");
        }
    }
}

async fn read(output: &pipe::Receiver, buffer: &mut [u8], full: bool) -> io::Result<usize> {
    if full {
        sleep(PAUSE).await;
    }
    loop {
        output.readable().await?;
        match output.try_read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return result,
        }
    }
}

async fn reap(mut child: Child) -> io::Result<ExitStatus> {
    tokio::task::spawn_blocking(move || child.wait()).await.map_err(io::Error::other)?
}

/// Starts the process: itself, the pipe with its output, the descriptor that tells its end.
fn start(run: &Run) -> io::Result<(Child, OwnedFd, OwnedFd)> {
    let (output, input) = io::pipe()?;
    let spawn = |mut command: Command| -> io::Result<Child> {
        command
            .current_dir(&run.directory)
            .env_clear()
            .envs(run.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(input.try_clone()?)
            .stderr(input.try_clone()?)
            .process_group(0);
        // SAFETY: between fork and exec these make system calls only and allocate nothing.
        unsafe { command.pre_exec(close_on_exec).pre_exec(default_signals) };
        command.spawn()
    };
    let mut child = match spawn(Command::new(&run.program)) {
        Err(error) if error.raw_os_error() == Some(libc::ENOEXEC) => spawn(shell(&run.program))?,
        result => result?,
    };
    match pidfd(&child) {
        Ok(exit) => Ok((child, output.into(), exit)),
        Err(error) => {
            // Its end could not be told: better it does not run at all.
            child.kill()?;
            child.wait()?;
            Err(error)
        }
    }
}

/// A script without a `#!` line is a shell's, and was bash's with the Bash tool.
fn shell(script: &Path) -> Command {
    let bash = Path::new("/bin/bash");
    let mut command = Command::new(if bash.exists() { bash } else { Path::new("/bin/sh") });
    command.arg(script);
    command
}

/// Keeps every descriptor but the three standard ones from the hook: ours are close-on-exec each by
/// itself, but whoever started us may have left us others.
fn close_on_exec() -> io::Result<()> {
    // SAFETY: the call takes three numbers and touches no memory.
    let done = unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whoever started us may have had signals ignored (a shell does so for what it runs in the background);
/// a hook is to begin as from a terminal.
fn default_signals() -> io::Result<()> {
    for number in Signal::iterator().filter(|number| !matches!(number, Signal::SIGKILL | Signal::SIGSTOP)) {
        // SAFETY: the default action runs no code of ours.
        unsafe { signal(number, SigHandler::SigDfl)? };
    }
    Ok(())
}

/// A descriptor that is readable once the process has ended, before it is reaped (`pidfd_open(2)`, Linux
/// 5.3).
fn pidfd(child: &Child) -> io::Result<OwnedFd> {
    // SAFETY: the call takes two numbers and touches no memory.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, child.id().cast_signed(), 0_u32) };
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
#[path = "process_tests.rs"]
mod tests;

//! The real binary, run in a lab's router.

use crate::Lab;
use crate::status::{State, Status};
use crate::topology::Ns;
use crate::wait::{wait_for, wait_until};
use anyhow::{Context, Result, bail, ensure};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::env;
use std::fmt::Display;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

/// Names another binary than the one built beside the tests.
const BINARY_VARIABLE: &str = "MULTIWANS_BIN";

/// Makes starts and stops be waited for this many times as long, for an emulated machine, whose kernel
/// needs that for verifying the packet programs alone. What the tests are about takes no longer.
const PATIENCE_VARIABLE: &str = "MULTIWANS_TEST_PATIENCE";

/// From start to every link's first verdict: a probe's timeout (1 s) where one is down, and a debug
/// build's slow verification of the packet programs on two busy cores.
const START_TIME: Duration = Duration::from_secs(15);

/// A clean stop includes waiting for what is under way.
const STOP_TIME: Duration = Duration::from_secs(10);

/// Where the daemon's control socket is by default, below its `/run`.
const CONTROL_SOCKET: &str = "multiwans/control.sock";

/// A running daemon. It is killed, and on a panic its log is shown, when this value is dropped.
#[derive(Debug)]
pub struct Daemon<'a> {
    lab: &'a Lab,
    child: Child,
    config: PathBuf,
    log: PathBuf,
}

impl<'a> Daemon<'a> {
    /// Starts the daemon and waits until it knows the state of every link.
    ///
    /// # Errors
    /// When it ends, or does not get there in time.
    pub fn start(lab: &'a Lab, config: &impl Display) -> Result<Self> {
        Self::start_at(lab, config, "debug")
    }

    /// As [`start`](Self::start), with another `--log-level` than `debug`.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_at(lab: &'a Lab, config: &impl Display, log_level: &str) -> Result<Self> {
        let mut daemon = Self::spawn_at(lab, config, Some(log_level), |_| {})?;
        daemon.wait_ready()?;
        Ok(daemon)
    }

    /// As [`start`](Self::start), without `--log-level`: the configuration says how much is logged.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_as_configured(lab: &'a Lab, config: &impl Display) -> Result<Self> {
        let mut daemon = Self::spawn_at(lab, config, None, |_| {})?;
        daemon.wait_ready()?;
        Ok(daemon)
    }

    /// Starts the daemon and waits for nothing.
    ///
    /// # Errors
    /// When the binary is not there or cannot be run.
    pub fn spawn(lab: &'a Lab, config: &impl Display) -> Result<Self> {
        Self::spawn_with(lab, config, |_| {})
    }

    /// Starts the daemon after a last change to its command, and waits for nothing.
    ///
    /// # Errors
    /// When the binary is not there or cannot be run.
    pub fn spawn_with(
        lab: &'a Lab,
        config: &impl Display,
        change: impl FnOnce(&mut Command),
    ) -> Result<Self> {
        Self::spawn_at(lab, config, Some("debug"), change)
    }

    fn spawn_at(
        lab: &'a Lab,
        config: &impl Display,
        log_level: Option<&str>,
        change: impl FnOnce(&mut Command),
    ) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let run = lab.router_files().run();
        let config_name = format!("config-{number}.yaml");
        let config_path = run.join(&config_name);
        fs::write(&config_path, config.to_string()).context("cannot write the configuration")?;
        let log = run.join(format!("log-{number}"));
        let log_file = File::create(&log).context("cannot create the log")?;

        let mut command = command(lab)?;
        command
            .args(["run", "-c", &format!("/run/{config_name}")])
            .args(log_level.into_iter().flat_map(|level| ["--log-level", level]))
            .stdin(Stdio::null())
            .stdout(log_file.try_clone()?)
            .stderr(log_file)
            // A terminal's Ctrl-C is for the test, which then stops the daemon in its own way.
            .process_group(0);
        // SAFETY: between fork and exec this makes one system call and allocates nothing.
        unsafe {
            command.pre_exec(|| prctl::set_pdeathsig(Signal::SIGKILL).map_err(io::Error::from));
        }
        change(&mut command);
        let child = command.spawn().context("cannot run the daemon")?;
        Ok(Self { lab, child, config: config_path, log })
    }

    /// Waits until it knows the state of every link.
    ///
    /// # Errors
    /// When it ends, or does not get there in time.
    pub fn wait_ready(&mut self) -> Result<()> {
        let ready = wait_for("every link's first verdict", patient(START_TIME), || {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(Err(status));
            }
            let status = self.status().ok()?;
            status.wans.iter().all(|wan| wan.state != State::Unknown).then_some(Ok(()))
        });
        match ready {
            Ok(Ok(())) => Ok(()),
            Ok(Err(status)) => bail!("the daemon ended at start: {status}\n{}", self.log()),
            Err(error) => Err(error.context(self.log())),
        }
    }

    /// Asks the daemon for its state.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn status(&self) -> Result<Status> {
        Status::parse(&self.status_text()?)
    }

    /// Asks it the same, and gives the whole answer.
    ///
    /// # Errors
    /// When it does not answer, or with something else than JSON.
    pub fn status_json(&self) -> Result<serde_json::Value> {
        Ok(serde_json::from_str(&self.status_text()?)?)
    }

    /// What one of its counters says: `["wans", "2", "out", "packets"]` of `datapath`.
    ///
    /// # Errors
    /// When it does not answer, or has no such counter.
    pub fn counter(&self, path: &[&str]) -> Result<u64> {
        let status = self.status_json()?;
        let found = path.iter().fold(&status["datapath"], |value, key| &value[*key]);
        found.as_u64().with_context(|| format!("no counter {path:?} in {}", status["datapath"]))
    }

    /// How many packets of a program (`steer`, `wan`, `learn`) something was special about. What was never counted is
    /// not in its answer.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn special(&self, program: &str, special: &str) -> Result<u64> {
        let status = self.status_json()?;
        let programs = &status["datapath"]["special"];
        ensure!(programs[program].is_object(), "nothing special of {program} in {programs}");
        Ok(programs[program][special]["packets"].as_u64().unwrap_or(0))
    }

    fn status_text(&self) -> Result<String> {
        let socket = self.control_socket();
        let socket = socket.to_str().context("a path that is not text")?;
        let output = Command::new(binary()?).args(["status", "--json", "--socket", socket]).output()?;
        if !output.status.success() && output.stdout.is_empty() {
            bail!("status: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The name of its configuration file; the folder is its `/run`.
    ///
    /// # Panics
    /// Never: every daemon has such a file.
    #[must_use]
    pub fn config_file(&self) -> String {
        self.config.file_name().expect("it was made with a name").to_string_lossy().into_owned()
    }

    /// Writes another text into its configuration file, and tells nobody.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_config(&self, config: &impl Display) -> Result<()> {
        // In one step: it may be read at any moment.
        let fresh = self.config.with_extension("new");
        fs::write(&fresh, config.to_string())?;
        fs::rename(&fresh, &self.config).context("cannot write the configuration")
    }

    /// Has it read its configuration anew, as the operator does. What was printed; an error where it was
    /// refused, with what was said then.
    ///
    /// # Errors
    /// See above.
    pub fn reload(&self) -> Result<String> {
        let output = self.reload_output()?;
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        if output.status.code() == Some(0) {
            return Ok(text(&output.stdout));
        }
        bail!("{}: {}{}", output.status, text(&output.stdout), text(&output.stderr));
    }

    /// The same where a list is to stay as it was. What was said of it.
    ///
    /// # Errors
    /// Where none did, or all was refused.
    pub fn reload_keeping_a_list(&self) -> Result<String> {
        let output = self.reload_output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(3), "{}: {said}", output.status);
        Ok(said)
    }

    fn reload_output(&self) -> Result<Output> {
        let mut command = Command::new(binary()?);
        end_of(command.arg("reload").arg("--socket").arg(self.control_socket()))
    }

    /// Waits for a state, and says how long that took.
    ///
    /// # Errors
    /// Past the deadline, with the state it is in.
    pub fn wait_status(
        &self,
        what: &str,
        deadline: Duration,
        mut is_so: impl FnMut(&Status) -> bool,
    ) -> Result<Duration> {
        let reached = wait_until(what, deadline, || self.status().is_ok_and(|status| is_so(&status)));
        reached.with_context(|| format!("{:?}", self.status()))
    }

    /// The process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where its control socket is for everyone else.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.lab.router_files().run().join(CONTROL_SOCKET)
    }

    /// Where the status file of a [`Config`](crate::Config) is for everyone else.
    #[must_use]
    pub fn status_file(&self) -> PathBuf {
        self.lab.router_files().run().join("status")
    }

    /// What it has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_else(|error| format!("no log: {error}"))
    }

    /// Waits for a text in the log.
    ///
    /// # Errors
    /// Past the deadline, with what is in the log that is not for debugging or about mails.
    pub fn wait_logged(&self, text: &str, deadline: Duration) -> Result<Duration> {
        let logged = wait_until(&format!("\"{text}\" in the log"), deadline, || self.log().contains(text));
        logged.with_context(|| {
            let log = self.log();
            let told = log.lines().filter(|line| line.contains("mail") || !line.contains("DEBUG"));
            told.collect::<Vec<_>>().join("\n")
        })
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?);
        kill(pid, signal).with_context(|| format!("cannot send {signal}"))
    }

    /// Stops it by a signal and checks that it says it went well.
    ///
    /// # Errors
    /// When it does not end in time, or not with success.
    pub fn stop(&mut self, signal: Signal) -> Result<()> {
        self.signal(signal)?;
        let status = self.wait(patient(STOP_TIME))?;
        if !status.success() {
            bail!("the daemon stopped by {signal} with {status}\n{}", self.log());
        }
        Ok(())
    }

    /// Stops it as `systemctl stop` does.
    ///
    /// # Errors
    /// When it does not end in time, or not with success.
    pub fn terminate(&mut self) -> Result<()> {
        self.stop(Signal::SIGTERM)
    }

    /// Kills it: it cannot clean up.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits for it to end.
    ///
    /// # Errors
    /// Past the deadline.
    pub fn wait(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let ended = wait_for("the daemon's end", deadline, || self.child.try_wait().transpose());
        Ok(ended.with_context(|| self.log())??)
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- log of the daemon in {}\n{}---", self.lab.name(), self.log());
        }
        // It may have ended before.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Runs the binary in the router to its end: `check`, or a `run` that is to be refused.
///
/// # Errors
/// When the binary cannot be run, or goes on running.
pub fn run_to_end(lab: &Lab, arguments: &[&str]) -> Result<Output> {
    let mut command = command(lab)?;
    end_of(command.args(arguments)).with_context(|| format!("multiwans {arguments:?}"))
}

/// Runs a command that is to end by itself, and soon.
///
/// # Errors
/// When it cannot be run, or goes on running; it is killed then.
pub fn end_of(command: &mut Command) -> Result<Output> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    // What it says fits into a pipe, so it need not be read meanwhile.
    let ended = wait_for("its end", patient(START_TIME), || child.try_wait().transpose());
    if ended.is_err() {
        child.kill()?;
    }
    let output = child.wait_with_output()?;
    match ended {
        Ok(status) => status.map(|_| output).map_err(Into::into),
        Err(error) => Err(error.context(String::from_utf8_lossy(&output.stderr).into_owned())),
    }
}

/// A command of the binary, in the router's network and with the router's files.
///
/// # Errors
/// When the binary is not there.
pub fn command(lab: &Lab) -> Result<Command> {
    let mut command = Command::new(binary()?);
    // Mounts first: they are found by the machine's names.
    lab.router_files().show_on_exec(&mut command)?;
    lab.namespace(Ns::Router).enter_on_exec(&mut command);
    Ok(command)
}

fn patient(deadline: Duration) -> Duration {
    let times = env::var(PATIENCE_VARIABLE).ok().and_then(|times| times.parse().ok());
    deadline * times.unwrap_or(1)
}

static BINARY: OnceLock<PathBuf> = OnceLock::new();

/// Runs another binary than the one beside this program, unless `MULTIWANS_BIN` names one; the first
/// call counts.
pub fn set_binary(path: PathBuf) {
    // A second call names the same build.
    BINARY.set(path).ok();
}

/// The binary: what `MULTIWANS_BIN` names, or [`set_binary`] did, or what cargo built beside this program.
///
/// # Errors
/// When it is not there.
pub fn binary() -> Result<PathBuf> {
    let path = match (env::var_os(BINARY_VARIABLE), BINARY.get()) {
        (Some(path), _) => PathBuf::from(path),
        (None, Some(path)) => path.clone(),
        (None, None) => beside(&env::current_exe()?),
    };
    if !path.is_file() {
        bail!("{} is missing; `cargo xtask build` makes it", path.display());
    }
    Ok(path)
}

/// Test programs are in `target/<profile>/deps`, others in `target/<profile>`.
fn beside(program: &Path) -> PathBuf {
    let directory = program.parent().unwrap_or(program);
    let directory =
        if directory.ends_with("deps") { directory.parent().unwrap_or(directory) } else { directory };
    directory.join("multiwans")
}

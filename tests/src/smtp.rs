//! A real mail server on the lab's internet host.

use crate::Lab;
use crate::topology::{INTERNET, Ns};
use crate::wait::{wait_for, wait_until};
use anyhow::{Context, Result, bail};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::env;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// What `pip` installs.
pub const PACKAGE: &str = "aiosmtpd==1.4.6";

const SCRIPT: &str = include_str!("smtp_server.py");

/// From start to the first connection that is accepted, on two busy cores.
const START_TIME: Duration = Duration::from_secs(20);

/// The Python environment with the mail server, which `cargo xtask setup` makes. `None`: no home directory.
#[must_use]
pub fn home() -> Option<PathBuf> {
    let cache = env::var_os("XDG_CACHE_HOME")
        .filter(|dir| !dir.is_empty())
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))?;
    Some(cache.join("multiwans").join(PACKAGE.replace("==", "-")))
}

/// The environment's interpreter.
#[must_use]
pub fn python(home: &Path) -> PathBuf {
    home.join("bin/python")
}

/// What the server is to be like.
#[derive(Debug, Clone)]
pub struct Options {
    port: u16,
    tls: &'static str,
    login: Option<(String, String)>,
    refuse: Vec<String>,
    defer: Vec<String>,
    defer_times: u32,
    refuse_data: bool,
    quote: bool,
    mute: bool,
    tarpit: Duration,
}

impl Options {
    /// Plain SMTP on a port, open to everyone.
    #[must_use]
    pub fn plain(port: u16) -> Self {
        Self {
            port,
            tls: "none",
            login: None,
            refuse: Vec::new(),
            defer: Vec::new(),
            defer_times: 0,
            refuse_data: false,
            quote: false,
            mute: false,
            tarpit: Duration::ZERO,
        }
    }

    /// Offers STARTTLS.
    #[must_use]
    pub fn starttls(mut self) -> Self {
        self.tls = "starttls";
        self
    }

    /// TLS from the first byte.
    #[must_use]
    pub fn implicit_tls(mut self) -> Self {
        self.tls = "implicit";
        self
    }

    /// Wants a login; only after STARTTLS where that is offered.
    #[must_use]
    pub fn login(mut self, user: &str, password: &str) -> Self {
        self.login = Some((user.to_owned(), password.to_owned()));
        self
    }

    /// Quotes a wrong password in its answer.
    #[must_use]
    pub fn quotes_passwords(mut self) -> Self {
        self.quote = true;
        self
    }

    /// Refuses a recipient for good.
    #[must_use]
    pub fn refuses(mut self, recipient: &str) -> Self {
        self.refuse.push(recipient.to_owned());
        self
    }

    /// Refuses a recipient for now, so many times.
    #[must_use]
    pub fn defers(mut self, recipient: &str, times: u32) -> Self {
        self.defer.push(recipient.to_owned());
        self.defer_times = times;
        self
    }

    /// Refuses every message once it has it.
    #[must_use]
    pub fn refuses_messages(mut self) -> Self {
        self.refuse_data = true;
        self
    }

    /// Greets, and says nothing from then on.
    #[must_use]
    pub fn mute(mut self) -> Self {
        self.mute = true;
        self
    }

    /// Says nothing for so long after a connection.
    #[must_use]
    pub fn tarpit(mut self, time: Duration) -> Self {
        self.tarpit = time;
        self
    }
}

/// A mail that the server took.
#[derive(Debug, Clone)]
pub struct Mail(Value);

impl Mail {
    /// A text of it: `subject`, `plain`, `html`, `from`, `user`, `type`, `header_to`, `peer`, `hello`.
    #[must_use]
    pub fn text(&self, field: &str) -> &str {
        self.0[field].as_str().unwrap_or_default()
    }

    /// Its envelope's recipients.
    #[must_use]
    pub fn recipients(&self) -> Vec<&str> {
        self.0["to"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// Whether it came encrypted.
    #[must_use]
    pub fn encrypted(&self) -> bool {
        self.0["tls"].as_bool().unwrap_or_default()
    }

    /// When it came, in Unix time.
    #[must_use]
    pub fn at(&self) -> f64 {
        self.0["at"].as_f64().unwrap_or_default()
    }
}

/// A running server; it ends when this value is dropped.
#[derive(Debug)]
pub struct MailServer {
    child: Child,
    directory: PathBuf,
}

impl Lab {
    /// Starts a mail server on the internet host, with a certificate for its address by a private
    /// authority: [`ca_file`](MailServer::ca_file).
    ///
    /// # Errors
    /// Without the Python environment, or when the server does not start.
    pub fn mail_server(&self, options: &Options) -> Result<MailServer> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let python = python(&home().context("no home directory")?);
        if !python.is_file() {
            bail!("{} is missing; `cargo xtask setup` makes it", python.display());
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let directory = self.router_files().run().join(format!("smtp-{number}"));
        fs::create_dir_all(&directory)?;
        if options.tls != "none" {
            make_certificates(&directory)?;
        }
        let settings = json!({
            "directory": directory,
            "port": options.port,
            "tls": options.tls,
            "certificate": directory.join("server.pem"),
            "key": directory.join("server.key"),
            "login": options.login.as_ref().map(|(user, password)| [user, password]),
            "refuse": options.refuse,
            "defer": options.defer,
            "defer_times": options.defer_times,
            "refuse_data": options.refuse_data,
            "quote": options.quote,
            "mute": options.mute,
            "tarpit": options.tarpit.as_secs_f64(),
        });
        let log = fs::File::create(directory.join("log"))?;
        let mut command = self.namespace(Ns::Internet).command(&python);
        command.args(["-c", SCRIPT, &settings.to_string()]);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // SAFETY: between fork and exec this makes one system call and allocates nothing.
        unsafe {
            command.pre_exec(|| prctl::set_pdeathsig(Signal::SIGKILL).map_err(io::Error::from));
        }
        let child = command.spawn().context("cannot run the mail server")?;
        let server = MailServer { child, directory };
        wait_until("the mail server's start", START_TIME, || server.directory.join("ready").exists())
            .with_context(|| fs::read_to_string(server.directory.join("log")).unwrap_or_default())?;
        Ok(server)
    }
}

impl MailServer {
    /// The authority's certificate, in the daemon's view of the file system.
    ///
    /// # Panics
    /// Never: the directory has a name.
    #[must_use]
    pub fn ca_file(&self) -> String {
        let name = self.directory.file_name().map(|name| name.to_string_lossy().into_owned());
        format!("/run/{}/ca.pem", name.unwrap_or_default())
    }

    /// Every mail it took, in order.
    #[must_use]
    pub fn mails(&self) -> Vec<Mail> {
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
        files.sort();
        let read = |file: &PathBuf| serde_json::from_str(&fs::read_to_string(file).ok()?).ok().map(Mail);
        files.iter().filter_map(read).collect()
    }

    /// How the subjects of all mails begin: `START`, `ERROR`.
    #[must_use]
    pub fn kinds(&self) -> Vec<String> {
        let kind = |mail: &Mail| mail.text("subject").split(':').next().unwrap_or_default().to_owned();
        self.mails().iter().map(kind).collect()
    }

    /// Waits for a mail of this kind, after the first `known` ones.
    ///
    /// # Errors
    /// Past the deadline, with what came instead.
    pub fn wait_mail(&self, kind: &str, known: usize, deadline: Duration) -> Result<Mail> {
        let start = format!("{kind}: ");
        let what = format!("a mail {kind}");
        let found = wait_for(&what, deadline, || {
            self.mails().into_iter().skip(known).find(|mail| mail.text("subject").starts_with(&start))
        });
        found.with_context(|| format!("mails: {:?}", self.kinds()))
    }

    /// How often someone connected.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.lines("connections").len()
    }

    /// Who tried to log in: `user MECHANISM tls|plain`.
    #[must_use]
    pub fn logins(&self) -> Vec<String> {
        self.lines("logins")
    }

    fn lines(&self, file: &str) -> Vec<String> {
        let text = fs::read_to_string(self.directory.join(file)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// An authority of our own, and a certificate by it for the internet host.
fn make_certificates(directory: &Path) -> Result<()> {
    let new_key =
        ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
    let openssl = |arguments: &[&str]| -> Result<()> {
        let output = Command::new("openssl").args(arguments).current_dir(directory).output()?;
        if !output.status.success() {
            bail!("openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    };
    let ca = ["-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=Lab authority"];
    openssl(&[&new_key[..], &ca].concat())?;
    let name = format!("subjectAltName=IP:{INTERNET},DNS:mail.example");
    let by = ["-keyout", "server.key", "-out", "server.pem", "-subj", "/CN=mail.example", "-CA", "ca.pem"];
    let what = ["-CAkey", "ca.key", "-addext", &name, "-addext", "basicConstraints=critical,CA:FALSE"];
    openssl(&[&new_key[..], &by, &what].concat())
}

//! A real DNS server (dnsmasq) in a place of the lab.

use crate::Lab;
use crate::topology::Ns;
use crate::wait::wait_for;
use anyhow::{Context, Result, bail};
use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// How long it may take to start.
const START_TIME: Duration = Duration::from_secs(5);

/// A server that knows what it was told and nothing else. It is killed when this value is dropped.
#[derive(Debug)]
pub struct DnsServer {
    process: Child,
    log: PathBuf,
}

impl Lab {
    /// Starts a server on every address of a place. `records` are dnsmasq's own options without the dashes,
    /// such as `address=/www.example.org/192.0.2.1`; of other names below `example.org` it knows that there
    /// are none.
    ///
    /// # Errors
    /// When it is not installed, or does not begin to listen.
    pub fn serve_dns(&self, place: Ns, port: u16, records: &[&str]) -> Result<DnsServer> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let log = self.router_files().run().join(format!("dns-{number}"));
        let mut command = self.namespace(place).command("dnsmasq");
        command
            .args([
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--no-resolv",
                "--no-hosts",
                "--user=root",
            ])
            .args(["--pid-file=", "--local=/example.org/", "--cache-size=0"])
            .args([format!("--port={port}"), format!("--log-facility={}", log.display())])
            .arg("--log-queries")
            .args(records.iter().map(|record| format!("--{record}")));
        let process = command.stdin(Stdio::null()).spawn().context("cannot run dnsmasq (dnsmasq-base)")?;
        let mut server = DnsServer { process, log };
        // It listens once nobody else can.
        wait_for("a DNS server that listens", START_TIME, || {
            let ended = server.process.try_wait().ok().flatten();
            let taken = self.in_ns(place, || UdpSocket::bind(("0.0.0.0", port)).is_err());
            ended.map(Err).or(taken.then_some(Ok(())))
        })?
        .or_else(|status| bail!("dnsmasq ended: {status}"))?;
        Ok(server)
    }
}

impl DnsServer {
    /// How often it was asked for the addresses of a name by somebody.
    #[must_use]
    pub fn asked(&self, name: &str, by: Ipv4Addr) -> usize {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        text.matches(&format!("query[A] {name} from {by}\n")).count()
    }

    /// The file that it writes each question and answer to.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Kills it: questions find nobody from here on.
    pub fn kill(self) {}
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        // It may have ended before.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

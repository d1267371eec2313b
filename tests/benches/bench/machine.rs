//! What a result was measured on.

use anyhow::{Context, Result};
use serde::Serialize;
use std::fs;
use std::process::Command;

/// The machine, its kernel and the tools that were measured beside ours.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) hypervisor: bool,
    pub(crate) memory_gib: u64,
    pub(crate) kernel: String,
    pub(crate) tools: Vec<String>,
    pub(crate) commit: String,
    /// Processes that wanted to run in the last minute before: above one, the figures are not to be believed.
    pub(crate) load_before: f64,
}

impl Machine {
    pub(crate) fn look() -> Result<Self> {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").context("cannot read /proc/cpuinfo")?;
        let value = |text: &str, key: &str| {
            let line = text.lines().find(|line| line.starts_with(key));
            line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
        };
        let memory = fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
        let kib = value(&memory, "MemTotal").unwrap_or_default();
        let kib: u64 = kib.trim_end_matches(" kB").parse().unwrap_or(0);
        let load = fs::read_to_string("/proc/loadavg").context("cannot read /proc/loadavg")?;
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").context("no kernel version")?;
        Ok(Self {
            // Some processors have no model name.
            cpu: value(&cpuinfo, "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
            hypervisor: value(&cpuinfo, "flags")
                .is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
            memory_gib: kib.div_ceil(1024 * 1024),
            kernel: kernel.trim().to_owned(),
            tools: [["iptables-legacy", "--version"], ["nft", "--version"], ["ipset", "--version"]]
                .into_iter()
                .filter_map(|[program, argument]| first_line(program, &[argument]))
                .collect(),
            commit: first_line("git", &["describe", "--always", "--dirty"]).unwrap_or_default(),
            load_before: load.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0),
        })
    }
}

fn first_line(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    String::from_utf8_lossy(&output.stdout).lines().next().map(str::to_owned)
}

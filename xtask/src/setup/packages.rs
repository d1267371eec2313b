//! Debian packages.

use crate::command::{find_program, is_root, output, run};
use anyhow::{Result, bail};
use std::process::Command;

/// A program, and the package that brings it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tool {
    program: &'static str,
    package: &'static str,
}

/// What the lab and the end-to-end tests call. Looked for by program, so that a machine which has
/// them from elsewhere needs no apt.
pub(crate) const LAB_TOOLS: &[Tool] = &[
    Tool { program: "ip", package: "iproute2" },
    Tool { program: "iptables", package: "iptables" },
    Tool { program: "nft", package: "nftables" },
    Tool { program: "conntrack", package: "conntrack" },
    Tool { program: "ping", package: "iputils-ping" },
    Tool { program: "tcpdump", package: "tcpdump" },
    Tool { program: "modprobe", package: "kmod" },
    Tool { program: "curl", package: "curl" },
    Tool { program: "dig", package: "bind9-dnsutils" },
    Tool { program: "dnsmasq", package: "dnsmasq-base" },
    Tool { program: "ethtool", package: "ethtool" },
    Tool { program: "bpftool", package: "bpftool" },
    Tool { program: "nsenter", package: "util-linux" },
    Tool { program: "openssl", package: "openssl" },
    Tool { program: "python3", package: "python3" },
    Tool { program: "cc", package: "gcc" },
    Tool { program: "cc", package: "libc6-dev" },
];

/// What `cargo xtask vm` calls and puts into its machine, besides the lab's tools.
pub(crate) const VM_TOOLS: &[Tool] = &[
    Tool { program: "qemu-system-x86_64", package: "qemu-system-x86" },
    Tool { program: "busybox", package: "busybox-static" },
    Tool { program: "cpio", package: "cpio" },
    Tool { program: "xz", package: "xz-utils" },
    Tool { program: "objcopy", package: "binutils" },
];

/// What `cargo xtask systemd` makes and boots its machine with.
pub(crate) const SYSTEMD_TOOLS: &[Tool] = &[
    Tool { program: "mmdebstrap", package: "mmdebstrap" },
    Tool { program: "systemd-nspawn", package: "systemd-container" },
];

/// What `cargo xtask bench` measures beside ours, besides the lab's tools.
pub(crate) const BENCH_TOOLS: &[Tool] = &[
    Tool { program: "ipset", package: "ipset" },
    // As the Bash tool used it; the same package.
    Tool { program: "iptables-legacy-restore", package: "iptables" },
];

/// What `cargo xtask bench profile` looks with.
pub(crate) const PROFILE_TOOLS: &[Tool] = &[Tool { program: "perf", package: "linux-perf" }];

/// The packages whose programs are not on this machine.
pub(crate) fn missing(tools: &[Tool]) -> Vec<&'static str> {
    tools.iter().filter(|tool| find_program(tool.program).is_none()).map(|tool| tool.package).collect()
}

/// Installs packages with apt-get, as root or through sudo.
///
/// # Errors
/// No apt-get, neither root nor sudo, or apt-get's own failure.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    if find_program("apt-get").is_none() {
        bail!("this machine has no apt-get; install what these Debian packages contain: {list}");
    }
    run(apt_get()?.arg("update"))?;
    run(apt_get()?.args(["install", "-y", "--no-install-recommends"]).args(packages))
}

/// True when apt knows a version of the package that it could install.
pub(crate) fn is_offered(package: &str) -> bool {
    output(Command::new("apt-cache").args(["policy", package])).is_some_and(|policy| {
        policy
            .lines()
            .any(|line| line.trim().strip_prefix("Candidate:").is_some_and(|v| !v.trim().starts_with('(')))
    })
}

/// Refreshes apt's lists.
pub(crate) fn update() -> Result<()> {
    run(apt_get()?.arg("update"))
}

fn apt_get() -> Result<Command> {
    let words = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q"];
    let mut command = if is_root() {
        Command::new(words[0])
    } else if find_program("sudo").is_some() {
        let mut sudo = Command::new("sudo");
        sudo.arg(words[0]);
        sudo
    } else {
        bail!("installing packages needs root or sudo; run `cargo xtask setup` as root");
    };
    command.args(&words[1..]);
    Ok(command)
}

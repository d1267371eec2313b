//! What the machine must offer before the daemon starts. Said in one clear line each, before anything
//! is touched, instead of as some system call's error in the middle of it.

use std::fmt;
use std::fs;
use std::io;

use aya::maps::MapType;
use aya::sys::is_map_supported;

/// The oldest kernel that has all that the data path uses. Arrays of maps whose inner arrays differ in
/// size came with 5.10, `bpf_loop` with 5.17.
pub const KERNEL_MIN: KernelVersion = KernelVersion { major: 5, minor: 17 };

/// A kernel's version as far as features depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelVersion {
    /// `6` of 6.18.
    pub major: u32,
    /// `18` of 6.18.
    pub minor: u32,
}

impl KernelVersion {
    /// Reads the begin of a release as `uname -r` prints it, e.g. `6.1.0-13-amd64`.
    fn parse(release: &str) -> Option<Self> {
        let mut numbers = release.trim().split(|c: char| !c.is_ascii_digit());
        let mut next = || numbers.next()?.parse().ok();
        Some(Self { major: next()?, minor: next()? })
    }
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Something the machine or the process lacks.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unmet {
    /// The process may not do what it must.
    #[error("multiwans must run as root: it lacks {}", .0.join(", "))]
    Capabilities(Vec<&'static str>),
    /// The kernel is too old.
    #[error("kernel ({found}) must be {KERNEL_MIN} or newer: the data path uses bpf_loop")]
    Kernel {
        /// Its release.
        found: String,
    },
    /// The kernel has no eBPF, or something keeps us from it.
    #[error("the bpf system call must be available: {0}")]
    Bpf(String),
    /// It could not be found out.
    #[error("{path} must be readable: {error}")]
    Unknown {
        /// The file that would say.
        path: &'static str,
        /// Why it does not.
        error: String,
    },
}

/// All that is missing; empty where the daemon may start.
pub fn unmet() -> Vec<Unmet> {
    let mut unmet = Vec::new();
    match read("/proc/self/status", effective_capabilities) {
        Ok(effective) => unmet.extend(missing_capabilities(effective)),
        Err(unknown) => unmet.push(unknown),
    }
    match read("/proc/sys/kernel/osrelease", |text| {
        Some((KernelVersion::parse(text)?, text.trim().to_owned()))
    }) {
        Ok((version, found)) if version < KERNEL_MIN => unmet.push(Unmet::Kernel { found }),
        Ok(_) => {}
        Err(unknown) => unmet.push(unknown),
    }
    // Without the capabilities it fails for the reason that was told already.
    if unmet.is_empty() {
        unmet.extend(bpf());
    }
    unmet
}

fn read<T>(path: &'static str, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, Unmet> {
    fs::read_to_string(path)
        .and_then(|text| parse(&text).ok_or_else(|| io::Error::other("it has an unknown form")))
        .map_err(|error| Unmet::Unknown { path, error: error.to_string() })
}

/// The `CapEff` line of `/proc/PID/status`: one bit per capability.
fn effective_capabilities(status: &str) -> Option<u64> {
    let hex = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(hex.trim(), 16).ok()
}

/// Capabilities rather than user 0: a container's root may have lost them, a service's user been given them.
fn missing_capabilities(effective: u64) -> Option<Unmet> {
    // Bit numbers: linux/capability.h. CAP_SYS_ADMIN includes what CAP_BPF was split off from it.
    const NET_ADMIN: u64 = 1 << 12;
    const NET_RAW: u64 = 1 << 13;
    const SYS_ADMIN: u64 = 1 << 21;
    const BPF: u64 = 1 << 39;
    let missing: Vec<_> = [
        (NET_ADMIN, "CAP_NET_ADMIN"),
        (NET_RAW, "CAP_NET_RAW"),
        (BPF | SYS_ADMIN, "CAP_BPF (or CAP_SYS_ADMIN)"),
    ]
    .into_iter()
    .filter(|(any_of, _)| effective & any_of == 0)
    .map(|(_, name)| name)
    .collect();
    (!missing.is_empty()).then_some(Unmet::Capabilities(missing))
}

/// Creates the smallest map there is: a kernel without eBPF, a seccomp filter, a container's user
/// namespace or a lockdown say no here.
fn bpf() -> Option<Unmet> {
    match is_map_supported(MapType::Array) {
        Ok(true) => None,
        Ok(false) => Some(Unmet::Bpf("the kernel knows no eBPF maps".to_owned())),
        Err(error) => Some(Unmet::Bpf(error.io_error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_will_do() {
        assert_eq!(unmet(), []);
    }

    #[test]
    fn releases_are_compared_by_number() {
        let version = |release| KernelVersion::parse(release);
        for old in ["5.16.20", "5.9", "4.19.0-27-amd64", "2.6.32"] {
            assert!(version(old).unwrap() < KERNEL_MIN, "{old}");
        }
        for new in ["5.17.0", "5.17-rc1", "6.1.0-13-amd64\n", "6.18.44+", "10.0"] {
            assert!(version(new).unwrap() >= KERNEL_MIN, "{new}");
        }
        for garbage in ["", "six", "6", "6.x", "-1.2"] {
            assert_eq!(version(garbage), None, "{garbage}");
        }
    }

    #[test]
    fn capabilities_are_read_from_the_effective_set() {
        let status = "Name:\tx\nCapPrm:\t000001ffffffffff\nCapEff:\t0000000000003000\nCapBnd:\t0\n";
        assert_eq!(effective_capabilities(status), Some(0x3000));
        assert_eq!(effective_capabilities("CapPrm:\t1\n"), None);
        assert_eq!(effective_capabilities("CapEff:\tnone\n"), None);
    }

    #[test]
    fn missing_capabilities_are_named_in_one_line() {
        let line = |effective| missing_capabilities(effective).map(|unmet| unmet.to_string());
        assert_eq!(
            line(0).unwrap(),
            "multiwans must run as root: it lacks CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF (or CAP_SYS_ADMIN)"
        );
        assert_eq!(line(0x3000).unwrap(), "multiwans must run as root: it lacks CAP_BPF (or CAP_SYS_ADMIN)");
        assert_eq!(line(0x3000 | 1 << 21), None);
        assert_eq!(line(0x3000 | 1 << 39), None);
        assert_eq!(line(0x1000 | 1 << 39).unwrap(), "multiwans must run as root: it lacks CAP_NET_RAW");
        assert_eq!(line(u64::MAX), None);
    }

    #[test]
    fn every_other_lack_is_one_line_too() {
        assert_eq!(
            Unmet::Kernel { found: "5.10.0-28-amd64".into() }.to_string(),
            "kernel (5.10.0-28-amd64) must be 5.17 or newer: the data path uses bpf_loop"
        );
        let error = read("/proc/self/no-such-file", |_| Some(())).unwrap_err();
        assert!(error.to_string().starts_with("/proc/self/no-such-file must be readable: No such file"));
    }
}

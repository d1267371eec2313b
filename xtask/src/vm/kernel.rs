//! Kernels out of Debian's packages.

use crate::command::{output, run};
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An unpacked kernel.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// Where everything made of it is.
    pub(crate) directory: PathBuf,
    /// The kernel itself.
    pub(crate) vmlinuz: PathBuf,
    /// Its `/lib/modules/RELEASE`.
    pub(crate) modules: PathBuf,
}

/// Downloads and unpacks the newest kernel of a version, such as `6.1`, unless that was done before.
pub(crate) fn unpack(version: &str, below: &Path) -> Result<Kernel> {
    let package = newest(version)
        .with_context(|| format!("apt has no kernel {version} (newer ones are in backports)"))?;
    let directory = below.join(&package);
    let unpacked = directory.join("package");
    if !unpacked.is_dir() {
        fs::create_dir_all(&directory)?;
        run(Command::new("apt-get").args(["download", &package]).current_dir(&directory))?;
        let archive = only_entry(&directory, |name| name.ends_with(".deb"))?;
        // In two steps: an interrupted one must not look done.
        let partial = directory.join("partial");
        run(Command::new("dpkg-deb").arg("--extract").arg(archive).arg(&partial))?;
        fs::rename(partial, &unpacked)?;
    }
    let vmlinuz = only_entry(&unpacked.join("boot"), |name| name.starts_with("vmlinuz-"))?;
    let modules = ["lib/modules", "usr/lib/modules"].map(|path| unpacked.join(path));
    let modules = modules.iter().find(|path| path.is_dir()).context("the package has no modules")?;
    let modules = only_entry(modules, |_| true)?;
    Ok(Kernel { directory, vmlinuz, modules })
}

/// The package with the highest version numbers in its name, flavours left out.
fn newest(version: &str) -> Option<String> {
    let pattern = format!("^linux-image-{}[.][0-9]", version.replace('.', "[.]"));
    let found = output(Command::new("apt-cache").args(["search", "--names-only", &pattern]))?;
    let packages = found.lines().filter_map(|line| line.split(' ').next());
    packages.filter(|name| is_plain(name)).max_by_key(|name| numbers(name)).map(str::to_owned)
}

/// `linux-image-6.1.0-56-amd64`, but not `…-cloud-amd64` or `…-amd64-dbg`.
fn is_plain(package: &str) -> bool {
    package.strip_suffix("-amd64").is_some_and(|rest| !rest.ends_with("-cloud") && !rest.ends_with("-rt"))
}

fn numbers(package: &str) -> Vec<u64> {
    package.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

fn only_entry(directory: &Path, is_it: impl Fn(&str) -> bool) -> Result<PathBuf> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(&is_it))
        .with_context(|| format!("{} lacks what the package should have", directory.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_is_by_number_and_flavours_are_left_out() {
        assert!(numbers("linux-image-6.1.0-100-amd64") > numbers("linux-image-6.1.0-56-amd64"));
        assert!(is_plain("linux-image-6.12.117+deb12-amd64"));
        for other in ["cloud-amd64", "rt-amd64", "amd64-dbg", "amd64-unsigned"] {
            assert!(!is_plain(&format!("linux-image-6.1.0-56-{other}")), "{other}");
        }
    }
}

//! `cargo xtask systemd`: the installed unit under a real systemd.
//!
//! A Debian 12, made once by mmdebstrap and kept as an archive, is unpacked, the daemon is installed into it
//! as an administrator would, and tests boot it in the place of the lab's router.

use crate::command::{cargo, run as run_command};
use crate::setup::packages;
use crate::{build, install, setup, workspace};
use anyhow::{Context, Result, ensure};
use multiwans_tests::machine::ROOT_VARIABLE;
use multiwans_tests::smtp;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a router has: systemd, the network's tools, ifupdown.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,iproute2,ifupdown,iptables,kmod,procps";

/// Debian's name for the release whose systemd the unit is for.
const RELEASE: &str = "bookworm";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What the tests get: `cargo xtask systemd -- a_service_s_life`
    #[arg(last = true)]
    tests: Vec<OsString>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    setup::ensure_lab_tools()?;
    setup::require_root("systemd boots in namespaces of its own")?;
    let missing = packages::missing(packages::SYSTEMD_TOOLS);
    if !missing.is_empty() {
        packages::install(&missing)?;
    }
    let binary = build::run(&build::Args { release: false })?;
    let root = unpack(&archive()?)?;
    let places = install::Places::below(&root);
    install::install(&install::Args::of(places.clone(), &binary))?;
    let tests = run_command(
        cargo()
            .args(["test", "--package", "multiwans-tests", "--test", "systemd", "--"])
            .args(["--ignored", "--test-threads=1"])
            .args(&args.tests)
            .env(ROOT_VARIABLE, &root),
    );
    install::uninstall(&places)?;
    for gone in ["usr/local/sbin/multiwans", "usr/local/lib/systemd/system/multiwans.service"] {
        ensure!(!root.join(gone).exists(), "uninstall left {gone}");
    }
    fs::remove_dir_all(&root).with_context(|| format!("cannot remove {}", root.display()))?;
    tests
}

/// The archive of the machine's files, made where it is missing.
fn archive() -> Result<PathBuf> {
    let cache = smtp::home().context("neither XDG_CACHE_HOME nor HOME says where a cache may be")?;
    let cache = cache.parent().unwrap_or(Path::new("/")).to_owned();
    // Named after what is in it: another list makes another archive.
    let archive = cache.join(format!("{RELEASE}-{}.tar", PACKAGES.replace(',', "_")));
    if !archive.is_file() {
        eprintln!("systemd: a Debian {RELEASE} is made, once, in {}", archive.display());
        fs::create_dir_all(&cache)?;
        let partial = archive.with_extension("partial.tar");
        run_command(
            Command::new("mmdebstrap")
                .args(["--quiet", "--variant=minbase", &format!("--include={PACKAGES}"), RELEASE])
                .arg(&partial),
        )?;
        fs::rename(partial, &archive)?;
    }
    Ok(archive)
}

fn unpack(archive: &Path) -> Result<PathBuf> {
    let root = workspace::target().join("systemd").join("root");
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("cannot remove {}", root.display()))?;
    }
    fs::create_dir_all(&root)?;
    run_command(
        Command::new("tar").arg("--extract").arg("--file").arg(archive).arg("--directory").arg(&root),
    )?;
    // Empty: systemd makes one for this boot.
    fs::write(root.join("etc/machine-id"), "")?;
    Ok(root)
}

//! The mail server of the end-to-end tests: aiosmtpd in a Python environment of its own, outside the
//! checkout so that a second clone need not install it again.

use super::packages;
use crate::command::{output, run};
use anyhow::{Context, Result, bail};
use multiwans_tests::smtp;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Installs it where it is missing.
pub(crate) fn ensure() -> Result<()> {
    let home = smtp::home().context("neither XDG_CACHE_HOME nor HOME says where a cache may be")?;
    if works(&home) {
        return Ok(());
    }
    eprintln!("setup: the tests need the mail server {}", smtp::PACKAGE);
    // What an interrupted setup left is no environment.
    fs::remove_dir_all(&home).ok();
    if make_environment(&home).is_err() {
        // Debian's python3 comes without what makes environments.
        packages::install(&["python3-venv"])?;
        fs::remove_dir_all(&home).ok();
        make_environment(&home)?;
    }
    run(Command::new(smtp::python(&home)).args(["-m", "pip", "install", "--quiet", smtp::PACKAGE]))?;
    if !works(&home) {
        bail!("{} is installed in {}, but cannot be imported", smtp::PACKAGE, home.display());
    }
    Ok(())
}

fn make_environment(home: &Path) -> Result<()> {
    run(Command::new("python3").args(["-m", "venv"]).arg(home))
}

fn works(home: &Path) -> bool {
    output(Command::new(smtp::python(home)).args(["-c", "import aiosmtpd"])).is_some()
}

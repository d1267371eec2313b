//! `cargo xtask install` and `uninstall`: program, systemd unit, example configuration.

use crate::{build, workspace};
use anyhow::{Context, Result};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The program's path in the unit file of the repository.
const UNIT_PROGRAM: &str = "/usr/local/sbin/multiwans";
/// A path of the administrator, whatever the prefix is. The seed had its configuration there, too.
const CONFIGURATION: &str = "/etc/multiwans";
const UNIT: &str = "multiwans.service";

/// Where things go.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Places {
    /// Where program and unit go: PREFIX/sbin and PREFIX/lib/systemd/system. The configuration is always in
    /// /etc/multiwans
    #[arg(long, value_name = "PREFIX", default_value = "/usr/local", value_parser = absolute)]
    prefix: PathBuf,
    /// A directory that stands in for /, for building packages
    #[arg(long, value_name = "DIR", default_value = "/")]
    destdir: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    places: Places,
    /// Install this program instead of building one
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

impl Args {
    /// For a program that is built already.
    pub(crate) fn of(places: Places, binary: &Path) -> Self {
        Self { places, binary: Some(binary.to_owned()) }
    }
}

impl Places {
    /// The usual places, in a system below this directory.
    pub(crate) fn below(destdir: &Path) -> Self {
        Self { prefix: "/usr/local".into(), destdir: destdir.to_owned() }
    }

    /// The program, as the installed system sees it.
    fn program(&self) -> PathBuf {
        self.prefix.join("sbin/multiwans")
    }

    /// systemd looks below /usr and /usr/local; for any other prefix the unit goes where the administrator's
    /// are, or it would not be found.
    fn unit(&self) -> PathBuf {
        let searched = [Path::new("/usr"), Path::new("/usr/local")].contains(&self.prefix.as_path());
        let directory = if searched { self.prefix.join("lib") } else { PathBuf::from("/etc") };
        directory.join("systemd/system").join(UNIT)
    }

    /// A path of the installed system as it is found now.
    fn here(&self, path: &Path) -> PathBuf {
        self.destdir.join(path.strip_prefix("/").unwrap_or(path))
    }
}

/// Installs; an existing `config.yaml` is never touched.
pub(crate) fn install(args: &Args) -> Result<()> {
    let places = &args.places;
    let binary = match &args.binary {
        Some(binary) => binary.clone(),
        None => build::run(&build::Args { release: true })?,
    };
    let program = fs::read(&binary).with_context(|| format!("cannot read {}", binary.display()))?;
    put(&places.here(&places.program()), &program, 0o755)?;

    let unit = workspace::root().join(UNIT);
    let unit = fs::read_to_string(&unit).with_context(|| format!("cannot read {}", unit.display()))?;
    let installed = places.program();
    let unit = unit.replace(UNIT_PROGRAM, installed.to_str().context("prefix must be UTF-8")?);
    put(&places.here(&places.unit()), unit.as_bytes(), 0o644)?;

    let configuration = places.here(Path::new(CONFIGURATION));
    // Readable by root only: config.yaml may hold a password.
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(&configuration)
        .with_context(|| format!("cannot create {}", configuration.display()))?;
    let example = fs::read(workspace::root().join("config.example.yaml"))?;
    put(&configuration.join("config.example.yaml"), &example, 0o644)?;
    next_steps(places, &configuration);
    Ok(())
}

/// Removes program, unit and example; the configuration and the hooks stay.
pub(crate) fn uninstall(places: &Places) -> Result<()> {
    let example = Path::new(CONFIGURATION).join("config.example.yaml");
    for path in [places.unit(), places.program(), example] {
        let path = places.here(&path);
        match fs::remove_file(&path) {
            Ok(()) => println!("removed {}", path.display()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot remove {}", path.display())),
        }
    }
    let configuration = places.here(Path::new(CONFIGURATION));
    // Only if nothing else is in it.
    if fs::remove_dir(&configuration).is_err() && configuration.exists() {
        println!("kept {}", configuration.display());
    }
    Ok(())
}

/// A whole new file in the place of an old one: a program that runs keeps the one it was started from.
fn put(path: &Path, contents: &[u8], mode: u32) -> Result<()> {
    let context = || format!("cannot write {}", path.display());
    let directory = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(directory).with_context(context)?;
    let fresh = path.with_extension("new");
    let mut file = fs::File::create(&fresh).with_context(context)?;
    file.write_all(contents).with_context(context)?;
    // Here rather than at creation: the umask has no say.
    file.set_permissions(fs::Permissions::from_mode(mode)).with_context(context)?;
    file.sync_all().with_context(context)?;
    fs::rename(&fresh, path).with_context(context)?;
    println!("installed {}", path.display());
    Ok(())
}

fn next_steps(places: &Places, configuration: &Path) {
    let old = places.here(&Path::new("/etc/systemd/system").join(UNIT));
    if old.exists() && old != places.here(&places.unit()) {
        println!(
            "note: {} comes before the installed unit; remove it if it is the Bash tool's",
            old.display()
        );
    }
    if !configuration.join("config.yaml").exists() {
        println!("next: copy config.example.yaml to config.yaml in {CONFIGURATION} and adapt it");
    }
    println!(
        "next: {} check, then systemctl daemon-reload && systemctl enable --now multiwans",
        places.program().display()
    );
}

fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text.trim_end_matches('/'));
    if path.is_absolute() { Ok(path) } else { Err("must be an absolute path".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(prefix: &str, destdir: &Path) -> Places {
        Places { prefix: absolute(prefix).unwrap(), destdir: destdir.to_owned() }
    }

    #[test]
    fn the_unit_is_where_systemd_looks() {
        let unit = |prefix| places(prefix, Path::new("/")).unit();
        assert_eq!(unit("/usr"), Path::new("/usr/lib/systemd/system/multiwans.service"));
        assert_eq!(unit("/usr/local/"), Path::new("/usr/local/lib/systemd/system/multiwans.service"));
        assert_eq!(unit("/opt/multiwans"), Path::new("/etc/systemd/system/multiwans.service"));
        assert!(absolute("usr").is_err());
    }

    #[test]
    fn an_installation_can_be_repeated_and_removed_and_keeps_the_configuration() -> Result<()> {
        let root = std::env::temp_dir().join(format!("multiwans-install-{}", std::process::id()));
        fs::create_dir_all(root.join("etc/multiwans"))?;
        let config = root.join("etc/multiwans/config.yaml");
        fs::write(&config, "mine")?;
        let binary = root.join("built");
        fs::write(&binary, "#!/bin/sh\n")?;

        let places = places("/opt/mw", &root);
        for _ in 0..2 {
            install(&Args { places: places.clone(), binary: Some(binary.clone()) })?;
        }
        let unit = fs::read_to_string(root.join("etc/systemd/system/multiwans.service"))?;
        assert!(unit.contains("\nExecStart=/opt/mw/sbin/multiwans run"), "{unit}");
        let mode = fs::metadata(root.join("opt/mw/sbin/multiwans"))?.permissions().mode();
        assert_eq!(mode & 0o7777, 0o755);
        assert!(root.join("etc/multiwans/config.example.yaml").exists());

        uninstall(&places)?;
        uninstall(&places)?;
        assert_eq!(fs::read_to_string(&config)?, "mine");
        for gone in [
            "etc/systemd/system/multiwans.service",
            "opt/mw/sbin/multiwans",
            "etc/multiwans/config.example.yaml",
        ] {
            assert!(!root.join(gone).exists(), "{gone}");
        }
        fs::remove_dir_all(&root)?;
        Ok(())
    }
}

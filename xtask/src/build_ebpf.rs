//! `cargo xtask build-ebpf`: compiles the packet programs and leaves one object for the daemon to embed.

use crate::command::run as run_command;
use crate::setup::{self, toolchain};
use crate::workspace;
use anyhow::{Context, Result};
use std::fs;
use std::io;
use std::path::Path;

/// What the packet programs are compiled for.
const TARGET: &str = "bpfel-unknown-none";

/// `--btf` and the debug information it is made from: aya reads the types of BTF-defined maps there,
/// and the verifier's log quotes source lines.
const RUSTFLAGS: &str = "-C debuginfo=2 -C link-arg=--btf";

pub(crate) fn run() -> Result<()> {
    let toolchain = setup::ensure_ebpf_toolchain()?;
    let output = workspace::target().join("ebpf-build");
    let mut command = toolchain.cargo();
    command
        .current_dir(workspace::ebpf_crate())
        .env("CARGO_TARGET_DIR", &output)
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &toolchain.linker)
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_RUSTFLAGS", RUSTFLAGS)
        .args(["build", "--release", "-Z", "build-std=core", "--target", TARGET]);
    for name in toolchain::MISLEADING_VARIABLES {
        command.env_remove(name);
    }
    run_command(&mut command)?;
    let built = output.join(TARGET).join("release/multiwans-ebpf");
    copy_if_changed(&built, &workspace::ebpf_object())
}

/// Leaves an identical file alone, its time stamp too: the daemon is rebuilt when that changes.
fn copy_if_changed(from: &Path, to: &Path) -> Result<()> {
    let new = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    match fs::read(to) {
        Ok(old) if old == new => return Ok(()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", to.display())),
    }
    fs::write(to, new).with_context(|| format!("cannot write {}", to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identical_object_keeps_its_time_stamp() {
        let dir = std::env::temp_dir().join(format!("multiwans-xtask-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let (from, to) = (dir.join("from"), dir.join("to"));
        fs::write(&from, b"one").unwrap();
        copy_if_changed(&from, &to).unwrap();
        let old = std::time::SystemTime::UNIX_EPOCH;
        fs::File::options().write(true).open(&to).unwrap().set_modified(old).unwrap();

        copy_if_changed(&from, &to).unwrap();
        assert_eq!(to.metadata().unwrap().modified().unwrap(), old);

        fs::write(&from, b"two").unwrap();
        copy_if_changed(&from, &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"two");
        fs::remove_dir_all(&dir).unwrap();
    }
}

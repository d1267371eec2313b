//! What compiles the packet programs: a compiler that has `core` as source, and `bpf-linker`, which
//! must be built against an LLVM no older than the compiler's.
//!
//! Two routes. rustup's nightly has the source as a component. Debian 12 packages a compiler with its
//! own source and the very LLVM it was built with, so the linker can be built against that.

use super::packages;
use crate::command::{cargo, find_program, output, remove_run_variables, run};
use anyhow::{Context, Result, bail};
use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Variables that describe the daemon's compiler or builds in general; with them set, cargo would
/// compile the packet programs with the wrong flags, compiler or libraries.
pub(crate) const MISLEADING_VARIABLES: &[&str] = &[
    "RUSTFLAGS",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "RUSTC_WORKSPACE_WRAPPER",
    "LD_LIBRARY_PATH",
];

const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_PACKAGES: &[&str] = &["rustc-web", "rust-web-src", "llvm-22-dev", "libpolly-22-dev"];
/// Debian 12's own `rustc` is from 2022; the one that the `-web` packages bring says this.
const DEBIAN_RUSTC_LLVM: &str = "LLVM version: 22.";
const DEBIAN_LLVM_PREFIX: &str = "/usr/lib/llvm-22";
/// The version tried against LLVM 22.1; 0.13 is the first that knows LLVM 22.
const LINKER_VERSION: &str = "0.13.0";

/// A way to compile the packet programs that is complete on this machine.
#[derive(Debug, Clone)]
pub(crate) struct EbpfToolchain {
    compiler: Compiler,
    /// The path of `bpf-linker`.
    pub(crate) linker: PathBuf,
}

#[derive(Debug, Clone, Copy)]
enum Compiler {
    RustupNightly,
    Debian,
}

impl EbpfToolchain {
    /// The first route that is complete.
    pub(crate) fn find() -> Option<Self> {
        rustup_nightly().or_else(debian)
    }

    /// A cargo that uses this compiler. The caller removes [`MISLEADING_VARIABLES`].
    pub(crate) fn cargo(&self) -> Command {
        let mut command = match self.compiler {
            Compiler::RustupNightly => {
                let mut command = Command::new("rustup");
                command.args(["run", "nightly", "cargo"]).env_remove("RUSTC");
                command
            }
            Compiler::Debian => {
                let mut command = cargo();
                // Lets a stable compiler build `core`, whose source is full of unstable features.
                command.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
                command
            }
        };
        remove_run_variables(&mut command);
        command
    }
}

impl fmt::Display for EbpfToolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let compiler = match self.compiler {
            Compiler::RustupNightly => "rustup's nightly",
            Compiler::Debian => DEBIAN_RUSTC,
        };
        write!(f, "{compiler} and {}", self.linker.display())
    }
}

/// Installs the route that this machine offers.
///
/// # Errors
/// Neither apt nor rustup offers one, or an installation failed.
pub(crate) fn install() -> Result<EbpfToolchain> {
    eprintln!("setup: the packet programs need a compiler with the source of `core`, and bpf-linker");
    if has_debian_compiler() {
        install_debian_linker()?;
    } else if find_program("apt-get").is_some() && offers_debian_compiler()? {
        packages::install(DEBIAN_PACKAGES)?;
        install_debian_linker()?;
    } else if find_program("rustup").is_some() {
        run(Command::new("rustup").args([
            "toolchain",
            "install",
            "nightly",
            "--profile",
            "minimal",
            "--component",
            "rust-src",
        ]))?;
        if find_program("bpf-linker").is_none() {
            let mut command = Command::new("rustup");
            remove_run_variables(&mut command);
            run(command.args(["run", "nightly", "cargo", "install", "bpf-linker", "--locked"]))?;
        }
    } else {
        bail!("no compiler for the packet programs: this needs rustup, or Debian's {DEBIAN_PACKAGES:?}");
    }
    EbpfToolchain::find().context("all is installed, but no compiler for the packet programs is complete")
}

fn rustup_nightly() -> Option<EbpfToolchain> {
    let sysroot = output(Command::new("rustup").args(["run", "nightly", "rustc", "--print", "sysroot"]))?;
    let linker = find_program("bpf-linker")?;
    has_core_source(&sysroot).then_some(EbpfToolchain { compiler: Compiler::RustupNightly, linker })
}

fn debian() -> Option<EbpfToolchain> {
    let linker = debian_linker_root()?.join("bin/bpf-linker");
    let complete = linker.is_file() && has_debian_compiler();
    complete.then_some(EbpfToolchain { compiler: Compiler::Debian, linker })
}

/// The compiler with its source, and the LLVM that its linker is built against and runs with.
fn has_debian_compiler() -> bool {
    let says =
        |arguments: &[&str]| output(Command::new(DEBIAN_RUSTC).args(arguments).env_remove("LD_LIBRARY_PATH"));
    says(&["-vV"]).is_some_and(|version| version.contains(DEBIAN_RUSTC_LLVM))
        && says(&["--print", "sysroot"]).is_some_and(|sysroot| has_core_source(&sysroot))
        && Path::new(DEBIAN_LLVM_PREFIX).join("bin/llvm-config").is_file()
        && Path::new(DEBIAN_LLVM_PREFIX).join("lib/libPolly.a").is_file()
}

fn has_core_source(sysroot: &str) -> bool {
    Path::new(sysroot).join("lib/rustlib/src/rust/library/core").is_dir()
}

fn offers_debian_compiler() -> Result<bool> {
    packages::update()?;
    Ok(DEBIAN_PACKAGES.iter().all(|package| packages::is_offered(package)))
}

fn install_debian_linker() -> Result<()> {
    let root = debian_linker_root().context("neither XDG_CACHE_HOME nor HOME says where a cache may be")?;
    eprintln!("setup: building bpf-linker {LINKER_VERSION} into {} (about a minute)", root.display());
    let mut command = cargo();
    for name in MISLEADING_VARIABLES {
        command.env_remove(name);
    }
    command
        // cargo builds it in a directory of its own then, not in the workspace's.
        .env_remove("CARGO_TARGET_DIR")
        .env("LLVM_PREFIX", DEBIAN_LLVM_PREFIX)
        .args(["install", "bpf-linker", "--version", LINKER_VERSION, "--locked"])
        .args(["--no-default-features", "--features", "llvm-22"])
        .arg("--root")
        .arg(root);
    run(&mut command)
}

/// Outside the checkout, so that a second clone need not build it again; named for what it contains,
/// so that another version is built beside it.
fn debian_linker_root() -> Option<PathBuf> {
    let cache = env::var_os("XDG_CACHE_HOME")
        .filter(|dir| !dir.is_empty())
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))?;
    Some(cache.join("multiwans").join(format!("bpf-linker-{LINKER_VERSION}-llvm22")))
}

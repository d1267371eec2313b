//! `cargo xtask lint`: rustfmt, clippy, and what neither of them knows about this project.

mod length;
mod purity;
mod tokens;

use crate::command::{cargo, run as run_command};
use crate::workspace::{ebpf_crate, root};
use anyhow::{Context, Result, bail};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// A place in the source that breaks a rule, with its path relative to the workspace.
#[derive(Debug, PartialEq, Eq)]
struct Violation {
    file: PathBuf,
    line: usize,
    rule: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.rule)
    }
}

/// A source file: its path relative to the workspace, and its text.
#[derive(Debug)]
struct Source {
    file: PathBuf,
    text: String,
}

pub(crate) fn run() -> Result<()> {
    check_own_rules()?;
    run_command(cargo().args(["fmt", "--all", "--check"]))?;
    if ebpf_crate().is_dir() {
        // A workspace of its own, which `--all` above does not reach.
        run_command(cargo().current_dir(ebpf_crate()).args(["fmt", "--check"]))?;
    }
    run_command(cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

fn check_own_rules() -> Result<()> {
    let sources = rust_sources()?;
    let mut violations = Vec::new();
    for source in &sources {
        violations.extend(length::check(source));
        violations.extend(purity::check(source));
    }
    for violation in &violations {
        eprintln!("{violation}");
    }
    if !violations.is_empty() {
        bail!("the project's own rules are broken in {} places", violations.len());
    }
    eprintln!("lint: {} files keep the project's own rules", sources.len());
    Ok(())
}

/// Every Rust file of the project, in a stable order.
fn rust_sources() -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    collect(root(), &mut sources)?;
    sources.sort_by(|a, b| a.file.cmp(&b.file));
    Ok(sources)
}

fn collect(dir: &Path, sources: &mut Vec<Source>) -> Result<()> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        let name = entry.file_name();
        let is_build_output = name == "target";
        let is_hidden = name.to_string_lossy().starts_with('.');
        if entry.file_type()?.is_dir() {
            if !is_build_output && !is_hidden {
                collect(&path, sources)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text =
                fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let file = path.strip_prefix(root()).unwrap_or(&path).to_owned();
            sources.push(Source { file, text });
        }
    }
    Ok(())
}

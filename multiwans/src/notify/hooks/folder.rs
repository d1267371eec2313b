//! Which hooks there are for a change: `<dir>/<iface>/{up,down}/*`, in version order.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

use super::trust;
use super::version;
use crate::types::{IfName, LinkState};

/// One program to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hook {
    /// What the log calls it: `eth1/up/10-dns`.
    pub(super) name: String,
    /// What is run: links followed, so that it is what was looked at.
    pub(super) program: PathBuf,
}

/// What is in a folder.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The hooks in the order they are to run in.
    pub(super) hooks: Vec<Hook>,
    /// What is not run though it looks like it should be, and why.
    pub(super) refused: Vec<String>,
}

/// The folder of a state's hooks.
pub(super) fn action(state: LinkState) -> &'static str {
    if state == LinkState::On { "up" } else { "down" }
}

/// Looks for the hooks of a change. Blocks on the disk.
///
/// Regular files that may be executed are hooks, links to such as well. Whatever else is in the folder
/// (notes, backups, folders) is passed over in silence, as the Bash tool did; a link to nowhere is not.
pub(super) fn find(dir: &Path, iface: &IfName, state: LinkState) -> Found {
    let action = action(state);
    let folder = dir.join(iface.as_str()).join(action);
    let mut found = Found::default();
    if matches!(fs::metadata(&folder), Err(error) if error.kind() == io::ErrorKind::NotFound) {
        return found;
    }
    let mut paths = match list(dir, &folder) {
        Ok(paths) => paths,
        Err(error) => {
            found.refused.push(format!("no hooks of {iface}/{action} are run: {error}"));
            return found;
        }
    };
    paths.sort_by(|a, b| version::compare(a.as_os_str().as_bytes(), b.as_os_str().as_bytes()));
    for path in paths {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let name = format!("{iface}/{action}/{}", file.escape_debug());
        match program(&path) {
            Ok(Some(program)) => found.hooks.push(Hook { name, program }),
            Ok(None) => {}
            Err(error) => found.refused.push(format!("hook {name} is not run: {error}")),
        }
    }
    found
}

/// The folder's entries, if it and each one up to the hooks' own are root's alone: sticky or not, what
/// others put there would be run.
fn list(dir: &Path, folder: &Path) -> Result<Vec<PathBuf>, String> {
    for above in folder.ancestors().skip(1).take_while(|above| above.starts_with(dir)) {
        trust::resolve(above).map_err(|error| error.to_string())?;
    }
    let real = trust::resolve(folder).map_err(|error| error.to_string())?;
    fs::read_dir(&real)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .map_err(|error| format!("{} cannot be read: {error}", real.display()))
}

/// What to run for an entry of the folder; `None` where it is no program.
fn program(path: &Path) -> Result<Option<PathBuf>, String> {
    let link = path.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink());
    match path.metadata() {
        Ok(metadata) if !metadata.is_file() => return Ok(None),
        Ok(_) if access(path, AccessFlags::X_OK).is_err() => return Ok(None),
        Ok(_) => {}
        Err(error) if link => return Err(format!("it is a link to what cannot be found: {error}")),
        // Removed just now.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    }
    trust::resolve(path).map(Some).map_err(|error| error.to_string())
}

#[cfg(test)]
#[path = "folder_tests.rs"]
mod tests;

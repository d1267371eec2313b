//! Finding the configuration and the control socket where the command line does not name them.

use std::path::{Path, PathBuf};

use super::load::{LoadError, load_without_lists};

/// Where the configuration is looked for last.
const SYSTEM: &str = "/etc/multiwans/config.yaml";
/// Its name beside the program, where the seed has it.
const BESIDE: &str = "config.yaml";
/// Where the control socket is when no configuration says.
const SOCKET: &str = "/run/multiwans/control.sock";

/// There is no configuration.
#[derive(Debug, thiserror::Error)]
#[error(
    "no configuration: neither {} nor {SYSTEM} exists; name one with `-c FILE`",
    beside.as_deref().unwrap_or(Path::new(BESIDE)).display()
)]
pub(super) struct NotFound {
    beside: Option<PathBuf>,
}

/// The configuration: the named one, or `config.yaml` beside the program, or the system's.
pub(super) fn config(named: Option<PathBuf>) -> Result<PathBuf, NotFound> {
    if let Some(named) = named {
        return Ok(named);
    }
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(BESIDE)));
    let system = Path::new(SYSTEM);
    match beside {
        Some(path) if path.exists() => Ok(path),
        _ if system.exists() => Ok(system.to_owned()),
        beside => Err(NotFound { beside }),
    }
}

/// The control socket: the named one, or that of the named configuration, or that of the configuration
/// the daemon would take, or the default.
pub(super) fn socket(named: Option<PathBuf>, from: Option<PathBuf>) -> Result<PathBuf, LoadError> {
    if let Some(named) = named {
        return Ok(named);
    }
    if let Some(from) = from {
        return load_without_lists(&from).map(|parsed| parsed.config.daemon.control_socket);
    }
    let found = config(None).ok().and_then(|path| load_without_lists(&path).ok());
    Ok(found.map_or_else(default_socket, |parsed| parsed.config.daemon.control_socket))
}

/// Where the running daemon's socket may be, the likeliest first. The file may name another one by now than
/// the daemon was started with, so the default is always among them.
pub(super) fn sockets(named: Option<PathBuf>, from: Option<PathBuf>) -> Result<Vec<PathBuf>, LoadError> {
    let is_named = named.is_some();
    let first = socket(named, from)?;
    let default = default_socket();
    Ok(if is_named || first == default { vec![first] } else { vec![first, default] })
}

/// Where the socket is when no configuration says.
pub(super) fn default_socket() -> PathBuf {
    PathBuf::from(SOCKET)
}

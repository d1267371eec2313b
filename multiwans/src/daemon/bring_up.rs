//! Switching on an interface that somebody switched off.
//!
//! Where ifupdown has the interface in its configuration it does it: it knows the addresses, routes and
//! scripts that belong to it. Otherwise, or where it did not help, the interface is just set up.

use std::io::{self, Read as _, Seek as _};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::Command;
use tokio::time::timeout;

use crate::net;
use crate::types::{IfIndex, IfName};

/// For each program: a DHCP client waits a minute for an answer, and an interface that is up without an
/// address yet is better than one whose scripts were killed. In the loop's way it is not.
const TIME_LIMIT: Duration = Duration::from_secs(90);

/// Switches it on.
///
/// # Errors
/// Why it is not on.
pub(super) async fn bring_up(iface: &IfName) -> Result<(), String> {
    let mut trouble = Vec::new();
    if run("ifquery", &[], iface).await.is_ok() {
        // For ifupdown it is up: it was not asked to take it down. Therefore down and up again, by force.
        for program in ["ifdown", "ifup"] {
            if let Err(error) = run(program, &["--force", "--ignore-errors"], iface).await {
                trouble.push(error);
            }
        }
    }
    let index = nix::net::if_::if_nametoindex(iface.as_str()).map_err(|error| error.to_string())?;
    // It costs nothing where it is up already.
    if let Err(error) = net::bring_up(IfIndex(index)).await {
        trouble.push(error.to_string());
        return Err(trouble.join("; "));
    }
    for error in trouble {
        tracing::warn!("{error}");
    }
    Ok(())
}

/// Runs a program of ifupdown to its end; what it said last is part of the error.
async fn run(program: &str, options: &[&str], iface: &IfName) -> Result<(), String> {
    let failed = |error: io::Error| format!("{program} {iface}: {error}");
    // A file and no pipe: what a script leaves running in the background would hold a pipe open.
    let mut said = tempfile::tempfile().map_err(failed)?;
    let mut child = Command::new(program)
        .args(options)
        .arg(iface.as_str())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(said.try_clone().map_err(failed)?)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    let status = match timeout(TIME_LIMIT, child.wait()).await {
        Ok(status) => status.map_err(failed)?,
        Err(_) => {
            // Its scripts too. That it has ended meanwhile is fine.
            let _ = group.map(|group| killpg(group, Signal::SIGKILL));
            return Err(format!("{program} {iface} was not done within {} s", TIME_LIMIT.as_secs()));
        }
    };
    if status.success() {
        return Ok(());
    }
    let mut text = Vec::new();
    said.rewind().and_then(|()| said.read_to_end(&mut text)).map_err(failed)?;
    let text = String::from_utf8_lossy(&text);
    let last = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
    Err(format!("{program} {iface}: {status}: {last}"))
}

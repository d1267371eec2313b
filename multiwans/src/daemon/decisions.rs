//! What the programs decided, packet by packet, into the log.

use std::io;
use std::os::fd::AsFd;
use std::thread;

use anyhow::Context as _;
use aya_log::EbpfLogger;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Passes lines on until the process ends, on a thread of its own: they come as fast as packets do, and taking
/// them ends only when there are none. The loop would hear of nothing else for as long.
///
/// # Errors
/// The system has no thread to give.
pub(super) fn follow(mut logger: EbpfLogger<&'static dyn log::Log>) -> anyhow::Result<()> {
    let follow = move || {
        loop {
            match wait(&logger) {
                Ok(()) => logger.flush(),
                Err(error) => {
                    tracing::warn!("the programs' decisions cannot be followed: {error}");
                    return;
                }
            }
        }
    };
    thread::Builder::new()
        .name("decisions".to_owned())
        .spawn(follow)
        .map(drop)
        .context("no thread for the programs' decisions")
}

/// Until there are lines.
fn wait(logger: &impl AsFd) -> io::Result<()> {
    match poll(&mut [PollFd::new(logger.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

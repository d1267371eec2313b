//! What the programs decided, packet by packet, into the log.

use aya_log::EbpfLogger;
use tokio::io::unix::AsyncFd;

/// Passes lines on until the daemon ends.
pub(super) async fn follow(logger: EbpfLogger<&'static dyn log::Log>) {
    // SAFETY: the logger owns the ring buffer it is registered by, and keeps it until it is dropped.
    let mut logger = match unsafe { AsyncFd::register(logger) } {
        Ok(logger) => logger,
        Err(error) => {
            tracing::warn!("the programs' decisions cannot be followed: {error}");
            return;
        }
    };
    loop {
        match logger.readable_mut().await {
            Ok(mut ready) => {
                ready.get_inner_mut().flush();
                ready.clear_ready();
            }
            Err(error) => {
                tracing::warn!("the programs' decisions cannot be followed: {error}");
                return;
            }
        }
    }
}

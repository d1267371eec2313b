//! Work that a signal must not cut short.

use nix::sys::signal::{SigSet, SigmaskHow};

/// Does something with this thread's signals held back until it is done.
///
/// The kernel gives up verifying a program when a signal is pending (`EAGAIN`); the loader takes that for
/// a refusal and tries again with ever larger logs, which makes a start or stop take half a minute.
pub(super) fn undisturbed<T>(action: impl FnOnce() -> T) -> T {
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK);
    let result = action();
    if let Ok(before) = before {
        // It was this thread's own mask, so it is one that can be set.
        let _ = before.thread_set_mask();
    }
    result
}

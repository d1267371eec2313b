//! Which network namespace we act on.

use std::fs::File;
use std::io;
use std::mem::size_of_val;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::os::linux::fs::MetadataExt;

/// The network namespace of the calling thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Namespace {
    /// Inode of its `/proc` entry: what `lsns` shows. Another namespace can have it once this one is gone.
    pub(super) inode: u64,
    /// The kernel's own number, never used again until the next boot. 0 on kernels before 5.14, which do not tell it.
    pub(super) cookie: u64,
    /// Whether it is the one process 1 runs in.
    pub(super) init: bool,
}

impl Namespace {
    /// Looks it up.
    pub(super) fn current() -> io::Result<Self> {
        // `/proc/self` is the process's first thread; a thread can have entered a namespace of its own.
        let own = File::open("/proc/thread-self/ns/net")?.metadata()?;
        // Where process 1 may not be looked at, a name of our own is the safe one.
        let init = std::fs::metadata("/proc/1/ns/net")
            .is_ok_and(|init| init.st_ino() == own.st_ino() && init.st_dev() == own.st_dev());
        let cookie = match cookie(&UdpSocket::bind("0.0.0.0:0")?) {
            Err(e) if e.raw_os_error() == Some(libc::ENOPROTOOPT) => 0,
            cookie => cookie?,
        };
        Ok(Self { inode: own.st_ino(), cookie, init })
    }
}

/// The kernel's own number of the calling thread's network namespace.
///
/// # Errors
///
/// Linux before 5.14 does not tell it.
pub fn namespace_cookie() -> io::Result<u64> {
    cookie(&UdpSocket::bind("0.0.0.0:0")?)
}

/// The number of the namespace `socket` was opened in.
fn cookie(socket: &UdpSocket) -> io::Result<u64> {
    let mut cookie = 0u64;
    let mut length = libc::socklen_t::try_from(size_of_val(&cookie)).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open for the whole call, and the kernel writes at most `length` bytes, the size of
    // `cookie`, to `cookie`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

//! The raw socket of one prober: bound to its link's device and address, deaf to everything but echo
//! replies to its own requests.

use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::num::NonZeroU32;

use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, Type};
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};

use super::echo::{ECHO_REPLY, REPLY_MAX, Reply};
use crate::engine::event::Binding;

/// A non-blocking raw ICMP socket.
#[derive(Debug)]
pub(super) struct EchoSocket {
    fd: AsyncFd<Socket>,
}

impl EchoSocket {
    /// Opens the socket for requests with this identifier. Needs `CAP_NET_RAW`.
    ///
    /// The device is bound by index: `SO_BINDTODEVICE` with a name would quietly take an interface that
    /// was re-created under it. A device that is gone shows as `ENODEV` on sending.
    ///
    /// # Errors
    ///
    /// `EPERM` without the capability, `EADDRNOTAVAIL` while the address is not there.
    pub(super) fn open(binding: &Binding, identifier: u16) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::RAW.nonblocking(), Some(Protocol::ICMPV4))?;
        socket.attach_filter(&only_replies_to(identifier))?;
        // No index would mean no device: the kernel numbers them from 1.
        let index = NonZeroU32::new(binding.index.0).ok_or(io::ErrorKind::InvalidInput)?;
        socket.bind_device_by_index_v4(Some(index))?;
        socket.bind(&SockAddr::from(SocketAddrV4::new(binding.source, 0)))?;
        // SAFETY: a `Socket` owns its descriptor and names the same one until it is dropped, and nothing
        // here takes it out of the `AsyncFd`.
        let fd = unsafe { AsyncFd::register(socket) }?;
        Ok(Self { fd })
    }

    /// Sends one request.
    ///
    /// # Errors
    ///
    /// What `sendto` says: `ENETUNREACH`, `ENODEV`, `EPERM` from a firewall, `EAGAIN` from a full queue…
    pub(super) fn send(&self, request: &[u8], target: Ipv4Addr) -> io::Result<()> {
        self.fd.get_ref().send_to(request, &SocketAddrV4::new(target, 0).into()).map(drop)
    }

    /// Waits until the kernel says there is something to [`receive`](Self::receive). Clear the guard once
    /// that gave `None`.
    pub(super) async fn readable(&self) -> io::Result<AsyncFdReadyGuard<'_, Socket>> {
        self.fd.readable().await
    }

    /// The next packet that waits: `Ok(None)` where there is none, `Ok(Some(None))` for one that is no
    /// whole echo reply. Asks the kernel itself, not the runtime's idea of readiness, which is stale after
    /// the process was stopped for a while.
    pub(super) fn receive(&self) -> io::Result<Option<Option<Reply>>> {
        // One byte more than the longest reply: what is cut to fit is still too long.
        let mut packet = [0; REPLY_MAX + 1];
        loop {
            return match self.fd.get_ref().read(&mut packet) {
                Ok(len) => Ok(Some(Reply::parse(&packet[..len]))),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
        }
    }
}

/// A classic BPF program that drops everything but echo replies with this identifier.
///
/// A raw ICMP socket gets a copy of every ICMP packet to its address. Without the filter a flood of them
/// fills its buffer, the replies that count are lost, and a working link looks dead.
fn only_replies_to(identifier: u16) -> [SockFilter; 7] {
    // linux/bpf_common.h: class | size | mode. Offsets count from the IP header.
    const LDX_HEADER_LEN: u16 = 0xb1; // X = 4 * (packet[k] & 0xf)
    const LD_U16_AT_X: u16 = 0x48; // A = u16 at packet[X + k]
    const JUMP_IF_EQUAL: u16 = 0x15; // A == k ? skip jt : skip jf
    const RETURN: u16 = 0x06; // keep k bytes
    // Type and code share the first two bytes; a reply's code is 0.
    let reply = u32::from(ECHO_REPLY) << 8;
    [
        SockFilter::new(LDX_HEADER_LEN, 0, 0, 0),
        SockFilter::new(LD_U16_AT_X, 0, 0, 0),
        SockFilter::new(JUMP_IF_EQUAL, 0, 3, reply),
        SockFilter::new(LD_U16_AT_X, 0, 0, 4),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, u32::from(identifier)),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

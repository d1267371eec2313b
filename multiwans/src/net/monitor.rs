//! Tells when the kernel's network state changed, and what its interfaces are.
//!
//! Two sockets: notifications come on one, dumps on the other, so neither delays or loses the other's messages. The
//! groups are joined before the first dump: a change that happens during a dump is reported after it.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

use netlink_packet_core::NetlinkBuffer;
use netlink_proto::sys::{AsyncSocket, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};
use rtnetlink::MulticastGroup;

use super::Error;
use super::rtnl::Rtnl;
use super::snapshot;
use crate::engine::event::Interface;

/// Which kinds of state changed; what exactly is read anew by whoever cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Changed {
    /// A link or an IPv4 address: take a new [`Monitor::snapshot`].
    pub interfaces: bool,
    /// A default route of some IPv4 table. Other routes are nothing to us, and a BGP router has a lot of them.
    pub routes: bool,
    /// An IPv4 rule.
    pub rules: bool,
    /// An interface's IPv4 settings, rp_filter among them.
    pub settings: bool,
    /// A qdisc or a filter: where programs are attached by `clsact`, one of ours may be gone with it. Links of TCX make
    /// no noise.
    pub filters: bool,
}

impl Changed {
    const ALL: Self = Self { interfaces: true, routes: true, rules: true, settings: true, filters: true };

    /// Whether anything did.
    pub fn any(self) -> bool {
        self.interfaces || self.routes || self.rules || self.settings || self.filters
    }
}

/// A subscription to the calling thread's network namespace.
pub struct Monitor {
    events: TokioSocket,
    rtnl: Rtnl,
    /// Seen but not yet told; kept here so that dropping the future of [`Monitor::changed`] loses nothing.
    pending: Changed,
    buffer: Vec<u8>,
}

const GROUPS: [MulticastGroup; 6] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv4Netconf,
    MulticastGroup::Tc,
];

/// Bytes of notifications the kernel keeps for us: a thousand links changing at once. The kernel caps it at
/// `net.core.rmem_max`; an overrun costs a new dump, nothing else.
const RECEIVE_BUFFER: usize = 1 << 20;

/// The kernel's largest netlink datagram is 32 KiB.
const DATAGRAM: usize = 1 << 15;

/// Datagrams taken in one go before the change is told: a never-ending stream must not hold back what is known.
const BURST: usize = 1024;

impl Monitor {
    /// Subscribes, and opens the socket for the dumps. Needs a tokio runtime.
    pub fn open() -> Result<Self, Error> {
        let mut events = <TokioSocket as AsyncSocket>::new(NETLINK_ROUTE).map_err(Error::Socket)?;
        let groups = GROUPS.iter().fold(0, |mask, group| mask | 1 << (*group as u32 - 1));
        let socket = events.socket_mut();
        // Only a wish: refused, the default size stays.
        let _ = socket.set_rx_buf_sz(RECEIVE_BUFFER);
        socket.bind(&SocketAddr::new(0, groups)).map_err(Error::Socket)?;
        let rtnl = Rtnl::open().map_err(Error::Socket)?;
        Ok(Self { events, rtnl, pending: Changed::default(), buffer: Vec::with_capacity(DATAGRAM) })
    }

    /// Every interface as it is now.
    pub async fn snapshot(&mut self) -> Result<Vec<Interface>, Error> {
        snapshot::interfaces(&mut self.rtnl).await.map_err(|e| Error::refused("list the interfaces", e))
    }

    /// Waits for a change since [`Monitor::open`] or the last call. A burst is told once. May be dropped and called
    /// again without losing a change.
    ///
    /// The kernel reports a lost carrier at once when no other link event came within the last second, and within that
    /// second otherwise (`linkwatch`); nothing is added to that here.
    pub async fn changed(&mut self) -> Result<Changed, Error> {
        poll_fn(|cx| self.poll_changed(cx)).await.map_err(|e| Error::refused("listen to netlink", e))
    }

    fn poll_changed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Changed>> {
        for _ in 0..BURST {
            self.buffer.clear();
            match self.events.poll_recv(cx, &mut self.buffer) {
                Poll::Ready(Ok(())) => note(&self.buffer, &mut self.pending),
                // The kernel dropped notifications: anything may have changed.
                Poll::Ready(Err(e)) if e.raw_os_error() == Some(libc::ENOBUFS) => self.pending = Changed::ALL,
                Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                Poll::Pending if !self.pending.any() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        if !self.pending.any() {
            // A whole burst of things that are nothing to us: let others run, then go on.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(std::mem::take(&mut self.pending)))
    }
}

/// Only the types of the messages are looked at, so no attribute we cannot parse can hide a change.
fn note(mut datagram: &[u8], changed: &mut Changed) {
    while !datagram.is_empty() {
        let Ok(message) = NetlinkBuffer::new_checked(datagram) else {
            *changed = Changed::ALL;
            return;
        };
        match message.message_type() {
            libc::RTM_NEWLINK | libc::RTM_DELLINK | libc::RTM_NEWADDR | libc::RTM_DELADDR => {
                changed.interfaces = true;
            }
            // struct rtmsg: family, destination length, …
            libc::RTM_NEWROUTE | libc::RTM_DELROUTE => {
                changed.routes |= message.payload().get(1).is_none_or(|length| *length == 0);
            }
            libc::RTM_NEWRULE | libc::RTM_DELRULE => changed.rules = true,
            libc::RTM_NEWNETCONF => changed.settings = true,
            // What is added is nothing to us; a filter of others' that is replaced is told as a new one.
            libc::RTM_DELQDISC | libc::RTM_DELTFILTER => changed.filters = true,
            _ => {}
        }
        // NLMSG_ALIGN.
        let length = (message.length() as usize).next_multiple_of(4);
        datagram = datagram.get(length..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(16 + payload.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn noted(datagram: &[u8]) -> Changed {
        let mut changed = Changed::default();
        note(datagram, &mut changed);
        changed
    }

    #[test]
    fn kinds_are_told_apart_and_added_up() {
        let interfaces = Changed { interfaces: true, ..Changed::default() };
        assert_eq!(noted(&message(libc::RTM_NEWLINK, &[])), interfaces);
        assert_eq!(noted(&message(libc::RTM_DELADDR, &[1])), interfaces);
        let mut both = message(libc::RTM_NEWADDR, &[1, 2, 3]);
        both.extend(message(libc::RTM_DELRULE, &[]));
        assert_eq!(noted(&both), Changed { rules: true, ..interfaces });
    }

    #[test]
    fn only_default_routes_count() {
        assert!(!noted(&message(libc::RTM_NEWROUTE, &[2, 24, 0, 0])).any());
        assert!(noted(&message(libc::RTM_DELROUTE, &[2, 0, 0, 0])).routes);
    }

    #[test]
    fn what_cannot_be_read_counts_as_everything() {
        assert_eq!(noted(&[1, 2, 3]), Changed::ALL);
    }
}

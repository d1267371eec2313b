//! Connection tracking: list entries, and delete those whose flows must move to another link.
//!
//! A translated flow is bound to its link by its conntrack entry: the source address was chosen when the entry was made
//! and stays. Only deleting the entry lets the next packet be translated to another link's address. Sessions of the
//! router itself that are not translated cannot move, and their entries are left alone.

mod entry;
mod message;

use std::io;
use std::net::Ipv4Addr;

use futures_util::StreamExt;
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_netfilter::conntrack::ConntrackMessage;
use netlink_packet_netfilter::{NetfilterMessage, NetfilterMessageInner};
use netlink_proto::ConnectionHandle;
use netlink_proto::sys::{SocketAddr, protocols::NETLINK_NETFILTER};
use tokio::task::AbortHandle;

pub use entry::{Entry, Transport, Tuple, Zone};
use message::Deletion;
pub use message::Select;

use super::Error;

/// A connection to the calling thread's connection tracking.
pub struct Conntrack {
    /// `None`: the kernel has no netfilter netlink at all.
    socket: Option<Socket>,
}

struct Socket {
    handle: ConnectionHandle<NetfilterMessage>,
    driver: AbortHandle,
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// An answer, unless the kernel has no connection tracking loaded: then there are no entries, and nothing is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tracking<T> {
    /// It tracks connections; this is the answer.
    On(T),
    /// `nf_conntrack` is not loaded.
    NotLoaded,
}

/// How entries were deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleted {
    /// By one request; the kernel does not say how many there were.
    AtOnce,
    /// By listing and deleting, this many: an older kernel, which cannot delete by a filter.
    OneByOne(usize),
}

/// An answer of the kernel's that is no success.
enum Refusal {
    /// It has no connection tracking.
    NotLoaded,
    Failed(io::Error),
}

impl Conntrack {
    /// Opens the socket. Needs a tokio runtime.
    pub fn open() -> Result<Self, Error> {
        match netlink_proto::new_connection::<NetfilterMessage>(NETLINK_NETFILTER) {
            Ok((mut connection, handle, _unsolicited)) => {
                connection.set_forward_done(true);
                let driver = tokio::spawn(connection).abort_handle();
                Ok(Self { socket: Some(Socket { handle, driver }) })
            }
            Err(e) if e.raw_os_error() == Some(libc::EPROTONOSUPPORT) => Ok(Self { socket: None }),
            Err(e) => Err(Error::Socket(e)),
        }
    }

    /// Deletes every IPv4 entry whose source is translated to `address`, in all zones, and no other: by one request
    /// where the kernel can, by listing and deleting one by one where it cannot.
    pub async fn delete_from_address(&mut self, address: Ipv4Addr) -> Result<Tracking<Deleted>, Error> {
        match self.request(message::delete(Deletion::TranslatedTo(address))).await {
            Ok(_) => return Ok(Tracking::On(Deleted::AtOnce)),
            Err(Refusal::NotLoaded) => {
                // An older kernel's answer to the filter is the same: the listing tells.
            }
            Err(Refusal::Failed(e)) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
            Err(Refusal::Failed(e)) => return Err(refused(address, e)),
        }
        self.delete_one_by_one(address).await
    }

    /// What [`Conntrack::delete_from_address`] does on a kernel that cannot delete by a filter.
    pub async fn delete_one_by_one(&mut self, address: Ipv4Addr) -> Result<Tracking<Deleted>, Error> {
        let Tracking::On(entries) = self.dump(Select::Translated).await? else {
            return Ok(Tracking::NotLoaded);
        };
        let mut deleted = 0;
        for entry in entries.iter().filter(|entry| entry.reply.destination == address) {
            deleted += usize::from(self.delete(entry).await?);
        }
        Ok(Tracking::On(Deleted::OneByOne(deleted)))
    }

    /// The IPv4 entries `select` means.
    ///
    /// The table changes while it is listed: an entry can be missing or be there twice; deleting by entry copes.
    pub async fn dump(&mut self, select: Select) -> Result<Tracking<Vec<Entry>>, Error> {
        match self.request(message::dump(select)).await {
            Ok(mut entries) => {
                entries.retain(|entry| select.matches(entry));
                Ok(Tracking::On(entries))
            }
            Err(Refusal::NotLoaded) => Ok(Tracking::NotLoaded),
            Err(Refusal::Failed(e)) => Err(Error::refused("list conntrack entries", e)),
        }
    }

    /// Deletes this entry and no later one with the same tuple. `false`: it was gone already.
    pub async fn delete(&mut self, entry: &Entry) -> Result<bool, Error> {
        match self.request(message::delete(Deletion::Entry(entry))).await {
            Ok(_) => Ok(true),
            Err(Refusal::NotLoaded) => Ok(false),
            Err(Refusal::Failed(e)) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(Refusal::Failed(e)) => Err(Error::refused("delete a conntrack entry", e)),
        }
    }

    /// Deletes this entry unless it was answered since it was listed. `false`: it was, or it was gone already.
    ///
    /// The kernel deletes by tuple, whatever the state, and a list of thousands takes a while to go through; a session
    /// that lost its translation in between would be broken. What remains is the time between two calls.
    pub async fn delete_unanswered(&mut self, entry: &Entry) -> Result<bool, Error> {
        let is_unanswered = |now: &Entry| now.id == entry.id && !now.seen_reply;
        match self.request(message::get(entry)).await {
            Ok(now) if now.iter().any(is_unanswered) => self.delete(entry).await,
            Ok(_) | Err(Refusal::NotLoaded) => Ok(false),
            Err(Refusal::Failed(e)) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(Refusal::Failed(e)) => Err(Error::refused("look up a conntrack entry", e)),
        }
    }

    async fn request(&mut self, request: NetlinkMessage<NetfilterMessage>) -> Result<Vec<Entry>, Refusal> {
        let Some(socket) = &self.socket else { return Err(Refusal::NotLoaded) };
        let closed = || io::Error::new(io::ErrorKind::BrokenPipe, "the netlink socket is closed");
        let mut answers =
            socket.handle.request(request, SocketAddr::new(0, 0)).map_err(|_| Refusal::Failed(closed()))?;
        let mut entries = Vec::new();
        while let Some(answer) = answers.next().await {
            match answer.payload {
                NetlinkPayload::InnerMessage(NetfilterMessage {
                    inner: NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)),
                    ..
                }) => entries.extend(Entry::parse(&attributes)),
                NetlinkPayload::Error(error) if error.code.is_some() => return Err(refusal(error.to_io())),
                NetlinkPayload::Done(done) if done.code < 0 => {
                    return Err(refusal(io::Error::from_raw_os_error(-done.code)));
                }
                _ => {}
            }
        }
        Ok(entries)
    }
}

/// nfnetlink answers EINVAL when a message is for a subsystem that is not there (`nfnetlink_rcv_msg`). Our messages are
/// valid, so that is what it means; but for the delete by filter, which older kernels (6.1) do not know.
fn refusal(error: io::Error) -> Refusal {
    match error.raw_os_error() {
        Some(libc::EINVAL | libc::EPROTONOSUPPORT) => Refusal::NotLoaded,
        _ => Refusal::Failed(error),
    }
}

fn refused(address: Ipv4Addr, error: io::Error) -> Error {
    Error::refused(format!("delete the conntrack entries translated to {address}"), error)
}

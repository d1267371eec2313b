//! One routing netlink socket, asked one thing at a time.

use std::io;
use std::time::Duration;

use futures_util::StreamExt;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_proto::sys::AsyncSocket;
use tokio::task::AbortHandle;

/// How often a dump is asked for again when the state changed under it or an abandoned dump is still in the way. Both
/// end by themselves; the bound is only there so that nothing waits for ever.
const ATTEMPTS: u32 = 20;

/// Pause before attempt `n`, times `n`.
const PAUSE: Duration = Duration::from_millis(1);

/// A connection. Every request takes it by `&mut`: two dumps on one socket must not overlap (EBUSY).
#[derive(Debug)]
pub(super) struct Rtnl {
    handle: rtnetlink::Handle,
    driver: AbortHandle,
}

impl Rtnl {
    /// Opens the socket in the calling thread's namespace. Needs a tokio runtime.
    pub(super) fn open() -> io::Result<Self> {
        let (mut connection, handle, _unsolicited) = rtnetlink::new_connection()?;
        // Lets the kernel filter dumps by table. Older than 4.20 it does not, and everything is filtered here again.
        let _ = connection.socket_mut().socket_mut().set_netlink_get_strict_chk(true);
        // A dump's failure comes as the code of its last message, which is withheld otherwise.
        connection.set_forward_done(true);
        let driver = tokio::spawn(connection).abort_handle();
        Ok(Self { handle, driver })
    }

    /// Everything `query` asks for, as of one moment as far as the kernel can tell.
    pub(super) async fn dump(&mut self, query: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.try_dump(query.clone()).await {
                Err(e) if attempt < ATTEMPTS && is_passing(&e) => tokio::time::sleep(PAUSE * attempt).await,
                result => return result,
            }
        }
    }

    async fn try_dump(&mut self, query: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut request = NetlinkMessage::from(query);
        request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        let mut answers = self.handle.request(request).map_err(|_| closed())?;
        let (mut found, mut interrupted, mut finished) = (Vec::new(), false, false);
        while let Some(answer) = answers.next().await {
            interrupted |= answer.header.flags & NLM_F_DUMP_INTR != 0;
            match answer.payload {
                NetlinkPayload::InnerMessage(message) => found.push(message),
                NetlinkPayload::Done(done) if done.code < 0 => {
                    return Err(io::Error::from_raw_os_error(-done.code));
                }
                NetlinkPayload::Done(_) => finished = true,
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                _ => {}
            }
        }
        match (finished, interrupted) {
            (false, _) => Err(closed()),
            (true, true) => Err(io::ErrorKind::Interrupted.into()),
            (true, false) => Ok(found),
        }
    }

    /// Asks for a change and waits for the kernel's answer. `flags` are `NLM_F_CREATE` and its like.
    pub(super) async fn change(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let mut answers = self.handle.request(request).map_err(|_| closed())?;
        while let Some(answer) = answers.next().await {
            // An acknowledgement is an error message with code 0; it is consumed below us.
            if let NetlinkPayload::Error(error) = answer.payload
                && error.code.is_some()
            {
                return Err(error.to_io());
            }
        }
        Ok(())
    }
}

impl Drop for Rtnl {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

fn is_passing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Interrupted || error.raw_os_error() == Some(libc::EBUSY)
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the netlink socket is closed")
}

//! Removing the `clsact` qdisc that we added, which the loader library cannot do.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcHandle, TcMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::types::{IfIndex, IfName};

/// `TC_H_CLSACT` (linux/pkt_sched.h): the qdisc's parent.
const PARENT: u32 = 0xffff_fff1;
/// `TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS)`: parent of ingress filters.
const INGRESS: u32 = 0xffff_fff2;
/// `TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_EGRESS)`: parent of egress filters.
const EGRESS: u32 = 0xffff_fff3;

/// Removes the qdisc, unless somebody's filter is still on it: it would go too.
pub(super) fn remove_if_unused(iface: &IfName) -> io::Result<()> {
    let index = match nix::net::if_::if_nametoindex(iface.as_str()) {
        Ok(index) => IfIndex(index),
        Err(nix::Error::ENODEV) => return Ok(()), // gone, and its qdisc with it
        Err(error) => return Err(error.into()),
    };
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    if has_filters(&socket, index, INGRESS)? || has_filters(&socket, index, EGRESS)? {
        return Ok(());
    }
    let message = RouteNetlinkMessage::DelQueueDiscipline(message(index, PARENT));
    send(&socket, message, NLM_F_REQUEST | NLM_F_ACK)?;
    for reply in receive(&socket)? {
        if let NetlinkPayload::Error(error) = reply.payload
            && let Some(code) = error.code
            && -code.get() != libc::ENOENT
            && -code.get() != libc::EINVAL
        {
            return Err(io::Error::from_raw_os_error(-code.get()));
        }
    }
    Ok(())
}

fn has_filters(socket: &Socket, index: IfIndex, parent: u32) -> io::Result<bool> {
    send(socket, RouteNetlinkMessage::GetTrafficFilter(message(index, parent)), NLM_F_REQUEST | NLM_F_DUMP)?;
    let mut found = false;
    loop {
        for reply in receive(socket)? {
            match reply.payload {
                NetlinkPayload::InnerMessage(_) => found = true,
                NetlinkPayload::Done(_) | NetlinkPayload::Error(_) => return Ok(found),
                _ => {}
            }
        }
    }
}

fn message(index: IfIndex, parent: u32) -> TcMessage {
    let mut message = TcMessage::default();
    message.header.index = i32::try_from(index.0).unwrap_or(i32::MAX); // the kernel's own type is int
    message.header.parent = TcHandle::from(parent);
    message
}

fn send(socket: &Socket, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    socket.send(&bytes, 0).map(drop)
}

/// One datagram's messages.
fn receive(socket: &Socket) -> io::Result<Vec<NetlinkMessage<RouteNetlinkMessage>>> {
    let (bytes, _) = socket.recv_from_full()?;
    let mut rest = bytes.as_slice();
    let mut messages = Vec::new();
    while !rest.is_empty() {
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
        // Messages are padded to four bytes (NLMSG_ALIGN); a length of 0 would never end.
        let length = (message.header.length as usize).next_multiple_of(4).max(16);
        messages.push(message);
        rest = rest.get(length..).unwrap_or_default();
    }
    Ok(messages)
}

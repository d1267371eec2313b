//! The beginning of a routing table: its routes to 0.0.0.0/*, the default routes among them.
//!
//! The kernel cannot be asked for one destination of one table, and a whole dump of a router that carries the internet's
//! million routes takes seconds. It dumps a table in the order of its destinations, though (`fib_table_dump` walks the
//! trie from key 0), so reading ends at the first destination above 0.0.0.0. What the kernel still had to say goes with
//! the socket, which is why every call has one of its own.

use std::io;
use std::net::Ipv4Addr;

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::types::TableId;

/// The kernel's largest netlink datagram is 32 KiB.
const DATAGRAM: usize = 1 << 15;

/// How often to begin again when routes change under the dump.
const ATTEMPTS: usize = 20;

/// The IPv4 routes of `table` whose destination is 0.0.0.0, whatever their prefix. None where there is no such table.
///
/// Does not wait: the kernel answers a dump from within the system calls that ask for it.
pub(super) fn dump(table: TableId) -> io::Result<Vec<RouteMessage>> {
    dump_while(table, |_, route| starts_at_zero(route))
}

/// The IPv4 routes of `table` in the order of their destinations, up to the first that is not wanted any more; `wanted`
/// is told how many there are before it. None where there is no such table. Does not wait.
pub(super) fn dump_while(
    table: TableId,
    wanted: impl Fn(usize, &RouteMessage) -> bool,
) -> io::Result<Vec<RouteMessage>> {
    for _ in 1..ATTEMPTS {
        match attempt(table, &wanted) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            // Asked for a table that is not there, the kernel says so.
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => return Ok(Vec::new()),
            result => return result,
        }
    }
    attempt(table, &wanted)
}

fn attempt(table: TableId, wanted: impl Fn(usize, &RouteMessage) -> bool) -> io::Result<Vec<RouteMessage>> {
    let socket = Socket::new(NETLINK_ROUTE)?;
    // Without it the kernel ignores which table is asked for, and what follows 0.0.0.0 may be the next table.
    socket.set_netlink_get_strict_chk(true)?;
    let request = request(table);
    socket.send_to(&request, &SocketAddr::new(0, 0), 0)?;

    let mut found = Vec::new();
    let mut datagram = Vec::with_capacity(DATAGRAM);
    loop {
        datagram.clear();
        socket.recv(&mut datagram, 0)?;
        let mut rest = datagram.as_slice();
        while !rest.is_empty() {
            let length = NetlinkBuffer::new_checked(rest).map_err(io::Error::other)?.length() as usize;
            let message =
                NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(io::Error::other)?;
            if message.header.flags & NLM_F_DUMP_INTR != 0 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            match message.payload {
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) => {
                    if !wanted(found.len(), &route) {
                        return Ok(found);
                    }
                    found.push(route);
                }
                NetlinkPayload::Done(done) if done.code < 0 => {
                    return Err(io::Error::from_raw_os_error(-done.code));
                }
                NetlinkPayload::Done(_) => return Ok(found),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                _ => {}
            }
            // NLMSG_ALIGN.
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

fn request(table: TableId) -> Vec<u8> {
    let mut query = RouteMessage::default();
    query.header.address_family = AddressFamily::Inet;
    query.attributes.push(RouteAttribute::Table(table.0));
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetRoute(query));
    request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    bytes
}

fn starts_at_zero(route: &RouteMessage) -> bool {
    route.attributes.iter().all(|a| match a {
        RouteAttribute::Destination(destination) => *destination == RouteAddress::Inet(Ipv4Addr::UNSPECIFIED),
        _ => true,
    })
}

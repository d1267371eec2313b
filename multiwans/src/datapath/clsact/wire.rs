//! Requests about qdiscs and filters, and as much of the answers as the parent module needs.
//!
//! Answers are read only so far: filters and qdiscs of others come in kinds and forms that no parser knows
//! all of, and one that it does not know must not keep us from ours.

use std::io;

use netlink_packet_core::{
    DecodeError, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NlaBuffer, NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcHeader, TcMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// `struct tcmsg`.
const HEADER_LEN: usize = 20;
/// `TCA_KIND` (linux/rtnetlink.h).
const KIND: u16 = 1;
/// `TCA_OPTIONS`.
const OPTIONS: u16 = 2;
/// `TCA_BPF_NAME` (linux/pkt_cls.h); the number means other things in options of other kinds.
const BPF_NAME: u16 = 7;

/// A qdisc or filter of the kernel's answer.
#[derive(Debug)]
pub(super) struct Object {
    /// Interface, handle, parent, and a filter's priority and protocol.
    pub(super) header: TcHeader,
    /// `clsact`, `bpf`, `u32`, …
    pub(super) kind: String,
    /// Name of a `bpf` filter's program.
    pub(super) program: Option<String>,
}

impl Object {
    fn parse(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut object = Self { header: TcHeader::parse(payload)?, kind: String::new(), program: None };
        let mut options = Vec::new();
        for attribute in NlasIterator::new(payload.get(HEADER_LEN..).unwrap_or_default()) {
            let attribute = attribute?;
            match attribute.kind() {
                KIND => object.kind = text(&attribute),
                OPTIONS => options = attribute.value().to_vec(),
                _ => {}
            }
        }
        if object.kind == "bpf" {
            for option in NlasIterator::new(options.as_slice()) {
                let option = option?;
                if option.kind() == BPF_NAME {
                    object.program = Some(text(&option));
                }
            }
        }
        Ok(object)
    }
}

impl NetlinkDeserializable for Object {
    type Error = DecodeError;

    fn deserialize(_: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        Self::parse(payload)
    }
}

fn text(attribute: &NlaBuffer<&[u8]>) -> String {
    let bytes = attribute.value();
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// A netlink socket of the calling thread's network namespace.
pub(super) struct Wire {
    socket: Socket,
}

impl Wire {
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket })
    }

    /// All qdiscs of all interfaces.
    pub(super) fn qdiscs(&self) -> io::Result<Vec<Object>> {
        self.dump(RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default()))
    }

    /// The filters of one interface and direction; none where there is no qdisc for them.
    pub(super) fn filters(&self, header: TcHeader) -> io::Result<Vec<Object>> {
        self.dump(RouteNetlinkMessage::GetTrafficFilter(message(header)))
    }

    pub(super) fn delete_filter(&self, header: TcHeader) -> io::Result<()> {
        self.change(RouteNetlinkMessage::DelTrafficFilter(message(header)))
    }

    pub(super) fn delete_qdisc(&self, header: TcHeader) -> io::Result<()> {
        self.change(RouteNetlinkMessage::DelQueueDiscipline(message(header)))
    }

    fn dump(&self, request: RouteNetlinkMessage) -> io::Result<Vec<Object>> {
        self.send(request, NLM_F_REQUEST | NLM_F_DUMP)?;
        let mut objects = Vec::new();
        loop {
            for reply in self.receive()? {
                match reply.payload {
                    NetlinkPayload::InnerMessage(object) => objects.push(object),
                    NetlinkPayload::Done(done) if done.code < 0 => {
                        return Err(io::Error::from_raw_os_error(-done.code));
                    }
                    NetlinkPayload::Done(_) => return Ok(objects),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    _ => {}
                }
            }
        }
    }

    fn change(&self, request: RouteNetlinkMessage) -> io::Result<()> {
        self.send(request, NLM_F_REQUEST | NLM_F_ACK)?;
        loop {
            for reply in self.receive()? {
                if let NetlinkPayload::Error(error) = reply.payload {
                    return error.code.map_or(Ok(()), |_| Err(error.to_io())); // no code: the acknowledgement
                }
            }
        }
    }

    fn send(&self, request: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(request));
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map(drop)
    }

    /// One datagram's messages.
    fn receive(&self) -> io::Result<Vec<NetlinkMessage<Object>>> {
        let (bytes, _) = self.socket.recv_from_full()?;
        let mut rest = bytes.as_slice();
        let mut messages = Vec::new();
        while !rest.is_empty() {
            let message = NetlinkMessage::<Object>::deserialize(rest)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            // Messages are padded to four bytes (NLMSG_ALIGN); a length of 0 would never end.
            let length = (message.header.length as usize).next_multiple_of(4).max(16);
            messages.push(message);
            rest = rest.get(length..).unwrap_or_default();
        }
        Ok(messages)
    }
}

fn message(header: TcHeader) -> TcMessage {
    let mut message = TcMessage::default();
    message.header = header;
    message
}

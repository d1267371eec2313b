//! Asking one server one question, over one WAN.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket as StdUdpSocket};
use std::num::NonZeroU32;
use std::time::Duration;

use hickory_proto::rr::Name;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::time::timeout;

use super::message::{Answer, Question};
use crate::engine::event::Binding;

/// Where servers listen.
const PORT: u16 = 53;
/// Longer than any answer: without EDNS, UDP carries 512 bytes (RFC 1035 §4.2.1), but not all servers know.
const DATAGRAM_MAX: usize = 4_096;

/// Why a server gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Silence {
    /// It was asked.
    #[error("no answer within {} s", .0.as_secs_f64())]
    Timeout(Duration),
    /// The system says why not.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The question has no wire format.
    #[error("the name cannot be asked for")]
    Question,
}

/// Asks `server` for a name's addresses, for `patience` over UDP, and as long again over TCP where the
/// answer does not fit.
///
/// The question leaves by the binding's device and address, but to a loopback server, which is the
/// router's own resolver and can be asked over nothing else.
pub(super) async fn ask(
    server: Ipv4Addr,
    binding: &Binding,
    name: &Name,
    patience: Duration,
) -> Result<Answer, Silence> {
    let id = getrandom::u32().map_err(io::Error::from)?;
    let question = Question::new(name.clone(), (id & 0xffff) as u16);
    let bytes = question.bytes().ok_or(Silence::Question)?;
    let binding = Some(binding).filter(|_| !server.is_loopback());
    let server = SocketAddrV4::new(server, PORT);
    let limited = |result: Result<_, _>| result.unwrap_or(Err(Silence::Timeout(patience)));
    match limited(timeout(patience, over_udp(server, binding, &question, &bytes)).await)? {
        Answer::Truncated => limited(timeout(patience, over_tcp(server, binding, &question, &bytes)).await),
        answer => Ok(answer),
    }
}

async fn over_udp(
    server: SocketAddrV4,
    binding: Option<&Binding>,
    question: &Question,
    bytes: &[u8],
) -> Result<Answer, Silence> {
    let socket: StdUdpSocket = open(Type::DGRAM, Protocol::UDP, binding)?.into();
    let socket = UdpSocket::from_std(socket)?;
    // Connected: what others send does not arrive, and a closed port is told.
    socket.connect(server).await?;
    socket.send(bytes).await?;
    let mut datagram = vec![0; DATAGRAM_MAX];
    loop {
        let length = socket.recv(&mut datagram).await?;
        if let Some(answer) = question.answer(&datagram[..length]) {
            return Ok(answer);
        }
    }
}

async fn over_tcp(
    server: SocketAddrV4,
    binding: Option<&Binding>,
    question: &Question,
    bytes: &[u8],
) -> Result<Answer, Silence> {
    let socket = TcpSocket::from_std_stream(open(Type::STREAM, Protocol::TCP, binding)?.into());
    let mut stream = socket.connect(SocketAddr::V4(server)).await?;
    let length = u16::try_from(bytes.len()).map_err(|_| Silence::Question)?;
    stream.write_all(&[&length.to_be_bytes(), bytes].concat()).await?;
    loop {
        let mut message = vec![0; stream.read_u16().await?.into()];
        stream.read_exact(&mut message).await?;
        match question.answer(&message) {
            // There is nothing beyond TCP.
            Some(Answer::Truncated) => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a truncated answer over TCP").into());
            }
            Some(answer) => return Ok(answer),
            None => {}
        }
    }
}

/// A socket that does not block. The device is bound by index, as the probes' is: a name would quietly
/// take an interface that was re-created under it.
fn open(kind: Type, protocol: Protocol, binding: Option<&Binding>) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, kind.nonblocking(), Some(protocol))?;
    if let Some(binding) = binding {
        socket.bind_device_by_index_v4(NonZeroU32::new(binding.index.0))?;
        socket.bind(&SocketAddrV4::new(binding.source, 0).into())?;
    }
    Ok(socket)
}

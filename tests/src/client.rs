//! Flows from a place in the lab, and what the other end saw of them.

use crate::Lab;
use crate::topology::Ns;
use crate::wait::wait_until;
use anyhow::{Context, Result, bail};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::time::Duration;

/// Far longer than a round trip in the lab, far shorter than a test's patience.
const ANSWER_TIME: Duration = Duration::from_secs(1);

/// While a link is dead, how soon the next flow is tried: the error of a measured time.
const IMPATIENCE: Duration = Duration::from_millis(100);

/// Opens flows in one place, from one address and port.
#[derive(Debug, Clone, Copy)]
pub struct Client<'a> {
    lab: &'a Lab,
    place: Ns,
    local: SocketAddrV4,
    patience: Duration,
}

impl Lab {
    /// Opens flows in a place, from whichever address and port the kernel takes.
    #[must_use]
    pub fn client(&self, place: Ns) -> Client<'_> {
        let local = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
        Client { lab: self, place, local, patience: ANSWER_TIME }
    }
}

impl Client<'_> {
    /// From this address instead.
    #[must_use]
    pub fn from(mut self, address: Ipv4Addr) -> Self {
        self.local.set_ip(address);
        self
    }

    /// From this port instead.
    #[must_use]
    pub fn source_port(mut self, port: u16) -> Self {
        self.local.set_port(port);
        self
    }

    /// Waits this long for an answer, instead of a second.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Opens a TCP connection.
    ///
    /// # Errors
    /// When nothing answers in time.
    pub fn connect(&self, to: Ipv4Addr, port: u16) -> Result<TcpStream> {
        let stream = self.lab.in_ns(self.place, || -> std::io::Result<TcpStream> {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
            socket.set_reuse_address(true)?;
            socket.bind(&SocketAddr::V4(self.local).into())?;
            socket.connect_timeout(&SocketAddr::from((to, port)).into(), self.patience)?;
            Ok(socket.into())
        });
        let stream = stream.with_context(|| format!("TCP from {} to {to}:{port}", self.place))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(self.patience))?;
        Ok(stream)
    }

    /// A UDP socket that talks to one observer.
    ///
    /// # Errors
    /// When the local port is taken, or there is no route.
    pub fn udp(&self, to: Ipv4Addr, port: u16) -> Result<UdpSocket> {
        let socket = self.lab.in_ns(self.place, || -> std::io::Result<UdpSocket> {
            let socket = UdpSocket::bind(self.local)?;
            socket.connect((to, port))?;
            Ok(socket)
        });
        let socket = socket.with_context(|| format!("UDP from {} to {to}:{port}", self.place))?;
        socket.set_read_timeout(Some(self.patience))?;
        Ok(socket)
    }

    /// Which address a TCP observer sees of a new connection.
    ///
    /// # Errors
    /// When nothing answers in time.
    pub fn seen_by_tcp(&self, to: Ipv4Addr, port: u16) -> Result<Ipv4Addr> {
        let stream = self.connect(to, port)?;
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).with_context(|| format!("TCP answer of {to}:{port}"))?;
        parse_address(&line)
    }

    /// Which address a UDP observer sees of a new socket.
    ///
    /// # Errors
    /// When nothing answers in time.
    pub fn seen_by_udp(&self, to: Ipv4Addr, port: u16) -> Result<Ipv4Addr> {
        let socket = self.udp(to, port)?;
        socket.send(b"who")?;
        let mut answer = [0; 128];
        let length = socket.recv(&mut answer).with_context(|| format!("UDP answer of {to}:{port}"))?;
        parse_address(&String::from_utf8_lossy(&answer[..length]))
    }

    /// Opens a flow after the other until one is seen with this address, and says how long that took.
    ///
    /// # Errors
    /// Past the deadline, with what was seen last.
    pub fn wait_seen(
        &self,
        expected: Ipv4Addr,
        to: Ipv4Addr,
        port: u16,
        deadline: Duration,
    ) -> Result<Duration> {
        let client = self.patience(IMPATIENCE);
        let mut last = None;
        let what = format!("a new flow from {} to {to}:{port} by {expected}", self.place);
        let reached = wait_until(&what, deadline, || {
            last = client.seen_by_udp(to, port).ok();
            last == Some(expected)
        });
        reached.with_context(|| format!("last seen: {last:?}"))
    }
}

/// Reads the address from an observer's `address:port …`.
pub(crate) fn parse_address(answer: &str) -> Result<Ipv4Addr> {
    let first = answer.split_whitespace().next().unwrap_or_default();
    match first.parse() {
        Ok(SocketAddr::V4(seen)) => Ok(*seen.ip()),
        _ => bail!("the observer answered {answer:?}"),
    }
}

//! Packets of protocols without ports: sent through raw sockets, and seen the same way.

use crate::Lab;
use crate::observer::is_readable;
use crate::topology::Ns;
use anyhow::{Context, Result, bail};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

/// Longer than any way through the lab.
const ARRIVAL_TIME: Duration = Duration::from_secs(1);

/// Sees the packets of one IP protocol that arrive in a place.
#[derive(Debug)]
pub struct ProtocolObserver {
    socket: Socket,
}

impl Lab {
    /// Watches a protocol in a place.
    ///
    /// # Errors
    /// Without root.
    pub fn observe_protocol(&self, place: Ns, protocol: u8) -> Result<ProtocolObserver> {
        Ok(ProtocolObserver { socket: self.in_ns(place, || raw(protocol))? })
    }

    /// Sends a packet of a protocol, from a new socket bound to nothing or to this address.
    ///
    /// # Errors
    /// When the kernel does not route it.
    pub fn send_protocol(
        &self,
        place: Ns,
        protocol: u8,
        local: Option<Ipv4Addr>,
        to: Ipv4Addr,
        payload: &[u8],
    ) -> Result<()> {
        let send = || -> Result<()> {
            let socket = raw(protocol)?;
            if let Some(local) = local {
                socket.bind(&SocketAddr::from((local, 0)).into())?;
            }
            socket.send_to(payload, &SocketAddr::from((to, 0)).into())?;
            Ok(())
        };
        self.in_ns(place, send).with_context(|| format!("protocol {protocol} from {place} to {to}"))
    }
}

impl ProtocolObserver {
    /// Whom the next packet came from whose payload has this in it.
    ///
    /// # Errors
    /// When none arrives within a second.
    pub fn source_of(&mut self, part: &[u8]) -> Result<Ipv4Addr> {
        let start = Instant::now();
        while start.elapsed() < ARRIVAL_TIME {
            let mut packet = [0; 2048];
            if !is_readable(&self.socket) {
                continue;
            }
            let length = self.socket.read(&mut packet)?;
            if packet[..length].windows(part.len()).any(|window| window == part) {
                return Ok(Ipv4Addr::new(packet[12], packet[13], packet[14], packet[15]));
            }
        }
        bail!("no such packet arrived")
    }
}

fn raw(protocol: u8) -> Result<Socket> {
    let protocol = Protocol::from(i32::from(protocol));
    Socket::new(Domain::IPV4, Type::RAW, Some(protocol)).context("cannot open a raw socket")
}

//! A router with one link to a provider, and the provider's view of what comes over it.

use std::io::Read;
use std::net::Ipv4Addr;
use std::time::Duration;

use multiwans::engine::event::Binding;
use multiwans::types::{IfIndex, IfName};
use socket2::{Domain, Protocol, Socket, Type};

use super::Netns;

/// The router's address on its link.
pub(crate) const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 2);
/// Addresses of the provider that stand for hosts in the internet.
pub(crate) const LIVE: Ipv4Addr = Ipv4Addr::new(9, 9, 9, 9);
pub(crate) const LIVE_TOO: Ipv4Addr = Ipv4Addr::new(1, 1, 1, 1);
/// No host has it: the provider drops what is sent to it.
pub(crate) const DEAD: Ipv4Addr = Ipv4Addr::new(8, 8, 8, 8);

pub(crate) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A router with the link `wan0` to a provider.
pub(crate) struct Lab {
    pub(crate) router: Netns,
    pub(crate) provider: Netns,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let lab = Self { router: Netns::new(), provider: Netns::new() };
        lab.connect();
        for live in [LIVE, LIVE_TOO] {
            lab.provider.ip(&format!("addr add {live}/32 dev lo"));
        }
        lab.provider.ip(&format!("route add blackhole {DEAD}"));
        lab
    }

    /// Makes the cable and the way into the internet over it.
    pub(crate) fn connect(&self) {
        self.router.cable("wan0", "10.0.1.2/24", &self.provider, "isp0", "10.0.1.1/24");
        self.router.ip("route add default via 10.0.1.1 dev wan0");
    }

    pub(crate) fn binding(&self) -> Binding {
        self.binding_of("wan0", ROUTER)
    }

    pub(crate) fn binding_of(&self, iface: &str, source: Ipv4Addr) -> Binding {
        let index = IfIndex(self.router.index(iface));
        Binding { index, iface: IfName::new(iface).unwrap(), source }
    }

    /// Lets the provider's hosts fall silent, their network working on.
    pub(crate) fn mute(&self, muted: bool) {
        self.provider.sysctl("ipv4/icmp_echo_ignore_all", if muted { "1" } else { "0" });
    }

    /// Runs `work` inside the router, on a runtime of one thread: that of its namespace.
    pub(crate) fn probing<T: Send>(&self, work: impl AsyncFnOnce() -> T + Send) -> T {
        self.router.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(work())
        })
    }

    /// Raw ICMP socket of the provider: sees the requests, and can send what it likes.
    pub(crate) fn provider_socket(&self, header_included: bool) -> Socket {
        self.provider.run(|| {
            let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).unwrap();
            socket.set_header_included_v4(header_included).unwrap();
            socket.set_read_timeout(Some(ms(200))).unwrap();
            socket
        })
    }
}

/// An echo request as it arrived: addresses from the IP header, and the ICMP message.
pub(crate) struct Seen {
    pub(crate) source: Ipv4Addr,
    pub(crate) target: Ipv4Addr,
    pub(crate) message: Vec<u8>,
}

/// The echo requests that wait in the socket, and those of the next 200 ms of silence.
pub(crate) fn requests(socket: &Socket) -> Vec<Seen> {
    std::iter::from_fn(|| request(socket)).collect()
}

/// The next echo request, `None` after 200 ms without a packet.
pub(crate) fn request(mut socket: &Socket) -> Option<Seen> {
    let mut packet = [0; 256];
    loop {
        let len = socket.read(&mut packet).ok()?;
        if packet[20] == 8 {
            let address = |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&packet[at..at + 4]).unwrap());
            return Some(Seen {
                source: address(12),
                target: address(16),
                message: packet[20..len].to_vec(),
            });
        }
    }
}

/// The reply to a request, changed as asked for and with a right checksum again, in an IP packet from `source`.
pub(crate) fn reply(request: &Seen, source: Ipv4Addr, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut message = request.message.clone();
    message[0] = 0;
    change(&mut message);
    message[2..4].fill(0);
    let sum: u32 = message.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    // The kernel fills in length and checksum of the header.
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 1, 0, 0];
    packet.extend(source.octets());
    packet.extend(request.source.octets());
    packet.extend(message);
    packet
}

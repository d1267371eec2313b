//! The policy that all data planes get, and packets for it.
//!
//! Two kinds of filters, so that each plane may hold them in the way it does best: those with a port send to WAN 2,
//! those with a list of destinations to WAN 3, and what neither wants stays on WAN 1. No packet is wanted by both, so
//! a plane that looks them up in another order than ours decides the same.

use crate::frame::Datagram;
use fastrand::Rng;
use std::net::Ipv4Addr;

/// Takes what no filter wants.
pub(crate) const DEFAULT_WAN: u8 = 1;
/// Takes what filters with ports want.
pub(crate) const PORT_WAN: u8 = 2;
/// Takes what filters with lists want.
pub(crate) const LIST_WAN: u8 = 3;
/// How many there are.
pub(crate) const WANS: u8 = 3;

/// Never a destination of ours: the seed's local networks, and where the lab's internet is.
const AVOIDED: [u8; 9] = [10, 100, 127, 169, 172, 192, 198, 203, 0];
/// The first port of a filter, and the distance to the next: 4096 of them end below [`FREE_PORT`].
const FIRST_PORT: u16 = 1024;
const PORT_STEP: u16 = 9;
/// No filter has a port from here on.
const FREE_PORT: u16 = 40_000;
/// Source addresses that packets of fresh flows share out among them.
const HOSTS: u16 = 200;
/// The first source port of a packet. Below are those that masquerading keeps apart from the rest.
const FIRST_SOURCE_PORT: u16 = 1024;

/// A prefix: address and length.
pub(crate) type Net = (u32, u8);

/// How large a policy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) filters: usize,
    /// Over all lists.
    pub(crate) prefixes: usize,
}

/// A policy.
pub(crate) struct Policy {
    pub(crate) size: Size,
    /// One UDP destination port for each filter that has one.
    pub(crate) ports: Vec<u16>,
    /// The destinations of each filter that has a list. All are disjoint, and neighbours are in different lists.
    pub(crate) lists: Vec<Vec<Net>>,
    /// All of them in order.
    sorted: Vec<Net>,
}

impl Policy {
    /// Half of the filters have lists, at least one; the same for the same size.
    pub(crate) fn new(size: Size) -> Self {
        let lists = (size.filters / 2).max(1).min(size.prefixes);
        let ports = (0..size.filters.saturating_sub(lists))
            .filter_map(|index| Some(FIRST_PORT + u16::try_from(index).ok()? * PORT_STEP))
            .collect();
        let mut random = Rng::with_seed(size.prefixes as u64);
        let sorted = prefixes(size.prefixes, &mut random);
        let mut policy = Self { size, ports, lists: vec![Vec::new(); lists], sorted };
        for (index, net) in policy.sorted.iter().enumerate() {
            policy.lists[index % lists].push(*net);
        }
        policy
    }

    /// Packets for it, each a flow of its own: half wanted by a list, three eighths by a port, one eighth by none;
    /// which list, which prefix, which port is random.
    pub(crate) fn packets(&self, count: usize) -> Vec<Datagram> {
        let mut random = Rng::with_seed(1);
        (0..count).map(|index| self.packet(index, &mut random)).collect()
    }

    /// The same with the source of one host, so that answers find it; at most 60 000.
    pub(crate) fn flows(&self, count: usize, host: Ipv4Addr) -> Vec<Datagram> {
        let mut packets = self.packets(count);
        for (packet, port) in packets.iter_mut().zip(FIRST_SOURCE_PORT..) {
            (packet.source, packet.source_port) = (host, port);
        }
        packets
    }

    fn packet(&self, index: usize, random: &mut Rng) -> Datagram {
        let kind = random.usize(..8);
        let (destination, destination_port, wan) = if kind < 4 || (kind < 7 && self.ports.is_empty()) {
            (self.listed(random), free_port(random), LIST_WAN)
        } else if kind < 7 {
            (self.unlisted(random), self.ports[random.usize(..self.ports.len())], PORT_WAN)
        } else {
            (self.unlisted(random), free_port(random), DEFAULT_WAN)
        };
        // Every index its own pair of address and port.
        let hosts = usize::from(HOSTS);
        let host = u8::try_from(10 + index % hosts).unwrap_or(u8::MAX);
        let port = FIRST_SOURCE_PORT + u16::try_from(index / hosts % 60_000).unwrap_or(0);
        Datagram {
            source: Ipv4Addr::new(192, 168, 50, host),
            source_port: port,
            destination,
            destination_port,
            wan,
        }
    }

    fn listed(&self, random: &mut Rng) -> Ipv4Addr {
        let (address, length) = self.sorted[random.usize(..self.sorted.len())];
        let inside = u32::MAX.checked_shr(u32::from(length)).unwrap_or(0);
        Ipv4Addr::from(address | (random.u32(..) & inside))
    }

    fn unlisted(&self, random: &mut Rng) -> Ipv4Addr {
        loop {
            let address = random.u32(..);
            let [first, ..] = address.to_be_bytes();
            if first < 224 && !AVOIDED.contains(&first) && !self.is_listed(address) {
                return Ipv4Addr::from(address);
            }
        }
    }

    fn is_listed(&self, address: u32) -> bool {
        let after = self.sorted.partition_point(|(net, _)| *net <= address);
        after.checked_sub(1).is_some_and(|index| {
            let (net, length) = self.sorted[index];
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            address & mask == net
        })
    }
}

/// Disjoint prefixes of mixed lengths, spread over all of unicast space: each lies in a stretch of its own.
fn prefixes(count: usize, random: &mut Rng) -> Vec<Net> {
    let blocks: Vec<u32> = (1..224).filter(|first| !AVOIDED.contains(first)).map(u32::from).collect();
    let mut nets = Vec::with_capacity(count);
    for (index, first) in blocks.iter().enumerate() {
        // As evenly as whole numbers go.
        let here = count * (index + 1) / blocks.len() - count * index / blocks.len();
        for slot in 0..here {
            let stretch = |slot: usize| u32::try_from((slot << 24) / here).unwrap_or(u32::MAX);
            nets.push(within((first << 24) + stretch(slot), (first << 24) + stretch(slot + 1), random));
        }
    }
    nets
}

/// A prefix that lies inside of `start..end`, as long as the draw or the room says.
fn within(start: u32, end: u32, random: &mut Rng) -> Net {
    // About as prefixes are long in the internet's routing table, and some longer as in lists of hosts.
    const LENGTHS: [u8; 16] = [24, 24, 24, 24, 24, 24, 24, 24, 24, 23, 22, 22, 21, 20, 28, 32];
    let mut length = LENGTHS[random.usize(..LENGTHS.len())];
    loop {
        let size = 1u32 << (32 - u32::from(length));
        let first = start.div_ceil(size) * size;
        let room = end.saturating_sub(first) / size;
        if room > 0 {
            return (first + random.u32(..room) * size, length);
        }
        length += 1;
    }
}

/// The text form of a prefix.
pub(crate) fn text((address, length): Net) -> String {
    format!("{}/{length}", Ipv4Addr::from(address))
}

/// A port that no filter has.
fn free_port(random: &mut Rng) -> u16 {
    random.u16(FREE_PORT..FREE_PORT + 20_000)
}

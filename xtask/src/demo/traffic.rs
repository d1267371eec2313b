//! Steady traffic of several classes, each a new flow every so often, and where each was last seen.

use super::timeline::{Timeline, Voice};
use anyhow::Result;
use multiwans_tests::topology::{INTERNET, INTERNET_OTHERS, wan_ip};
use multiwans_tests::{Client, Lab, Ns};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Between a class's flows: ten a second would do, several classes make forty.
const INTERVAL: Duration = Duration::from_millis(100);
/// A round trip in the lab takes well under a millisecond.
const PATIENCE: Duration = Duration::from_millis(250);

/// How a line about traffic ends that gets no answer.
pub(super) const NO_ANSWER: &str = "no answer";

/// The port on the router's WAN address 2 that leads to the server in the LAN.
pub(super) const FORWARDED_PORT: u16 = 8080;
/// Where the server in the LAN listens.
pub(super) const SERVER_PORT: u16 = 8000;
/// What the internet host answers on.
pub(super) const INTERNET_PORTS: [u16; 3] = [25, 53, 443];

/// A kind of traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Web,
    Mail,
    Dns,
    Inbound,
}

impl Class {
    pub(super) const ALL: [Self; 4] = [Self::Web, Self::Dns, Self::Mail, Self::Inbound];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Web => "https: TCP 443",
            Self::Dns => "dns: UDP 53",
            Self::Mail => "mail: TCP 25, a filter says WAN2",
            Self::Inbound => "from outside to WAN2's port 8080",
        }
    }

    /// Opens one flow; returns the address that stood for the router on the internet's side.
    fn open(self, lab: &Lab) -> Result<Ipv4Addr> {
        let client = lab.client(Ns::Client).patience(PATIENCE);
        match self {
            Self::Web => client.seen_by_tcp(INTERNET, 443),
            Self::Dns => client.seen_by_udp(INTERNET_OTHERS[1], 53),
            Self::Mail => client.seen_by_tcp(INTERNET, 25),
            Self::Inbound => {
                let caller: Client<'_> = lab.client(Ns::Internet).from(INTERNET).patience(PATIENCE);
                // Answered at all means answered by WAN2: ISP 1 does not forward WAN2's address.
                caller.seen_by_tcp(wan_ip(2), FORWARDED_PORT).map(|_| wan_ip(2))
            }
        }
    }
}

/// The address a flow was seen with, and when it was opened.
#[derive(Debug, Clone, Copy)]
struct Sighting {
    seen: Option<Ipv4Addr>,
    since: Instant,
}

/// What has been seen of each class so far.
#[derive(Debug)]
pub(super) struct Traffic {
    last: Mutex<[Option<Sighting>; Class::ALL.len()]>,
    flows: AtomicU32,
    stop: AtomicBool,
}

impl Traffic {
    pub(super) fn new() -> Self {
        Self { last: Mutex::default(), flows: AtomicU32::new(0), stop: AtomicBool::new(false) }
    }

    /// Opens flows of one class until told to stop, and says when they go another way.
    pub(super) fn run(&self, class: Class, lab: &Lab, timeline: &Timeline) {
        while !self.stop.load(Ordering::Relaxed) {
            let opened = Instant::now();
            // Why a flow got no answer is the story's matter; the traffic sees only that.
            let seen = class.open(lab).ok();
            self.flows.fetch_add(1, Ordering::Relaxed);
            if self.note(class, seen) {
                let where_to = match seen {
                    Some(address) => format!("seen with {}", shown(address)),
                    None => NO_ANSWER.to_owned(),
                };
                timeline.say(Voice::Traffic, &format!("{:<33} {where_to}", class.name()));
            }
            thread::sleep(INTERVAL.saturating_sub(opened.elapsed()));
        }
    }

    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// How many flows have been opened.
    pub(super) fn flows(&self) -> u32 {
        self.flows.load(Ordering::Relaxed)
    }

    /// The address that a class is seen with now; `None` while it gets no answer.
    pub(super) fn seen(&self, class: Class) -> Option<Ipv4Addr> {
        self.sightings()[class as usize].and_then(|sighting| sighting.seen)
    }

    /// Since when a class has been seen with this address, if it is.
    pub(super) fn seen_with(&self, class: Class, address: Ipv4Addr) -> Option<Instant> {
        let sighting = self.sightings()[class as usize]?;
        (sighting.seen == Some(address)).then_some(sighting.since)
    }

    /// Returns true when this differs from what was seen before.
    fn note(&self, class: Class, seen: Option<Ipv4Addr>) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = &mut last[class as usize];
        let is_news = slot.is_none_or(|sighting| sighting.seen != seen);
        if is_news {
            *slot = Some(Sighting { seen, since: Instant::now() });
        }
        is_news
    }

    fn sightings(&self) -> [Option<Sighting>; Class::ALL.len()] {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An address with the WAN that it belongs to.
pub(super) fn shown(address: Ipv4Addr) -> String {
    match [1, 2].into_iter().find(|&k| wan_ip(k) == address) {
        Some(k) => format!("{address} (WAN{k})"),
        None => address.to_string(),
    }
}

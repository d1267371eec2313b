//! What is in the flow table, and who goes when it is nearly full. Pure: entries in, counts and limits out.

use multiwans_common::{FlowState, FlowValue, protocol};

/// Ages are told apart by a quarter of an octave.
const AGES: usize = 4 * 32;

/// One in sixteen entries is to be free. More are used only until the next look at the table.
const RESERVE: u64 = 16;
/// Passing flows (a handshake, a question and its answer) leave until one in four is free: a flood fills the table again
/// at once, and each walk through it costs.
const RELIEF: u64 = 4;

/// Protocols that are counted apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// Transmission Control Protocol.
    Tcp,
    /// User Datagram Protocol, and its Lite.
    Udp,
    /// Internet Control Message Protocol.
    Icmp,
    /// All others.
    Other,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Tcp, Self::Udp, Self::Icmp, Self::Other];

    /// For people and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
            Self::Other => "other",
        }
    }

    fn of(number: u8) -> Self {
        match number {
            protocol::TCP => Self::Tcp,
            protocol::UDP | protocol::UDPLITE => Self::Udp,
            protocol::ICMP => Self::Icmp,
            _ => Self::Other,
        }
    }
}

/// The live flows of one walk through the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Census {
    counts: [[u64; FlowState::ALL.len()]; Family::ALL.len()],
    /// How many were idle for how long: passing ones, lasting ones.
    ages: [[u64; AGES]; 2],
}

impl Default for Census {
    fn default() -> Self {
        Self { counts: [[0; FlowState::ALL.len()]; Family::ALL.len()], ages: [[0; AGES]; 2] }
    }
}

impl Census {
    /// Counts one that was idle for so many ticks.
    pub(super) fn add(&mut self, number: u8, value: &FlowValue, idle: u32) {
        let state = FlowState::of(value.binding.state);
        self.counts[Family::of(number) as usize][state as usize] += 1;
        self.ages[usize::from(lasts(number, state))][age(idle)] += 1;
    }

    /// Flows of a protocol in a state.
    pub fn count(&self, family: Family, state: FlowState) -> u64 {
        self.counts[family as usize][state as usize]
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.counts.iter().flatten().sum()
    }

    /// Who has to go so that a table of `max` entries can take new flows.
    pub(super) fn evictions(&self, max: u64) -> Evictions {
        let total = self.total();
        if !is_nearly_full(total, max) {
            return Evictions::default();
        }
        let [passing, lasting] = &self.ages;
        let passing = Eviction::of(passing, total.saturating_sub(max - max / RELIEF));
        let lasting = Eviction::of(lasting, (total - passing.count).saturating_sub(max - max / RESERVE));
        Evictions { passing, lasting }
    }
}

/// Whether so many entries are more than a table of `max` should have.
pub(super) fn is_nearly_full(entries: u64, max: u64) -> bool {
    entries > max - max / RESERVE
}

/// Flows that have to go though they are alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Evictions {
    pub(super) passing: Eviction,
    pub(super) lasting: Eviction,
}

/// How many have to go, and how old they are at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Eviction {
    pub(super) count: u64,
    from_age: usize,
    /// How many of just that age.
    youngest: u64,
}

impl Eviction {
    /// The longest idle `wanted` of them, or all.
    fn of(ages: &[u64; AGES], wanted: u64) -> Self {
        let mut older = 0;
        for (from_age, number) in ages.iter().enumerate().rev() {
            if older + number >= wanted {
                return Self { count: wanted, from_age, youngest: wanted - older };
            }
            older += number;
        }
        Self { count: older, from_age: 0, youngest: ages[0] }
    }

    fn takes(&mut self, idle: u32) -> bool {
        let of_youngest = age(idle) == self.from_age;
        let takes = self.count > 0 && age(idle) >= self.from_age && (!of_youngest || self.youngest > 0);
        if takes {
            self.count -= 1;
            self.youngest -= u64::from(of_youngest);
        }
        takes
    }
}

impl Evictions {
    pub(super) fn any(&self) -> bool {
        self.passing.count > 0 || self.lasting.count > 0
    }

    /// Whether this flow goes. Of the youngest age that goes, as many as are wanted.
    pub(super) fn take(&mut self, number: u8, value: &FlowValue, idle: u32) -> bool {
        let lasts = lasts(number, FlowState::of(value.binding.state));
        if lasts { self.lasting.takes(idle) } else { self.passing.takes(idle) }
    }
}

/// A ping goes on for as long as one likes, and nobody loses more than an answer.
fn lasts(number: u8, state: FlowState) -> bool {
    state.lasts() && number != protocol::ICMP
}

/// Quarter octaves of the ticks.
fn age(idle: u32) -> usize {
    let ticks = idle.max(4);
    let octave = ticks.ilog2();
    (octave * 4 + (ticks >> (octave - 2) & 3)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use multiwans_common::{Binding, FilterTag, Seen};

    fn flow(state: FlowState) -> FlowValue {
        FlowValue {
            seen: Seen { at: 0, filter: FilterTag::unknown() },
            binding: Binding { generation: 0, wan: 1, state: state as u8, inbound: 0, claimed: 0 },
        }
    }

    /// `(protocol, state, idle ticks, how many)`; returns who went, in the same order.
    fn evict(max: u64, flows: &[(u8, FlowState, u32, u64)]) -> Vec<u64> {
        let mut census = Census::default();
        for (number, state, idle, count) in flows {
            for _ in 0..*count {
                census.add(*number, &flow(*state), *idle);
            }
        }
        let mut evictions = census.evictions(max);
        flows
            .iter()
            .map(|(number, state, idle, count)| {
                (0..*count).filter(|_| evictions.take(*number, &flow(*state), *idle)).count() as u64
            })
            .collect()
    }

    const TCP: u8 = protocol::TCP;
    const UDP: u8 = protocol::UDP;

    #[test]
    fn ages_rise_and_fit() {
        let ages: Vec<usize> = [0, 3, 4, 5, 7, 8, 10, 1000, 1300, 1 << 20, u32::MAX].map(age).to_vec();
        assert!(ages.is_sorted(), "{ages:?}");
        assert!(*ages.last().unwrap() < AGES);
        assert!(age(1000) < age(1300));
    }

    #[test]
    fn a_table_with_room_keeps_all() {
        assert_eq!(evict(1600, &[(TCP, FlowState::Opening, 50, 1500)]), [0]);
    }

    #[test]
    fn passing_flows_go_first_and_the_longest_idle_of_them() {
        use FlowState::*;
        let flows = [
            (TCP, Established, 400_000_000, 500),
            (TCP, Opening, 10_000, 300),
            (UDP, Single, 20_000, 300),
            (TCP, Closing, 100, 450),
            (UDP, Stream, 50_000, 50),
        ];
        // 1600 entries, 1200 are to stay.
        assert_eq!(evict(1600, &flows), [0, 100, 300, 0, 0]);
    }

    #[test]
    fn lasting_flows_go_only_when_no_passing_ones_are_left() {
        use FlowState::*;
        let flows =
            [(TCP, Established, 1000, 900), (TCP, Established, 9000, 600), (protocol::ICMP, Stream, 1, 100)];
        // One in sixteen becomes free; the pings alone are that many.
        assert_eq!(evict(1600, &flows), [0, 0, 100]);
        let flows = [(TCP, Established, 1000, 1000), (UDP, Stream, 9000, 600)];
        assert_eq!(evict(1600, &flows), [0, 100]);
    }
}

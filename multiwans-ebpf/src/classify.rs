//! The first filter that matches a packet and whose WAN takes filtered traffic now.

use core::{ffi::c_void, hint::black_box};

use aya_ebpf::helpers::generated::bpf_loop;
use multiwans_common::{
    FlowKey4, PolicySet, WanEntry,
    dimension::{self, Dimension},
    filters::{self, MAX_WORDS},
};

use crate::{
    links,
    policy::{Policy, PolicyMap},
};

/// Steps of the search: each is done with a word of the vectors or moves on past a run of filters of one
/// WAN. There are 64 words, and at most 252 such runs because filters stand in order of their WANs.
const MAX_STEPS: u32 = MAX_WORDS + 256;

const BITS: u32 = u64::BITS;

/// What the search came to.
pub enum Match {
    /// This WAN's filter matched.
    Wan(WanEntry),
    /// None did.
    Nothing,
    /// The maps are not filled.
    NotReady,
}

/// Looks for the first filter that matches. Filters whose WAN is out of service are passed over, and so
/// are those of the default WAN: they are lifted while it is the default.
#[inline(always)]
pub fn first_match(set: PolicySet, tuple: &FlowKey4, default_wan: u32) -> Match {
    match search(set, tuple, default_wan) {
        Some(found) => found,
        None => Match::NotReady,
    }
}

/// A packet's class in one dimension.
struct Class {
    lines: PolicyMap,
    number: u32,
    /// Words that are not zero.
    live: u64,
    /// Words that differ from those of the rows.
    changed: u64,
}

impl Class {
    #[inline(always)]
    fn new(lines: PolicyMap, number: u32) -> Option<Self> {
        let [live, changed] = dimension::class(&lines, number)?;
        Some(Self { lines, number, live, changed })
    }

    /// Of an address in network byte order.
    #[inline(always)]
    fn of_address(policy: Policy, dimension: Dimension, address: u32) -> Option<Self> {
        let lines = policy.dimension(dimension)?;
        Self::new(lines, dimension::class_of_address(&lines, u32::from_be(address)))
    }

    /// Of a port in network byte order.
    #[inline(always)]
    fn of_port(policy: Policy, dimension: Dimension, port: u16) -> Option<Self> {
        let lines = policy.dimension(dimension)?;
        Self::new(lines, dimension::class_of_port(&lines, u16::from_be(port)))
    }

    #[inline(always)]
    fn word(&self, elsewhere: u64, word: u32) -> u64 {
        elsewhere ^ dimension::difference(&self.lines, self.number, self.changed, word)
    }
}

/// A search under way.
struct Search {
    filters: PolicyMap,
    source: Class,
    destination: Class,
    source_port: Class,
    destination_port: Class,
    /// Class of the protocol.
    protocol: u32,
    /// Filters before this one are passed over.
    position: u32,
    /// Words that can have a match and were not searched yet.
    words: u64,
    default_wan: u32,
    /// The WAN found; 0: none yet.
    found: u32,
}

/// `None`: a map had no entry where a filled policy has one.
#[inline(always)]
fn search(set: PolicySet, tuple: &FlowKey4, default_wan: u32) -> Option<Match> {
    let policy = Policy::in_force(set);
    let filters = policy.filters()?;
    let protocol = filters::protocol_class(&filters, tuple.protocol)?;
    let source = Class::of_address(policy, Dimension::Source, tuple.source)?;
    let destination = Class::of_address(policy, Dimension::Destination, tuple.destination)?;
    let source_port = Class::of_port(policy, Dimension::SourcePort, tuple.source_port)?;
    let destination_port = Class::of_port(policy, Dimension::DestinationPort, tuple.destination_port)?;
    let changed = [source.changed, destination.changed, source_port.changed, destination_port.changed];
    // The verifier does not know this value, and must not: checking one step from any word is checking all.
    // From a known one it walks through the words one by one, 300 000 instructions for each program.
    let words = filters::candidates(&filters, protocol, changed)?
        & source.live
        & destination.live
        & source_port.live
        & destination_port.live;
    if words == 0 {
        return Some(Match::Nothing);
    }
    let mut search = Search {
        filters,
        source,
        destination,
        source_port,
        destination_port,
        protocol,
        position: 0,
        words,
        default_wan,
        found: 0,
    };
    // A loop the verifier checks once, however many steps it takes (Linux 5.17). An unrolled or bounded
    // one makes it walk every step with every outcome of the one before.
    //
    // SAFETY: the callback has the signature the helper calls, and `search` outlives the call.
    unsafe {
        bpf_loop(MAX_STEPS, step as *mut c_void, (&raw mut search).cast(), 0);
    }
    Some(match links::wan(search.found) {
        Some(wan) if search.found != 0 => Match::Wan(wan),
        _ => Match::Nothing,
    })
}

/// Returned by [`step`]: go on.
const CONTINUE: i64 = 0;
/// Returned by [`step`]: the search is over.
const STOP: i64 = 1;

/// One step of the search.
#[inline(never)]
extern "C" fn step(_index: u32, search: *mut Search) -> i64 {
    // SAFETY: `bpf_loop` hands over the pointer it was given, and nobody else uses it meanwhile.
    let search = unsafe { &mut *search };
    if search.words == 0 {
        return STOP;
    }
    let word = search.words.trailing_zeros();
    let Some(row) = filters::row(&search.filters, search.protocol, word) else { return STOP };
    let [source, destination, source_port, destination_port] = row.elsewhere;
    let mut candidates = row.protocol
        & search.source.word(source, word)
        & search.destination.word(destination, word)
        & search.source_port.word(source_port, word)
        & search.destination_port.word(destination_port, word);
    if search.position / BITS == word {
        candidates &= u64::MAX << (search.position % BITS);
    }
    if candidates == 0 {
        search.words &= search.words - 1;
        return CONTINUE;
    }
    // The compiler knows that this is below 64 and would drop the checks that show it to the verifier, which
    // knows nothing of the table that trailing zeros are counted with.
    let bit = black_box(candidates.trailing_zeros());
    let Some(filter) = filters::filter(&search.filters, &row, bit) else { return STOP };
    if filter.wan != search.default_wan
        && let Some(wan) = links::wan(filter.wan)
        && wan.usable != 0
    {
        search.found = filter.wan;
        return STOP;
    }
    search.position = filter.skip_to;
    let next = filter.skip_to / BITS;
    search.words &= if next < BITS { u64::MAX << next } else { 0 };
    CONTINUE
}

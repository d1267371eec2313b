//! The first filter that matches a packet and whose WAN takes filtered traffic now.

use core::{ffi::c_void, hint::black_box};

use aya_ebpf::helpers::generated::bpf_loop;
use multiwans_common::{
    FlowKey4,
    dimension::{self, Dimension, ELSEWHERE},
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

/// What the search came to. Plain numbers, all of them always set: of an enum, the compiler reads what a
/// variant does not have and throws it away, which the verifier does not take.
#[derive(Clone, Copy)]
pub struct Match {
    /// The WAN's number; 0: no filter matched.
    pub wan: u32,
    /// The filter's number in its policy, where one matched.
    pub filter: u32,
    /// Whether the maps are filled.
    pub is_ready: bool,
}

/// Looks for the first filter that matches. Filters whose WAN is out of service are passed over, and so
/// are those of the default WAN: they are lifted while it is the default.
#[inline(always)]
pub fn first_match(policy: Policy, tuple: &FlowKey4, default_wan: u32) -> Match {
    match search(policy, tuple, default_wan) {
        Some(found) => found,
        None => Match { wan: 0, filter: 0, is_ready: false },
    }
}

/// A packet's way to its class in one dimension: as far as the root.
#[derive(Clone, Copy)]
struct Start {
    lines: PolicyMap,
    /// The root's entry.
    entry: u32,
}

impl Start {
    /// `key`: a port or the upper half of an address, host byte order.
    #[inline(always)]
    fn new(policy: Policy, filters: PolicyMap, dimension: Dimension, key: u16) -> Option<Self> {
        if !policy.uses(dimension) {
            // Nothing of it is read any more.
            return Some(Self { lines: filters, entry: ELSEWHERE });
        }
        let lines = policy.place.dimension(dimension)?;
        Some(Self { lines, entry: dimension::root(&lines, key) })
    }
}

/// A packet's class in one dimension.
struct Class {
    lines: PolicyMap,
    number: u32,
    /// Words that differ from those of the rows.
    changed: u64,
}

impl Class {
    /// The class with a number. Leaves in `words` those in which it can match: they are not kept, for the stack is short.
    #[inline(always)]
    fn new(lines: PolicyMap, number: u32, is_used: bool, words: &mut u64) -> Option<Self> {
        if !is_used {
            return Some(Self { lines, number, changed: 0 });
        }
        let [live, changed] = dimension::class(&lines, number)?;
        *words &= live;
        Some(Self { lines, number, changed })
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
    /// The filter that sends there.
    filter: u32,
}

/// `None`: a map had no entry where a filled policy has one.
#[inline(always)]
fn search(policy: Policy, tuple: &FlowKey4, default_wan: u32) -> Option<Match> {
    let filters = policy.place.filters()?;
    let (from, to) = (u32::from_be(tuple.source), u32::from_be(tuple.destination));
    // The places in the roots first, all of them: each is a line that no cache of the core may have, and none waits for
    // another's. What is below is found with what they hold.
    let destination = Start::new(policy, filters, Dimension::Destination, (to >> 16) as u16)?;
    let port = u16::from_be(tuple.destination_port);
    let destination_port = Start::new(policy, filters, Dimension::DestinationPort, port)?;
    let source = Start::new(policy, filters, Dimension::Source, (from >> 16) as u16)?;
    let port = u16::from_be(tuple.source_port);
    let source_port = Start::new(policy, filters, Dimension::SourcePort, port)?;
    let protocol = filters::protocol_class(&filters, tuple.protocol)?;
    let mut words = u64::MAX;
    let class = |start: Start, number: u32, dimension: Dimension, words: &mut u64| {
        Class::new(start.lines, number, policy.uses(dimension), words)
    };
    let number = dimension::below_root(&destination.lines, destination.entry, to);
    let destination = class(destination, number, Dimension::Destination, &mut words)?;
    let destination_port =
        class(destination_port, destination_port.entry, Dimension::DestinationPort, &mut words)?;
    let number = dimension::below_root(&source.lines, source.entry, from);
    let source = class(source, number, Dimension::Source, &mut words)?;
    let source_port = class(source_port, source_port.entry, Dimension::SourcePort, &mut words)?;
    let changed = [source.changed, destination.changed, source_port.changed, destination_port.changed];
    // The verifier does not know this value, and must not: checking one step from any word is checking all.
    // From a known one it walks through the words one by one, 300 000 instructions for each program.
    words &= filters::candidates(&filters, protocol, changed)?;
    if words == 0 {
        return Some(Match { wan: 0, filter: 0, is_ready: true });
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
        filter: 0,
    };
    // A loop the verifier checks once, however many steps it takes (Linux 5.17). An unrolled or bounded
    // one makes it walk every step with every outcome of the one before.
    //
    // SAFETY: the callback has the signature the helper calls, and `search` outlives the call.
    unsafe {
        bpf_loop(MAX_STEPS, step as *mut c_void, (&raw mut search).cast(), 0);
    }
    Some(Match { wan: search.found, filter: search.filter, is_ready: true })
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
        search.filter = word * BITS + bit;
        return STOP;
    }
    search.position = filter.skip_to;
    let next = filter.skip_to / BITS;
    search.words &= if next < BITS { u64::MAX << next } else { 0 };
    CONTINUE
}

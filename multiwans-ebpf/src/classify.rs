//! The first filter that matches a packet and whose WAN takes filtered traffic now.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_loop;
use multiwans_common::{BITS_PER_WORD, FlowKey4, PolicySet, VECTOR_WORDS, Vector, WanEntry};

use crate::{links, policy::Policy};

/// Steps of the search: each moves on to another word of the vectors or past a run of filters of one
/// WAN. There are 64 words, and at most 252 such runs because filters stand in order of their WANs.
const MAX_STEPS: u32 = (VECTOR_WORDS + 256) as u32;

const BITS: u32 = BITS_PER_WORD as u32;

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

/// A search under way.
struct Search<'a> {
    policy: Policy,
    protocol: &'a Vector,
    source: &'a Vector,
    destination: &'a Vector,
    source_port: &'a Vector,
    destination_port: &'a Vector,
    /// Words in use.
    words: u32,
    /// Bit to go on from.
    position: u32,
    default_wan: u32,
    /// The WAN found; 0: none yet.
    found: u32,
}

/// `None`: a map had no entry where a filled policy has one.
#[inline(always)]
fn search(set: PolicySet, tuple: &FlowKey4, default_wan: u32) -> Option<Match> {
    let policy = Policy::in_force(set);
    let head = policy.head()?;
    if head.words == 0 {
        return Some(Match::Nothing);
    }
    let mut search = Search {
        policy,
        protocol: policy.vector(head.protocols[tuple.protocol as usize])?,
        source: policy.vector(policy.source(head, tuple.source))?,
        destination: policy.vector(policy.destination(head, tuple.destination))?,
        source_port: policy.vector(policy.source_port(head, tuple.source_port))?,
        destination_port: policy.vector(policy.destination_port(head, tuple.destination_port))?,
        words: head.words,
        // Zero, but the verifier does not know it: checking one step from any position is checking all. From a
        // known one it walks through the words one by one, 300 000 instructions and half a second for each program.
        position: head.zero,
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
extern "C" fn step(_index: u32, search: *mut Search<'_>) -> i64 {
    // SAFETY: `bpf_loop` hands over the pointer it was given, and nobody else uses it meanwhile.
    let search = unsafe { &mut *search };
    let word = search.position / BITS;
    if word >= search.words {
        return STOP;
    }
    let index = word as usize % VECTOR_WORDS;
    let candidates = search.protocol.words[index]
        & search.source.words[index]
        & search.destination.words[index]
        & search.source_port.words[index]
        & search.destination_port.words[index]
        & (u64::MAX << (search.position % BITS));
    if candidates == 0 {
        search.position = (word + 1) * BITS;
        return CONTINUE;
    }
    let Some(filter) = search.policy.filter(word * BITS + candidates.trailing_zeros()) else {
        return STOP;
    };
    if filter.wan != search.default_wan
        && let Some(wan) = links::wan(filter.wan)
        && wan.usable != 0
    {
        search.found = filter.wan;
        return STOP;
    }
    search.position = filter.skip_to;
    CONTINUE
}

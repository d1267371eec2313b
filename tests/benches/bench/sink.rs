//! Where packets end: a program at an interface's ingress that counts ours and drops them. It sees from the payload
//! by which WAN each should have come.

use crate::asm::{If, Size, add, atomic_add, call, copy, exit, load, map, set, skip_if, store};
use crate::bpf::{Kind, Program, SharedArray};
use crate::frame::{MAGIC, PAYLOAD};
use anyhow::{Context, Result};
use multiwans_tests::netns::Namespace;
use std::os::fd::OwnedFd;

/// `bpf_map_lookup_elem`
const MAP_LOOKUP_ELEM: i32 = 1;
/// `bpf_skb_load_bytes`
const SKB_LOAD_BYTES: i32 = 26;
/// `TC_ACT_SHOT`
const DROP: i32 = 2;
/// `TC_ACT_UNSPEC`
const GO_ON: i32 = -1;

/// Which packets a sink takes for right.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Expect {
    /// Those for this WAN.
    Wan(u8),
    /// All of ours.
    Any,
}

/// A sink at work. It goes with this value.
pub(crate) struct Sink {
    counts: SharedArray,
    _program: Program,
    _link: OwnedFd,
}

impl Sink {
    /// Puts one before everything at an interface's ingress.
    pub(crate) fn attach(place: &Namespace, iface: &str, expect: Expect) -> Result<Self> {
        let counts = SharedArray::new(8, 2)?;
        let program = Program::load(Kind::Classifier, "mwbench_sink", &code(&counts, expect))?;
        let link = place
            .run(|| program.attach_ingress(nix::net::if_::if_nametoindex(iface)?))
            .with_context(|| format!("at {iface} in {}", place.name()))?;
        Ok(Self { counts, _program: program, _link: link })
    }

    /// Packets of ours that came where they should.
    pub(crate) fn right(&self) -> u64 {
        self.counts.number(0)
    }

    /// Packets of ours that should have come elsewhere.
    pub(crate) fn wrong(&self) -> u64 {
        self.counts.number(1)
    }
}

/// The program. What is not ours goes on; ours is counted under key 0 or 1 and dropped.
fn code(counts: &SharedArray, expect: Expect) -> Vec<u64> {
    // A packet's expected WAN is a byte, so 256 never compares equal.
    let wan = match expect {
        Expect::Wan(wan) => i32::from(wan),
        Expect::Any => 256,
    };
    let key_if_equal = i32::from(matches!(expect, Expect::Any));
    let offset = i32::try_from(PAYLOAD).unwrap_or(0);
    let mut code = vec![
        // r0 = bpf_skb_load_bytes(ctx, PAYLOAD, stack - 8, 8)
        set(2, offset),
        copy(3, 10),
        add(3, -8),
        set(4, 8),
        call(SKB_LOAD_BYTES),
        skip_if(If::NotEqual, 0, 0, 17),
        load(Size::Word, 1, 10, -8),
        skip_if(If::NotEqual, 1, MAGIC.cast_signed(), 15),
        load(Size::Byte, 1, 10, -4),
        set(2, key_if_equal),
        skip_if(If::Equal, 1, wan, 1),
        set(2, 1 - key_if_equal),
        store(Size::Word, 10, -12, 2),
        copy(2, 10),
        add(2, -12),
    ];
    code.extend(map(1, counts.fd()));
    code.extend([
        call(MAP_LOOKUP_ELEM),
        skip_if(If::Equal, 0, 0, 2),
        set(1, 1),
        atomic_add(0, 0, 1),
        set(0, DROP),
        exit(),
        // Jumps from above with 17 and 15 end here.
        set(0, GO_ON),
        exit(),
    ]);
    code
}

//! Steering that costs nothing to decide: a program at the LAN's ingress marks each packet with the WAN that stands in its
//! payload, and routing goes by the daemon's rules. What it lacks of `nothing` is the price of the kernel's policy
//! routing; what the daemon lacks of it is the price of deciding.

use crate::asm::{If, Size, add, call, copy, exit, load, set, skip_if, store};
use crate::bpf::{Kind, Program};
use crate::frame::{MAGIC, PAYLOAD};
use crate::policy::WANS;
use anyhow::{Context, Result};
use multiwans_tests::topology::{gateway, wan_iface, wan_ip};
use multiwans_tests::{Lab, Ns};
use std::fmt::Write as _;
use std::os::fd::OwnedFd;

/// `bpf_skb_load_bytes`
const SKB_LOAD_BYTES: i32 = 26;
/// `TC_ACT_UNSPEC`
const GO_ON: i32 = -1;
/// Offset of `mark` in `struct __sk_buff`.
const MARK: i16 = 8;
/// Where the daemon's rules begin by default.
const PRIORITY: u32 = 30_000;

/// The program at work. It goes with this value.
pub(crate) struct Oracle {
    _program: Program,
    _link: OwnedFd,
}

/// Puts it in force.
pub(crate) fn install(lab: &Lab) -> Result<Oracle> {
    lab.feed(Ns::Router, "ip -batch -", &routing("add", "replace")?)?;
    let program = Program::load(Kind::Classifier, "mwbench_oracle", &code())?;
    let link = lab
        .namespace(Ns::Router)
        .run(|| program.attach_ingress(nix::net::if_::if_nametoindex("eth0")?))
        .context("at the router's eth0")?;
    Ok(Oracle { _program: program, _link: link })
}

/// Takes its routing off; the program goes with its value.
pub(crate) fn remove(lab: &Lab) -> Result<()> {
    lab.feed(Ns::Router, "ip -batch -", &routing("delete", "delete")?).map(drop)
}

/// The daemon's rules (`net/plan.rs`) and tables, for `ip -batch`.
fn routing(rule: &str, route: &str) -> Result<String> {
    let mut text = String::new();
    let mut line = |order: u32, rest: String| writeln!(text, "rule {rule} pref {} {rest}", PRIORITY + order);
    line(0, "lookup main suppress_prefixlength 0".into())?;
    for k in 1..=WANS {
        line(10, format!("iif {} lookup main", wan_iface(k)))?;
        line(15, format!("fwmark {k}/0xff lookup {k}"))?;
        line(20, format!("from {} lookup {k}", wan_ip(k)))?;
        line(25, format!("oif {} lookup {k}", wan_iface(k)))?;
    }
    for k in 1..=WANS {
        writeln!(text, "route {route} default via {} dev {} table {k}", gateway(k), wan_iface(k))?;
    }
    Ok(text)
}

fn code() -> Vec<u64> {
    let offset = i32::try_from(PAYLOAD).unwrap_or(0);
    vec![
        copy(6, 1),
        // r0 = bpf_skb_load_bytes(ctx, PAYLOAD, stack - 8, 8)
        set(2, offset),
        copy(3, 10),
        add(3, -8),
        set(4, 8),
        call(SKB_LOAD_BYTES),
        skip_if(If::NotEqual, 0, 0, 4),
        load(Size::Word, 1, 10, -8),
        skip_if(If::NotEqual, 1, MAGIC.cast_signed(), 2),
        load(Size::Byte, 1, 10, -4),
        store(Size::Word, 6, MARK, 1),
        // Jumps from above end here.
        set(0, GO_ON),
        exit(),
    ]
}

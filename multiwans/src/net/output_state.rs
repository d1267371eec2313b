//! From the rules for the router's own traffic that stand to those that should: written aside, then
//! switched to in one step, so that no packet is judged by a mixture.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv4Addr;

use netlink_packet_route::rule::RuleMessage;

use super::output_plan::{frame, order, switch};
use super::output_rules::{self, OutputRule, Packets};
use super::plan::Setup;
use super::rtnl::Rtnl;
use super::{RULE_PRIORITIES, rules};
use crate::types::WanMark;

/// What should stand; by default nothing.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    base: u32,
    /// The same filters, for either block.
    blocks: [Vec<OutputRule>; 2],
    /// Descriptions of filters that come to too many rules.
    pub(super) left_out: Vec<String>,
}

impl Wanted {
    /// For these WANs' filters; see [`OutputFilters::block`](super::output_plan::OutputFilters::block).
    pub(super) fn new(
        setup: &Setup,
        steered: &BTreeSet<WanMark>,
        source: Option<Ipv4Addr>,
        programs: bool,
    ) -> Self {
        let base = setup.rule_priority;
        let block =
            |n: usize| setup.output.block(base, order::BLOCKS[n], |w| steered.contains(&w), source, programs);
        let ((first, left_out), (second, _)) = (block(0), block(1));
        let left_out = left_out.into_iter().map(str::to_owned).collect();
        Self { base, blocks: [first, second], left_out }
    }

    /// The rules of the filters, as they would be in the first block.
    pub(super) fn rules(&self) -> &[OutputRule] {
        &self.blocks[0]
    }

    fn is_empty(&self) -> bool {
        self.rules().is_empty()
    }
}

/// Rules by priority, in the kernel's order.
pub(super) type Standing = BTreeMap<u32, Vec<OutputRule>>;

/// Takes those for the router's own traffic out of all our rules. One among them that we would not have written is left
/// with the others, by which it is deleted.
pub(super) fn split(all: Vec<RuleMessage>, bases: &[u32]) -> (Standing, Vec<RuleMessage>) {
    let is_output = |message: &RuleMessage| {
        let priority = rules::priority(message);
        bases.iter().any(|base| (base + order::FIRST..base + RULE_PRIORITIES).contains(&priority))
    };
    let (mut standing, mut others) = (Standing::new(), Vec::new());
    for message in all {
        match OutputRule::parse(&message).filter(|_| is_output(&message)) {
            Some(rule) => standing.entry(rule.priority).or_default().push(rule),
            None => others.push(message),
        }
    }
    (standing, others)
}

/// Makes them what they should be. Returns how many rules of filters are in force if that took anything.
pub(super) async fn apply(
    rtnl: &mut Rtnl,
    standing: &Standing,
    wanted: &Wanted,
) -> io::Result<Option<usize>> {
    let target = |block: usize| complete(wanted, block);
    if wanted.is_empty() {
        if standing.is_empty() {
            return Ok(None);
        }
        clear(rtnl, standing).await?;
        return Ok(Some(0));
    }
    let is_right = |block: &usize| target(*block) == *standing;
    if [0, 1].iter().any(is_right) {
        return Ok(None);
    }

    let switch_at = wanted.base + order::SWITCH;
    let in_force = standing.get(&switch_at).and_then(|rules| rules.first().cloned());
    let block = usize::from(in_force == Some(switch(wanted.base, order::BLOCKS[0])));
    // What is neither the frame nor the block in force goes first.
    let kept = |priority: &u32| {
        let old = wanted.base + order::BLOCKS[1 - block];
        (in_force.is_some() && (old..old + order::BLOCK_LENGTH).contains(priority)) || *priority == switch_at
    };
    let [end, guard] = frame(wanted.base);
    let is_framed = |rule: &OutputRule| standing.get(&rule.priority) == Some(&vec![rule.clone()]);
    let framed = is_framed(&end) && is_framed(&guard);
    let stale = standing.iter().filter(|(priority, _)| {
        !(kept(priority) || framed && [end.priority, guard.priority].contains(priority))
    });
    for (priority, rules) in stale {
        delete(rtnl, *priority, rules.len()).await?;
    }
    if !framed {
        // The place to go to before the rule that goes there: without it the rule would be passed over.
        output_rules::append(rtnl, &end).await?;
        output_rules::append(rtnl, &guard).await?;
    }
    for rule in &wanted.blocks[block] {
        output_rules::append(rtnl, rule).await?;
    }
    // The old switch is first until it is deleted; from then on the new one is.
    output_rules::append(rtnl, &switch(wanted.base, order::BLOCKS[block])).await?;
    for (priority, rules) in standing.iter().filter(|(priority, _)| kept(priority)) {
        // The switch before the blocks: 41 comes before 50.
        delete(rtnl, *priority, rules.len()).await?;
    }
    Ok(Some(wanted.blocks[block].len()))
}

/// Everything that stands when a block is in force.
fn complete(wanted: &Wanted, block: usize) -> Standing {
    let mut all = Standing::new();
    let rules = wanted.blocks[block].iter().cloned();
    let switch = switch(wanted.base, order::BLOCKS[block]);
    for rule in rules.chain(frame(wanted.base)).chain([switch]) {
        all.entry(rule.priority).or_default().push(rule);
    }
    all
}

/// Takes all away: the switch first, then what it leads to, and last what keeps forwarded packets out.
async fn clear(rtnl: &mut Rtnl, standing: &Standing) -> io::Result<()> {
    let keeps_out = |rules: &[OutputRule]| rules.iter().any(|rule| rule.packets == Packets::Decided);
    let (guards, others): (Vec<_>, Vec<_>) = standing.iter().partition(|(_, rules)| keeps_out(rules));
    // Without its place to go to the guard is passed over; there is nothing left to keep anyone from then.
    for (priority, rules) in others.into_iter().chain(guards) {
        delete(rtnl, *priority, rules.len()).await?;
    }
    Ok(())
}

async fn delete(rtnl: &mut Rtnl, priority: u32, count: usize) -> io::Result<()> {
    for _ in 0..count {
        output_rules::delete_first(rtnl, priority).await?;
    }
    Ok(())
}

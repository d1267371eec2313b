//! Links that lose packets and go dark, probed round by round on a virtual clock.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::Ipv4Addr;
use std::ops::Range;
use std::time::Duration;

use proptest::prelude::*;

use super::world::{World, config};
use crate::config::Config;
use crate::engine::Outcome;
use crate::types::LinkState::{self, Off, On};

/// Of the simulated round trip.
const RTT: Duration = Duration::from_millis(12);

/// A link beyond the cable, which stays in.
#[derive(Clone, Default)]
struct Link {
    /// When the provider swallows everything.
    outages: Vec<Range<Duration>>,
    /// Share of echo requests lost, each target's on its own.
    loss: f64,
    /// How many of the targets never answer.
    dead_targets: u32,
    /// When its first round goes out.
    phase: Duration,
}

/// How many targets a round asks.
const TARGETS: u32 = 3;

/// What became of a run: when which link came to which state, and when which was the default.
struct Timeline {
    states: Vec<(Duration, u8, LinkState)>,
    defaults: Vec<(Duration, String)>,
}

/// xorshift64*: a fixed sequence, so that a failing run fails again.
struct Dice(u64);

impl Dice {
    fn below(&mut self, share: f64) -> bool {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let drawn = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        (drawn as f64) < share * f64::from(u32::MAX)
    }
}

impl Link {
    fn answers(&self, sent: Duration, dice: &mut Dice) -> bool {
        let dark = self.outages.iter().any(|outage| outage.contains(&sent));
        // Every target's die is rolled, so that the sequence does not depend on the outcome.
        let answers = (0..TARGETS - self.dead_targets).filter(|_| !dice.below(self.loss)).count();
        !dark && answers > 0
    }
}

fn simulate(config: &Config, links: &[Link], lasts: Duration) -> Timeline {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    // What the prober reports: when, of which link, and whether it was answered.
    let mut reports = BinaryHeap::new();
    for (mark, link) in (1u8..).zip(links) {
        let mut sent = link.phase;
        while sent < lasts {
            let answered = link.answers(sent, &mut dice);
            let reported = sent + if answered { RTT } else { config.ping.timeout };
            reports.push(Reverse((reported, mark, answered)));
            sent += config.probe.interval;
        }
    }

    let mut world = World::of(config);
    world.look();
    world.settle();
    let mut timeline = Timeline { states: Vec::new(), defaults: Vec::new() };
    let mut states = vec![LinkState::Unknow; links.len()];
    while let Some(Reverse((at, mark, answered))) = reports.pop() {
        world.now = at;
        let commands = world.round(
            mark,
            if answered {
                Outcome::Answered { target: Ipv4Addr::new(1, 1, 1, 1), rtt: RTT }
            } else {
                Outcome::Silent { send_error: None }
            },
        );
        world.settle();
        world.record.clear();
        if commands.is_empty() {
            continue;
        }
        let state = &mut states[usize::from(mark) - 1];
        if *state != world.state(mark) {
            *state = world.state(mark);
            timeline.states.push((at, mark, *state));
        }
        let default = world.engine.status().default.unwrap_or_default();
        if timeline.defaults.last().map(|(_, last)| last) != Some(&default) {
            timeline.defaults.push((at, default));
        }
    }
    timeline
}

impl Timeline {
    fn states_of(&self, mark: u8) -> Vec<(Duration, LinkState)> {
        self.states.iter().filter(|(_, of, _)| *of == mark).map(|(at, _, state)| (*at, *state)).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    /// An outage is noticed as soon as `1 + ping.count` rounds were sent into it and had their time, and not
    /// before; its end after three answered rounds, once those sent into the outage are through.
    #[test]
    fn an_outage_is_noticed_in_time(
        interval in 100u64..2_000,
        timeout in 1u64..=5,
        count in 1u8..=2,
        phase in 0u64..2_000,
        starts in 10_000u64..20_000,
        lasts in 20_000u64..60_000,
    ) {
        let mut config = config(&[Some(1), Some(2)]);
        config.ping.count = count;
        config.ping.timeout = Duration::from_secs(timeout);
        config.probe.interval = Duration::from_millis(interval);
        let outage = Duration::from_millis(starts)..Duration::from_millis(starts + lasts);
        let failing =
            Link { outages: vec![outage.clone()], phase: Duration::from_millis(phase), ..Link::default() };
        let timeline = simulate(&config, &[failing, Link::default()], outage.end + Duration::from_secs(60));

        let states = timeline.states_of(1);
        let [(_, On), (off, Off), (on, On)] = states[..] else {
            return Err(TestCaseError::fail(format!("{states:?}")));
        };
        let (interval, timeout) = (config.probe.interval, config.ping.timeout);
        // The first round into the outage may come a whole interval after its beginning.
        let rounds = u32::from(count) + 1;
        prop_assert!(off <= outage.start + interval * rounds + timeout, "{off:?}");
        prop_assert!(off >= outage.start + interval * (rounds - 1) + timeout, "{off:?}");
        prop_assert!(on >= outage.end + interval * 2, "{on:?}");
        prop_assert!(on <= outage.end + timeout + interval * 4 + RTT, "{on:?}");
        prop_assert_eq!(timeline.states_of(2).len(), 1);
        let defaults: Vec<&str> = timeline.defaults.iter().map(|(_, default)| default.as_str()).collect();
        let defaults: Vec<&str> = defaults.into_iter().filter(|default| !default.is_empty()).collect();
        prop_assert_eq!(defaults, ["WAN1", "WAN2", "WAN1"]);
        prop_assert_eq!(timeline.defaults.iter().rev().nth(1).map(|(at, _)| *at), Some(off), "at once");
    }

    /// What fewer than `1 + ping.count` rounds can see takes no link down.
    #[test]
    fn a_moments_silence_is_no_outage(starts in 10_000u64..20_000, lasts in 0u64..1_000) {
        let outage = Duration::from_millis(starts)..Duration::from_millis(starts + lasts);
        let link = Link { outages: vec![outage], ..Link::default() };
        let timeline = simulate(&config(&[Some(1)]), &[link], Duration::from_secs(60));
        prop_assert_eq!(timeline.states.len(), 1);
    }
}

#[test]
fn two_percent_loss_with_a_dead_target_fails_nothing_over() {
    let lossy = Link { loss: 0.02, dead_targets: 1, ..Link::default() };
    let timeline =
        simulate(&config(&[Some(1), Some(2)]), &[lossy.clone(), lossy], Duration::from_secs(21_600));
    assert_eq!(timeline.defaults.last().unwrap().1, "WAN1");
    assert_eq!(timeline.states.len(), 2, "{:?}", timeline.states);
}

#[test]
fn a_link_dark_from_the_start_holds_the_choice_back_for_its_rounds_only() {
    let dark = Link { outages: vec![Duration::ZERO..Duration::MAX], ..Link::default() };
    let timeline = simulate(&config(&[Some(1), Some(2)]), &[dark, Link::default()], Duration::from_secs(20));
    let chosen = timeline.defaults.last().unwrap();
    assert_eq!(*chosen, (Duration::from_secs(4), "WAN2".to_owned()));
}

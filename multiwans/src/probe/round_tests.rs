use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::probe::echo::Echo;

const A: Ipv4Addr = Ipv4Addr::new(1, 1, 1, 1);
const B: Ipv4Addr = Ipv4Addr::new(9, 9, 9, 9);
const TIMEOUT: Duration = Duration::from_secs(3);
const SILENT: Outcome = Outcome::Silent { send_error: None };

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn reply(source: Ipv4Addr, sequence: u16, cookie: u64) -> Reply {
    Reply { source, echo: Echo { identifier: 0, sequence, cookie: Cookie(cookie) } }
}

/// One round to A and B, with cookie 7, begun at the given time.
fn begun(start: Instant) -> (Rounds, u16) {
    let mut rounds = Rounds::new(TIMEOUT);
    let sequence = rounds.begin(Cookie(7), start);
    rounds.asked(A, start);
    rounds.asked(B, start + ms(1));
    (rounds, sequence)
}

#[test]
fn the_first_answer_is_the_outcome_and_the_second_is_nothing() {
    let start = Instant::now();
    let (mut rounds, seq) = begun(start);
    let outcome = rounds.answer(&reply(B, seq, 7), start + ms(21));
    assert_eq!(outcome, Some(Outcome::Answered { target: B, rtt: ms(20) }));
    assert_eq!(rounds.answer(&reply(A, seq, 7), start + ms(22)), None);
    assert_eq!(rounds.expire(start + TIMEOUT * 2), None);
    assert_eq!(rounds.next_deadline(), None);
}

#[test]
fn what_does_not_match_leaves_the_round_open() {
    let start = Instant::now();
    let (mut rounds, seq) = begun(start);
    let stranger = Ipv4Addr::new(6, 6, 6, 6);
    for (wrong, why) in [
        (reply(stranger, seq, 7), "not asked"),
        (reply(A, seq, 8), "cookie"),
        (reply(A, seq.wrapping_add(1), 7), "sequence"),
    ] {
        assert_eq!(rounds.answer(&wrong, start + ms(5)), None, "{why}");
    }
    assert!(rounds.answer(&reply(A, seq, 7), start + ms(5)).is_some());
}

#[test]
fn silence_is_told_at_the_timeout_and_not_before() {
    let start = Instant::now();
    let (mut rounds, seq) = begun(start);
    assert_eq!(rounds.next_deadline(), Some(start + TIMEOUT));
    assert_eq!(rounds.expire(start + TIMEOUT - ms(1)), None);
    assert_eq!(rounds.expire(start + TIMEOUT), Some(SILENT));
    assert_eq!(rounds.expire(start + TIMEOUT), None);
    assert_eq!(rounds.answer(&reply(A, seq, 7), start + TIMEOUT), None, "too late");
}

#[test]
fn an_answer_read_late_but_before_the_round_was_judged_counts() {
    let start = Instant::now();
    let (mut rounds, seq) = begun(start);
    assert!(rounds.answer(&reply(A, seq, 7), start + TIMEOUT * 5).is_some());
    assert_eq!(rounds.expire(start + TIMEOUT * 5), None);
}

#[test]
fn a_target_that_could_not_be_asked_cannot_answer() {
    let start = Instant::now();
    let mut rounds = Rounds::new(TIMEOUT);
    let seq = rounds.begin(Cookie(7), start);
    rounds.not_asked("A: unreachable".into());
    rounds.not_asked("B: unreachable".into());
    assert_eq!(rounds.answer(&reply(A, seq, 7), start), None);
    assert_eq!(
        rounds.expire(start + TIMEOUT),
        Some(Outcome::Silent { send_error: Some("A: unreachable".into()) })
    );
}

#[test]
fn an_answer_makes_older_silence_old_news() {
    let start = Instant::now();
    let (mut rounds, _) = begun(start);
    let second = rounds.begin(Cookie(8), start + ms(1000));
    rounds.asked(A, start + ms(1000));
    let third = rounds.begin(Cookie(9), start + ms(2000));
    rounds.asked(A, start + ms(2000));
    assert!(rounds.answer(&reply(A, second, 8), start + ms(2001)).is_some());
    // Only the third is still waited for.
    assert_eq!(rounds.next_deadline(), Some(start + ms(2000) + TIMEOUT));
    assert_eq!(rounds.expire(start + ms(2000) + TIMEOUT), Some(SILENT));
    assert_eq!(rounds.answer(&reply(A, third, 9), start + ms(9000)), None);
}

#[test]
fn the_sequence_wraps() {
    let start = Instant::now();
    let mut rounds = Rounds { next_sequence: u16::MAX, ..Rounds::new(TIMEOUT) };
    assert_eq!(rounds.begin(Cookie(1), start), u16::MAX);
    assert_eq!(rounds.begin(Cookie(2), start), 0);
}

/// What happens next in a random run.
#[derive(Debug, Clone)]
enum Step {
    Begin,
    /// The answer to the round this many before the newest.
    Answer(usize),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![Just(Step::Begin), (0usize..6).prop_map(Step::Answer), (1u64..2000).prop_map(Step::Wait)]
}

proptest! {
    /// A round ends once at most; its silence is never early, and never told after the answer to a newer
    /// one; a round whose time is up is closed.
    #[test]
    fn every_round_ends_once(steps in proptest::collection::vec(step(), 1..200)) {
        let mut now = Instant::now();
        let mut rounds = Rounds::new(TIMEOUT);
        let mut begun: Vec<(u16, Instant)> = Vec::new();
        let mut ended = HashSet::new();
        let mut answered = None;
        for step in steps {
            match step {
                Step::Begin => {
                    // No two begin at the same time, so that a deadline names its round.
                    now += ms(1);
                    let cookie = Cookie(u64::try_from(begun.len()).unwrap() + 100);
                    let seq = rounds.begin(cookie, now);
                    rounds.asked(A, now);
                    begun.push((seq, now));
                }
                Step::Answer(back) => {
                    let Some(place) = begun.len().checked_sub(1 + back) else { continue };
                    let (seq, at) = begun[place];
                    if let Some(outcome) = rounds.answer(&reply(A, seq, u64::from(seq) + 100), now) {
                        prop_assert_eq!(outcome, Outcome::Answered { target: A, rtt: now - at });
                        prop_assert!(ended.insert(seq));
                        prop_assert!(answered.is_none_or(|newer| newer < seq));
                        answered = Some(seq);
                    }
                }
                Step::Wait(by) => now += ms(by),
            }
            while let Some(deadline) = rounds.next_deadline().filter(|deadline| *deadline <= now) {
                let &(seq, _) = begun.iter().find(|(_, at)| *at + TIMEOUT == deadline).unwrap();
                prop_assert_eq!(rounds.expire(now), Some(SILENT));
                prop_assert!(ended.insert(seq));
                prop_assert!(answered.is_none_or(|newer| newer < seq));
            }
            prop_assert_eq!(rounds.expire(now), None);
        }
        for (seq, at) in begun {
            let forgotten = answered.is_some_and(|newer| seq < newer);
            prop_assert!(ended.contains(&seq) || forgotten || at + TIMEOUT > now);
        }
    }
}

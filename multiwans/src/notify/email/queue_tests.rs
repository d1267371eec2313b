use lettre::Address;
use proptest::prelude::*;

use super::*;

fn message(name: &str) -> Message {
    let address = Address::new("root", "localhost").unwrap();
    Message { subject: name.into(), from: address.clone(), recipients: vec![address], bytes: Vec::new() }
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn taken(queue: &mut Queue, seconds: u64) -> Option<String> {
    queue.take(at(seconds)).map(|taken| taken.message().subject.clone())
}

#[test]
fn the_oldest_is_tried_first_and_a_failing_server_is_left_in_peace() {
    let mut queue = Queue::default();
    queue.push(message("a"), at(0));
    queue.push(message("b"), at(1));
    for (now, pause) in [(10, 5), (15, 10), (25, 20), (45, 40), (85, 80), (165, 160), (325, 300), (625, 300)]
    {
        assert_eq!(queue.due(), Some(if now == 10 { at(1) } else { at(now) }));
        let tried = queue.take(at(now)).unwrap();
        assert_eq!(tried.message().subject, "a");
        assert_eq!(queue.server_failed(tried, at(now)), at(pause));
        assert!(queue.take(at(now + pause - 1)).is_none(), "b waits too");
    }
}

#[test]
fn news_and_a_returning_link_end_the_waiting() {
    let mut queue = Queue::default();
    queue.push(message("a"), at(0));
    let tried = queue.take(at(0)).unwrap();
    queue.server_failed(tried, at(0));
    queue.push(message("b"), at(2));
    let tried = queue.take(at(2)).unwrap();
    assert_eq!(queue.server_failed(tried, at(2)), at(10));
    queue.hurry(at(3));
    assert_eq!(taken(&mut queue, 3).as_deref(), Some("a"));
    assert_eq!(taken(&mut queue, 3).as_deref(), Some("b"));
    assert_eq!(queue.due(), None);
}

#[test]
fn one_message_that_is_not_wanted_now_keeps_no_other_waiting() {
    let mut queue = Queue::default();
    queue.push(message("a"), at(0));
    queue.push(message("b"), at(0));
    let tried = queue.take(at(0)).unwrap();
    assert_eq!(queue.postpone(tried, at(0)).unwrap(), at(5));
    assert_eq!(taken(&mut queue, 0).as_deref(), Some("b"));
    assert_eq!(queue.due(), Some(at(5)));
    assert_eq!(taken(&mut queue, 5).as_deref(), Some("a"));
}

#[test]
fn a_message_is_given_up_after_five_days() {
    let mut queue = Queue::default();
    queue.push(message("a"), at(0));
    let (mut now, mut tries) = (Duration::ZERO, 0);
    let given_up = loop {
        let tried = queue.take(now).unwrap();
        match queue.postpone(tried, now) {
            Ok(_) => (now, tries) = (queue.due().unwrap(), tries + 1),
            Err(message) => break message,
        }
    };
    assert_eq!(given_up.subject, "a");
    assert!(now >= MAX_AGE && now < MAX_AGE + LONGEST_PAUSE, "{now:?} after {tries} tries");
    assert_eq!(queue.due(), None);
}

#[test]
fn the_oldest_makes_room() {
    let mut queue = Queue::default();
    for number in 0..CAPACITY {
        assert!(queue.push(message(&number.to_string()), at(0)).is_none());
    }
    assert_eq!(queue.push(message("new"), at(1)).unwrap().subject, "0");
    assert_eq!(queue.drain().count(), CAPACITY);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    /// Whatever the server does, no message is lost but by the cap, and none is there twice.
    #[test]
    fn every_message_is_somewhere_once(steps in prop::collection::vec((0u8..5, 0u64..400), 1..200)) {
        let mut queue = Queue::default();
        let (mut now, mut pushed, mut gone) = (0, 0, Vec::new());
        for (what, seconds) in steps {
            now += seconds;
            if what == 0 {
                gone.extend(queue.push(message(&pushed.to_string()), at(now)).map(|message| message.subject));
                pushed += 1;
            } else if let Some(tried) = queue.take(at(now)) {
                match what {
                    1 => gone.push(tried.message().subject.clone()),
                    2 => drop(queue.server_failed(tried, at(now))),
                    3 => drop(queue.postpone(tried, at(now))),
                    _ => {
                        queue.hurry(at(now));
                        gone.push(tried.message().subject.clone());
                    }
                }
            }
        }
        gone.extend(queue.drain().map(|message| message.subject));
        gone.sort_by_key(|name| name.parse::<u32>().unwrap());
        prop_assert_eq!(gone, (0..pushed).map(|number: u32| number.to_string()).collect::<Vec<_>>());
    }
}

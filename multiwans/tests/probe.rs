//! The prober against a real kernel: a router's namespace, a provider's, cables between them.

#![allow(clippy::unwrap_used, reason = "the lint's leave for tests does not reach their helpers")]

mod support;

use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::thread;
use std::time::{Duration, Instant};

use multiwans::engine::event::{Binding, Outcome, Round};
use multiwans::probe::{Prober, Targets, Timing};
use multiwans::types::WanMark;
use socket2::Socket;
use support::Netns;
use support::isp::{DEAD, LIVE, LIVE_TOO, Lab, ROUTER, Seen, ms, reply, request, requests};
use tokio::sync::{mpsc, watch};

const QUICK: Timing = Timing { interval: Duration::from_millis(100), timeout: Duration::from_millis(300) };
/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(10);

fn wan(mark: u8) -> WanMark {
    WanMark::new(mark).unwrap()
}

fn start(binding: &Binding, targets: &[Ipv4Addr], timing: Timing) -> (Prober, mpsc::Receiver<Round>) {
    let (tx, rx) = mpsc::channel(64);
    (Prober::spawn(wan(1), binding.clone(), targets.to_vec(), timing, tx), rx)
}

async fn next(rx: &mut mpsc::Receiver<Round>) -> Round {
    tokio::time::timeout(PATIENCE, rx.recv()).await.expect("no round in time").expect("the prober ended")
}

/// The first request of a prober on this thread, which stands still whenever this does not await.
async fn first_request(sniffer: &Socket) -> Seen {
    let start = Instant::now();
    loop {
        tokio::time::sleep(ms(20)).await;
        if let Some(seen) = request(sniffer) {
            return seen;
        }
        assert!(start.elapsed() < PATIENCE, "no request");
    }
}

/// Takes rounds until one is as wanted.
async fn until(rx: &mut mpsc::Receiver<Round>, wanted: impl Fn(&Round) -> bool) {
    let start = Instant::now();
    loop {
        let round = next(rx).await;
        if wanted(&round) {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "still {round:?}");
    }
}

fn is_answer(round: &Round) -> bool {
    matches!(round.outcome, Outcome::Answered { .. })
}

/// Whether nothing could be sent, for this reason.
fn is_refused(round: &Round, why: &str) -> bool {
    matches!(&round.outcome, Outcome::Silent { send_error: Some(reason) } if reason.contains(why))
}

#[test]
fn new_targets_are_asked_from_the_next_round_on() {
    let lab = Lab::new();
    let binding = lab.binding();
    lab.probing(async || {
        let (tx, mut rx) = mpsc::channel(64);
        let targets = watch::Sender::new(Targets::from(vec![DEAD, LIVE]));
        let _prober = Prober::spawn_following(wan(1), binding.clone(), targets.subscribe(), QUICK, tx);
        let by =
            |round: &Round, who| matches!(round.outcome, Outcome::Answered { target, .. } if target == who);
        assert!(by(&next(&mut rx).await, LIVE));
        let changed = Instant::now();
        targets.send_replace(vec![DEAD, LIVE_TOO].into());
        until(&mut rx, |round| by(round, LIVE_TOO)).await;
        // At the most a round that was under way, and the next; a prober begun anew would start at once.
        assert!((ms(50)..ms(300)).contains(&changed.elapsed()), "{:?}", changed.elapsed());
        targets.send_replace(Vec::new().into());
        until(&mut rx, |round| is_refused(round, "no address to probe is known")).await;
        targets.send_replace(Targets { addresses: vec![DEAD], unresolved: true });
        until(&mut rx, |round| round.outcome == Outcome::Unresolved { send_error: None }).await;
        targets.send_replace(vec![LIVE].into());
        drop(targets);
        until(&mut rx, |round| by(round, LIVE)).await;
    });
}

#[test]
fn live_targets_answer_every_round() {
    let lab = Lab::new();
    let binding = lab.binding();
    let took = lab.probing(async || {
        let (_prober, mut rx) = start(&binding, &[LIVE, LIVE_TOO], QUICK);
        let start = Instant::now();
        for _ in 0..6 {
            let round = next(&mut rx).await;
            assert_eq!((round.wan, &round.binding), (wan(1), &binding));
            let Outcome::Answered { target, rtt } = round.outcome else { panic!("{round:?}") };
            assert!([LIVE, LIVE_TOO].contains(&target));
            assert!(rtt > Duration::ZERO && rtt < ms(1000), "{rtt:?}");
        }
        start.elapsed()
    });
    // The first at once, then five intervals: not all at once, and not the interval after the answer.
    assert!((ms(490)..ms(2000)).contains(&took), "{took:?}");
}

#[test]
fn silence_is_told_at_the_timeout_round_by_round() {
    let lab = Lab::new();
    let binding = lab.binding();
    let timing = Timing { interval: ms(100), timeout: ms(700) };
    lab.probing(async || {
        let (_prober, mut rx) = start(&binding, &[DEAD], timing);
        let start = Instant::now();
        for nth in 0..4u32 {
            let round = next(&mut rx).await;
            assert_eq!(round.outcome, Outcome::Silent { send_error: None });
            let due = timing.timeout + timing.interval * nth;
            let at = start.elapsed();
            assert!(at >= due - ms(5) && at < due + ms(400), "round {nth} due at {due:?} told at {at:?}");
        }
    });
}

#[test]
fn one_dead_target_of_two_is_no_silence() {
    let lab = Lab::new();
    let binding = lab.binding();
    lab.probing(async || {
        let (_prober, mut rx) = start(&binding, &[DEAD, LIVE], QUICK);
        for _ in 0..8 {
            let round = next(&mut rx).await;
            assert!(matches!(round.outcome, Outcome::Answered { target: LIVE, .. }), "{round:?}");
        }
    });
}

#[test]
fn a_blackhole_is_noticed_and_its_end_too() {
    let lab = Lab::new();
    let binding = lab.binding();
    lab.probing(async || {
        let (_prober, mut rx) = start(&binding, &[LIVE], QUICK);
        assert!(is_answer(&next(&mut rx).await));
        lab.mute(true);
        until(&mut rx, |round| !is_answer(round)).await;
        lab.mute(false);
        until(&mut rx, is_answer).await;
        // Rounds of the silent time are old news now.
        for _ in 0..5 {
            assert!(is_answer(&next(&mut rx).await));
        }
    });
}

#[test]
fn forged_replies_are_not_accepted() {
    let lab = Lab::new();
    lab.mute(true);
    let binding = lab.binding();
    let (sniffer, forger) = (lab.provider_socket(false), lab.provider_socket(true));
    let send = move |packet: &[u8]| {
        forger.send_to(packet, &SocketAddrV4::new(ROUTER, 0).into()).unwrap();
    };

    // The forgeries, each with everything right but one thing.
    type Forgery = (&'static str, fn(&Seen) -> Vec<u8>);
    let forgeries: [Forgery; 6] = [
        ("another host", |seen| reply(seen, LIVE_TOO, |_| {})),
        ("another cookie", |seen| reply(seen, LIVE, |message| message[15] ^= 1)),
        ("another sequence", |seen| reply(seen, LIVE, |message| message[7] ^= 0x80)),
        ("another identifier", |seen| reply(seen, LIVE, |message| message[5] ^= 1)),
        ("a longer payload", |seen| {
            let mut packet = reply(seen, LIVE, |_| {});
            packet.extend([0, 0]);
            packet
        }),
        ("a wrong checksum", |seen| {
            let mut packet = reply(seen, LIVE, |_| {});
            packet[22] ^= 1;
            packet
        }),
    ];
    for (what, forge) in forgeries {
        let outcome = lab.probing(async || {
            let (_prober, mut rx) = start(&binding, &[LIVE], Timing { interval: PATIENCE, timeout: ms(400) });
            let seen = first_request(&sniffer).await;
            send(&forge(&seen));
            next(&mut rx).await.outcome
        });
        assert_eq!(outcome, Outcome::Silent { send_error: None }, "{what}");
    }

    // The control: with nothing wrong it is accepted.
    let outcome = lab.probing(async || {
        let (_prober, mut rx) = start(&binding, &[LIVE], Timing { interval: PATIENCE, timeout: ms(400) });
        let seen = first_request(&sniffer).await;
        send(&reply(&seen, LIVE, |_| {}));
        next(&mut rx).await.outcome
    });
    assert!(matches!(outcome, Outcome::Answered { target: LIVE, .. }), "{outcome:?}");
}

#[test]
fn the_cookie_and_the_sequence_change_with_the_round_the_identifier_with_the_prober() {
    let lab = Lab::new();
    lab.mute(true);
    let binding = lab.binding();
    let sniffer = lab.provider_socket(false);
    let mut seen = Vec::new();
    for _ in 0..2 {
        lab.probing(async || {
            let (_prober, mut rx) = start(&binding, &[LIVE], QUICK);
            next(&mut rx).await;
        });
        seen.push(requests(&sniffer));
    }
    for rounds in &seen {
        assert!(rounds.len() >= 3);
        for pair in rounds.windows(2) {
            let [a, b] = pair else { unreachable!() };
            assert_eq!(a.message[4..6], b.message[4..6], "one prober, one identifier");
            assert_ne!(a.message[6..8], b.message[6..8], "sequence");
            assert_ne!(a.message[8..], b.message[8..], "cookie");
        }
    }
    assert_ne!(seen[0][0].message[4..6], seen[1][0].message[4..6], "identifier");
}

#[test]
fn replies_to_other_programs_never_reach_the_prober() {
    let lab = Lab::new();
    lab.mute(true);
    let binding = lab.binding();
    let (sniffer, forger) = (lab.provider_socket(false), lab.provider_socket(true));
    let outcome = lab.probing(async || {
        let (_prober, mut rx) = start(&binding, &[LIVE], Timing { interval: PATIENCE, timeout: ms(2000) });
        let seen = first_request(&sniffer).await;
        // Many times what a socket's buffer holds, and the prober is not running meanwhile.
        let foreign = reply(&seen, LIVE, |message| message[5] ^= 1);
        for _ in 0..5000 {
            forger.send_to(&foreign, &SocketAddrV4::new(ROUTER, 0).into()).unwrap();
        }
        forger.send_to(&reply(&seen, LIVE, |_| {}), &SocketAddrV4::new(ROUTER, 0).into()).unwrap();
        next(&mut rx).await.outcome
    });
    assert!(matches!(outcome, Outcome::Answered { .. }), "{outcome:?}");
}

#[test]
fn an_answer_that_waits_while_the_process_stands_still_counts() {
    let lab = Lab::new();
    lab.mute(true);
    let binding = lab.binding();
    let (sniffer, forger) = (lab.provider_socket(false), lab.provider_socket(true));
    for _ in 0..3 {
        let outcome = lab.probing(async || {
            let (_prober, mut rx) = start(&binding, &[LIVE], Timing { interval: PATIENCE, timeout: ms(300) });
            let seen = first_request(&sniffer).await;
            forger.send_to(&reply(&seen, LIVE, |_| {}), &SocketAddrV4::new(ROUTER, 0).into()).unwrap();
            // This thread is the prober's, too: when it runs again, answer and timeout are both there.
            thread::sleep(ms(500));
            next(&mut rx).await.outcome
        });
        assert!(matches!(outcome, Outcome::Answered { .. }), "{outcome:?}");
    }
}

#[test]
fn a_stalled_process_neither_blames_the_link_nor_catches_up() {
    let lab = Lab::new();
    let binding = lab.binding();
    let sniffer = lab.provider_socket(false);
    lab.probing(async || {
        let (prober, mut rx) = start(&binding, &[LIVE], QUICK);
        assert!(is_answer(&next(&mut rx).await));
        for _ in 0..3 {
            // Let a round be sent, but not its answer be read.
            tokio::time::sleep(QUICK.interval).await;
            // Far past the timeout; this thread is the prober's, too.
            thread::sleep(ms(1000));
            assert!(is_answer(&next(&mut rx).await));
        }
        let calm = tokio::time::Instant::now() + ms(400);
        while let Ok(round) = tokio::time::timeout_at(calm, rx.recv()).await {
            assert!(is_answer(&round.unwrap()));
        }
        drop(prober);
    });
    // One at the start, about 1 + 1 around each stall, about 4 at the end; caught up it would be 38.
    let sent = requests(&sniffer).len();
    assert!((6..=18).contains(&sent), "{sent} requests");
}

#[test]
fn an_interface_down_is_silence_with_the_reason_and_ends_when_it_is_up() {
    let lab = Lab::new();
    let binding = lab.binding();
    lab.probing(async || {
        let (_prober, mut rx) = start(&binding, &[LIVE], QUICK);
        assert!(is_answer(&next(&mut rx).await));
        lab.router.ip("link set wan0 down");
        until(&mut rx, |round| is_refused(round, "9.9.9.9 over wan0: Network is unreachable")).await;
        lab.router.ip("link set wan0 up");
        lab.router.ip("route add default via 10.0.1.1 dev wan0");
        until(&mut rx, is_answer).await;
    });
}

#[test]
fn a_firewall_that_refuses_is_silence_with_the_reason() {
    let lab = Lab::new();
    let binding = lab.binding();
    lab.router.command("iptables", "-A OUTPUT -p icmp -j DROP");
    lab.probing(async || {
        let (_prober, mut rx) = start(&binding, &[LIVE], QUICK);
        let round = next(&mut rx).await;
        assert!(is_refused(&round, "Operation not permitted"), "{round:?}");
        lab.router.command("iptables", "-F OUTPUT");
        until(&mut rx, is_answer).await;
    });
}

#[test]
fn a_recreated_interface_needs_a_new_binding() {
    let lab = Lab::new();
    let old = lab.binding();
    lab.probing(async || {
        let (_prober, mut rx) = start(&old, &[LIVE], QUICK);
        assert!(is_answer(&next(&mut rx).await));
        lab.router.ip("link del wan0");
        until(&mut rx, |round| is_refused(round, "Cannot assign requested address")).await;
        lab.connect();
        // The old binding names another interface, whatever its name is.
        until(&mut rx, |round| is_refused(round, "No such device")).await;
        for _ in 0..5 {
            assert!(is_refused(&next(&mut rx).await, "No such device"));
        }
        let new = lab.binding();
        assert_ne!(new.index, old.index);
        let (_prober, mut rx) = start(&new, &[LIVE], QUICK);
        let round = next(&mut rx).await;
        assert!(is_answer(&round), "{round:?}");
        assert_eq!(round.binding, new);
    });
}

#[test]
fn an_address_that_comes_later_is_used_once_it_is_there() {
    let lab = Lab::new();
    let late = Ipv4Addr::new(10, 0, 1, 77);
    let binding = lab.binding_of("wan0", late);
    lab.probing(async || {
        let (_prober, mut rx) = start(&binding, &[LIVE], QUICK);
        let round = next(&mut rx).await;
        assert!(is_refused(&round, "wan0 with address 10.0.1.77: Cannot assign"), "{round:?}");
        lab.router.ip("addr add 10.0.1.77/24 dev wan0");
        until(&mut rx, is_answer).await;
        lab.router.ip("addr del 10.0.1.77/24 dev wan0");
        until(&mut rx, |round| !is_answer(round)).await;
    });
}

#[test]
fn the_peer_sees_the_address_of_the_binding() {
    let lab = Lab::new();
    lab.router.ip("addr add 10.0.1.77/24 dev wan0");
    let sniffer = lab.provider_socket(false);
    for source in [Ipv4Addr::new(10, 0, 1, 77), ROUTER] {
        let binding = lab.binding_of("wan0", source);
        lab.probing(async || {
            let (_prober, mut rx) = start(&binding, &[LIVE, LIVE_TOO], QUICK);
            assert!(is_answer(&next(&mut rx).await));
        });
        let seen = requests(&sniffer);
        assert_eq!(seen.iter().map(|seen| seen.target).collect::<Vec<_>>(), [LIVE_TOO, LIVE]);
        assert!(seen.iter().all(|seen| seen.source == source));
    }
}

#[test]
fn the_device_is_the_bindings_where_the_main_route_is_anothers() {
    let lab = Lab::new();
    let second = Netns::new();
    lab.router.cable("wan1", "10.0.2.2/24", &second, "isp1", "10.0.2.1/24");
    second.ip(&format!("addr add {LIVE}/32 dev lo"));
    let first = lab.provider_socket(false);
    let binding = lab.binding_of("wan1", Ipv4Addr::new(10, 0, 2, 2));
    // Main's default is wan0's. The kernel takes the target for a neighbour on the bound device, and the
    // second provider answers for it.
    lab.probing(async || {
        let (_prober, mut rx) = start(&binding, &[LIVE], QUICK);
        for _ in 0..3 {
            assert!(is_answer(&next(&mut rx).await));
        }
    });
    assert!(requests(&first).is_empty(), "probes of wan1 left by wan0");
}

#[test]
fn a_dropped_prober_is_silent() {
    let lab = Lab::new();
    let binding = lab.binding();
    let sniffer = lab.provider_socket(false);
    lab.probing(async || {
        let (prober, mut rx) = start(&binding, &[LIVE], QUICK);
        assert!(is_answer(&next(&mut rx).await));
        drop(prober);
        // The sender goes with the task.
        let gone = async { while rx.recv().await.is_some() {} };
        tokio::time::timeout(PATIENCE, gone).await.expect("it goes on");
        let mut rest = [MaybeUninit::uninit(); 256];
        while sniffer.recv(&mut rest).is_ok() {}
        tokio::time::sleep(QUICK.interval * 3).await;
        assert!(requests(&sniffer).is_empty());
    });
}

use super::*;
use crate::engine::tests::world;
use crate::engine::{Level, WanLabel};
use crate::types::IfName;

fn label() -> WanLabel {
    WanLabel { description: "WAN1".into(), iface: IfName::new("eth1").unwrap(), mark: world::wan(1) }
}

/// Ten thousand notices, each of which wants a mail, to a thread that takes nothing: the loop's side comes
/// back from each call, and what it hands over is bounded.
#[test]
fn the_loop_waits_for_nothing_of_mail() {
    let (done, is_done) = std::sync::mpsc::channel();
    // Beside the test: it would never come back from a hand-over that waits.
    std::thread::spawn(move || done.send(hand_over_many()));
    assert_eq!(is_done.recv_timeout(Duration::from_secs(20)), Ok(50), "waiting orders");
}

/// How many orders wait in the end.
fn hand_over_many() -> usize {
    let config = world::config(&[Some(1)]);
    let (mailer, waiting) = Mailer::deaf();
    let (_lines, logged) = mpsc::channel(1);
    let mut mail =
        Mail { alerts: Alerts::new(&config), mailer: Some(mailer), logged, hurry: false, started: 0 };
    for hour in 1..=10_000 {
        let now = Now { mono: Duration::from_secs(hour * 3600), wall: hour, utc_offset: 0 };
        let text = "an hour's error".to_owned();
        mail.entry(Entry { at: hour, level: Level::Error, wan: None, text }, now);
        let due = mail.next_deadline().unwrap();
        let now = Now { mono: due.max(now.mono), ..now };
        mail.turn(now, || Status { default: None, wans: Vec::new() });
        mail.notice(&Kind::DefaultChanged { from: None, to: label() }.into(), now);
    }
    waiting()
}

/// Whatever is noticed, the thread is woken by the turn at the end of the loop's step and not before.
#[test]
fn a_notice_wakes_nobody() {
    let (mailer, waiting) = Mailer::deaf();
    let (_lines, logged) = mpsc::channel(1);
    let alerts = Alerts::new(&world::config(&[Some(1)]));
    let mut mail = Mail { alerts, mailer: Some(mailer), logged, hurry: false, started: 0 };
    let now = Now { mono: Duration::ZERO, wall: 0, utc_offset: 0 };
    mail.notice(&Kind::DefaultChanged { from: None, to: label() }.into(), now);
    assert_eq!(waiting(), 0);
    mail.turn(now, || Status { default: None, wans: Vec::new() });
    assert_eq!(waiting(), 1);
    mail.turn(now, || Status { default: None, wans: Vec::new() });
    assert_eq!(waiting(), 1, "once");
}

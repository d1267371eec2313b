use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::super::notice::WanLabel;
use super::*;
use crate::config;
use crate::types::IfName;

const RUN: u64 = 20;

/// Alerts of a router with two WANs, at most 2 mails at once and then one in 30 minutes, on a clock of
/// the test's.
struct Desk {
    alerts: Alerts,
    now: Duration,
    /// When, and what about.
    mails: Vec<(u64, Subject)>,
    /// The lines of all of them.
    told: Vec<String>,
}

impl Desk {
    fn new() -> Self {
        let wan = |k| {
            format!(
                "{{description: WAN{k}, mark: {k}, iface: eth{k}, ip: 10.0.{k}.2, mask: 24, gateway: 10.0.{k}.1}}"
            )
        };
        let text = format!("ping: {{targets: [1.1.1.1]}}\nWANS: [{}, {}]\n", wan(1), wan(2));
        let alerts = Alerts::new(&config::parse(&text, "test").unwrap().config);
        Self { alerts, now: Duration::ZERO, mails: Vec::new(), told: Vec::new() }
    }

    /// Both links ON, START told.
    fn started() -> Self {
        let mut desk = Self::new();
        desk.on(1, None);
        desk.on(2, None);
        desk.pass(100);
        assert_eq!(desk.mails, [(2, Subject::Start)]);
        desk.mails.clear();
        desk.told.clear();
        desk
    }

    fn notice(&mut self, kind: Kind) {
        self.alerts.notice(&kind.into(), Now { mono: self.now, wall: self.now.as_secs(), utc_offset: 0 });
    }

    fn on(&mut self, k: u8, off_for: Option<u64>) {
        self.notice(Kind::LinkOn {
            wan: label(k),
            target: Ipv4Addr::LOCALHOST,
            rtt: Duration::from_millis(3),
            off_for: off_for.map(Duration::from_secs),
        });
    }

    fn off(&mut self, k: u8) {
        self.notice(Kind::LinkOff { wan: label(k), reason: "no carrier".into() });
    }

    /// As the driver does: to each deadline, then to the end.
    fn pass(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        for _ in 0..100_000 {
            match self.alerts.next_deadline().filter(|at| *at <= end) {
                Some(at) => {
                    self.now = self.now.max(at);
                    if let Some(alert) = self.alerts.poll(self.now) {
                        self.mails.push((self.now.as_secs(), alert.subject));
                        self.told.extend(alert.entries.into_iter().map(|entry| entry.text));
                    } else {
                        let next = self.alerts.next_deadline();
                        assert!(next.is_none_or(|next| next > self.now), "a deadline that does nothing");
                    }
                }
                None => {
                    self.now = end;
                    return;
                }
            }
        }
        panic!("deadlines without end");
    }

    fn mails_after(&self, start: u64) -> Vec<(u64, Subject)> {
        self.mails.iter().map(|(at, subject)| (at - start, *subject)).collect()
    }
}

fn label(k: u8) -> WanLabel {
    WanLabel {
        description: format!("WAN{k}"),
        iface: IfName::new(&format!("eth{k}")).unwrap(),
        mark: WanMark::new(k).unwrap(),
    }
}

fn failed(task: Task) -> Kind {
    Kind::CommandFailed { task, error: "busy".into(), retry_in: Duration::from_secs(1) }
}

use Subject::{Error, Start, Warning};

#[test]
fn start_is_told_once_every_link_was_judged() {
    let mut desk = Desk::new();
    desk.on(1, None);
    desk.pass(5);
    assert_eq!(desk.mails, []);
    desk.off(2);
    desk.pass(3);
    assert_eq!(desk.mails, [(7, Start)]);
    assert_eq!(desk.told.len(), 2);
}

#[test]
fn start_does_not_wait_for_ever() {
    let mut desk = Desk::new();
    desk.pass(100);
    assert_eq!(desk.mails, [(RUN, Start)]);
}

#[test]
fn a_link_s_failure_is_told_in_two_seconds_and_then_by_the_limits() {
    let mut desk = Desk::started();
    desk.off(1);
    desk.pass(4 * 3600);
    // The change, a second one within max, then one each half hour.
    let halves = (1..=7).map(|n| (22 + n * 1800, Error));
    let expected: Vec<_> = [(2, Error), (22, Error)].into_iter().chain(halves).collect();
    assert_eq!(desk.mails_after(100), expected);
}

#[test]
fn a_return_is_a_warning_and_a_clean_run_forgets() {
    let mut desk = Desk::started();
    desk.off(1);
    desk.pass(600);
    desk.on(1, Some(600));
    desk.pass(600);
    assert_eq!(desk.mails_after(100), [(2, Error), (22, Error), (602, Warning)]);
    assert_eq!(desk.alerts.next_deadline(), None, "at rest");
    // The counters began again.
    desk.mails.clear();
    desk.off(2);
    desk.pass(100);
    assert_eq!(desk.mails_after(1300), [(2, Error), (22, Error)]);
}

#[test]
fn a_link_that_is_off_from_the_start_is_an_error_of_the_next_runs() {
    let mut desk = Desk::new();
    desk.on(1, None);
    desk.off(2);
    desk.pass(1000);
    assert_eq!(desk.mails, [(2, Start), (22, Error), (42, Error)]);
}

#[test]
fn one_mail_tells_what_happened_together() {
    let mut desk = Desk::started();
    desk.off(1);
    desk.notice(Kind::DefaultChanged { from: Some(label(1)), to: label(2) });
    desk.pass(1);
    desk.off(2);
    desk.pass(2);
    assert_eq!(desk.mails_after(100), [(2, Error)]);
    assert_eq!(desk.told.len(), 3);
}

#[test]
fn another_link_s_change_does_not_wait_for_one_that_was_just_told() {
    let mut desk = Desk::started();
    desk.off(1);
    desk.pass(5);
    desk.off(2);
    desk.pass(3);
    assert_eq!(desk.mails_after(100), [(2, Error), (7, Error)]);
}

#[test]
fn a_failing_command_is_an_error_until_it_recovers() {
    let mut desk = Desk::started();
    desk.notice(failed(Task::Routes));
    desk.pass(3600);
    // No link changed, so the first waits for the run's end.
    assert_eq!(desk.mails_after(100), [(20, Error), (40, Error), (1840, Error)]);
    desk.notice(Kind::CommandRecovered { task: Task::Routes });
    desk.mails.clear();
    desk.pass(3600);
    assert_eq!(desk.mails, []);
    assert_eq!(desk.alerts.next_deadline(), None);
}

#[test]
fn a_line_from_elsewhere_counts_as_any_other() {
    let mut desk = Desk::started();
    let logged = |desk: &mut Desk, level, text: &str| {
        let wan = WanMark::new(1);
        desk.alerts.entry(Entry { at: 0, level, wan, text: text.to_owned() }, desk.now);
    };
    logged(&mut desk, Level::Warn, "hook refused");
    desk.pass(100);
    assert_eq!(desk.mails, [], "nothing is wrong and nothing changed");
    for _ in 0..40 {
        logged(&mut desk, Level::Error, "hook failed");
        desk.pass(5);
    }
    desk.pass(100);
    // A run after the first, and one more: then `alerts.max` is reached, and the trouble ends.
    assert_eq!(desk.mails_after(200), [(20, Error), (40, Error)]);
    let told = desk.told.len();
    assert!((4..=9).contains(&told) && desk.told.iter().all(|line| line == "hook failed"), "{told}");
    desk.mails.clear();
    logged(&mut desk, Level::Error, "hook failed anew");
    desk.pass(100);
    assert_eq!(desk.mails_after(500), [(20, Error)]);
    assert_eq!(desk.told.last().map(String::as_str), Some("hook failed anew"), "the trouble before is over");
}

#[test]
fn what_is_only_degraded_makes_no_mail() {
    let mut desk = Desk::started();
    desk.notice(failed(Task::WriteStatus));
    desk.notice(Kind::DefaultChanged { from: Some(label(1)), to: label(2) });
    desk.pass(3600);
    assert_eq!(desk.mails, []);
}

#[test]
fn a_flapping_link_is_told_of_in_every_run_and_completely() {
    let mut desk = Desk::started();
    for _ in 0..360 {
        desk.off(1);
        desk.pass(5);
        desk.on(1, Some(5));
        desk.pass(5);
    }
    desk.pass(3600);
    let runs: Vec<_> = (0..=180).map(|n| (2 + n * RUN, Error)).collect();
    assert_eq!(desk.mails_after(100), runs);
    assert_eq!(desk.told.len(), 720);
}

/// Cables that are out for three seconds: none of the outages is there any more when a run ends, and
/// `alerts.max` is reached with the second.
#[test]
fn each_short_outage_is_in_a_mail_of_its_run() {
    for pause in [12, 25, 40, 90] {
        let mut desk = Desk::started();
        let mut pulled = Vec::new();
        for _ in 0..6 {
            pulled.push(desk.now.as_secs());
            desk.off(1);
            desk.pass(3);
            desk.on(1, Some(3));
            desk.pass(pause - 3);
        }
        desk.pass(RUN);
        for at in pulled {
            let told = desk.mails.iter().any(|(mail, subject)| {
                *subject == Error && (at + COLLECT.as_secs()..=at + RUN + COLLECT.as_secs()).contains(mail)
            });
            assert!(told, "the outage at {at} s, every {pause} s: {:?}", desk.mails);
        }
        assert_eq!(desk.told.len(), 12, "{:?}", desk.told);
        assert_eq!(desk.alerts.stop().entries, []);
    }
}

/// A run ends between an outage and the mail about it, while the limits allow no mail.
#[test]
fn an_outage_that_waited_for_its_mail_is_still_an_error() {
    let mut desk = Desk::started();
    desk.off(2);
    desk.pass(43);
    desk.mails.clear();
    // The runs end at 162, 182, …: the first one within the time the change is collected.
    desk.pass(18);
    desk.off(1);
    desk.pass(1);
    desk.on(1, Some(1));
    desk.on(2, Some(62));
    desk.pass(3);
    assert_eq!(desk.mails_after(100), [(63, Error)]);
}

#[test]
fn the_oldest_of_too_many_lines_are_left_out_and_counted() {
    let mut desk = Desk::started();
    for _ in 0..MAX_ENTRIES {
        desk.notice(failed(Task::WriteStatus));
    }
    desk.off(1);
    desk.pass(2);
    assert_eq!(desk.told.len(), MAX_ENTRIES);
    assert!(desk.told.last().unwrap().contains("OFF"));
    for _ in 0..=MAX_ENTRIES {
        desk.notice(failed(Task::WriteStatus));
    }
    assert_eq!(desk.alerts.stop().left_out, 1);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    /// Whatever links do: each change is in a mail in bounded time; no link has two mails in less than
    /// [`COLLECT`], nor both together more than the limits allow; and after a quiet time all is at rest.
    #[test]
    fn every_change_is_told_and_there_is_no_storm(
        steps in prop::collection::vec((1u8..=2, any::<bool>(), 0u64..90), 1..300)
    ) {
        let mut desk = Desk::started();
        let mut states = [true, true];
        let mut changes = 0;
        for (k, on, seconds) in steps {
            let state = &mut states[usize::from(k) - 1];
            if *state != on {
                *state = on;
                changes += 1;
                if on { desk.on(k, Some(1)) } else { desk.off(k) }
            }
            desk.pass(seconds);
        }
        let end = desk.now.as_secs();
        let pairs = desk.mails.windows(2);
        prop_assert!(pairs.clone().all(|pair| pair[1].0 - pair[0].0 >= COLLECT.as_secs()), "{:?}", desk.mails);
        // Two links, each at most one a run.
        let most = 2 * ((end - 100) / RUN + 1) + 1;
        prop_assert!(u64::try_from(desk.mails.len()).unwrap() <= most, "{:?}", desk.mails);

        desk.pass(COLLECT.as_secs() + RUN);
        let told = desk.told.iter().filter(|line| line.contains(" OFF: ") || line.contains(" ON: ")).count();
        prop_assert!(told == changes || changes > MAX_ENTRIES, "{told} of {changes}");

        for (k, state) in (1..).zip(states) {
            if !state {
                desk.on(k, Some(1));
            }
        }
        desk.pass(4 * RUN);
        prop_assert_eq!(desk.alerts.next_deadline(), None);
        for k in ["WAN1", "WAN2"] {
            let last = desk.told.iter().rfind(|line| line.starts_with(k));
            prop_assert!(last.is_none_or(|line| line.contains(" ON: ")), "{:?}", last);
        }
    }
}

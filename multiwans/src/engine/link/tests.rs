use super::*;
use crate::config::Target;
use crate::engine::tests::world;
use crate::types::IfName;

/// `ping.count` 1 (so two silent rounds are enough), `ping.timeout` 3 s, three targets.
struct Fixture {
    link: Link,
    now: Duration,
}

impl Fixture {
    fn new() -> Self {
        let mut config = world::config(&[Some(1)]);
        let target = Target::Address(Ipv4Addr::new(1, 1, 1, 1));
        config.wans[0].targets = vec![target.clone(), target.clone(), target];
        let mut link = Link::new(&config.wans[0], &config.ping);
        link.begin(Now { mono: Duration::ZERO, wall: 1_000, utc_offset: 0 });
        Self { link, now: Duration::ZERO }
    }

    fn now(&self) -> Now {
        Now { mono: self.now, wall: 1_000 + self.now.as_secs(), utc_offset: 0 }
    }

    fn observe(&mut self, interface: Option<Interface>) -> (bool, Option<String>) {
        let interfaces: Vec<Interface> = interface.into_iter().collect();
        let (changed, told) = self.link.observe(&interfaces, self.now());
        (changed, told.map(|kind| kind.to_string()))
    }

    fn round(&mut self, after_ms: u64, outcome: Outcome) -> Option<String> {
        self.now += Duration::from_millis(after_ms);
        let binding = self.link.binding().cloned().unwrap();
        let round = Round { wan: self.link.mark(), binding, outcome };
        self.link.round(&round, self.now()).map(|kind| kind.to_string())
    }

    fn answered(&mut self, after_ms: u64) -> Option<String> {
        let target = Ipv4Addr::new(1, 1, 1, 1);
        self.round(after_ms, Outcome::Answered { target, rtt: Duration::from_micros(12_340) })
    }

    fn silent(&mut self, after_ms: u64) -> Option<String> {
        self.round(after_ms, Outcome::Silent { send_error: None })
    }
}

fn eth1() -> Interface {
    world::interface(1, 11)
}

#[test]
fn one_answered_round_is_enough_at_first() {
    let mut f = Fixture::new();
    assert_eq!(f.link.state(), LinkState::Unknow);
    assert_eq!(f.observe(Some(eth1())), (true, None));
    assert_eq!(f.link.state(), LinkState::Unknow);
    assert_eq!(f.answered(2_000).unwrap(), "WAN1 (eth1): ON: 1.1.1.1 answers in 12.3 ms");
    assert_eq!(f.link.since().wall, 1_002);
    assert_eq!(f.link.reason(), "");
}

#[test]
fn silence_is_told_with_how_long_and_who_answered_last() {
    let mut f = Fixture::new();
    f.observe(Some(eth1()));
    f.answered(0);
    // Rounds go out every second; the one sent after the answer's is found silent 3 s later.
    assert_eq!(f.silent(4_000), None);
    assert_eq!(
        f.silent(1_000).unwrap(),
        "WAN1 (eth1): OFF: no reply from any of 3 targets for 4.0 s; last reply 00:16:40 from 1.1.1.1"
    );
    assert_eq!(f.silent(1_000), None, "once per change, not per round");
}

/// Its names are being resolved for the first time.
#[test]
fn nobody_s_answer_means_little_at_first_while_not_everybody_can_be_asked() {
    let mut f = Fixture::new();
    let unresolved = || Outcome::Unresolved { send_error: None };
    f.observe(Some(eth1()));
    for _ in 0..10 {
        assert_eq!(f.round(1_000, unresolved()), None);
    }
    assert_eq!((f.link.state(), f.link.reason().as_str()), (LinkState::Unknow, "not judged yet"));
    f.silent(1_000);
    assert_eq!(f.link.state(), LinkState::Unknow, "counted from here");
    assert!(
        f.silent(1_000).unwrap().contains("OFF: no reply from any of 3 targets for 4.0 s; never had one")
    );

    // Once judged, a link does not wait for names that a new configuration brought.
    let mut f = Fixture::new();
    f.observe(Some(eth1()));
    f.answered(0);
    f.round(4_000, unresolved());
    assert!(f.round(1_000, unresolved()).unwrap().contains("OFF: no reply"));
}

#[test]
fn a_late_answer_shortens_the_silence_that_is_told() {
    let mut f = Fixture::new();
    f.observe(Some(eth1()));
    f.answered(2_900);
    f.silent(1_100);
    let told = f.silent(1_000).unwrap();
    assert!(told.ends_with("for 2.1 s; last reply 00:16:43 from 1.1.1.1"), "{told}");
}

#[test]
fn a_link_that_never_answered_is_off_after_as_many_rounds() {
    let mut f = Fixture::new();
    f.observe(Some(eth1()));
    f.silent(3_000);
    assert_eq!(f.link.state(), LinkState::Unknow);
    let error = Some("Network is unreachable".to_owned());
    assert_eq!(
        f.round(1_000, Outcome::Silent { send_error: error }).unwrap(),
        "WAN1 (eth1): OFF: no reply from any of 3 targets for 4.0 s; never had one; sending failed: Network is \
         unreachable"
    );
}

#[test]
fn an_answer_in_between_starts_the_count_anew() {
    let mut f = Fixture::new();
    f.observe(Some(eth1()));
    f.answered(0);
    for _ in 0..10 {
        f.silent(1_000);
        f.answered(20);
    }
    assert_eq!(f.link.state(), LinkState::On);
}

#[test]
fn coming_back_takes_three_answered_rounds_in_a_row() {
    let mut f = Fixture::new();
    f.observe(Some(eth1()));
    f.silent(1_000);
    f.silent(1_000);
    assert_eq!(f.link.state(), LinkState::Off);
    f.answered(1_000);
    f.answered(1_000);
    f.silent(1_000);
    f.answered(1_000);
    f.answered(1_000);
    assert_eq!(f.link.state(), LinkState::Off);
    assert_eq!(
        f.answered(125_000).unwrap(),
        "WAN1 (eth1): ON: 1.1.1.1 answers in 12.3 ms; was OFF for 2 min 10 s"
    );
}

#[test]
fn an_interface_fault_is_off_at_once_and_curing_it_is_not_on() {
    let mut f = Fixture::new();
    f.observe(Some(eth1()));
    f.answered(0);
    let mut pulled = eth1();
    pulled.carrier = false;
    assert_eq!(f.observe(Some(pulled.clone())), (true, Some("WAN1 (eth1): OFF: no carrier".to_owned())));
    assert_eq!(f.link.binding(), None);
    f.now += Duration::from_secs(5);
    assert_eq!(f.observe(Some(pulled)), (false, None));
    assert_eq!(
        f.observe(None),
        (true, Some("WAN1 (eth1): still OFF: the interface does not exist".to_owned()))
    );
    assert_eq!(
        f.observe(Some(eth1())).1.unwrap(),
        "WAN1 (eth1): still OFF: waiting for 3 answered rounds in a row; before: the interface does not exist"
    );
    assert_eq!(f.link.state(), LinkState::Off);
    f.silent(1_000);
    assert!(f.silent(1_000).unwrap().starts_with("WAN1 (eth1): still OFF: no reply from any of 3 targets"));
    assert_eq!(f.link.since().wall, 1_000, "OFF since the cable was pulled, whatever came after");
    f.answered(1_000);
    f.answered(1_000);
    f.answered(1_000);
    assert_eq!(f.link.state(), LinkState::On);
    assert_eq!(f.link.since().wall, 1_010);
}

#[test]
fn a_round_over_another_binding_says_nothing() {
    let mut f = Fixture::new();
    f.observe(Some(eth1()));
    let old = Round {
        wan: f.link.mark(),
        binding: f.link.binding().cloned().unwrap(),
        outcome: Outcome::Answered { target: Ipv4Addr::LOCALHOST, rtt: Duration::ZERO },
    };
    let recreated = world::interface(1, 99);
    f.observe(Some(recreated));
    assert_eq!(f.link.round(&old, f.now()), None);
    assert_eq!(f.link.state(), LinkState::Unknow);
}

#[test]
fn rounds_in_a_row_are_counted_per_binding() {
    let mut f = Fixture::new();
    f.observe(Some(eth1()));
    f.answered(0);
    f.silent(1_000);
    f.observe(Some(world::interface(1, 99)));
    assert_eq!(f.link.state(), LinkState::On, "re-created in one step: its probes will tell");
    f.silent(1_000);
    assert_eq!(f.link.state(), LinkState::On);
    f.silent(1_000);
    assert_eq!(f.link.state(), LinkState::Off);
}

#[test]
fn a_prober_that_cannot_start_counts_as_silence() {
    let mut f = Fixture::new();
    assert_eq!(f.link.unprobed("Operation not permitted", f.now()), None, "there is nothing to probe yet");
    f.observe(Some(eth1()));
    f.link.unprobed("Operation not permitted", f.now());
    assert_eq!(f.link.state(), LinkState::Unknow);
    f.link.unprobed("Operation not permitted", f.now());
    assert_eq!(f.link.state(), LinkState::Off);
    assert!(f.link.reason().ends_with("sending failed: Operation not permitted"), "{}", f.link.reason());
    assert_eq!(f.link.label().iface, IfName::new("eth1").unwrap());
}

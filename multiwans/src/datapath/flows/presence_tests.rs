use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// So many flows there are in the world; the walk meets them in the order of their numbers.
const FLOWS: u16 = 48;

fn flow(number: u16) -> FlowKey4 {
    FlowKey4 {
        source: 1,
        destination: 2,
        source_port: number,
        destination_port: 3,
        protocol: 6,
        zero: [0; 3],
    }
}

/// A filter in memory of its own.
fn presence(entries: u32) -> Presence {
    let filter = FlowPresence::of_table(entries);
    let memory = MmapOptions::new().len(filter.words() as usize * size_of::<u64>()).map_anon().unwrap();
    Presence::over(MmapRaw::from(memory), filter, 0)
}

impl Presence {
    /// What steer asks.
    fn may_hold(&self, key: &FlowKey4) -> bool {
        self.filter.may_hold(key, |number| Some(self.word(number).load(Ordering::SeqCst)))
    }

    fn asked(&self) -> u32 {
        u32::from(self.word(FlowPresence::ACTIVE).load(Ordering::SeqCst) == 1)
    }

    /// Set bits of a half.
    fn set_in(&self, half: u32) -> u32 {
        self.filter.half(half).map(|number| self.word(number).load(Ordering::SeqCst).count_ones()).sum()
    }
}

/// What happens, in any order and mixture.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// A program puts an entry into the table, …
    Put(u16),
    /// … and all that were put are noted.
    Note,
    /// The kernel has an entry removed, in whatever way.
    Remove(u16),
    /// A walk begins; one that is under way is broken off.
    Walk,
    /// It goes on by so many numbers, removes every seventh entry it meets, and is finished at the end.
    On(u16),
    /// It is broken off.
    Break,
}

fn a_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..FLOWS).prop_map(Step::Put),
        4 => Just(Step::Note),
        2 => (0..FLOWS).prop_map(Step::Remove),
        2 => Just(Step::Walk),
        6 => (1..FLOWS).prop_map(Step::On),
        1 => Just(Step::Break),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_in_the_table_is_found(steps in prop::collection::vec(a_step(), 1..120), entries in 1u32..80) {
        let presence = presence(entries);
        let (mut table, mut unnoted) = (BTreeSet::new(), BTreeSet::new());
        let mut walk: Option<(Renewal<'_>, u16)> = None;
        for step in steps {
            match step {
                Step::Put(number) => {
                    if table.insert(number) {
                        unnoted.insert(number);
                    }
                }
                Step::Note => {
                    for number in std::mem::take(&mut unnoted) {
                        presence.note(&flow(number));
                    }
                }
                Step::Remove(number) => drop(table.remove(&number)),
                Step::Walk => {
                    drop(walk.take());
                    walk = Some((presence.renew_after(|| ()), 0));
                }
                Step::Break => drop(walk.take()),
                Step::On(by) => {
                    if let Some((renewal, position)) = walk.take() {
                        let end = (position + by).min(FLOWS);
                        for number in position..end {
                            if number % 7 == 0 {
                                table.remove(&number);
                            } else if table.contains(&number) {
                                renewal.keep(&flow(number));
                            }
                        }
                        if end == FLOWS { renewal.finish() } else { walk = Some((renewal, end)) }
                    }
                }
            }
            for number in table.difference(&unnoted) {
                prop_assert!(presence.may_hold(&flow(*number)), "{number} after {step:?}");
            }
        }
    }
}

#[test]
fn a_finished_walk_forgets_what_is_gone() {
    let presence = presence(1024);
    for number in 0..FLOWS {
        presence.note(&flow(number));
    }
    let both = [presence.set_in(0), presence.set_in(1)];
    assert_eq!(both[0], both[1]);
    assert!(both[0] > 40);
    let asked = presence.asked();
    let renewal = presence.renew();
    renewal.keep(&flow(7));
    drop(renewal);
    assert_eq!(presence.asked(), asked, "broken off");
    assert_eq!(presence.set_in(asked), both[0]);

    let renewal = presence.renew();
    renewal.keep(&flow(8));
    renewal.finish();
    assert_ne!(presence.asked(), asked);
    assert_eq!(presence.set_in(presence.asked()), 1);
    assert!(presence.may_hold(&flow(8)));
    assert!(!presence.may_hold(&flow(7)));
    // What is noted from now on survives the next one.
    presence.note(&flow(9));
    assert!(presence.may_hold(&flow(9)));
    assert_eq!(presence.set_in(presence.asked()), 2);
}

/// A grace period of the kernel's; where it is refused, the filter works but for a packet in a billion.
#[test]
fn this_kernel_waits_for_programs() {
    assert!(wait_for_programs(), "membarrier(2) is refused");
}

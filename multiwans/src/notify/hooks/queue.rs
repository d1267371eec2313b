//! The changes that wait for an interface's hooks. Pure.
//!
//! ```text
//! hooks ran or run for │ waits │ comes │ then waits
//! ─────────────────────┼───────┼───────┼─────────────────────────────────────────────
//! ON                   │ -     │ OFF   │ OFF
//! ON                   │ OFF   │ ON    │ nothing: the two cancel out
//! nothing yet          │ ON    │ OFF   │ OFF, with the older one's previous state
//! ON                   │ -     │ ON    │ nothing: it is the same change carried out again
//! ```
//! So at most one change of each WAN waits, however long a hook takes and however often the link flaps,
//! and the last hooks that run are those of the state the link is in.

use std::collections::{BTreeMap, VecDeque};

use super::Change;
use crate::types::{LinkState, WanMark};

/// The changes of one interface's WANs (`eth0` and `eth0:1` share one).
#[derive(Debug, Default)]
pub(super) struct Pending {
    waiting: VecDeque<Change>,
    /// The state each WAN's hooks ran or run for.
    served: BTreeMap<WanMark, LinkState>,
}

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pushed {
    /// It waits for its turn.
    Waits,
    /// It waits instead of an older one, whose hooks are not run.
    Replaced,
    /// It and an older one cancel out: neither's hooks are run.
    Cancelled,
    /// It is known already.
    Known,
}

impl Pending {
    /// Takes in a change.
    pub(super) fn push(&mut self, mut change: Change) -> Pushed {
        let served = self.served.get(&change.wan).copied();
        let older = self.waiting.iter().position(|waiting| waiting.wan == change.wan);
        match older.and_then(|older| self.waiting.get(older).map(|change| (older, change.state))) {
            Some((_, state)) if state == change.state => Pushed::Known,
            Some((older, _)) if served == Some(change.state) => {
                self.waiting.remove(older);
                Pushed::Cancelled
            }
            Some((older, _)) => {
                if let Some(older) = self.waiting.remove(older) {
                    change.previous = older.previous;
                }
                self.waiting.push_back(change);
                Pushed::Replaced
            }
            None if served == Some(change.state) => Pushed::Known,
            None => {
                self.waiting.push_back(change);
                Pushed::Waits
            }
        }
    }

    /// The next change to run hooks for.
    pub(super) fn pop(&mut self) -> Option<Change> {
        let change = self.waiting.pop_front()?;
        self.served.insert(change.wan, change.state);
        Some(change)
    }

    /// Forgets what waits; how many there were.
    pub(super) fn clear(&mut self) -> usize {
        let waiting = self.waiting.len();
        self.waiting.clear();
        waiting
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::LinkState::{Off, On, Unknow};

    fn change(wan: u8, previous: LinkState, state: LinkState) -> Change {
        Change { wan: WanMark::new(wan).unwrap(), state, previous, variables: Vec::new() }
    }

    fn next(pending: &mut Pending) -> Option<(u8, LinkState, LinkState)> {
        pending.pop().map(|change| (change.wan.get(), change.previous, change.state))
    }

    #[test]
    fn changes_wait_in_order() {
        let mut pending = Pending::default();
        assert_eq!(pending.push(change(1, Unknow, On)), Pushed::Waits);
        assert_eq!(pending.push(change(2, Unknow, Off)), Pushed::Waits);
        assert_eq!(next(&mut pending), Some((1, Unknow, On)));
        assert_eq!(pending.push(change(1, On, Off)), Pushed::Waits);
        assert_eq!(next(&mut pending), Some((2, Unknow, Off)));
        assert_eq!(next(&mut pending), Some((1, On, Off)));
        assert_eq!(next(&mut pending), None);
    }

    #[test]
    fn flaps_during_a_slow_hook_come_to_the_last_state() {
        let mut pending = Pending::default();
        pending.push(change(1, Unknow, On));
        pending.pop();
        for _ in 0..1_000 {
            assert_eq!(pending.push(change(1, On, Off)), Pushed::Waits);
            assert_eq!(pending.push(change(1, Off, On)), Pushed::Cancelled);
        }
        assert_eq!(next(&mut pending), None);
        pending.push(change(1, On, Off));
        assert_eq!(next(&mut pending), Some((1, On, Off)));
    }

    #[test]
    fn a_first_judgement_that_did_not_hold_is_replaced() {
        let mut pending = Pending::default();
        pending.push(change(1, Unknow, On));
        assert_eq!(pending.push(change(1, On, Off)), Pushed::Replaced);
        assert_eq!(next(&mut pending), Some((1, Unknow, Off)));
    }

    #[test]
    fn the_same_change_twice_is_one() {
        let mut pending = Pending::default();
        pending.push(change(1, Unknow, On));
        assert_eq!(pending.push(change(1, Unknow, On)), Pushed::Known);
        pending.pop();
        assert_eq!(pending.push(change(1, Unknow, On)), Pushed::Known);
        assert_eq!(next(&mut pending), None);
        assert_eq!(pending.clear(), 0);
    }
}

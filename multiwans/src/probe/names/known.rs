//! What is known of one name over one WAN. Pure.
//!
//! Addresses are kept until there are better ones: a link must not look dead because its DNS server is.
//!
//! ```text
//! ┌─────────┐ answer ┌────────────────────┐ failure ┌──────────────────────────────────┐
//! │ nothing │ ─────> │ addresses, asked   │ ──────> │ the same addresses, asked again  │
//! │ known   │        │ again before their │ <────── │ after 1, 2, 4, … 30 s            │
//! └─────────┘        │ time is over       │ answer  └──────────────────────────────────┘
//!                    └────────────────────┘
//! ```

use std::net::Ipv4Addr;
use std::time::Duration;

/// The shortest time to live that is obeyed: shorter ones are for servers that balance load, and would
/// have us ask all the time.
pub(super) const TTL_MIN: Duration = Duration::from_secs(10);
/// The longest one: after a change that nobody planned, a day would be a long time to probe the old place.
pub(super) const TTL_MAX: Duration = Duration::from_secs(3_600);
/// The first pause after a failure.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// The longest pause: what a link coming back may have to wait for its only target.
const LAST_RETRY: Duration = Duration::from_secs(30);
/// Addresses probed of one name. More than any public service gives in one answer.
const ADDRESSES_MAX: usize = 32;

/// Of one name.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    addresses: Vec<Ipv4Addr>,
    failures: u32,
    /// There was an answer or a failure, or nobody waits for one any more.
    tried: bool,
    /// The last failure, while it is not over.
    trouble: Option<String>,
}

/// What to tell of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum News {
    /// Addresses for the first time, or after a trouble that was told.
    Resolved,
    /// Other addresses than before.
    Changed,
    /// It failed, and had not the last time.
    Failed(String),
    /// It failed as the last time, but for another reason.
    FailedOtherwise(String),
}

impl Known {
    /// The addresses to probe.
    pub(super) fn addresses(&self) -> &[Ipv4Addr] {
        &self.addresses
    }

    /// Whether the first attempt is under way or to come.
    pub(super) fn is_awaited(&self) -> bool {
        !self.tried
    }

    /// The first attempt took longer than anybody waits for it.
    pub(super) fn give_up_waiting(&mut self) {
        self.tried = true;
    }

    /// Takes in addresses and how long they hold; what to tell, and when to ask again. Those that are no
    /// host's in the internet, or `own`, are left out: they answer whatever becomes of the link.
    pub(super) fn found(
        &mut self,
        mut addresses: Vec<Ipv4Addr>,
        ttl: Duration,
        own: Ipv4Addr,
    ) -> (Option<News>, Duration) {
        addresses.retain(|address| is_host(*address) && *address != own);
        addresses.sort_unstable();
        addresses.dedup();
        addresses.truncate(ADDRESSES_MAX);
        if addresses.is_empty() {
            return self.failed("the answer has no address that can be probed".to_owned());
        }
        self.failures = 0;
        self.tried = true;
        let changed = self.addresses != addresses;
        let news = if self.trouble.take().is_some() || self.addresses.is_empty() {
            Some(News::Resolved)
        } else {
            changed.then_some(News::Changed)
        };
        self.addresses = addresses;
        // Before the time is over, so that there is time to try again.
        (news, ttl.clamp(TTL_MIN, TTL_MAX) * 4 / 5)
    }

    /// Takes in a failure; what to tell, and when to try again.
    pub(super) fn failed(&mut self, reason: String) -> (Option<News>, Duration) {
        let doublings = self.failures.min(16);
        self.failures = self.failures.saturating_add(1);
        self.tried = true;
        let news = match &self.trouble {
            None => Some(News::Failed(reason.clone())),
            Some(before) => (*before != reason).then(|| News::FailedOtherwise(reason.clone())),
        };
        self.trouble = Some(reason);
        (news, (FIRST_RETRY * 2u32.pow(doublings)).min(LAST_RETRY))
    }
}

fn is_host(address: Ipv4Addr) -> bool {
    let [first, ..] = address.octets();
    // 0.0.0.0/8 (RFC 1122 §3.2.1.3) is what servers that block a name like to answer; 240.0.0.0/4 is reserved.
    first != 0 && first < 224 && !address.is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 2);
    const A: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const B: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn names_are_asked_for_again_before_their_time_is_over() {
        let mut known = Known::default();
        for (ttl, next) in
            [(0, 8), (1, 8), (10, 8), (100, 80), (3_600, 2_880), (86_400, 2_880), (u64::MAX, 2_880)]
        {
            assert_eq!(known.found(vec![A], secs(ttl), OWN).1, secs(next), "{ttl}");
        }
    }

    #[test]
    fn addresses_are_kept_while_nothing_better_is_known() {
        let mut known = Known::default();
        assert_eq!(known.failed("no answer".into()), (Some(News::Failed("no answer".into())), secs(1)));
        assert!(known.addresses().is_empty());
        assert_eq!(known.found(vec![B, A, B], secs(100), OWN).0, Some(News::Resolved));
        assert_eq!(known.addresses(), [A, B]);
        assert_eq!(known.found(vec![A, B], secs(100), OWN).0, None, "the order says nothing");

        let pauses: Vec<u64> = (0..8).map(|_| known.failed("no answer".into()).1.as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30, 30]);
        assert_eq!(known.addresses(), [A, B]);
        let other = Some(News::FailedOtherwise("no such name".into()));
        assert_eq!(known.failed("no such name".into()).0, other, "the same trouble, however it changes");
        assert_eq!(known.failed("no such name".into()).0, None);
        assert_eq!(known.found(vec![A], secs(100), OWN).0, Some(News::Resolved));
        assert_eq!(known.failed("no answer".into()).0, Some(News::Failed("no answer".into())), "a new one");
        assert_eq!(known.found(vec![A], secs(100), OWN).0, Some(News::Resolved));
        assert_eq!(known.found(vec![B], secs(100), OWN).0, Some(News::Changed));
        assert_eq!(known.addresses(), [B]);
    }

    #[test]
    fn only_the_first_attempt_is_waited_for() {
        let mut names: [Known; 3] = Default::default();
        assert!(names.iter().all(Known::is_awaited));
        names[0].failed("no answer".into());
        names[1].found(vec![A], secs(100), OWN);
        names[2].give_up_waiting();
        assert!(!names.iter().any(Known::is_awaited));
    }

    #[test]
    fn addresses_that_would_always_answer_are_no_answer() {
        let mut known = Known::default();
        let bad = [[0, 0, 0, 0], [127, 0, 0, 1], [224, 0, 0, 1], [255, 255, 255, 255], OWN.octets()];
        let bad: Vec<Ipv4Addr> = bad.into_iter().map(Ipv4Addr::from).collect();
        assert!(matches!(known.found(bad.clone(), secs(60), OWN), (Some(News::Failed(_)), _)));
        known.found([bad, vec![A]].concat(), secs(60), OWN);
        assert_eq!(known.addresses(), [A]);
    }

    #[test]
    fn an_answer_has_its_limit() {
        let mut known = Known::default();
        known.found((0..=255).map(|last| Ipv4Addr::new(192, 0, 2, last)).collect(), secs(60), OWN);
        assert_eq!(known.addresses().len(), ADDRESSES_MAX);
    }
}

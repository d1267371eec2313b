//! The main table's default route: the only object of the kernel's that we share with everybody else.
//!
//! It is changed only when traffic would leave by the wrong link otherwise, the original is remembered, and it comes
//! back, attribute by attribute, as soon as its link is the right one again.

use netlink_packet_route::route::RouteMessage;

use super::routes::{Leads, Via, is_ours, leads, metric};

/// What to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// The standing routes already lead there.
    Leave,
    /// Write ours, with metric 0, over what stands there.
    Write {
        /// Somebody else's route that it takes the place of.
        over: Option<RouteMessage>,
    },
    /// Put the original back.
    Restore {
        /// As above.
        over: Option<RouteMessage>,
    },
    /// Delete ours: what remains leads there.
    Withdraw(RouteMessage),
}

/// A decision, and what else of ours is in the table and serves nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) action: Action,
    pub(super) stale: Vec<RouteMessage>,
}

/// What is known of the original: the route of metric 0 that was found at the start, whatever others set since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// Not looked for in this run. What stands now counts more than what an earlier run left in the journal.
    Unseen,
    /// There was no default route at all, or what there was is gone for good: the first that comes is it.
    Missing,
    /// It is in the journal, or there is none and will be none, as others have routes of a higher metric.
    Settled,
}

impl Origin {
    /// Looks at the routes: the original, where one is found, and what is known then. `remembered`: the journal has one.
    pub(super) fn look(self, standing: &[RouteMessage], remembered: bool) -> (Option<&RouteMessage>, Self) {
        let found = standing.iter().find(|m| metric(m) == 0).filter(|m| !is_ours(m));
        match (self, found) {
            (Self::Settled, _) => (None, self),
            (Self::Unseen | Self::Missing, Some(found)) => (Some(found), Self::Settled),
            (Self::Unseen | Self::Missing, None) if remembered || !standing.iter().all(is_ours) => {
                (None, Self::Settled)
            }
            (Self::Unseen | Self::Missing, None) => (None, Self::Missing),
        }
    }
}

/// Decides for `wanted`. `standing` are the main table's default routes as dumped.
pub(super) fn decide(standing: &[RouteMessage], wanted: &Via, original: Option<&RouteMessage>) -> Decision {
    let there = |message: &RouteMessage| leads(message, wanted) == Leads::There;
    let first = standing.iter().find(|m| metric(m) == 0);
    // The first of the lowest metric: `min_by_key` keeps the first of equals.
    let best_other = standing.iter().filter(|m| !is_ours(m)).min_by_key(|m| metric(m));
    let original = original.filter(|original| there(original));
    let others = |first: Option<&RouteMessage>| first.filter(|first| !is_ours(first)).cloned();

    let action = match first {
        Some(first) if !is_ours(first) && there(first) => Action::Leave,
        _ if original.is_some() => Action::Restore { over: others(first) },
        Some(first) if !is_ours(first) => Action::Write { over: Some(first.clone()) },
        Some(first) if best_other.is_some_and(there) => Action::Withdraw(first.clone()),
        Some(first) if wanted.is(first) => Action::Leave,
        None if best_other.is_some_and(there) => Action::Leave,
        Some(_) | None => Action::Write { over: None },
    };
    let used = first.filter(|first| is_ours(first));
    let stale = standing.iter().filter(|m| is_ours(m) && !used.is_some_and(|used| std::ptr::eq(used, *m)));
    Decision { action, stale: stale.cloned().collect() }
}

/// Whether, at stop, the original comes back for a final default `wanted`: when it uses that link, be it as one of
/// several or without a gateway.
pub(super) fn comes_back(original: &RouteMessage, wanted: Option<&Via>) -> bool {
    wanted.is_none_or(|wanted| leads(original, wanted) != Leads::Elsewhere)
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteNextHop, RouteProtocol, RouteType};

    use super::*;
    use crate::types::{IfIndex, TableId};

    fn via(n: u8) -> Via {
        Via {
            table: TableId::MAIN,
            gateway: [10, 0, n, 1].into(),
            oif: IfIndex(u32::from(n)),
            source: [10, 0, n, 2].into(),
            onlink: false,
        }
    }

    fn foreign(n: u8, metric: u32) -> RouteMessage {
        let mut message = via(n).message();
        message.header.protocol = RouteProtocol::Dhcp;
        message.attributes.push(RouteAttribute::Priority(metric));
        message
    }

    fn multipath() -> RouteMessage {
        let mut message = foreign(1, 0);
        message.attributes.retain(|a| !matches!(a, RouteAttribute::Gateway(_) | RouteAttribute::Oif(_)));
        let hops = [1, 2].map(|n| {
            let mut hop = RouteNextHop::default();
            hop.interface_index = u32::from(n);
            hop.attributes = vec![RouteAttribute::Gateway(RouteAddress::Inet(via(n).gateway))];
            hop
        });
        message.attributes.push(RouteAttribute::MultiPath(hops.to_vec()));
        message
    }

    fn action(standing: &[RouteMessage], original: Option<&RouteMessage>) -> Action {
        decide(standing, &via(1), original).action
    }

    #[test]
    fn nothing_is_done_where_traffic_already_goes_there() {
        assert_eq!(action(&[foreign(1, 0)], None), Action::Leave);
        assert_eq!(action(&[foreign(1, 100)], None), Action::Leave);
        assert_eq!(action(&[foreign(1, 100), foreign(2, 200)], None), Action::Leave);
        assert_eq!(action(&[via(1).message()], None), Action::Leave);
    }

    #[test]
    fn ours_is_written_where_it_does_not() {
        let write = |over| Action::Write { over };
        assert_eq!(action(&[], None), write(None));
        assert_eq!(action(&[foreign(2, 100), foreign(1, 200)], None), write(None));
        assert_eq!(action(&[foreign(2, 0)], None), write(Some(foreign(2, 0))));
        assert_eq!(action(&[foreign(2, 0), foreign(1, 100)], None), write(Some(foreign(2, 0))));
        assert_eq!(action(&[via(2).message()], None), write(None));
        assert_eq!(action(&[multipath()], None), write(Some(multipath())));
        let mut unreachable = foreign(1, 0);
        unreachable.header.kind = RouteType::Unreachable;
        assert_eq!(action(&[unreachable.clone()], None), write(Some(unreachable)));
    }

    #[test]
    fn the_original_comes_back_with_its_link() {
        let original = foreign(1, 0);
        let restore = |over| Action::Restore { over };
        assert_eq!(action(&[via(2).message()], Some(&original)), restore(None));
        assert_eq!(action(&[], Some(&original)), restore(None));
        assert_eq!(action(&[foreign(2, 0)], Some(&original)), restore(Some(foreign(2, 0))));
        assert_eq!(action(&[foreign(1, 0)], Some(&original)), Action::Leave);
        assert_eq!(action(&[via(3).message()], Some(&foreign(2, 0))), Action::Write { over: None });
    }

    #[test]
    fn ours_goes_when_the_rest_leads_there() {
        let ours = via(2).message();
        assert_eq!(action(&[ours.clone(), foreign(1, 100)], None), Action::Withdraw(ours));
        let ours = via(1).message();
        assert_eq!(action(&[ours.clone(), foreign(1, 100)], None), Action::Withdraw(ours));
    }

    #[test]
    fn the_original_is_the_one_of_the_start() {
        use Origin::{Missing, Settled, Unseen};
        let (admins, others, ours) = (foreign(1, 0), foreign(2, 0), via(1).message());
        let standing = std::slice::from_ref(&admins);
        assert_eq!(Unseen.look(standing, false), (Some(&admins), Settled));
        assert_eq!(Unseen.look(standing, true), (Some(&admins), Settled), "set between two runs");
        assert_eq!(Settled.look(std::slice::from_ref(&others), true), (None, Settled));
        assert_eq!(Settled.look(std::slice::from_ref(&others), false), (None, Settled));
        // After a crash.
        assert_eq!(Unseen.look(std::slice::from_ref(&ours), true), (None, Settled));
        // A DHCP client that comes later.
        assert_eq!(Unseen.look(&[], false), (None, Missing));
        assert_eq!(Missing.look(std::slice::from_ref(&ours), false), (None, Missing));
        assert_eq!(Missing.look(std::slice::from_ref(&others), false), (Some(&others), Settled));
        assert_eq!(Unseen.look(&[ours, foreign(1, 100)], false), (None, Settled));
        assert_eq!(
            decide(std::slice::from_ref(&others), &via(3), Some(&admins)).action,
            Action::Write { over: Some(others) }
        );
    }

    #[test]
    fn our_protocol_is_told_as_a_number() {
        let told = super::super::routes::describe(&via(1).message());
        assert!(told.ends_with(" proto 109 table main"), "{told}");
    }

    #[test]
    fn ours_that_serve_nothing_are_named() {
        let found = decide(&[foreign(1, 0), via(2).message()], &via(1), None);
        assert_eq!((found.action, found.stale), (Action::Leave, vec![via(2).message()]));
    }

    #[test]
    fn at_stop_a_route_over_several_links_comes_back_with_any_of_them() {
        assert!(comes_back(&multipath(), Some(&via(2))));
        assert!(!comes_back(&multipath(), Some(&via(3))));
        assert!(comes_back(&foreign(2, 0), None));
        assert!(!comes_back(&foreign(2, 0), Some(&via(1))));
    }
}

//! One address dimension: which filters an address can still match.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::vectors::{Classes, FilterSet};

/// What a filter says of the address.
pub(super) enum Selector<'a> {
    /// Anything.
    Any,
    /// In one of these.
    In(&'a [Ipv4Net]),
    /// In none of these.
    NotIn(&'a [Ipv4Net]),
}

/// The dimension, ready for longest-prefix lookups.
#[derive(Debug, PartialEq, Eq)]
pub struct Prefixes {
    /// Class of every prefix that a filter names.
    pub classes: Vec<(Ipv4Net, u32)>,
    /// Class of every other address.
    pub elsewhere: u32,
}

impl Prefixes {
    /// An address lies in its longest prefix and in that one's ancestors, and in no other prefix. So the
    /// set of a prefix is its parent's, changed by the filters that name the prefix itself. In order of
    /// address and length, parents come before children.
    pub(super) fn compile(selectors: &[Selector<'_>], classes: &mut Classes) -> Self {
        let mut elsewhere = FilterSet::empty(selectors.len());
        let mut named: BTreeMap<(Ipv4Addr, u8), Vec<(usize, bool)>> = BTreeMap::new();
        for (filter, selector) in selectors.iter().enumerate() {
            let (nets, inside) = match selector {
                Selector::Any => {
                    elsewhere.insert(filter);
                    continue;
                }
                Selector::In(nets) => (nets, true),
                Selector::NotIn(nets) => {
                    elsewhere.insert(filter);
                    (nets, false)
                }
            };
            for net in *nets {
                named.entry((net.network(), net.prefix_len())).or_default().push((filter, inside));
            }
        }

        let elsewhere_class = classes.class(&elsewhere);
        let mut result = Vec::with_capacity(named.len());
        let mut ancestors: Vec<(Ipv4Net, FilterSet)> = Vec::new();
        for ((address, length), changes) in named {
            let Ok(net) = Ipv4Net::new(address, length) else {
                continue; // cannot be: both parts come from an `Ipv4Net`
            };
            while ancestors.last().is_some_and(|(ancestor, _)| !ancestor.contains(&net)) {
                ancestors.pop();
            }
            let mut set = ancestors.last().map_or_else(|| elsewhere.clone(), |(_, set)| set.clone());
            for (filter, inside) in changes {
                if inside {
                    set.insert(filter);
                } else {
                    set.remove(filter);
                }
            }
            result.push((net, classes.class(&set)));
            ancestors.push((net, set));
        }
        Self { classes: result, elsewhere: elsewhere_class }
    }

    /// The class of an address, as the kernel's trie finds it.
    pub fn class_of(&self, address: Ipv4Addr) -> u32 {
        self.classes
            .iter()
            .filter(|(net, _)| net.contains(&address))
            .max_by_key(|(net, _)| net.prefix_len())
            .map_or(self.elsewhere, |(_, class)| *class)
    }
}

//! One port dimension: which filters a port can still match.

use super::classes::{Borders, Classes};
use super::vectors::{Difference, FilterSet};
use crate::config::PortRange;

/// The filters that match where nothing is named, where another class begins, and the classes.
///
/// `selectors`: each filter's ranges; none means any port.
pub(super) fn compile(selectors: &[&[PortRange]]) -> (FilterSet, Borders, Classes) {
    let mut elsewhere = FilterSet::empty(selectors.len());
    // Where a filter's ranges begin (true) and where they have ended.
    let mut events: Vec<(u32, usize, bool)> = Vec::new();
    for (filter, ranges) in selectors.iter().enumerate() {
        if ranges.is_empty() {
            elsewhere.insert(filter);
        }
        for range in *ranges {
            events.push((u32::from(range.first), filter, true));
            events.push((u32::from(range.last) + 1, filter, false));
        }
    }
    events.sort_unstable();

    let mut classes = Classes::new();
    let mut borders = Borders::default();
    let mut difference = Difference::default();
    // How many ranges of each filter the sweep is in: they may overlap.
    let mut depths = vec![0usize; selectors.len()];
    for group in events.chunk_by(|(a, ..), (b, ..)| a == b) {
        for &(_, filter, begins) in group {
            if begins {
                depths[filter] += 1;
                difference.add_filter(filter);
            }
        }
        for &(_, filter, begins) in group {
            if !begins {
                depths[filter] -= 1;
                if depths[filter] == 0 {
                    difference.remove_filter(filter);
                }
            }
        }
        let number = group[0].0;
        if number <= u32::from(u16::MAX) {
            borders.push(number, classes.class(&difference));
        }
    }
    (elsewhere, borders, classes)
}

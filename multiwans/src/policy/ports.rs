//! One port dimension: which filters a port can still match.

use super::vectors::{Classes, FilterSet};
use crate::config::PortRange;

/// The dimension, by port.
#[derive(Debug, PartialEq, Eq)]
pub struct Ports {
    /// Runs of ports that filters name, ascending and disjoint, with their class.
    pub runs: Vec<(PortRange, u32)>,
    /// Class of every other port.
    pub elsewhere: u32,
}

impl Ports {
    /// `selectors`: each filter's ranges; none means any port.
    pub(super) fn compile(selectors: &[&[PortRange]], classes: &mut Classes) -> Self {
        let mut elsewhere = FilterSet::empty(selectors.len());
        // Where a set of filters begins to hold: at a range's first port, and after its last one.
        let mut borders: Vec<u32> = Vec::new();
        for (filter, ranges) in selectors.iter().enumerate() {
            if ranges.is_empty() {
                elsewhere.insert(filter);
            }
            for range in *ranges {
                borders.push(u32::from(range.first));
                borders.push(u32::from(range.last) + 1);
            }
        }
        borders.sort_unstable();
        borders.dedup();

        let elsewhere_class = classes.class(&elsewhere);
        let mut runs = Vec::new();
        for pair in borders.windows(2) {
            let (Ok(first), Ok(last)) = (u16::try_from(pair[0]), u16::try_from(pair[1] - 1)) else {
                continue; // cannot be: only the last border can be 65 536, and it begins no pair
            };
            let mut set = elsewhere.clone();
            let mut named = false;
            for (filter, ranges) in selectors.iter().enumerate() {
                if ranges.iter().any(|range| (range.first..=range.last).contains(&first)) {
                    set.insert(filter);
                    named = true;
                }
            }
            if named {
                runs.push((PortRange { first, last }, classes.class(&set)));
            }
        }
        Self { runs, elsewhere: elsewhere_class }
    }

    /// The class of a port.
    pub fn class_of(&self, port: u16) -> u32 {
        self.runs
            .iter()
            .find(|(run, _)| (run.first..=run.last).contains(&port))
            .map_or(self.elsewhere, |(_, class)| *class)
    }
}

//! The classes of one dimension: which distinct sets of filters its keys have.

use std::collections::HashMap;

use super::vectors::Difference;

/// Number of a class, by the order they were met. [`ELSEWHERE`] is the first.
pub(super) type ClassNumber = u32;

/// The class of what no filter names.
pub(super) const ELSEWHERE: ClassNumber = 0;

/// Gives each distinct set a number.
#[derive(Debug)]
pub(super) struct Classes {
    numbers: HashMap<Difference, ClassNumber>,
    differences: Vec<Difference>,
}

impl Classes {
    pub(super) fn new() -> Self {
        let none = Difference::default();
        Self { numbers: HashMap::from([(none.clone(), ELSEWHERE)]), differences: vec![none] }
    }

    /// The class of a set.
    pub(super) fn class(&mut self, difference: &Difference) -> ClassNumber {
        if let Some(number) = self.numbers.get(difference) {
            return *number;
        }
        // At most two for each prefix or range: memory ends long before the numbers do.
        let number = u32::try_from(self.differences.len()).unwrap_or(u32::MAX);
        self.numbers.insert(difference.clone(), number);
        self.differences.push(difference.clone());
        number
    }

    /// All sets, by class.
    pub(super) fn differences(&self) -> &[Difference] {
        &self.differences
    }
}

/// Where keys of another class begin: ascending by first key, no two neighbours of the same class. The
/// keys before the first one are [`ELSEWHERE`].
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Borders(Vec<(u32, ClassNumber)>);

impl Borders {
    /// From `first` on, and until told otherwise, keys have this class. `first` never goes back; where it is
    /// told twice, the later one holds.
    pub(super) fn push(&mut self, first: u32, class: ClassNumber) {
        while self.0.last().is_some_and(|(last, _)| *last == first) {
            self.0.pop();
        }
        if self.0.last().map_or(ELSEWHERE, |(_, class)| *class) != class {
            self.0.push((first, class));
        }
    }

    /// The borders.
    pub(super) fn as_slice(&self) -> &[(u32, ClassNumber)] {
        &self.0
    }
}

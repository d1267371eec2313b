//! Values that only one entry of the file may have.

use std::collections::HashMap;
use std::hash::Hash;

/// Who has a value already, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    /// As messages name it: `WAN "WAN1"`.
    pub(super) name: String,
    /// Line of its value.
    pub(super) line: u32,
}

/// The values taken so far.
#[derive(Debug)]
pub(super) struct Unique<T>(HashMap<T, Owner>);

impl<T> Default for Unique<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T: Eq + Hash> Unique<T> {
    /// Takes a value.
    ///
    /// # Errors
    /// The one who has it.
    pub(super) fn take(&mut self, value: T, name: &str, line: u32) -> Result<(), &Owner> {
        use std::collections::hash_map::Entry;
        match self.0.entry(value) {
            Entry::Occupied(taken) => Err(taken.into_mut()),
            Entry::Vacant(free) => {
                free.insert(Owner { name: name.to_owned(), line });
                Ok(())
            }
        }
    }
}

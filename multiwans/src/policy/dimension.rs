//! A dimension in the form the programs read; see [`multiwans_common::dimension`].

use std::collections::HashMap;

use multiwans_common::dimension::{
    self, CELL_ENTRIES, Cell, Cells, Dimension as Kind, ELSEWHERE, MIDDLE_NODES, NODE, ROOT, SLOTS,
};

use super::classes::{self, Borders, ClassNumber, Classes};
use super::vectors::FilterSet;

/// Cells of a dimension: 256 MiB of the kernel's memory. Two million single addresses, each far from the next,
/// take a third of it; more needs ten thousand lists that overlap in every way.
pub const MAX_CELLS: usize = 1 << 24;

/// A dimension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dimension {
    elsewhere: FilterSet,
    cells: Vec<Cell>,
}

/// A dimension would take more of the kernel's memory than it may.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{dimension} of the filters ({mebibytes} MiB of kernel memory) must take at most {} MiB", MAX_CELLS >> 16)]
pub struct TooLarge {
    /// `sources`, `destinations`, …
    pub dimension: &'static str,
    /// What it would take, rounded up.
    pub mebibytes: usize,
}

impl Dimension {
    /// Lays out what a dimension was compiled to.
    pub(super) fn new(
        kind: Kind,
        (elsewhere, borders, classes): (FilterSet, Borders, Classes),
    ) -> Result<Self, TooLarge> {
        let cells = Layout::new(kind, &elsewhere, &classes, &borders).build(&borders);
        if cells.len() > MAX_CELLS {
            let dimension = match kind {
                Kind::Source => "sources",
                Kind::Destination => "destinations",
                Kind::Protocol => "protocols",
                Kind::SourcePort => "source ports",
                Kind::DestinationPort => "destination ports",
            };
            return Err(TooLarge { dimension, mebibytes: cells.len().div_ceil(1 << 16) });
        }
        Ok(Self { elsewhere, cells })
    }

    /// The filters that match where nothing is named.
    pub fn elsewhere(&self) -> &FilterSet {
        &self.elsewhere
    }

    /// The cells.
    pub fn cells(&self) -> &[Cell] {
        &self.cells
    }

    /// A word of the filters that a class can still match.
    pub fn word(&self, class: u32, word: u32) -> u64 {
        let Cell([_, changed]) = self.cells[class as usize];
        self.elsewhere.word(word as usize) ^ dimension::difference(self, class, changed, word)
    }
}

impl Cells for Dimension {
    fn cell(&self, number: u32) -> Option<&Cell> {
        self.cells.get(number as usize)
    }
}

/// Entries of a root.
fn root_entries(kind: Kind) -> u32 {
    if kind == Kind::Protocol { 1 << 8 } else { 1 << 16 }
}

/// A dimension under construction.
struct Layout {
    kind: Kind,
    cells: Vec<Cell>,
    /// Cell of each class.
    places: Vec<u32>,
    /// `[bitmap, first run]`, the run's number relative to the runs.
    nodes: Vec<Cell>,
    runs: Vec<u32>,
    /// Runs that end at classes, by what they are: with a million single addresses of one list, a million
    /// times the same three.
    shared: HashMap<Vec<u32>, u32>,
}

/// Longer ones hardly come twice.
const LONGEST_SHARED: usize = 8;

impl Layout {
    fn new(kind: Kind, elsewhere: &FilterSet, classes: &Classes, borders: &Borders) -> Self {
        let root = if borders.as_slice().is_empty() { 0 } else { root_entries(kind) };
        let mut cells = vec![Cell([0; 2]); 1 + (root / CELL_ENTRIES) as usize];
        let mut places = Vec::with_capacity(classes.differences().len());
        for difference in classes.differences() {
            let (mut live, mut changed) = (0, 0);
            for (number, word) in elsewhere.words().iter().enumerate() {
                live |= u64::from(*word != 0) << number;
            }
            for &(number, bits) in difference.words() {
                changed |= 1 << number;
                if elsewhere.word(usize::from(number)) == bits {
                    live &= !(1 << number);
                } else {
                    live |= 1 << number;
                }
            }
            let class = Cell([live, changed]);
            if places.is_empty() {
                cells[ELSEWHERE as usize] = class;
                places.push(ELSEWHERE);
                continue;
            }
            places.push(narrow(cells.len()));
            cells.push(class);
            for pair in difference.words().chunks(2) {
                cells.push(Cell([pair[0].1, pair.get(1).map_or(0, |(_, bits)| *bits)]));
            }
        }
        Self { kind, cells, places, nodes: Vec::new(), runs: Vec::new(), shared: HashMap::new() }
    }

    fn build(mut self, borders: &Borders) -> Vec<Cell> {
        let mut walk = Walk { borders: borders.as_slice(), class: classes::ELSEWHERE };
        if !borders.as_slice().is_empty() {
            let addresses = matches!(self.kind, Kind::Source | Kind::Destination);
            for key in 0..root_entries(self.kind) {
                let entry =
                    if addresses { self.upper(key << 16, &mut walk) } else { self.single(key, &mut walk) };
                set_entry(&mut self.cells, ROOT + key, entry);
            }
        }
        self.finish()
    }

    /// Puts nodes and runs behind the rest. What points at nodes counted from `cells.len()` on already.
    fn finish(self) -> Vec<Cell> {
        let Self { mut cells, nodes, runs, .. } = self;
        let first_run = ((cells.len() + nodes.len()) * CELL_ENTRIES as usize) as u64;
        cells.reserve_exact(nodes.len() + runs.len().div_ceil(CELL_ENTRIES as usize));
        cells.extend(nodes.into_iter().map(|Cell([starts, run])| Cell([starts, first_run + run])));
        cells.extend(runs.chunks(CELL_ENTRIES as usize).map(|entries| {
            let entry = |at: usize| u64::from(entries.get(at).copied().unwrap_or(0));
            Cell([entry(0) | entry(1) << 32, entry(2) | entry(3) << 32])
        }));
        cells
    }

    fn single(&self, key: u32, walk: &mut Walk<'_>) -> u32 {
        walk.take_at(key);
        self.places[walk.class as usize]
    }

    /// The entry of a /16.
    fn upper(&mut self, first: u32, walk: &mut Walk<'_>) -> u32 {
        walk.take_at(first);
        if !walk.inside(first, 1 << 16) {
            return self.places[walk.class as usize];
        }
        let group = self.nodes.len();
        self.nodes.resize(group + MIDDLE_NODES as usize, Cell([0; 2]));
        for number in 0..MIDDLE_NODES {
            let node = self.middle(first + number * SLOTS * SLOTS, walk);
            self.nodes[group + number as usize] = node;
        }
        NODE | narrow(self.cells.len() + group)
    }

    /// The node of 64 /26s.
    fn middle(&mut self, first: u32, walk: &mut Walk<'_>) -> Cell {
        let mut node = Runs::default();
        let mut slot = 0;
        while slot < SLOTS {
            let address = first + slot * SLOTS;
            walk.take_at(address);
            if walk.inside(address, SLOTS) {
                let lower = self.lower(address, walk);
                self.nodes.push(lower);
                node.push(slot, NODE | narrow(self.cells.len() + self.nodes.len() - 1));
                slot += 1;
            } else {
                node.push(slot, self.places[walk.class as usize]);
                // On to the slot that holds the next border.
                slot = match walk.next() {
                    Some(next) if next - first < SLOTS * SLOTS => (next - first) / SLOTS,
                    _ => SLOTS,
                };
            }
        }
        self.node(node)
    }

    /// The node of 64 addresses.
    fn lower(&mut self, first: u32, walk: &mut Walk<'_>) -> Cell {
        let mut node = Runs::default();
        node.push(0, self.places[walk.class as usize]);
        while walk.inside(first, SLOTS) {
            let address = walk.next().unwrap_or(first);
            walk.take_at(address);
            node.push(address - first, self.places[walk.class as usize]);
        }
        self.node(node)
    }

    fn node(&mut self, node: Runs) -> Cell {
        let shareable =
            node.entries.len() <= LONGEST_SHARED && node.entries.iter().all(|entry| entry & NODE == 0);
        let known = if shareable { self.shared.get(&node.entries) } else { None };
        let first = match known {
            Some(first) => *first,
            None => {
                let first = narrow(self.runs.len());
                self.runs.extend(&node.entries);
                if shareable {
                    self.shared.insert(node.entries, first);
                }
                first
            }
        };
        Cell([node.starts, u64::from(first)])
    }
}

/// The runs of a node.
#[derive(Default)]
struct Runs {
    starts: u64,
    entries: Vec<u32>,
}

impl Runs {
    fn push(&mut self, slot: u32, entry: u32) {
        if self.entries.last() != Some(&entry) {
            self.starts |= 1 << slot;
            self.entries.push(entry);
        }
    }
}

/// A walk over the borders, and the class it is in.
struct Walk<'a> {
    borders: &'a [(u32, ClassNumber)],
    class: ClassNumber,
}

impl Walk<'_> {
    /// Where the next border is.
    fn next(&self) -> Option<u32> {
        self.borders.first().map(|(first, _)| *first)
    }

    /// Crosses the border at this key, if there is one.
    fn take_at(&mut self, key: u32) {
        if let Some(((first, class), rest)) = self.borders.split_first()
            && *first == key
        {
            (self.class, self.borders) = (*class, rest);
        }
    }

    /// Whether a border lies among these keys; one at the first was taken.
    fn inside(&self, first: u32, length: u32) -> bool {
        self.next().is_some_and(|next| next - first < length)
    }
}

fn set_entry(cells: &mut [Cell], number: u32, entry: u32) {
    let number = number as usize;
    let Cell(halves) = &mut cells[number / CELL_ENTRIES as usize];
    halves[number / 2 % 2] |= u64::from(entry) << (number % 2 * 32);
}

/// Numbers of cells and runs are below 2^31 long before they are too many for the memory of this machine.
fn narrow(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

//! A dimension in the form the programs read; see [`multiwans_common::dimension`].

use std::collections::HashMap;

use multiwans_common::dimension::{
    Dimension as Kind, ELSEWHERE, MIDDLE_NODES, NODE, ROOT, ROOT_ENTRIES, SLOTS,
};
use multiwans_common::{LINE_CELLS, LINE_ENTRIES, Line, Lines};

use super::classes::{self, Borders, ClassNumber, Classes};
use super::vectors::{Difference, FilterSet};

/// Lines of a dimension: 256 MiB of the kernel's memory. Five million single addresses, each far from the next,
/// are as much; else it takes ten thousand lists that overlap in every way.
pub const MAX_LINES: usize = 1 << 22;

/// A dimension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dimension {
    elsewhere: FilterSet,
    lines: Vec<Line>,
}

/// A dimension would take more of the kernel's memory than it may.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{dimension} of the filters ({mebibytes} MiB of kernel memory) must take at most {} MiB", MAX_LINES >> 14)]
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
        let lines = Layout::new(&elsewhere, &classes, &borders).build(kind, &borders, &elsewhere);
        if lines.len() > MAX_LINES {
            let dimension = match kind {
                Kind::Source => "sources",
                Kind::Destination => "destinations",
                Kind::SourcePort => "source ports",
                Kind::DestinationPort => "destination ports",
            };
            return Err(TooLarge { dimension, mebibytes: lines.len().div_ceil(1 << 14) });
        }
        Ok(Self { elsewhere, lines })
    }

    /// The filters that match where nothing is named.
    pub fn elsewhere(&self) -> &FilterSet {
        &self.elsewhere
    }

    /// Whether its keys are told apart: without, there is the one class of what no filter names.
    pub fn has_root(&self) -> bool {
        self.lines.len() > 1
    }

    /// The lines.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }
}

impl Lines for Dimension {
    fn line(&self, number: u32) -> Option<&Line> {
        self.lines.get(number as usize)
    }
}

/// Sixteen bytes: a class, two words of one, or a node.
type Cell = [u64; 2];

/// A dimension under construction.
struct Layout {
    root: Vec<u32>,
    /// Number of the first cell behind the root.
    first_class: usize,
    classes: Vec<Cell>,
    /// Cell of each class.
    places: Vec<u32>,
    /// `[bitmap, first run]`, the run's number relative to the runs.
    nodes: Vec<Cell>,
    runs: Vec<u32>,
    /// Runs that end at classes, by what they are: with a million single addresses of one list, a million
    /// times the same three.
    shared: HashMap<Vec<u32>, u32>,
    /// Memory of nodes that are done, for the next.
    spare: Vec<Vec<u32>>,
}

/// Longer ones hardly come twice.
const LONGEST_SHARED: usize = 8;

impl Layout {
    fn new(elsewhere: &FilterSet, classes: &Classes, borders: &Borders) -> Self {
        let mut root = Vec::new();
        if !borders.as_slice().is_empty() {
            root.reserve_exact(ROOT_ENTRIES as usize);
        }
        let first_class = LINE_CELLS as usize + root.capacity() / ENTRIES_PER_CELL;
        let mut layout = Self {
            root,
            first_class,
            classes: Vec::new(),
            places: vec![ELSEWHERE],
            nodes: Vec::new(),
            runs: Vec::new(),
            shared: HashMap::new(),
            spare: Vec::new(),
        };
        for difference in &classes.differences()[1..] {
            // What most classes are, the words of one list's filters, is read with the class itself.
            if layout.classes.len() % LINE_CELLS as usize == LINE_CELLS as usize - 1 {
                layout.classes.push([0; 2]);
            }
            layout.places.push(narrow(first_class + layout.classes.len()));
            layout.classes.push(class(elsewhere, difference));
            for pair in difference.words().chunks(2) {
                layout.classes.push([pair[0].1, pair.get(1).map_or(0, |(_, bits)| *bits)]);
            }
        }
        layout
    }

    fn build(mut self, kind: Kind, borders: &Borders, elsewhere: &FilterSet) -> Vec<Line> {
        let mut walk = Walk { borders: borders.as_slice(), class: classes::ELSEWHERE };
        if !borders.as_slice().is_empty() {
            for key in 0..ROOT_ENTRIES {
                let entry = match kind {
                    Kind::Source | Kind::Destination => self.upper(key << 16, &mut walk),
                    Kind::SourcePort | Kind::DestinationPort => self.single(key, &mut walk),
                };
                self.root.push(entry);
            }
        }
        self.into_lines(class(elsewhere, &Difference::default()))
    }

    fn first_node(&self) -> usize {
        self.first_class + self.classes.len()
    }

    fn into_lines(self, elsewhere: Cell) -> Vec<Line> {
        let first_node = self.first_node();
        let first_run = (first_node + self.nodes.len()) * ENTRIES_PER_CELL;
        let entries = first_run + self.runs.len();
        let mut lines = vec![Line::default(); entries.div_ceil(LINE_ENTRIES as usize)];
        set_cell(&mut lines, ELSEWHERE as usize, elsewhere);
        for (number, entry) in (ROOT as usize..).zip(self.root) {
            set_entry(&mut lines, number, entry);
        }
        for (number, cell) in (self.first_class..).zip(self.classes) {
            set_cell(&mut lines, number, cell);
        }
        for (number, [starts, run]) in (first_node..).zip(self.nodes) {
            set_cell(&mut lines, number, [starts, first_run as u64 + run]);
        }
        for (number, entry) in (first_run..).zip(self.runs) {
            set_entry(&mut lines, number, entry);
        }
        lines
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
        self.nodes.resize(group + MIDDLE_NODES as usize, [0; 2]);
        for number in 0..MIDDLE_NODES {
            let node = self.middle(first + number * SLOTS * SLOTS, walk);
            self.nodes[group + number as usize] = node;
        }
        NODE | narrow(self.first_node() + group)
    }

    fn runs(&mut self) -> Runs {
        Runs { starts: 0, entries: self.spare.pop().unwrap_or_default() }
    }

    /// The node of 64 /26s.
    fn middle(&mut self, first: u32, walk: &mut Walk<'_>) -> Cell {
        let mut node = self.runs();
        let mut slot = 0;
        while slot < SLOTS {
            let address = first + slot * SLOTS;
            walk.take_at(address);
            if walk.inside(address, SLOTS) {
                let lower = self.lower(address, walk);
                self.nodes.push(lower);
                node.push(slot, NODE | narrow(self.first_node() + self.nodes.len() - 1));
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
        let mut node = self.runs();
        node.push(0, self.places[walk.class as usize]);
        while walk.inside(first, SLOTS) {
            let address = walk.next().unwrap_or(first);
            walk.take_at(address);
            node.push(address - first, self.places[walk.class as usize]);
        }
        self.node(node)
    }

    fn node(&mut self, mut node: Runs) -> Cell {
        let shareable =
            node.entries.len() <= LONGEST_SHARED && node.entries.iter().all(|entry| entry & NODE == 0);
        let known = if shareable { self.shared.get(&node.entries) } else { None };
        let first = match known {
            Some(first) => *first,
            None => {
                let first = narrow(self.runs.len());
                self.runs.extend(&node.entries);
                if shareable {
                    self.shared.insert(node.entries.clone(), first);
                }
                first
            }
        };
        node.entries.clear();
        self.spare.push(node.entries);
        [node.starts, u64::from(first)]
    }
}

/// The runs of a node.
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

/// Entries (32 bits) in a cell.
const ENTRIES_PER_CELL: usize = (LINE_ENTRIES / LINE_CELLS) as usize;

/// A class: the words that are not zero, and those that differ from what no filter names.
fn class(elsewhere: &FilterSet, difference: &Difference) -> Cell {
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
    [live, changed]
}

fn set_cell(lines: &mut [Line], number: usize, cell: Cell) {
    let Line(words) = &mut lines[number / LINE_CELLS as usize];
    let first = number % LINE_CELLS as usize * 2;
    words[first..first + 2].copy_from_slice(&cell);
}

fn set_entry(lines: &mut [Line], number: usize, entry: u32) {
    let Line(words) = &mut lines[number / LINE_ENTRIES as usize];
    words[number / 2 % 8] |= u64::from(entry) << (number % 2 * 32);
}

/// Numbers of cells and runs are below 2^31 long before they are too many for the memory of this machine.
fn narrow(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

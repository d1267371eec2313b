//! The filters in the form the programs read; see [`multiwans_common::filters`].

use multiwans_common::dimension::Dimension as Kind;
use multiwans_common::filters::{
    BITS_PER_WORD, FilterEntry, LINE_FILTERS, Row, SHAPE_LINES, SHAPES, class_line,
};
use multiwans_common::{Line, Lines};

use super::compiled::CompiledFilter;
use super::dimension::Dimension;

/// The filters of a policy, and what is read beside them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filters {
    lines: Vec<Line>,
    count: usize,
}

/// What of a filter is laid out here.
pub(super) struct Entry {
    pub(super) filter: CompiledFilter,
    /// `None`: any.
    pub(super) protocol: Option<u8>,
    /// The dimensions it names something in.
    pub(super) named: [bool; Kind::COUNT],
}

impl Filters {
    pub(super) fn new(entries: &[Entry], dimensions: &[Dimension; Kind::COUNT]) -> Self {
        // Class 0 is for all protocols that no filter names, the others for one each: at most eight.
        let mut protocols: Vec<Option<u8>> = vec![None];
        for protocol in entries.iter().filter_map(|entry| entry.protocol) {
            if !protocols.contains(&Some(protocol)) {
                protocols.push(Some(protocol));
            }
        }
        let words = entries.len().div_ceil(BITS_PER_WORD);
        let first_filter = class_line(narrow(protocols.len()));
        let filter_lines = words * BITS_PER_WORD / LINE_FILTERS as usize;
        let mut lines = vec![Line::default(); first_filter as usize + filter_lines];

        for (class, protocol) in protocols.iter().enumerate() {
            if let Some(protocol) = protocol {
                let number = usize::from(*protocol);
                lines[number / 64].0[number / 8 % 8] |= (class as u64) << (number % 8 * 8);
            }
            let first = class_line(narrow(class)) as usize;
            let matched = |entry: &Entry| entry.protocol.is_none() || entry.protocol == *protocol;
            let mut shapes = [0u64; SHAPES];
            for (word, entries) in entries.chunks(BITS_PER_WORD).enumerate() {
                let mut bits = 0;
                for (bit, entry) in entries.iter().enumerate().filter(|(_, entry)| matched(entry)) {
                    bits |= 1 << bit;
                    shapes[entry.shape()] |= 1 << word;
                }
                let row = Row {
                    elsewhere: std::array::from_fn(|dimension| dimensions[dimension].elsewhere().word(word)),
                    protocol: bits,
                    filters: first_filter + narrow(word * BITS_PER_WORD) / LINE_FILTERS,
                };
                lines[first + SHAPE_LINES as usize + word] = row.line();
            }
            for (line, shapes) in lines[first..].iter_mut().zip(shapes.chunks_exact(8)) {
                line.0.copy_from_slice(shapes);
            }
        }
        for (number, entry) in entries.iter().enumerate() {
            let stored = FilterEntry { wan: entry.filter.wan.get().into(), skip_to: entry.filter.skip_to };
            let line = first_filter as usize + number / LINE_FILTERS as usize;
            lines[line].0[number % LINE_FILTERS as usize] = stored.word();
        }
        Self { lines, count: entries.len() }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The lines.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }
}

impl Entry {
    fn shape(&self) -> usize {
        self.named.iter().enumerate().map(|(dimension, named)| usize::from(*named) << dimension).sum()
    }
}

impl Lines for Filters {
    fn line(&self, number: u32) -> Option<&Line> {
        self.lines.get(number as usize)
    }
}

/// Everything numbered here is bounded by the number of filters.
fn narrow(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

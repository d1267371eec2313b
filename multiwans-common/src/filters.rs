//! The filters of a compiled policy, and what the search reads beside them: one array of [`Line`]s.
//!
//! ```text
//! lines 0 to 3    the class of each IP protocol, a byte each
//! then            for each class: two lines of shapes, and a row for each word of the vectors
//! then            the filters, eight in a line
//! ```
//! A filter has a *shape*: which dimensions it names something in. It matches only where each of those
//! differs from what no filter names, so the words worth a look are few ([`candidates`]), however many filters
//! say nothing of one dimension or another. Without it, thousands of filters of which half name a source and
//! half a destination had the search go through every word.

use crate::dimension::Dimension;
use crate::lines::{Line, Lines};

/// Filters a policy can have: a bit in a word for each of the 64 words.
pub const MAX_FILTERS: usize = 64 * BITS_PER_WORD;
/// Bits in one word of a vector.
pub const BITS_PER_WORD: usize = 64;
/// Words of a vector.
pub const MAX_WORDS: u32 = 64;
/// Which dimensions a filter names something in: a bit each, by their number.
pub const SHAPES: usize = 1 << Dimension::COUNT;
/// Lines of the protocols' classes.
pub const PROTOCOL_LINES: u32 = 4;
/// Lines of a class of protocols: shapes and rows.
pub const CLASS_LINES: u32 = SHAPE_LINES + MAX_WORDS;
/// Lines of a class's shapes.
pub const SHAPE_LINES: u32 = 2;
/// Filters in a line.
pub const LINE_FILTERS: u32 = 8;

/// What a step of the search reads, for one class of protocols and one word of the vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// By [`Dimension`]: the filters that can match what nothing is named for.
    pub elsewhere: [u64; Dimension::COUNT],
    /// The filters of this protocol.
    pub protocol: u64,
    /// Line of the first of these 64 filters.
    pub filters: u32,
}

impl Row {
    /// As it is stored.
    pub const fn line(self) -> Line {
        let [source, destination, source_port, destination_port] = self.elsewhere;
        Line([source, destination, source_port, destination_port, self.protocol, self.filters as u64, 0, 0])
    }

    /// From what is stored.
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation, reason = "written from 32 bits")]
    pub const fn from_line(line: &Line) -> Self {
        let Line([source, destination, source_port, destination_port, protocol, filters, ..]) = *line;
        Self {
            elsewhere: [source, destination, source_port, destination_port],
            protocol,
            filters: filters as u32,
        }
    }
}

/// One filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilterEntry {
    /// The WAN it sends to.
    pub wan: u32,
    /// The next filter that sends elsewhere: where to go on when this WAN takes no filtered traffic now.
    pub skip_to: u32,
}

impl FilterEntry {
    /// As it is stored.
    pub const fn word(self) -> u64 {
        self.wan as u64 | (self.skip_to as u64) << 32
    }

    /// From what is stored.
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation, reason = "each half is what is meant")]
    pub const fn from_word(word: u64) -> Self {
        Self { wan: word as u32, skip_to: (word >> 32) as u32 }
    }
}

/// First line of what belongs to a class of protocols.
#[inline(always)]
pub const fn class_line(class: u32) -> u32 {
    PROTOCOL_LINES + class * CLASS_LINES
}

/// The class of an IP protocol number.
#[inline(always)]
#[allow(clippy::cast_possible_truncation, reason = "the lowest byte is what is meant")]
pub fn protocol_class(lines: &impl Lines, protocol: u8) -> Option<u32> {
    let Line(words) = lines.line(protocol as u32 / 64)?;
    Some((words[(protocol / 8 % 8) as usize] >> (protocol % 8 * 8)) as u8 as u32)
}

/// The words in which a filter of this class of protocols can match, where `changed` are the words that
/// differ in each dimension from what no filter names.
#[inline(always)]
pub fn candidates(lines: &impl Lines, class: u32, changed: [u64; Dimension::COUNT]) -> Option<u64> {
    let [source, destination, source_port, destination_port] = changed;
    let line = class_line(class);
    let addresses = |Line([none, of_source, of_destination, of_both, ..]): &Line| {
        none | (of_source & source) | (of_destination & destination) | (of_both & source & destination)
    };
    let second_half = |Line([.., a, b, c, d]): &Line| addresses(&Line([*a, *b, *c, *d, 0, 0, 0, 0]));
    let without = lines.line(line)?;
    let with = lines.line(line + 1)?;
    Some(
        addresses(without)
            | (second_half(without) & source_port)
            | (addresses(with) & destination_port)
            | (second_half(with) & source_port & destination_port),
    )
}

/// A row.
#[inline(always)]
pub fn row(lines: &impl Lines, class: u32, word: u32) -> Option<Row> {
    lines.line(class_line(class) + SHAPE_LINES + word).map(Row::from_line)
}

/// A filter of a row; `bit`: below 64.
#[inline(always)]
pub fn filter(lines: &impl Lines, row: &Row, bit: u32) -> Option<FilterEntry> {
    let Line(words) = lines.line(row.filters + bit / LINE_FILTERS)?;
    Some(FilterEntry::from_word(words[(bit % LINE_FILTERS) as usize]))
}

//! What every map of a policy consists of.

/// Sixty-four bytes, a line of the processor's cache: what is read together stands in one.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Line(pub [u64; 8]);

/// Entries (32 bits) in a line.
pub const LINE_ENTRIES: u32 = 16;
/// Cells (128 bits) in a line.
pub const LINE_CELLS: u32 = 4;

/// Where lines are read from.
pub trait Lines {
    /// A line; `None` past the end.
    fn line(&self, number: u32) -> Option<&Line>;
}

/// An entry.
#[inline(always)]
#[allow(clippy::cast_possible_truncation, reason = "the lower half is what is meant")]
pub(crate) fn entry(lines: &impl Lines, number: u32) -> Option<u32> {
    let Line(words) = lines.line(number / LINE_ENTRIES)?;
    Some((words[(number / 2 % 8) as usize] >> (number % 2 * 32)) as u32)
}

/// A cell.
#[inline(always)]
pub(crate) fn pair(lines: &impl Lines, cell: u32) -> Option<[u64; 2]> {
    let Line(words) = lines.line(cell / LINE_CELLS)?;
    let first = (cell % LINE_CELLS * 2) as usize;
    Some([words[first], words[first + 1]])
}

const _: () = assert!(size_of::<Line>() == 64);

// SAFETY: `repr(C)` integers without padding (size asserted above), valid for any bit pattern.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Line {}

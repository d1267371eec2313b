//! The search of the programs, here for the daemon.

use std::collections::BTreeSet;

use multiwans_common::Lines;
use multiwans_common::dimension::{Dimension, class, class_of_address, difference, root};
use multiwans_common::filters::{candidates, filter, protocol_class, row};

use super::Tuple;
use crate::types::WanMark;

/// Filters in a word.
const BITS: u32 = u64::BITS;

/// The WAN whose filter takes a packet, by the same steps as the programs: the first filter of all sets whose
/// WAN is usable and not the default. `None`: no filter does.
///
/// `dimensions`: by [`Dimension`].
pub fn first_match(
    filters: &impl Lines,
    dimensions: [&impl Lines; Dimension::COUNT],
    packet: &Tuple,
    usable: &BTreeSet<WanMark>,
    default: Option<WanMark>,
) -> Option<WanMark> {
    let [source, destination, source_port, destination_port] = dimensions;
    let protocol = protocol_class(filters, packet.protocol)?;
    let classes = [
        class_of_address(source, packet.source.to_bits()),
        class_of_address(destination, packet.destination.to_bits()),
        root(source_port, packet.source_port),
        root(destination_port, packet.destination_port),
    ];
    let (mut live, mut changed) = (u64::MAX, [0; Dimension::COUNT]);
    for ((dimension, number), changed) in dimensions.into_iter().zip(classes).zip(&mut changed) {
        let [words, differing] = class(dimension, number)?;
        live &= words;
        *changed = differing;
    }
    let mut words = live & candidates(filters, protocol, changed)?;
    let mut position = 0;
    while words != 0 {
        let word = words.trailing_zeros();
        let row = row(filters, protocol, word)?;
        let mut matches = row.protocol;
        for (number, dimension) in dimensions.into_iter().enumerate() {
            matches &= row.elsewhere[number] ^ difference(dimension, classes[number], changed[number], word);
        }
        if position / BITS == word {
            matches &= u64::MAX << (position % BITS);
        }
        if matches == 0 {
            words &= words - 1;
            continue;
        }
        let filter = filter(filters, &row, matches.trailing_zeros())?;
        let wan = u8::try_from(filter.wan).ok().and_then(WanMark::new)?;
        if Some(wan) != default && usable.contains(&wan) {
            return Some(wan);
        }
        position = filter.skip_to;
        words &= u64::MAX.checked_shl(position / BITS).unwrap_or(0);
    }
    None
}

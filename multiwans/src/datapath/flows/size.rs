//! How many lines of the flow table are in use. Pure: numbers in, numbers out.

/// Lines for each flow: see `multiwans-common/src/flow_table.rs`.
const LINES_PER_FLOW: u32 = 2;
/// 256 KiB, 64 pages: less would not be faster, and a busy moment after a quiet hour has room.
const FEWEST: u32 = 4_096;
/// So many times what is needed may be in use before it becomes less: the table is not to follow every tide. Then it is
/// twice what is needed, for no flow that is there is to find no place.
const SLACK: u32 = 8;

/// All lines of a table for `max` flows.
pub(in crate::datapath) const fn most(max: u32) -> u32 {
    max.saturating_mul(LINES_PER_FLOW)
}

/// How many lines are to be in use for so many flows, of a table for `max`, where it is `now`.
pub(super) fn wanted(flows: u64, now: u32, max: u32) -> u32 {
    let needed = u32::try_from(flows).unwrap_or(u32::MAX).saturating_mul(LINES_PER_FLOW);
    let needed = needed.checked_next_power_of_two().unwrap_or(u32::MAX).max(FEWEST).min(most(max));
    if needed > now {
        needed
    } else if now / SLACK >= needed {
        needed * 2
    } else {
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: u32 = 262_144;

    #[test]
    fn grows_at_once_and_shrinks_late() {
        for (flows, now, expected) in [
            (0, 0, 4_096),
            (2_048, 4_096, 4_096),
            (2_049, 4_096, 8_192),
            (16_384, 4_096, 32_768),
            (16_385, 32_768, 65_536),
            (5_000, 65_536, 65_536),
            (4_096, 65_536, 16_384),
            (200_000, 65_536, 524_288),
            (10_000_000, 524_288, 524_288),
            (0, 524_288, 8_192),
        ] {
            assert_eq!(wanted(flows, now, MAX), expected, "{flows} flows in {now} lines");
        }
    }

    #[test]
    fn never_more_than_there_are() {
        for flows in [0, 1, 1_000, 5_000_000_000] {
            assert_eq!(wanted(flows, 0, 1_024), 2_048);
        }
        assert_eq!(wanted(4_000, 0, 5_000), 8_192);
        assert_eq!(wanted(4_999, 8_192, 5_000), 10_000);
    }
}

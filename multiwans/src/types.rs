//! The words every module shares, as types that carry their unit and their rule.

use std::fmt;
use std::num::NonZeroU8;

use serde::{Deserialize, Serialize};

/// A WAN's number from the configuration (`mark: 1..252`).
///
/// It names the WAN everywhere inside the daemon: it is the number of its routing table, and, shifted
/// into the [`MarkMask`], the mark its packets carry. 253 to 255 are the kernel's own tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WanMark(NonZeroU8);

impl WanMark {
    /// The largest mark: one below the kernel's `default` table (253).
    pub const MAX: u8 = 252;

    /// `None` unless `1 <= value <= 252`.
    pub const fn new(value: u8) -> Option<Self> {
        match NonZeroU8::new(value) {
            Some(value) if value.get() <= Self::MAX => Some(Self(value)),
            _ => None,
        }
    }

    /// The number as configured.
    pub const fn get(self) -> u8 {
        self.0.get()
    }

    /// The routing table of this WAN: same number.
    pub const fn table(self) -> TableId {
        TableId(self.get() as u32)
    }

    /// The name of that table in `rt_tables`, e.g. `WAN2`.
    pub fn table_name(self) -> String {
        format!("WAN{}", self.get())
    }
}

impl fmt::Display for WanMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

/// Which bits of a packet's fwmark are ours: a contiguous run, so the WAN's number is shifted into it.
///
/// Bits outside are other programs' and are never changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MarkMask(u32);

impl MarkMask {
    /// `None` unless the set bits are one contiguous, non-empty run.
    pub const fn new(mask: u32) -> Option<Self> {
        if mask == 0 {
            return None;
        }
        let run = mask >> mask.trailing_zeros();
        if run & run.wrapping_add(1) == 0 { Some(Self(mask)) } else { None }
    }

    /// The mask's bits.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// How far a WAN's number is shifted left into the mask.
    pub const fn shift(self) -> u32 {
        self.0.trailing_zeros()
    }

    /// The largest WAN number the mask can hold.
    pub const fn capacity(self) -> u32 {
        self.0 >> self.shift()
    }

    /// The fwmark of a WAN, or `None` where the mask is too narrow for it.
    pub const fn encode(self, wan: WanMark) -> Option<FwMark> {
        let value = wan.get() as u32;
        if value <= self.capacity() { Some(FwMark(value << self.shift())) } else { None }
    }
}

impl Default for MarkMask {
    /// The seed used marks 1..252 unmasked.
    fn default() -> Self {
        Self(0xff)
    }
}

impl fmt::Display for MarkMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A packet mark as the kernel sees it, already shifted into the [`MarkMask`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FwMark(pub u32);

impl fmt::Display for FwMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A routing table's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TableId(pub u32);

impl TableId {
    /// The kernel's main table.
    pub const MAIN: Self = Self(254);

    /// For people: as `ip` shows it while our table names are in force.
    pub fn name(self) -> String {
        let wan = u8::try_from(self.0).ok().and_then(WanMark::new);
        match wan {
            _ if self == Self::MAIN => "main".to_owned(),
            Some(wan) => wan.table_name(),
            None => self.0.to_string(),
        }
    }
}

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A network interface's index in the daemon's network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IfIndex(pub u32);

impl fmt::Display for IfIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A network interface's name, as the kernel accepts it (`dev_valid_name`): 1 to 15 bytes, neither
/// `.` nor `..`, no `/`, `:` or white space.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IfName(String);

impl IfName {
    /// `IFNAMSIZ` less the terminating zero.
    pub const MAX_BYTES: usize = 15;

    /// `None` where the kernel would refuse the name.
    pub fn new(name: &str) -> Option<Self> {
        let valid = !name.is_empty()
            && name.len() <= Self::MAX_BYTES
            && name != "."
            && name != ".."
            && !name.chars().any(|c| c == '/' || c == ':' || c == '\0' || c.is_whitespace());
        valid.then(|| Self(name.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A link's state as the status file, the hooks and the mails spell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LinkState {
    /// Usable: everything about the interface is as configured, and probes are answered.
    #[serde(rename = "ON")]
    On,
    /// Not usable; the reason is kept beside it.
    #[serde(rename = "OFF")]
    Off,
    /// Not yet judged. The seed's spelling: monitoring templates match it.
    #[serde(rename = "UNKNOW")]
    Unknow,
}

impl fmt::Display for LinkState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::On => "ON",
            Self::Off => "OFF",
            Self::Unknow => "UNKNOW",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_is_one_run_of_bits() {
        for good in [0x1, 0xff, 0xff00, 0xffff_0000, u32::MAX, 0x8000_0000] {
            assert!(MarkMask::new(good).is_some(), "{good:#x}");
        }
        for bad in [0, 0b101, 0xf0f, 0x8000_0001] {
            assert!(MarkMask::new(bad).is_none(), "{bad:#x}");
        }
    }

    #[test]
    fn a_wan_is_shifted_into_the_mask_or_refused() {
        let wan = WanMark::new(252).unwrap();
        assert_eq!(MarkMask::new(0xff00).unwrap().encode(wan), Some(FwMark(252 << 8)));
        assert_eq!(MarkMask::new(0x7f00).unwrap().encode(wan), None);
        assert_eq!(WanMark::new(253), None);
        assert_eq!(WanMark::new(0), None);
    }

    #[test]
    fn tables_have_names_where_they_are_known() {
        let shown = [254, 2, 253, 1000].map(|number| TableId(number).name());
        assert_eq!(shown, ["main", "WAN2", "253", "1000"]);
    }

    #[test]
    fn interface_names_follow_the_kernel() {
        for good in ["eth0", "br-lan", "ppp0", "wg_x.100", "123456789012345"] {
            assert!(IfName::new(good).is_some(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "eth0:1", "a b", "1234567890123456"] {
            assert!(IfName::new(bad).is_none(), "{bad}");
        }
    }
}

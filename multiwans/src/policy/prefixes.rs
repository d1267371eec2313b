//! One address dimension: which filters an address can still match.

use std::collections::HashMap;

use ipnet::Ipv4Net;

use super::classes::{Borders, ClassNumber, Classes, ELSEWHERE};
use super::vectors::{Difference, FilterSet};

/// What a filter says of the address.
pub(super) enum Selector<'a> {
    /// Anything.
    Any,
    /// In one of these lists.
    In(Vec<&'a [Ipv4Net]>),
    /// In none of these.
    NotIn(&'a [Ipv4Net]),
}

impl Selector<'_> {
    /// Whether it names addresses that it matches.
    pub(super) fn names(&self) -> bool {
        matches!(self, Self::In(_))
    }
}

/// The lists of a dimension: prefixes, and the filters whose answer changes for an address in one of them.
#[derive(Default)]
struct Lists<'a> {
    lists: Vec<(&'a [Ipv4Net], Difference)>,
    /// By what they hold, for lists that filters have of their own are often the same. Those of files are one
    /// piece of memory however many filters name them, and are told apart by that before.
    by_place: HashMap<(*const Ipv4Net, usize), usize>,
    by_content: HashMap<&'a [Ipv4Net], usize>,
}

/// Prefixes of a list that is looked for among the others by what it holds. A file's is longer, and is told
/// by its place.
const COMPARED: usize = 1_000;

impl<'a> Lists<'a> {
    fn add(&mut self, nets: &'a [Ipv4Net], filter: usize) {
        let number = *self.by_place.entry((nets.as_ptr(), nets.len())).or_insert_with(|| {
            let mut new = || {
                self.lists.push((nets, Difference::default()));
                self.lists.len() - 1
            };
            if nets.len() > COMPARED { new() } else { *self.by_content.entry(nets).or_insert_with(new) }
        });
        self.lists[number].1.add_filter(filter);
    }

    /// Every prefix of every list, in order of address and length, so that what encloses comes before what
    /// is inside. One integer each: most of the time of a compilation is spent sorting them.
    fn sorted(&self) -> Vec<u64> {
        let count = self.lists.iter().map(|(nets, _)| nets.len()).sum();
        let mut prefixes = Vec::with_capacity(count);
        for (list, (nets, _)) in (0u64..).zip(&self.lists) {
            prefixes.extend(nets.iter().map(|net| pack(*net, list)));
        }
        prefixes.sort_unstable();
        prefixes
    }
}

/// Bits of a list's number in a packed prefix: a filter has one list of its own and those of files.
const LIST_BITS: u32 = 26;

fn pack(net: Ipv4Net, list: u64) -> u64 {
    let address = u64::from(net.network().to_bits());
    (address << 32) | (u64::from(net.prefix_len()) << LIST_BITS) | list
}

/// First and last address of a packed prefix.
fn range(packed: u64) -> (u32, u32) {
    let part = |bits: u64| u32::try_from(bits).unwrap_or(u32::MAX); // each part fits
    let (first, length) = (part(packed >> 32), part(packed >> LIST_BITS & 0x3f));
    (first, first | u32::MAX.checked_shr(length).unwrap_or(0))
}

/// The filters that match where nothing is named, where another class begins, and the classes.
pub(super) fn compile(selectors: &[Selector<'_>]) -> (FilterSet, Borders, Classes) {
    let mut elsewhere = FilterSet::empty(selectors.len());
    let mut lists = Lists::default();
    for (filter, selector) in selectors.iter().enumerate() {
        match selector {
            Selector::Any => elsewhere.insert(filter),
            Selector::In(own) => own.iter().for_each(|nets| lists.add(nets, filter)),
            Selector::NotIn(nets) => {
                elsewhere.insert(filter);
                lists.add(nets, filter);
            }
        }
    }

    let mut steps = Steps { lists: &lists, classes: Classes::new(), known: HashMap::new(), last: None };
    let mut borders = Borders::default();
    // The prefixes the sweep is in: their last addresses, and the classes within.
    let mut enclosing: Vec<(u32, ClassNumber)> = Vec::new();
    let class_in = |enclosing: &[(u32, ClassNumber)]| enclosing.last().map_or(ELSEWHERE, |(_, class)| *class);
    for packed in lists.sorted() {
        let (first, last) = range(packed);
        while let Some((end, _)) = enclosing.pop_if(|(end, _)| *end < first) {
            // Not the last address there is: another one comes behind it.
            borders.push(end + 1, class_in(&enclosing));
        }
        let outside = class_in(&enclosing);
        let class = steps.enter(outside, (packed & ((1 << LIST_BITS) - 1)) as usize);
        if class != outside {
            enclosing.push((last, class));
            borders.push(first, class);
        }
    }
    while let Some((end, _)) = enclosing.pop() {
        if let Some(next) = end.checked_add(1) {
            borders.push(next, class_in(&enclosing));
        }
    }
    (elsewhere, borders, steps.classes)
}

/// What entering a prefix of a list changes, each case worked out once: a million prefixes of a few lists
/// have a few cases.
struct Steps<'a> {
    lists: &'a Lists<'a>,
    classes: Classes,
    known: HashMap<(ClassNumber, usize), ClassNumber>,
    last: Option<((ClassNumber, usize), ClassNumber)>,
}

impl Steps<'_> {
    /// The class in a prefix of `list` that lies in one of class `outside`. A filter's answer turns once at
    /// most, however many of its prefixes enclose an address, so that entering is adding.
    fn enter(&mut self, outside: ClassNumber, list: usize) -> ClassNumber {
        let step = (outside, list);
        if let Some((known, class)) = self.last
            && known == step
        {
            return class;
        }
        let class = match self.known.get(&step) {
            Some(class) => *class,
            None => {
                let mut difference = self.classes.differences()[outside as usize].clone();
                difference.add(&self.lists.lists[list].1);
                let class = self.classes.class(&difference);
                self.known.insert(step, class);
                class
            }
        };
        self.last = Some((step, class));
        class
    }
}

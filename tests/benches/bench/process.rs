//! A process' programs and maps, found by what it holds open.

use crate::bpf::{Map, Program, number_in};
use anyhow::{Context, Result};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// `BPF_MAP_TYPE_ARRAY_OF_MAPS`, `BPF_MAP_TYPE_HASH_OF_MAPS`
const MAPS_OF_MAPS: [u64; 2] = [12, 13];

/// Programs by name.
pub(crate) fn programs(process: u32) -> Result<BTreeMap<String, Program>> {
    let mut programs = BTreeMap::new();
    for id in numbers(process, "prog_id")? {
        let program = Program::by_id(id)?;
        programs.insert(program.name()?, program);
    }
    Ok(programs)
}

/// The kernel's memory for a map, as it accounts for it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct MapMemory {
    pub(crate) name: String,
    pub(crate) bytes: u64,
}

/// The numbers of the maps that a process holds open.
pub(crate) fn map_numbers(process: u32) -> Result<BTreeSet<u32>> {
    numbers(process, "map_id")
}

/// Every map of a process but these, those inside of others included; the largest first. Inner maps bear the name
/// of the outer one, for they have none.
pub(crate) fn maps(process: u32, except: &BTreeSet<u32>) -> Result<Vec<MapMemory>> {
    let mut by_name: BTreeMap<String, u64> = BTreeMap::new();
    let mut seen = except.clone();
    let mut add = |name: &str, map: &Map, id: u32| -> Result<()> {
        if seen.insert(id) {
            *by_name.entry(name.to_owned()).or_default() += number_in(&map.info()?, "memlock")?;
        }
        Ok(())
    };
    // Outer maps first: what is in them and open too is named after them.
    let (mut outer, mut plain) = (Vec::new(), Vec::new());
    for id in map_numbers(process)? {
        let map = Map::by_id(id)?;
        let of_maps = MAPS_OF_MAPS.contains(&number_in(&map.info()?, "map_type")?);
        if of_maps { outer.push((id, map)) } else { plain.push((id, map)) }
    }
    for (id, map) in outer {
        let name = map.name()?;
        add(&name, &map, id)?;
        for inner in map.values()? {
            add(&name, &Map::by_id(inner)?, inner)?;
        }
    }
    for (id, map) in plain {
        add(&map.name()?, &map, id)?;
    }
    let mut maps: Vec<MapMemory> =
        by_name.into_iter().map(|(name, bytes)| MapMemory { name, bytes }).collect();
    maps.sort_by_key(|map| std::cmp::Reverse(map.bytes));
    Ok(maps)
}

/// The numbers under this key of everything that the process holds open.
fn numbers(process: u32, key: &str) -> Result<BTreeSet<u32>> {
    let directory = format!("/proc/{process}/fdinfo");
    let mut numbers = BTreeSet::new();
    for entry in fs::read_dir(&directory).with_context(|| format!("cannot list {directory}"))? {
        // It may have been closed meanwhile.
        let Ok(info) = fs::read_to_string(entry?.path()) else { continue };
        if let Ok(number) = number_in(&info, key) {
            numbers.insert(u32::try_from(number)?);
        }
    }
    Ok(numbers)
}

//! The results as JSON and as Markdown.

use crate::forwarding::{GENERATOR, Row};
use crate::machine::Machine;
use crate::programs::Programs;
use crate::targets::{Target, judge};
use crate::{conntrack, flip, load};
use anyhow::{Context, Result};
use serde::Serialize;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// All there is to tell.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) rounds: usize,
    pub(crate) burst_ms: u128,
    pub(crate) cpu: usize,
    pub(crate) seconds: u64,
    pub(crate) targets: Vec<Target>,
    pub(crate) forwarding: Vec<Row>,
    pub(crate) programs: Option<Programs>,
    pub(crate) load: Option<load::Load>,
    pub(crate) flip: Vec<flip::Row>,
    pub(crate) conntrack: Vec<conntrack::Row>,
}

/// The page that keeps a run's results.
const PAGE: &str = "docs/performance.md";
/// Where in it the measurements stand.
pub(crate) const MEASURED: &str = "measured";
/// Where in it the profiles stand.
pub(crate) const PROFILE: &str = "profile";

/// Puts results into their place of the page, instead of those of the run before.
pub(crate) fn record(place: &str, markdown: &str) -> Result<()> {
    let (begin, end) = (format!("<!-- {place}: begin -->\n"), format!("<!-- {place}: end -->"));
    let page = fs::read_to_string(PAGE).with_context(|| format!("cannot read {PAGE}"))?;
    let (before, rest) = page.split_once(&begin).with_context(|| format!("{PAGE} has no {begin}"))?;
    let (_, after) = rest.split_once(&end).with_context(|| format!("{PAGE} has no {end}"))?;
    let page = format!("{before}{begin}{}\n{end}{after}", markdown.trim_end());
    fs::write(PAGE, page).with_context(|| format!("cannot write {PAGE}"))
}

impl Report {
    /// Judges the targets and writes `report.md` and `report.json`; gives the Markdown.
    pub(crate) fn write(&mut self, directory: &Path) -> Result<String> {
        self.targets = judge(self);
        let markdown = self.markdown()?;
        for (name, text) in [("report.md", &markdown), ("report.json", &serde_json::to_string_pretty(self)?)]
        {
            let path = directory.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(markdown)
    }

    fn markdown(&self) -> Result<String> {
        let mut text = String::new();
        let machine = &self.machine;
        let virtual_machine = if machine.hypervisor { ", a virtual machine" } else { "" };
        writeln!(
            text,
            "{}, {} cores{virtual_machine}, {} GiB, Linux {}; {}. Revision {}. {} rounds of {} ms each, generator \
             and router on CPU {}; {} s in all, load before {:.2}. Figures: median (lowest–highest round).\n",
            machine.cpu,
            machine.cores,
            machine.memory_gib,
            machine.kernel,
            machine.tools.join(", "),
            machine.commit,
            self.rounds,
            self.burst_ms,
            self.cpu,
            self.seconds,
            machine.load_before,
        )?;
        self.targets_table(&mut text)?;
        self.forwarding_table(&mut text)?;
        self.programs_table(&mut text)?;
        self.load_table(&mut text)?;
        self.flip_table(&mut text)?;
        self.conntrack_table(&mut text)?;
        Ok(text)
    }

    fn targets_table(&self, text: &mut String) -> Result<()> {
        if self.targets.is_empty() {
            return Ok(());
        }
        writeln!(text, "### Targets\n")?;
        writeln!(text, "| measure | target | measured | |\n| --- | --- | --- | --- |")?;
        for target in &self.targets {
            let reached = if target.reached { "reached" } else { "**not reached**" };
            writeln!(text, "| {} | {} | {} | {reached} |", target.what, target.goal, target.measured)?;
        }
        writeln!(text)?;
        Ok(())
    }

    fn forwarding_table(&self, text: &mut String) -> Result<()> {
        if self.forwarding.is_empty() {
            return Ok(());
        }
        writeln!(text, "### Forwarding with masquerade\n")?;
        writeln!(
            text,
            "| filters | prefixes | flows | generator | plane | kpps | of nothing | router alone |\n\
             | --: | --: | --- | --- | --- | --: | --: | --: |"
        )?;
        for row in &self.forwarding {
            let ratio = |ratio: Option<crate::stats::Spread>| ratio.map_or("".into(), |ratio| ratio.text(3));
            let (ratio, router) = if row.plane == GENERATOR || row.plane == "nothing" {
                (String::new(), String::new())
            } else {
                (ratio(row.ratio), ratio(row.router_ratio))
            };
            writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {ratio} | {router} |",
                row.filters,
                row.prefixes,
                row.traffic,
                row.way,
                row.plane,
                row.kpps.text(if row.kpps.median < 20.0 { 1 } else { 0 })
            )?;
        }
        writeln!(text)?;
        Ok(())
    }

    fn programs_table(&self, text: &mut String) -> Result<()> {
        let Some(programs) = &self.programs else { return Ok(()) };
        writeln!(text, "### Nanoseconds a packet of each program\n")?;
        writeln!(text, "| program | filters | prefixes | cold | warm |\n| --- | --: | --: | --: | --: |")?;
        for row in &programs.test_runs {
            writeln!(
                text,
                "| {} | {} | {} | {} | {} |",
                row.what,
                row.filters,
                row.prefixes,
                row.cold.text(0),
                row.warm.text(0)
            )?;
        }
        writeln!(text, "\nWhile forwarding, by the kernel's own count (its two clock readings included):\n")?;
        writeln!(text, "| program | filters | prefixes | flows | ns |\n| --- | --: | --: | --- | --: |")?;
        for row in &programs.forwarding {
            writeln!(
                text,
                "| {} | {} | {} | {} | {:.0} |",
                row.program, row.filters, row.prefixes, row.traffic, row.ns
            )?;
        }
        writeln!(text)?;
        Ok(())
    }

    fn load_table(&self, text: &mut String) -> Result<()> {
        let Some(load) = &self.load else { return Ok(()) };
        writeln!(text, "### From a file to active, and memory\n")?;
        writeln!(
            text,
            "| prefixes | how | ms | of it | MiB stated | MiB grown |\n| --: | --- | --: | --- | --: | --: |"
        )?;
        for row in &load.rows {
            let steps: Vec<String> =
                row.steps_ms.iter().map(|(step, ms)| format!("{step} {ms:.0}")).collect();
            let steps = if steps.len() > 1 { steps.join(", ") } else { String::new() };
            let stated = row.stated_mib.map_or(String::new(), |mib| format!("{mib:.2}"));
            writeln!(
                text,
                "| {} | {} | {} | {steps} | {stated} | {:.2} |",
                row.prefixes,
                row.how,
                row.ms.text(0),
                row.grown_mib
            )?;
        }
        let memory = &load.memory;
        writeln!(
            text,
            "\nAll maps with {} filters, {} prefixes and {} flows: {:.1} MiB, of it {}.\n",
            memory.filters,
            memory.prefixes,
            memory.flows,
            memory.total_mib,
            memory
                .maps
                .iter()
                .take(5)
                .map(|map| format!("{} {:.1}", map.name, map.bytes as f64 / 1024.0 / 1024.0))
                .collect::<Vec<_>>()
                .join(", ")
        )?;
        Ok(())
    }

    fn flip_table(&self, text: &mut String) -> Result<()> {
        if self.flip.is_empty() {
            return Ok(());
        }
        writeln!(text, "### A WAN out of service\n")?;
        writeln!(
            text,
            "| flows in the table | command, µs | first packet after it, µs |\n| --: | --: | --: |"
        )?;
        for row in &self.flip {
            writeln!(text, "| {} | {} | {} |", row.flows, row.command_us.text(1), row.packet_us.text(1))?;
        }
        writeln!(text)?;
        Ok(())
    }

    fn conntrack_table(&self, text: &mut String) -> Result<()> {
        let Some(row) = self.conntrack.first() else { return Ok(()) };
        writeln!(text, "### Deleting {} conntrack entries of a link\n", row.entries)?;
        writeln!(text, "| how | ms |\n| --- | --: |")?;
        for row in &self.conntrack {
            writeln!(text, "| {} | {} |", row.how.replace('|', "\\|"), row.ms.text(0))?;
        }
        writeln!(text)?;
        Ok(())
    }
}

//! Everything a daemon could leave behind on a router, as text that can be compared.

use crate::Lab;
use crate::topology::Ns;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// A router's state at one moment, by subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Residue {
    subjects: BTreeMap<String, Vec<String>>,
}

impl Residue {
    /// Looks at rules, routes, links, addresses, packet programs and filters, reverse path filters, firewall, names
    /// of routing tables, BPF pins, and files in `/run`.
    ///
    /// # Errors
    /// When one of these cannot be looked at.
    pub fn take(lab: &Lab) -> Result<Self> {
        let mut residue = Self { subjects: BTreeMap::new() };
        for line in [
            "ip rule show",
            "ip route show table all",
            "ip -d -o link show",
            "ip -o addr show",
            "tc qdisc show",
        ] {
            residue.add(line, &lab.sh(Ns::Router, line)?);
        }
        let interfaces = interfaces(lab)?;
        for interface in &interfaces {
            for direction in ["ingress", "egress"] {
                let line = format!("tc filter show dev {interface} {direction}");
                // An interface without such a qdisc has no filters either.
                residue.add(&line, &lab.sh(Ns::Router, &line).unwrap_or_default());
            }
        }
        residue.add("bpftool net show", &lab.sh(Ns::Router, "bpftool net show")?);
        residue.add("iptables-save", &without_counters(&lab.sh(Ns::Router, "iptables-save")?));
        residue.add("rp_filter", &rp_filters(lab, &interfaces)?);
        let files = lab.router_files();
        residue.add("pins", &tree(&files.bpf(), false)?);
        residue.add("/etc/iproute2", &tree(&files.iproute2(), true)?);
        residue.add("/run", &daemon_files(&tree(&files.run(), false)?));
        Ok(residue)
    }

    /// The lines of one subject.
    #[must_use]
    pub fn lines(&self, subject: &str) -> &[String] {
        self.subjects.get(subject).map_or(&[], Vec::as_slice)
    }

    /// Fails with the difference when the router is not as it was.
    ///
    /// # Errors
    /// When it is not.
    pub fn check_same(&self, after: &Self) -> Result<()> {
        let mut difference = String::new();
        let mut subjects: Vec<&String> = self.subjects.keys().chain(after.subjects.keys()).collect();
        subjects.sort();
        subjects.dedup();
        for subject in subjects {
            let (old, new) = (self.lines(subject), after.lines(subject));
            let gone = surplus(old, new).map(|line| format!("  - {line}\n"));
            let added = surplus(new, old).map(|line| format!("  + {line}\n"));
            let changes: String = gone.chain(added).collect();
            if !changes.is_empty() {
                write!(difference, "{subject}:\n{changes}")?;
            }
        }
        if !difference.is_empty() {
            bail!("the router is not as it was:\n{difference}");
        }
        Ok(())
    }

    /// The same with only the subjects that begin so.
    #[must_use]
    pub fn only(&self, starts: &[&str]) -> Self {
        let wanted = |subject: &String| starts.iter().any(|start| subject.starts_with(start));
        let subjects = self.subjects.iter().filter(|(subject, _)| wanted(subject));
        Self { subjects: subjects.map(|(subject, lines)| (subject.clone(), lines.clone())).collect() }
    }

    /// The same without the main table's default route, which a stop may leave on another WAN.
    #[must_use]
    pub fn without_default_route(mut self) -> Self {
        if let Some(routes) = self.subjects.get_mut("ip route show table all") {
            routes.retain(|route| !route.starts_with("default via") || route.contains(" table "));
        }
        self
    }

    fn add(&mut self, subject: &str, text: &str) {
        let lines = text.lines().map(|line| line.trim_end().to_owned());
        self.subjects.insert(subject.to_owned(), lines.filter(|line| !line.is_empty()).collect());
    }
}

/// The lines that are more often in the first list than in the second.
fn surplus<'a>(lines: &'a [String], others: &'a [String]) -> impl Iterator<Item = &'a String> {
    lines.iter().enumerate().filter_map(move |(at, line)| {
        let before = lines[..at].iter().filter(|other| *other == line).count();
        let there = others.iter().filter(|other| *other == line).count();
        (before >= there).then_some(line)
    })
}

fn interfaces(lab: &Lab) -> Result<Vec<String>> {
    let links = lab.sh(Ns::Router, "ip -o link show")?;
    let names = links.lines().filter_map(|line| line.split(": ").nth(1)?.split('@').next());
    Ok(names.map(str::to_owned).collect())
}

fn rp_filters(lab: &Lab, interfaces: &[String]) -> Result<String> {
    let mut text = String::new();
    for scope in ["all", "default"].into_iter().chain(interfaces.iter().map(String::as_str)) {
        let path = format!("/proc/sys/net/ipv4/conf/{scope}/rp_filter");
        let value = lab
            .in_ns(Ns::Router, || fs::read_to_string(&path))
            .with_context(|| format!("cannot read {path}"))?;
        writeln!(text, "{scope} {}", value.trim())?;
    }
    Ok(text)
}

/// Leaves out what changes with traffic and time.
fn without_counters(rules: &str) -> String {
    let lines = rules.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.split(" [").next().unwrap_or(line))
        .fold(String::new(), |text, line| text + line + "\n")
}

/// Every file below a directory, with its content if asked.
fn tree(directory: &Path, with_content: bool) -> Result<String> {
    let mut text = String::new();
    let mut pending = vec![directory.to_owned()];
    let mut paths = Vec::new();
    while let Some(directory) = pending.pop() {
        for entry in
            fs::read_dir(&directory).with_context(|| format!("cannot list {}", directory.display()))?
        {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                pending.push(entry.path());
            }
            paths.push(entry.path());
        }
    }
    paths.sort();
    for path in paths {
        let name = path.strip_prefix(directory).unwrap_or(&path).display();
        writeln!(text, "{name}")?;
        if with_content && path.is_file() {
            for line in fs::read_to_string(&path)?.lines() {
                writeln!(text, "{name}: {line}")?;
            }
        }
    }
    Ok(text)
}

/// Leaves out what the tests put there themselves, and the directory that systemd would own.
fn daemon_files(tree: &str) -> String {
    let is_the_tests =
        |line: &&str| line.starts_with("log-") || line.starts_with("config") || *line == "multiwans";
    tree.lines().filter(|line| !is_the_tests(line)).fold(String::new(), |text, line| text + line + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn residue(lines: &[&str]) -> Residue {
        let lines = lines.iter().map(|line| (*line).to_owned()).collect();
        Residue { subjects: BTreeMap::from([("rules".to_owned(), lines)]) }
    }

    #[test]
    fn a_difference_names_subject_and_lines() {
        let error = residue(&["a", "b"]).check_same(&residue(&["b", "c", "b"])).unwrap_err().to_string();
        assert_eq!(error, "the router is not as it was:\nrules:\n  - a\n  + c\n  + b\n");
        residue(&["a", "b"]).check_same(&residue(&["b", "a"])).unwrap();
    }
}

//! The configuration file: YAML in, a typed and validated [`Config`] or every problem at once out.
//!
//! ```text
//! text ──node──> positioned tree ──section, scalar, net──> values ──wan, filter, general──> Config
//!                                        └──> Report: every problem with line, column, path, value, rule
//! ```
//! serde would stop at the first value it dislikes, so it only builds the tree here; the rules are
//! applied by hand and none of them hides another. Nothing here does IO: the text comes from the caller.

mod diff;
mod display;
mod filter;
mod general;
mod list;
mod mail;
mod model;
mod net;
mod node;
mod path;
mod problem;
mod scalar;
mod secret;
mod section;
mod unique;
mod wan;

#[cfg(test)]
mod tests;

pub use diff::Difference;
pub use list::{List, read_list};
pub use model::*;
pub use problem::{Place, Problem, Problems, Severity};
pub use secret::Secret;

use std::path::PathBuf;

use multiwans_common::filters::MAX_FILTERS;
use path::Path;
use problem::Report;
use section::{Found, Section};

/// A valid configuration and what is odd about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// The configuration.
    pub config: Config,
    /// Problems that do not stop a start, by position.
    pub warnings: Vec<Problem>,
    /// The files that hold lists of prefixes, and where each is named. They have to be read.
    pub lists: Vec<(PathBuf, Place)>,
    /// Lists that could not be read anew; what they had before stays.
    pub kept: Vec<Problem>,
}

const KEYS: &[&str] =
    &["company", "daemon", "flows", "alerts", "ping", "probe", "dns", "hooks", "localnets", "email", "WANS"];

/// Reads and validates the text of a configuration file.
///
/// `file_name` is what the problems call the file.
///
/// # Errors
/// Every problem of the file, by position. A file that is not YAML has one: what follows a syntax error
/// cannot be judged.
pub fn parse(text: &str, file_name: &str) -> Result<Parsed, Problems> {
    let mut report = Report::new(file_name);
    let config = read(text, &mut report);
    let lists = report.take_lists();
    match (config, report.into_sorted()) {
        (Some(config), problems) if problems.iter().all(|p| p.severity == Severity::Warning) => {
            Ok(Parsed { config, warnings: problems, lists, kept: Vec::new() })
        }
        (_, problems) => Err(Problems::new(problems)),
    }
}

/// `None` only where the report holds an error.
fn read(text: &str, report: &mut Report) -> Option<Config> {
    let tree = match node::read(text) {
        Ok(tree) => tree,
        Err(error) => {
            report.file_error(error.at, &error.message);
            return None;
        }
    };
    if tree.is_null() {
        report.file_error(tree.at, "the file is empty: at least one entry in WANS is required");
        return None;
    }
    let root = Found { path: Path::ROOT, at: tree.at, node: &tree };
    let root = Section::open(root, report)?;
    root.check_keys(KEYS, report);

    let general = general::read(&root, report);
    let wans = wan::read_all(&root, &general, report);
    check_number_of_filters(&root, &wans, report);
    let email = mail::read(&root, report);
    Some(Config {
        company: general.company,
        daemon: general.daemon,
        flows: general.flows,
        alerts: general.alerts,
        ping: general.ping,
        probe: general.probe,
        dns: general.dns,
        hooks: general.hooks,
        localnets: general.localnets,
        email,
        wans,
    })
}

/// The programs hold only so many filters of a chain. Those that steer nothing count too: which WAN has
/// order 1 may change with the next edit.
fn check_number_of_filters(root: &Section<'_>, wans: &[Wan], report: &mut Report) {
    let Some(list) = root.find("WANS") else { return };
    for chain in [Chain::Prerouting, Chain::Output] {
        let count = wans.iter().flat_map(|wan| &wan.filters).filter(|filter| filter.chain == chain).count();
        if count > MAX_FILTERS {
            report.error(
                list.at,
                &list.path,
                format_args!("filters with chainMangle {chain} ({count}) must be at most {MAX_FILTERS}"),
            );
        }
    }
}

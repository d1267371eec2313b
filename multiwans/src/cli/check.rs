//! `multiwans check`: is this configuration valid, and what does it say?

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use super::load::{LoadError, load};
use crate::config::{Config, Filter, Problem, Severity, Wan};

/// Prints a summary of a valid file to stdout (its warnings to stderr) and returns 0, or every problem of
/// an invalid one to stderr and returns 1.
pub fn run(path: &Path) -> ExitCode {
    let (out, err, code) = match load(path) {
        Ok(parsed) => {
            let valid = format!("{} is valid{}\n", path.display(), counted(&parsed.warnings, " with "));
            (format!("{valid}\n{}", summary(&parsed.config)), lines(&parsed.warnings), ExitCode::SUCCESS)
        }
        Err(LoadError::Invalid(problems)) => {
            let problems: Vec<_> = problems.iter().cloned().collect();
            let count = format!("{}{}\n", path.display(), counted(&problems, ": "));
            (String::new(), lines(&problems) + &count, ExitCode::FAILURE)
        }
        Err(error) => (String::new(), format!("{error}\n"), ExitCode::FAILURE),
    };
    // A reader that went away (`| head`) takes nothing from the verdict.
    let _ = io::stderr().write_all(err.as_bytes());
    let _ = io::stdout().write_all(out.as_bytes());
    code
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().fold(String::new(), |mut lines, problem| {
        // Writing to a String cannot fail.
        let _ = writeln!(lines, "{problem}");
        lines
    })
}

/// `3 errors, 1 warning` after `before`; nothing where there are none.
fn counted(problems: &[Problem], before: &str) -> String {
    let count = |severity, name| {
        let count = problems.iter().filter(|problem| problem.severity == severity).count();
        (count > 0).then(|| format!("{count} {name}{}", if count == 1 { "" } else { "s" }))
    };
    let counts = [count(Severity::Error, "error"), count(Severity::Warning, "warning")];
    let counts: Vec<_> = counts.into_iter().flatten().collect();
    if counts.is_empty() { String::new() } else { format!("{before}{}", counts.join(", ")) }
}

/// What a configuration says, for people: the links in failover order and the filters in the order they
/// are evaluated.
pub fn summary(config: &Config) -> String {
    format!("{}\n{}", links(config), filters(config))
}

fn links(config: &Config) -> String {
    let mut table = Table::new(["ORDER", "WAN", "IFACE", "ADDRESS", "GATEWAY", "MARK", "FWMARK", "FILTERS"]);
    for wan in &config.wans {
        let order = wan.order_failover.map_or_else(|| "-".to_owned(), |order| order.to_string());
        table.row([
            order,
            wan.description.clone(),
            wan.iface.to_string(),
            format!("{}/{}", wan.ip, wan.prefix_len),
            wan.gateway.to_string(),
            wan.mark.to_string(),
            format!("{}/{}", wan.fwmark, config.daemon.mark_mask),
            wan.filters.len().to_string(),
        ]);
    }
    format!("Links in failover order (-: never the default)\n{}", table.render())
}

fn filters(config: &Config) -> String {
    // A filter of the order-1 WAN steers nothing.
    let steering = |wan: &&Wan| wan.order_failover != Some(1);
    let steered =
        || config.wans.iter().filter(steering).flat_map(|wan| wan.filters.iter().map(move |f| (wan, f)));
    if steered().next().is_none() {
        return "Filters: none; all traffic takes the default WAN\n".to_owned();
    }
    let mut table = Table::new(["#", "FILTER", "WAN", "CHAIN", "SELECTS"]);
    for (number, (wan, filter)) in (1u32..).zip(steered()) {
        table.row([
            number.to_string(),
            filter.description.clone(),
            wan.description.clone(),
            filter.chain.to_string(),
            selectors(filter),
        ]);
    }
    format!("Filters in order of evaluation (first match wins)\n{}", table.render())
}

/// `tcp from 10.0.0.0/8 to anything but localnets dports 80,443`.
fn selectors(filter: &Filter) -> String {
    let mut text = filter.protocol.to_string();
    let mut say = |word: &str, values: String| {
        if !values.is_empty() {
            // Writing to a String cannot fail.
            let _ = write!(text, " {word} {values}");
        }
    };
    say("from", listed(&filter.src));
    say("to", if filter.dst.is_empty() { "anything but localnets".to_owned() } else { listed(&filter.dst) });
    say("sports", listed(&filter.sports));
    say("dports", listed(&filter.dports));
    text
}

/// The first few values and how many more there are: a filter may hold thousands.
fn listed<T: ToString>(values: &[T]) -> String {
    const SHOWN: usize = 8;
    let mut text = values.iter().take(SHOWN).map(T::to_string).collect::<Vec<_>>().join(",");
    if values.len() > SHOWN {
        // Writing to a String cannot fail.
        let _ = write!(text, ",… ({} in all)", values.len());
    }
    text
}

/// Left-aligned columns, two spaces between them.
struct Table<const N: usize>(Vec<[String; N]>);

impl<const N: usize> Table<N> {
    fn new(head: [&str; N]) -> Self {
        Self(vec![head.map(str::to_owned)])
    }

    fn row(&mut self, cells: [String; N]) {
        self.0.push(cells);
    }

    fn render(&self) -> String {
        let width = |column: usize| self.0.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; N] = std::array::from_fn(width);
        let mut text = String::new();
        for row in &self.0 {
            let line: String =
                row.iter().zip(widths).map(|(cell, width)| format!("  {cell:width$}")).collect();
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

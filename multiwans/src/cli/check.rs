//! `multiwans check`: is this configuration valid, and what does it say?

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use super::load::{LoadError, load, open_password};
use crate::config::{Config, Parsed, Problem, Severity, Wan};
use crate::notify::email::Server;
use crate::policy::Policies;

/// Prints a summary of a valid file to stdout (its warnings to stderr) and returns 0, or every problem of
/// an invalid one to stderr and returns 1.
pub fn run(path: &Path) -> ExitCode {
    let loaded = load(path);
    let answer = Answer::new(path, &loaded);
    // A reader that went away (`| head`) takes nothing from the verdict.
    let _ = io::stderr().write_all(answer.stderr.as_bytes());
    let _ = io::stdout().write_all(answer.stdout.as_bytes());
    if let Ok(parsed) = &loaded {
        for odd in open_password(path, &parsed.config).into_iter().chain(beside(&parsed.config)) {
            let _ = writeln!(io::stderr(), "warning: {odd}");
        }
    }
    if answer.valid { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What is odd about the files beside the configuration. It takes nothing from its validity: who checks
/// may have fewer rights than the daemon, or not its systemd credentials.
fn beside(config: &Config) -> Option<String> {
    match Server::new(config.email.as_ref()?) {
        Ok((_, warning)) => warning,
        Err(error) => Some(error.to_string()),
    }
}

/// What the command prints and says.
struct Answer {
    stdout: String,
    stderr: String,
    valid: bool,
}

impl Answer {
    fn new(path: &Path, loaded: &Result<Parsed, LoadError>) -> Self {
        let path = path.display();
        match loaded {
            Ok(parsed) if let Err(error) = Policies::new(&parsed.config) => {
                let stderr = format!("{}{path}: not valid: {error}\n", lines(&parsed.warnings));
                Self { stdout: String::new(), stderr, valid: false }
            }
            Ok(parsed) => {
                let with =
                    counted(&parsed.warnings).map(|count| format!(", with {count}")).unwrap_or_default();
                Self {
                    stdout: format!("{path}: valid{with}\n\n{}", summary(&parsed.config)),
                    stderr: lines(&parsed.warnings),
                    valid: true,
                }
            }
            Err(LoadError::Invalid(problems)) => {
                let problems: Vec<_> = problems.iter().cloned().collect();
                let count = counted(&problems).unwrap_or_default();
                Self {
                    stdout: String::new(),
                    stderr: format!("{}{path}: not valid, {count}\n", lines(&problems)),
                    valid: false,
                }
            }
            Err(error) => Self { stdout: String::new(), stderr: format!("{error}\n"), valid: false },
        }
    }
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().fold(String::new(), |mut lines, problem| {
        // Writing to a String cannot fail.
        let _ = writeln!(lines, "{problem}");
        lines
    })
}

/// `3 errors, 1 warning`; `None` where there are none.
fn counted(problems: &[Problem]) -> Option<String> {
    let count = |severity, name| {
        let count = problems.iter().filter(|problem| problem.severity == severity).count();
        (count > 0).then(|| format!("{count} {name}{}", if count == 1 { "" } else { "s" }))
    };
    let counts = [count(Severity::Error, "error"), count(Severity::Warning, "warning")];
    let counts: Vec<_> = counts.into_iter().flatten().collect();
    (!counts.is_empty()).then(|| counts.join(", "))
}

/// What a configuration says, for people: the links in failover order and the filters in the order they
/// are evaluated.
pub fn summary(config: &Config) -> String {
    format!("{}\n{}{}", links(config), filters(config), lists(config))
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
            match (wan.filters.len(), steers(wan)) {
                (count @ 1.., false) => format!("{count} (ignored)"),
                (count, _) => count.to_string(),
            },
        ]);
    }
    format!("Links in failover order (-: never the default)\n{}", table.render())
}

/// Whether the WAN's filters are used: the default WAN of the failover order takes what no filter matches.
fn steers(wan: &Wan) -> bool {
    wan.order_failover != Some(1)
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
            filter.selects(),
        ]);
    }
    format!("Filters in order of evaluation (first match wins)\n{}", table.render())
}

/// What the files of lists hold; empty where there are none.
fn lists(config: &Config) -> String {
    let mut files: BTreeMap<&Path, (usize, usize)> = BTreeMap::new();
    for filter in config.wans.iter().flat_map(|wan| &wan.filters) {
        let named: BTreeMap<&Path, usize> = filter
            .src_files
            .iter()
            .chain(&filter.dst_files)
            .map(|file| (file.path.as_path(), file.nets.len()))
            .collect();
        for (file, prefixes) in named {
            files.entry(file).or_insert((prefixes, 0)).1 += 1;
        }
    }
    if files.is_empty() {
        return String::new();
    }
    let mut table = Table::new(["FILE", "PREFIXES", "FILTERS"]);
    for (file, (prefixes, filters)) in files {
        table.row([file.display().to_string(), prefixes.to_string(), filters.to_string()]);
    }
    format!("\nLists of prefixes\n{}", table.render())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    const EXAMPLE: &str = include_str!("../../../config.example.yaml");

    fn answer(text: &str) -> Answer {
        Answer::new(Path::new("c.yaml"), &parse(text, "c.yaml").map_err(LoadError::from))
    }

    #[test]
    fn a_valid_file_is_summed_up_on_stdout() {
        let answer = answer(EXAMPLE);
        assert!(answer.valid);
        assert_eq!(answer.stderr, "");
        assert!(answer.stdout.starts_with("c.yaml: valid\n\nLinks"), "{}", answer.stdout);
        let position = |text: &str| answer.stdout.find(text).unwrap();
        assert!(position("WAN1  enp0s2  10.0.2.2/24") < position("WAN2  enp0s3  10.0.3.2/24"));
        assert!(position("POP/SMTP") < position("HTTP/HTTPS"));
    }

    #[test]
    fn warnings_do_not_make_a_file_invalid() {
        let answer = answer(&EXAMPLE.replace("gateway: 10.0.2.1", "gateway: 10.0.9.1"));
        assert!(answer.valid);
        assert_eq!(answer.stderr.lines().count(), 1);
        assert!(answer.stdout.starts_with("c.yaml: valid, with 1 warning\n"), "{}", answer.stdout);
    }

    #[test]
    fn an_invalid_file_gets_its_problems_in_order_and_their_count() {
        let broken =
            EXAMPLE.replace("runInterval: 20", "runInterval: 2").replace("gateway: 10.0", "gatway: 10.0");
        let answer = answer(&broken);
        assert!(!answer.valid);
        assert_eq!(answer.stdout, "");
        let lines: Vec<_> = answer.stderr.lines().collect();
        assert_eq!(lines.len(), 6, "{}", answer.stderr);
        assert!(lines[0].contains("daemon.runInterval (2) must be an integer 10..60"), "{}", lines[0]);
        assert_eq!(lines[5], "c.yaml: not valid, 5 errors");
    }
}

//! What a mail says: the seed's parts in the seed's order, in English.

use std::fmt::Display;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::document::{Block, Document, Line, Weight};
use super::router::Router;
use crate::config::{Company, Config};
use crate::engine::alerts::{Alert, Entry};
use crate::engine::{Level, Status, WanStatus};
use crate::types::WanMark;

/// The seed's name for itself: mail rules that people made match it in the subject.
const DESCRIPTION: &str = "MultiWans - Failover e redirecionamento de links WANS";

/// The seed's form of a time in the subject.
const SUBJECT_TIME: &str = "%d/%m/%Y %H:%M:%S";
/// Everywhere else.
const TIME: &str = "%Y-%m-%d %H:%M:%S";

/// Filters a mail lists; a policy may have thousands.
const MAX_FILTERS: usize = 100;

/// What a mail is written from, as the daemon knows it.
#[derive(Debug, Clone)]
pub struct Report {
    /// What happened.
    pub alert: Alert,
    /// The links, now.
    pub status: Status,
    /// Now: Unix time in seconds.
    pub written: u64,
    /// When the daemon was started.
    pub started: u64,
}

/// What of the configuration stands in every mail.
#[derive(Debug, Clone)]
pub struct Book {
    company: Company,
    wans: Vec<WanRow>,
    filters: Vec<Vec<String>>,
    filters_left_out: usize,
    zone: TimeZone,
}

#[derive(Debug, Clone)]
struct WanRow {
    mark: WanMark,
    description: String,
    iface: String,
    order: String,
    address: String,
    gateway: String,
}

impl Book {
    /// Times will be told in `zone`.
    pub fn new(config: &Config, zone: TimeZone) -> Self {
        let wans = config.wans.iter().map(|wan| WanRow {
            mark: wan.mark,
            description: wan.description.clone(),
            iface: wan.iface.to_string(),
            order: wan.order_failover.map_or_else(|| "-".to_owned(), |order| order.to_string()),
            address: format!("{}/{}", wan.ip, wan.prefix_len),
            gateway: wan.gateway.to_string(),
        });
        // Filters of the order-1 WAN steer nothing.
        let steering = config.wans.iter().filter(|wan| wan.order_failover != Some(1));
        let filters = || steering.clone().flat_map(|wan| wan.filters.iter().map(move |filter| (wan, filter)));
        Self {
            company: config.company.clone(),
            wans: wans.collect(),
            filters: filters()
                .take(MAX_FILTERS)
                .map(|(wan, filter)| {
                    vec![
                        filter.description.clone(),
                        wan.description.clone(),
                        filter.chain.to_string(),
                        filter.selects(),
                    ]
                })
                .collect(),
            filters_left_out: filters().count().saturating_sub(MAX_FILTERS),
            zone,
        }
    }

    /// Writes the mail of a report.
    pub fn write(&self, report: &Report, router: &Router) -> Document {
        let mut blocks = vec![self.header(router, Some(report.started), report.written)];
        blocks.extend(self.log(&report.alert, &report.status));
        blocks.push(self.wan_table(Some(&report.status)));
        blocks.extend(self.filter_table());
        blocks.extend(self.footer(report.written));
        Document { subject: self.subject(&report.alert.subject, router, report.written), blocks }
    }

    /// Writes the mail of `multiwans mail-test`.
    pub fn write_test(&self, router: &Router, written: u64) -> Document {
        let line = Line {
            time: self.time(written, TIME),
            weight: Weight::Info,
            text: "This is what `multiwans mail-test` sends; nothing happened.".to_owned(),
        };
        let mut blocks = vec![
            self.header(router, None, written),
            Block::Log { title: "Test".to_owned(), lines: vec![line] },
            self.wan_table(None),
        ];
        blocks.extend(self.filter_table());
        blocks.extend(self.footer(written));
        Document { subject: self.subject(&"TEST", router, written), blocks }
    }

    /// `<STATUS>: <description>: <hostname> (<time>)`.
    fn subject(&self, status: &dyn Display, router: &Router, written: u64) -> String {
        format!("{status}: {DESCRIPTION}: {} ({})", router.hostname, self.time(written, SUBJECT_TIME))
    }

    fn header(&self, router: &Router, started: Option<u64>, written: u64) -> Block {
        let mut rows = vec![("Hostname", vec![router.hostname.clone()])];
        if !router.addresses.is_empty() {
            rows.push(("Addresses", router.addresses.clone()));
        }
        rows.extend(router.uptime.map(|uptime| ("System uptime", vec![span(uptime)])));
        rows.extend(started.map(|started| ("Daemon started", vec![self.time(started, TIME)])));
        // A mail may be delivered long after: when the link it tells of is back.
        rows.push(("Mail written", vec![self.time(written, TIME)]));
        Block::Facts { title: DESCRIPTION.to_owned(), rows }
    }

    /// What belongs to no link first, then link by link.
    fn log(&self, alert: &Alert, status: &Status) -> Vec<Block> {
        let lines = |of: Option<WanMark>| -> Vec<Line> {
            alert.entries.iter().filter(|entry| entry.wan == of).map(|entry| self.line(entry)).collect()
        };
        let mut blocks = Vec::new();
        let mut general = lines(None);
        if alert.left_out > 0 {
            let text = format!("{} older lines are left out of this mail", alert.left_out);
            general.insert(0, Line { time: " ".repeat(19), weight: Weight::Warning, text });
        }
        if !general.is_empty() {
            blocks.push(Block::Log { title: "Router".to_owned(), lines: general });
        }
        for wan in &self.wans {
            let title = match find(status, wan.mark) {
                Some(now) => format!("{} ({}): {}", wan.description, wan.iface, now.state),
                None => format!("{} ({})", wan.description, wan.iface),
            };
            let mut lines = lines(Some(wan.mark));
            if lines.is_empty() {
                lines.extend(find(status, wan.mark).map(|now| self.unchanged(now)));
            }
            blocks.push(Block::Log { title, lines });
        }
        blocks
    }

    fn line(&self, entry: &Entry) -> Line {
        let weight = match entry.level {
            Level::Error => Weight::Error,
            Level::Warn => Weight::Warning,
            Level::Info | Level::Debug => Weight::Info,
        };
        Line { time: self.time(entry.at, TIME), weight, text: entry.text.clone() }
    }

    /// For a link that nothing was noticed of: since when it is as it is.
    fn unchanged(&self, wan: &WanStatus) -> Line {
        let text = match wan.reason.as_str() {
            "" => wan.state.to_string(),
            reason => format!("{}: {reason}", wan.state),
        };
        Line { time: self.time(wan.since, TIME), weight: Weight::Info, text }
    }

    fn wan_table(&self, status: Option<&Status>) -> Block {
        let rows = self.wans.iter().map(|wan| {
            let now = status.and_then(|status| find(status, wan.mark));
            let state = now.map(|now| now.state.to_string()).unwrap_or_default();
            let default = status.and_then(|status| status.default.as_deref()) == Some(&wan.description);
            vec![
                wan.order.clone(),
                wan.description.clone(),
                wan.iface.clone(),
                wan.address.clone(),
                wan.gateway.clone(),
                wan.mark.to_string(),
                if default { format!("{state}, default") } else { state },
            ]
        });
        Block::Table {
            title: "WANs".to_owned(),
            head: vec!["ORDER", "WAN", "IFACE", "ADDRESS", "GATEWAY", "MARK", "STATE"],
            rows: rows.collect(),
        }
    }

    fn filter_table(&self) -> Option<Block> {
        let title = match self.filters_left_out {
            0 => "Filters".to_owned(),
            more => format!("Filters (and {more} more)"),
        };
        let head = vec!["FILTER", "WAN", "CHAIN", "SELECTS"];
        (!self.filters.is_empty()).then(|| Block::Table { title, head, rows: self.filters.clone() })
    }

    fn footer(&self, written: u64) -> Vec<Block> {
        let Company { name, department, site } = &self.company;
        let name = name.as_ref().map(|name| name.to_uppercase());
        let year = self.time(written, "%Y");
        let mut lines = Vec::new();
        if name.is_some() || department.is_some() {
            let parts: Vec<String> = [name, department.clone(), Some(year)].into_iter().flatten().collect();
            lines.push(format!("© {}", parts.join(" - ")));
        }
        lines.extend(site.clone());
        let version = ("Version", vec![format!("multiwans {}", env!("CARGO_PKG_VERSION"))]);
        let system = Block::Facts { title: "System".to_owned(), rows: vec![version] };
        let footer = (!lines.is_empty()).then_some(Block::Footer(lines));
        std::iter::once(system).chain(footer).collect()
    }

    fn time(&self, unix: u64, form: &str) -> String {
        let timestamp = i64::try_from(unix).ok().and_then(|unix| Timestamp::from_second(unix).ok());
        match timestamp {
            Some(timestamp) => timestamp.to_zoned(self.zone.clone()).strftime(form).to_string(),
            // Beyond the year 9999.
            None => format!("@{unix}"),
        }
    }
}

fn find(status: &Status, wan: WanMark) -> Option<&WanStatus> {
    status.wans.iter().find(|status| status.mark == wan)
}

/// `12 d 3 h 4 min`, in the seed's units.
fn span(duration: Duration) -> String {
    let minutes = duration.as_secs() / 60;
    let (days, hours) = (minutes / 1440, minutes / 60 % 24);
    match (days, hours) {
        (0, 0) => format!("{minutes} min"),
        (0, _) => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {hours} h {} min", minutes % 60),
    }
}

#[cfg(test)]
#[path = "content_tests.rs"]
mod tests;

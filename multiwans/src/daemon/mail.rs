//! From notices to mails: the alerts' rules on one side, the thread that delivers on the other.

use std::time::Duration;

use tokio::sync::mpsc;

use crate::config::Config;
use crate::engine::alerts::{Alert, Alerts, Entry};
use crate::engine::{Kind, Notice, Now, Status};
use crate::notify::email::{Mailer, Report, SetupError};

/// What the loop tells of to whoever reads mail. Without `email` in the configuration it does nothing.
#[derive(Debug)]
pub(super) struct Mail(Option<Desk>);

#[derive(Debug)]
struct Desk {
    alerts: Alerts,
    mailer: Mailer,
    /// Errors and warnings of everything but the engine, as they were logged.
    logged: mpsc::Receiver<Entry>,
    /// Unix time in seconds.
    started: u64,
}

impl Mail {
    /// Starts the thread that delivers. `now`: when the daemon started.
    pub(super) fn start(
        config: &Config,
        logged: mpsc::Receiver<Entry>,
        now: Now,
    ) -> Result<Self, SetupError> {
        let desk = |mailer| Desk { alerts: Alerts::new(config), mailer, logged, started: now.wall };
        Ok(Self(Mailer::start(config)?.map(desk)))
    }

    /// Waits for an error or warning of anything but the engine; for ever where there are no mails.
    pub(super) async fn logged(&mut self) -> Entry {
        if let Some(desk) = &mut self.0
            && let Some(entry) = desk.logged.recv().await
        {
            return entry;
        }
        std::future::pending().await
    }

    /// Takes such a line in.
    pub(super) fn entry(&mut self, entry: Entry, now: Now) {
        if let Some(desk) = &mut self.0 {
            desk.alerts.entry(entry, now.mono);
        }
    }

    /// Takes in what the engine noticed.
    pub(super) fn notice(&mut self, notice: &Notice, now: Now) {
        let Some(desk) = &mut self.0 else { return };
        desk.alerts.notice(notice, now);
        if let Kind::LinkOn { .. } | Kind::DefaultChanged { .. } = notice.kind {
            desk.mailer.hurry();
        }
    }

    /// When to call [`turn`](Self::turn) at the latest, on the clock of `Now::mono`.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.0.as_ref()?.alerts.next_deadline()
    }

    /// Has the mail written that is due, if one is.
    pub(super) fn turn(&mut self, now: Now, status: impl FnOnce() -> Status) {
        let Some(desk) = &mut self.0 else { return };
        if let Some(alert) = desk.alerts.poll(now.mono) {
            desk.mailer.mail(desk.report(alert, status(), now));
        }
    }

    /// Has the STOP mail written, with what went wrong on the way there, and waits a few seconds for all
    /// that was not delivered yet.
    pub(super) async fn stop(self, now: Now, status: Status) {
        let Some(mut desk) = self.0 else { return };
        while let Ok(entry) = desk.logged.try_recv() {
            desk.alerts.entry(entry, now.mono);
        }
        let alert = desk.alerts.stop();
        let report = desk.report(alert, status, now);
        desk.mailer.stop(report).await;
    }
}

impl Desk {
    fn report(&self, alert: Alert, status: Status, now: Now) -> Report {
        Report { alert, status, written: now.wall, started: self.started }
    }
}

#[cfg(test)]
#[path = "mail_tests.rs"]
mod tests;

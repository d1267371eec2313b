//! From notices to mails: the alerts' rules on one side, the thread that delivers on the other.

use std::time::Duration;

use tokio::sync::mpsc;

use crate::config::Config;
use crate::engine::alerts::{Alert, Alerts, Entry};
use crate::engine::{Kind, Notice, Now, Status};
use crate::notify::email::{Mailer, Office, Report, SetupError};

/// What the loop tells of to whoever reads mail. Notices are collected without `email` in the configuration
/// too: a reload may bring it.
#[derive(Debug)]
pub(super) struct Mail {
    alerts: Alerts,
    mailer: Option<Mailer>,
    /// Errors and warnings of everything but the engine, as they were logged.
    logged: mpsc::Receiver<Entry>,
    /// A link came back since the last [`turn`](Mail::turn): what waits is to be tried.
    hurry: bool,
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
        let mailer = match Office::open(config)? {
            Some((office, warning)) => {
                if let Some(warning) = warning {
                    tracing::warn!("{warning}");
                }
                Some(Mailer::start(office)?)
            }
            None => None,
        };
        Ok(Self { alerts: Alerts::new(config), mailer, logged, hurry: false, started: now.wall })
    }

    /// Waits for an error or warning of anything but the engine.
    pub(super) async fn logged(&mut self) -> Entry {
        match self.logged.recv().await {
            Some(entry) => entry,
            None => std::future::pending().await,
        }
    }

    /// Takes such a line in.
    pub(super) fn entry(&mut self, entry: Entry, now: Now) {
        self.alerts.entry(entry, now.mono);
    }

    /// Follows another configuration; `office` is made of it. Without one there are no mails from now on, and
    /// those that wait are lost.
    pub(super) fn configure(&mut self, config: &Config, office: Option<Office>) {
        self.alerts.configure(config);
        match (&self.mailer, office) {
            (_, None) => self.mailer = None,
            (Some(mailer), Some(office)) => mailer.configure(office),
            (None, Some(office)) => match Mailer::start(office) {
                Ok(mailer) => self.mailer = Some(mailer),
                Err(error) => tracing::error!("no mails will be sent: {error}"),
            },
        }
    }

    /// Takes in what the engine noticed.
    pub(super) fn notice(&mut self, notice: &Notice, now: Now) {
        self.alerts.notice(notice, now);
        self.hurry |= matches!(notice.kind, Kind::LinkOn { .. } | Kind::DefaultChanged { .. });
    }

    /// When to call [`turn`](Self::turn) at the latest, on the clock of `Now::mono`.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.alerts.next_deadline()
    }

    /// Has the mail written that is due, if one is. The thread is woken here only, once the loop has its
    /// commands out: on a busy processor it would run before them.
    pub(super) fn turn(&mut self, now: Now, status: impl FnOnce() -> Status) {
        if let (true, Some(mailer)) = (std::mem::take(&mut self.hurry), &self.mailer) {
            mailer.hurry();
        }
        let alert = self.alerts.poll(now.mono);
        if let (Some(alert), Some(mailer)) = (alert, &self.mailer) {
            mailer.mail(self.report(alert, status(), now));
        }
    }

    /// Has the STOP mail written, with what went wrong on the way there, and waits a few seconds for all
    /// that was not delivered yet.
    pub(super) async fn stop(mut self, now: Now, status: Status) {
        let Some(mailer) = self.mailer.take() else { return };
        while let Ok(entry) = self.logged.try_recv() {
            self.alerts.entry(entry, now.mono);
        }
        let alert = self.alerts.stop();
        mailer.stop(self.report(alert, status, now)).await;
    }

    fn report(&self, alert: Alert, status: Status, now: Now) -> Report {
        Report { alert, status, written: now.wall, started: self.started }
    }
}

#[cfg(test)]
#[path = "mail_tests.rs"]
mod tests;

//! From notices to mails: the alerts' rules on one side, the thread that delivers on the other.

use std::time::Duration;

use crate::config::Config;
use crate::engine::alerts::{Alert, Alerts, Entry};
use crate::engine::{Kind, Level, Notice, Now, Status};
use crate::notify::email::{Mailer, Report, SetupError};

/// What the loop tells of to whoever reads mail. Without `email` in the configuration it does nothing.
#[derive(Debug)]
pub(super) struct Mail(Option<Desk>);

#[derive(Debug)]
struct Desk {
    alerts: Alerts,
    mailer: Mailer,
    /// Unix time in seconds.
    started: u64,
}

impl Mail {
    /// Starts the thread that delivers. `now`: when the daemon started.
    pub(super) fn start(config: &Config, now: Now) -> Result<Self, SetupError> {
        let mailer = Mailer::start(config)?;
        Ok(Self(mailer.map(|mailer| Desk { alerts: Alerts::new(config), mailer, started: now.wall })))
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

    /// Has the STOP mail written, with what could not be undone, and waits a few seconds for all that was
    /// not delivered yet.
    pub(super) async fn stop(self, now: Now, status: Status, left_behind: &[String]) {
        let Some(mut desk) = self.0 else { return };
        for failure in left_behind {
            let text = format!("left behind: {failure}");
            desk.alerts.entry(Entry { at: now.wall, level: Level::Error, wan: None, text }, now.mono);
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

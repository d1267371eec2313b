//! Telling the service manager (systemd, or whoever listens on `$NOTIFY_SOCKET`) how the daemon is.
//!
//! * `READY=1` once every link has been judged and programs, routes and rules are in force: what is ordered
//!   after this unit finds a router that routes.
//! * `RELOADING=1` when a reload begins and `READY=1` when it is over, so that `systemctl reload` waits.
//! * `STATUS=` the line that `systemctl status` shows.
//! * `WATCHDOG=1` from the event loop itself, so that a loop that hangs is noticed and started anew.
//! * `STOPPING=1` when the stop begins.

use std::env;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use crate::engine::Engine;
use crate::types::LinkState;

/// What was told last.
pub(super) struct Supervisor {
    /// Whether anybody listens.
    supervised: bool,
    ready: bool,
    status: String,
    /// `None`: no watchdog was asked for.
    watchdog: Option<Interval>,
}

impl Supervisor {
    /// Takes up the environment of the process. Needs a tokio runtime.
    pub(super) fn from_env() -> Self {
        let watchdog = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero()).map(|limit| {
            // Half of the limit, as sd_watchdog_enabled(3) recommends; the millisecond is tokio's smallest.
            let mut ticks = interval((limit / 2).max(Duration::from_millis(1)));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        });
        Self {
            supervised: env::var_os("NOTIFY_SOCKET").is_some(),
            ready: false,
            status: String::new(),
            watchdog,
        }
    }

    /// Waits until the watchdog wants to hear of the loop; for ever where there is none.
    pub(super) async fn alive_due(&mut self) -> Instant {
        match &mut self.watchdog {
            Some(ticks) => ticks.tick().await,
            None => std::future::pending().await,
        }
    }

    /// The loop is alive.
    pub(super) fn alive(&self) {
        tell(&[NotifyState::Watchdog]);
    }

    /// Tells what has changed since the last call. `news`: the engine had something to tell people; nothing
    /// else changes the status, and working it out for every probe of hundreds of links would be felt.
    pub(super) fn tell(&mut self, engine: &Engine, news: bool) {
        if !self.supervised || self.ready && !news {
            return;
        }
        let status = summary(engine);
        let became_ready = !self.ready && engine.is_in_force();
        if status == self.status && !became_ready {
            return;
        }
        let mut states = vec![NotifyState::Status(&status)];
        if became_ready {
            self.ready = true;
            states.push(NotifyState::Ready);
        }
        tell(&states);
        self.status = status;
    }

    /// A reload begins. Of no interest to a manager that still waits for the start.
    pub(super) fn reloading(&self) {
        if self.ready {
            // systemd wants the time with it since version 253, and takes what came before it for older.
            let time = NotifyState::monotonic_usec_now().ok();
            tell(&[Some(NotifyState::Reloading), time].into_iter().flatten().collect::<Vec<_>>());
        }
    }

    /// The reload is over, well or not.
    pub(super) fn reloaded(&self) {
        if self.ready {
            tell(&[NotifyState::Ready]);
        }
    }

    /// The stop begins.
    pub(super) fn stopping(&self) {
        tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
    }
}

fn tell(states: &[NotifyState<'_>]) {
    // Without a manager this does nothing.
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!("the service manager could not be told: {error}");
    }
}

/// `default WAN1; 2 of 3 links ON; WAN3 OFF: no carrier`.
fn summary(engine: &Engine) -> String {
    let status = engine.status();
    let on = status.wans.iter().filter(|wan| wan.state == LinkState::On).count();
    let mut text = match &status.default {
        Some(default) => format!("default {default}"),
        None => "no default yet".to_owned(),
    };
    text += &format!("; {on} of {} links ON", status.wans.len());
    for wan in status.wans.iter().filter(|wan| wan.state == LinkState::Off) {
        text += &format!("; {} OFF: {}", wan.description, wan.reason);
    }
    // The protocol is one assignment a line.
    text.replace(char::is_control, " ")
}

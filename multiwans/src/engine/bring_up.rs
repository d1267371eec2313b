//! Interfaces of links that somebody switched off: each is switched on again, once per outage.
//!
//! ```text
//!        down            for GRACE             answered
//!  Up ────────> Down ──────────────> Issued ────────────> Tried
//!  ^  <──────────┘ up                   │ up (also before   │ up
//!  └────────────────────────────────────┴── the answer) ────┘
//! ```
//!
//! One that goes down again within [`RESPECT`] of being switched on by us goes from `Up` straight to
//! `Tried`: a person who says it twice means it.

use std::time::Duration;

use super::command::Command;
use super::event::{CommandId, Interface};
use super::notice::{Kind, Task, WanLabel};
use super::outbox::Outbox;

/// How long an interface is left down first: restarting the network takes it down and up by itself, and
/// two who do it at once get into each other's way.
pub(super) const GRACE: Duration = Duration::from_secs(2);

/// Going down again this soon is taken as meant.
const RESPECT: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outage {
    Up,
    Down(Duration),
    Issued(CommandId),
    Tried,
}

#[derive(Debug)]
struct Watched {
    label: WanLabel,
    outage: Outage,
    /// When we last switched it on.
    raised: Option<Duration>,
}

/// The interfaces of all links.
#[derive(Debug)]
pub(super) struct BringUps(Vec<Watched>);

impl BringUps {
    pub(super) fn new(labels: impl IntoIterator<Item = WanLabel>) -> Self {
        Self(labels.into_iter().map(|label| Watched { label, outage: Outage::Up, raised: None }).collect())
    }

    /// Takes in the interfaces. One that does not exist cannot be switched on.
    pub(super) fn observe(&mut self, interfaces: &[Interface], now: Duration) {
        for watched in &mut self.0 {
            let interface = interfaces.iter().find(|interface| interface.name == watched.label.iface);
            if interface.is_none_or(|interface| interface.up) {
                watched.outage = Outage::Up;
            } else if watched.outage == Outage::Up {
                let meant = watched.raised.is_some_and(|at| now.saturating_sub(at) < RESPECT);
                watched.outage = if meant { Outage::Tried } else { Outage::Down(now) };
            }
        }
    }

    /// Issues what is due; what to tell.
    pub(super) fn issue(&mut self, outbox: &mut Outbox, now: Duration) -> Vec<Kind> {
        let mut told = Vec::new();
        for watched in &mut self.0 {
            if let Outage::Down(since) = watched.outage
                && now >= since.saturating_add(GRACE)
            {
                let command =
                    Command::BringUp { wan: watched.label.mark, iface: watched.label.iface.clone() };
                watched.outage = Outage::Issued(outbox.push(command));
                watched.raised = Some(now);
                told.push(Kind::BringingUp { wan: watched.label.clone() });
            }
        }
        told
    }

    /// When the next one is due.
    pub(super) fn deadline(&self) -> Option<Duration> {
        let due = self.0.iter().filter_map(|watched| match watched.outage {
            Outage::Down(since) => Some(since.saturating_add(GRACE)),
            Outage::Up | Outage::Issued(_) | Outage::Tried => None,
        });
        due.min()
    }

    /// The answer to a command: what was done by it, or `None` where none of these waits for it.
    pub(super) fn ended(&mut self, id: CommandId, now: Duration) -> Option<Task> {
        let watched = self.0.iter_mut().find(|watched| watched.outage == Outage::Issued(id))?;
        watched.outage = Outage::Tried;
        watched.raised = Some(now);
        Some(Task::BringUp(watched.label.clone()))
    }
}

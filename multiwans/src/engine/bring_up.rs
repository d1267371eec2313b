//! Interfaces of links that somebody switched off: each is switched on again, as often as it takes.
//!
//! ```text
//!        down            after a pause
//!  Up ────────> Down ──────────────────> Issued
//!  ^  <──────────┘ up  <────────────────  │ up (also before the answer)
//!  │                     answered         │
//!  └──────────────────────────────────────┘
//! ```
//!
//! The pauses grow while it goes down again within [`MEMORY`] of being switched on by us, or does not come
//! up at all: who works on the link has some time for it, and a program that works against us is not fought.

use std::time::Duration;

use super::command::Command;
use super::event::{CommandId, Interface};
use super::notice::{Kind, Task, WanLabel};
use super::outbox::Outbox;
use crate::types::WanMark;

/// How long an interface is left down first: restarting the network takes it down and up by itself, and
/// two who do it at once get into each other's way.
pub(super) const GRACE: Duration = Duration::from_secs(2);

/// The further pauses; the last one again and again.
const PAUSES: [Duration; 3] = [Duration::from_secs(10), Duration::from_secs(30), Duration::from_secs(60)];

/// Going down again this soon is a further time; later, it is the first.
const MEMORY: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outage {
    Up,
    /// To be switched on then.
    Down(Duration),
    Issued(CommandId),
}

#[derive(Debug)]
struct Watched {
    label: WanLabel,
    outage: Outage,
    /// When we last switched it on.
    raised: Option<Duration>,
    /// How often in a row.
    times: u32,
}

impl Watched {
    /// How long it is left down.
    fn pause(&self) -> Duration {
        let Some(further) = self.times.checked_sub(1) else { return GRACE };
        let [.., longest] = PAUSES;
        usize::try_from(further).ok().and_then(|n| PAUSES.get(n).copied()).unwrap_or(longest)
    }
}

/// The interfaces of all links.
#[derive(Debug)]
pub(super) struct BringUps(Vec<Watched>);

impl BringUps {
    pub(super) fn new(labels: impl IntoIterator<Item = WanLabel>) -> Self {
        let watched = |label| Watched { label, outage: Outage::Up, raised: None, times: 0 };
        Self(labels.into_iter().map(watched).collect())
    }

    /// Takes in the interfaces. One that does not exist cannot be switched on.
    pub(super) fn observe(&mut self, interfaces: &[Interface], now: Duration) {
        for watched in &mut self.0 {
            let interface = interfaces.iter().find(|interface| interface.name == watched.label.iface);
            if interface.is_none_or(|interface| interface.up) {
                watched.outage = Outage::Up;
            } else if watched.outage == Outage::Up {
                if watched.raised.is_none_or(|at| now.saturating_sub(at) >= MEMORY) {
                    watched.times = 0;
                }
                watched.outage = Outage::Down(now.saturating_add(watched.pause()));
            }
        }
    }

    /// Issues what is due; what to tell.
    pub(super) fn issue(&mut self, outbox: &mut Outbox, now: Duration) -> Vec<Kind> {
        let mut told = Vec::new();
        for watched in &mut self.0 {
            if let Outage::Down(due) = watched.outage
                && now >= due
            {
                let command =
                    Command::BringUp { wan: watched.label.mark, iface: watched.label.iface.clone() };
                watched.outage = Outage::Issued(outbox.push(command));
                watched.raised = Some(now);
                watched.times = watched.times.saturating_add(1);
                let (wan, times, pause) = (watched.label.clone(), watched.times, watched.pause());
                told.push(Kind::BringingUp { wan, times, pause });
            }
        }
        told
    }

    /// When the next one is due.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.0.iter().filter_map(Self::due_of).min()
    }

    /// When this link's is due; `None` while it is not waited for.
    pub(super) fn due(&self, wan: WanMark) -> Option<Duration> {
        self.0.iter().find(|watched| watched.label.mark == wan).and_then(Self::due_of)
    }

    fn due_of(watched: &Watched) -> Option<Duration> {
        match watched.outage {
            Outage::Down(due) => Some(due),
            Outage::Up | Outage::Issued(_) => None,
        }
    }

    /// The answer to a command: what was done by it and, if it is down all the same, how long until the next
    /// try; `None` where none of these waits for it.
    pub(super) fn ended(&mut self, id: CommandId, now: Duration) -> Option<(Task, Duration)> {
        let watched = self.0.iter_mut().find(|watched| watched.outage == Outage::Issued(id))?;
        let pause = watched.pause();
        watched.outage = Outage::Down(now.saturating_add(pause));
        watched.raised = Some(now);
        Some((Task::BringUp(watched.label.clone()), pause))
    }
}

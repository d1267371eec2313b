//! The daemon's decisions, and nothing but them: events in, commands and notices out.
//!
//! No clock, no IO: the driver hands in each [`Event`] with the time it was read at, then fetches
//! [commands](Engine::poll_command) and [notices](Engine::poll_notice) until there are none, and comes
//! back with [`Event::Tick`] at the [deadline](Engine::next_deadline). The same events therefore always
//! give the same commands, and a recorded run is a test.
//!
//! ```text
//!  Interfaces ─> facts ─┐
//!                       ├─> link (ON, OFF, UNKNOW) ─> failover ─> targets ─> reconcile ─> Command
//!  Round ───────────────┘                                                      ^
//!  Done, Failed, Tick ─────────────────────────────────────────────────────────┘
//! ```

use std::collections::VecDeque;
use std::time::Duration;

pub mod alerts;
mod attach;
mod audit;
mod bring_up;
mod change;
pub mod command;
pub mod event;
mod facts;
mod failover;
mod link;
mod moves;
mod notice;
mod outbox;
mod reconcile;
mod settings;
mod status;

pub use change::LinkChange;
pub use command::{Command, MoveFlows, Numbered, Role, Routes, Steering};
pub use event::{Binding, CommandId, Disturbance, Event, Interface, Now, Outcome, Round};
pub use notice::{Kind, Level, Notice, Task, WanLabel};
pub use settings::{LinkSettings, Revision, Settings};
pub use status::{Status, WanStatus};

use crate::config::Config;
use crate::types::{LinkState, WanMark};
use link::Link;
use reconcile::Reconciler;

/// The state of everything the daemon decides on.
#[derive(Debug)]
pub struct Engine {
    /// In the configuration's order.
    links: Vec<Link>,
    /// The time of the last event, once one came: the first one's is the links' first.
    now: Option<Now>,
    /// The interfaces were seen: before that nothing can be said of data path and routes.
    looked: bool,
    default: Option<WanMark>,
    all_down: bool,
    stopping: bool,
    reconciler: Reconciler,
    notices: VecDeque<Notice>,
    /// Links that came to another state by the event at hand, with the state before.
    changed: Vec<(WanMark, LinkState)>,
}

impl Engine {
    /// An engine that knows of no interface yet. Its first command, ready to be fetched, writes the status
    /// file with every WAN UNKNOW.
    pub fn new(config: &Config) -> Self {
        let links: Vec<Link> = config.wans.iter().map(|wan| Link::new(wan, &config.ping)).collect();
        let reconciler =
            Reconciler::new(links.iter().map(|link| link.label().clone()), config.daemon.run_interval);
        let mut engine = Self {
            links,
            now: None,
            looked: false,
            default: None,
            all_down: false,
            stopping: false,
            reconciler,
            notices: VecDeque::new(),
            changed: Vec::new(),
        };
        engine.set_targets(false);
        engine.issue(Duration::ZERO);
        engine
    }

    /// Takes in one event. After [`Event::Stop`] all are ignored.
    pub fn handle(&mut self, event: &Event, now: Now) {
        if self.stopping {
            return;
        }
        if self.now.replace(now).is_none() {
            self.links.iter_mut().for_each(|link| link.begin(now));
        }
        let mut routes_may_be_gone = false;
        match event {
            Event::Interfaces(interfaces) => routes_may_be_gone = self.observe(interfaces, now),
            Event::Round(round) => self.update(round.wan, |link| link.round(round, now)),
            Event::Tick => {}
            Event::Done(id) => {
                let told = self.reconciler.done(*id, now.mono);
                self.tell(told);
            }
            Event::Failed { id, error } => self.failed(*id, error, now),
            Event::Disturbed(what) => self.reconciler.disturbed(*what),
            Event::Repaired(what) => {
                let told = self.reconciler.repaired(what, now.mono);
                self.notices.extend(told.into_iter().map(Notice::from));
            }
            Event::Configured(settings) => self.configure(settings, now),
            Event::Stop => return self.stop(),
        }
        self.choose_default();
        self.set_targets(routes_may_be_gone);
        self.issue(now.mono);
        self.run_hooks();
    }

    /// The next command to carry out, in order. `None` after [`Event::Stop`].
    pub fn poll_command(&mut self) -> Option<Numbered> {
        self.reconciler.poll()
    }

    /// The next thing to log.
    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// When to come back with [`Event::Tick`] if nothing else happens before, on the clock of
    /// [`Now::mono`]; `None`: no need to.
    pub fn next_deadline(&self) -> Option<Duration> {
        if self.stopping { None } else { self.reconciler.deadline(|wan| self.can_leave(wan)) }
    }

    /// What is known, for people and for `multiwans status --json`.
    pub fn status(&self) -> Status {
        let usable =
            |wan| self.reconciler.steering().is_some_and(|steering| steering.usable.contains_key(&wan));
        let switched_on =
            |wan| self.reconciler.bring_up_due(wan).zip(self.now).map(|(due, now)| now.time_of_day(due));
        let status = |link: &Link| WanStatus::of(link, usable(link.mark()), switched_on(link.mark()));
        Status {
            default: self.default.and_then(|wan| self.label(wan)).map(|label| label.description),
            wans: self.links.iter().map(status).collect(),
        }
    }

    /// Whether every link has been judged, and what follows from it is carried out as far as it could be.
    pub fn is_in_force(&self) -> bool {
        self.looked
            && self.links.iter().all(|link| link.state() != LinkState::Unknow)
            && !self.reconciler.is_under_way()
    }

    /// Whether [`Event::Stop`] came.
    pub fn stopping(&self) -> bool {
        self.stopping
    }

    /// The WAN to leave as the main table's default route at the stop: the first in failover order that is
    /// ON, or else the current default. `None` if none was ever chosen: that route is not ours to change.
    pub fn final_default(&self) -> Option<WanMark> {
        let on = self.candidates().into_iter().find(|link| link.is_on()).map(Link::mark);
        on.or(self.default)
    }

    /// The links that may become the default, in failover order.
    fn candidates(&self) -> Vec<&Link> {
        let mut candidates: Vec<&Link> = self.links.iter().filter(|link| link.order().is_some()).collect();
        candidates.sort_by_key(|link| link.order());
        candidates
    }

    /// Takes in the interfaces. True when a WAN's own changed.
    fn observe(&mut self, interfaces: &[Interface], now: Now) -> bool {
        self.looked = true;
        let mut any_changed = false;
        let marks: Vec<WanMark> = self.links.iter().map(Link::mark).collect();
        for wan in marks {
            self.update(wan, |link| {
                let (changed, told) = link.observe(interfaces, now);
                any_changed |= changed;
                told
            });
        }
        self.reconciler.watch_down(interfaces, now.mono);
        self.reconciler.want_attached(attach::roles(&self.links, interfaces));
        any_changed
    }

    /// Lets a link learn something, and draws the conclusions for its flows.
    fn update(&mut self, wan: WanMark, learn: impl FnOnce(&mut Link) -> Option<Kind>) {
        let Some(link) = self.links.iter_mut().find(|link| link.mark() == wan) else {
            return;
        };
        let before = link.state();
        let told = learn(link);
        if before != link.state() {
            self.changed.push((wan, before));
        }
        match (before, link.state()) {
            (LinkState::Off, LinkState::Off) | (_, LinkState::Unknow) => {}
            (_, LinkState::Off) => self.reconciler.owe_dead_link(link.label(), link.address().0),
            (_, LinkState::On) => self.reconciler.forgive(wan),
        }
        self.tell(told);
    }

    /// Follows another configuration: no state and no history is lost by it.
    fn configure(&mut self, settings: &Settings, now: Now) {
        for link in &mut self.links {
            if let Some(own) = settings.links.iter().find(|own| own.wan == link.mark()) {
                link.configure(own);
            }
        }
        self.reconciler.configure(settings, now.mono);
        self.tell(Some(Kind::Reloaded { changes: settings.changes.clone() }));
    }

    fn failed(&mut self, id: CommandId, error: &str, now: Now) {
        let (task, told) = self.reconciler.failed(id, error, now.mono);
        self.tell(told);
        if let Some(Task::Probe(label)) = task {
            self.update(label.mark, |link| link.unprobed(error, now));
        }
    }

    fn stop(&mut self) {
        self.stopping = true;
        self.reconciler.withdraw();
        let default = self.final_default().and_then(|wan| self.label(wan));
        self.tell(Some(Kind::Stopping { default }));
    }

    fn choose_default(&mut self) {
        let chosen = failover::choose(self.candidates(), self.default);
        if chosen != self.default {
            let from = self.default.and_then(|wan| self.label(wan));
            let to = chosen.and_then(|wan| self.label(wan));
            self.default = chosen;
            self.tell(to.map(|to| Kind::DefaultChanged { from, to }));
        }
        let all_down = self.none_left();
        if all_down && !self.all_down {
            let links = self.links.iter().filter(|link| link.state() == LinkState::Off);
            let links = links.map(|link| (link.label().clone(), link.reason())).collect();
            let kept = self.default.and_then(|wan| self.label(wan));
            self.tell(Some(Kind::AllDown { links, kept }));
        }
        self.all_down = all_down;
    }

    /// Whether every link that could be the default is OFF; where none could be, every link at all.
    fn none_left(&self) -> bool {
        let candidates = self.candidates();
        let off = |link: &Link| link.state() == LinkState::Off;
        if candidates.is_empty() { self.links.iter().all(off) } else { candidates.into_iter().all(off) }
    }

    fn set_targets(&mut self, routes_may_be_gone: bool) {
        let states = self.links.iter().map(|link| (link.label().iface.clone(), link.state())).collect();
        self.reconciler.want_status(states);
        if !self.looked {
            return;
        }
        self.reconciler.want_steering(failover::steering(&self.links, self.default));
        self.reconciler.want_routes(failover::routes(&self.links, self.default), routes_may_be_gone);
        for link in &self.links {
            self.reconciler.want_probe(link.mark(), link.binding());
        }
    }

    fn issue(&mut self, now: Duration) {
        let Self { links, default, reconciler, notices, .. } = self;
        let told = reconciler.issue(now, |wan| can_leave(links, *default, wan));
        notices.extend(told.into_iter().map(Notice::from));
    }

    /// Last of all: by the time hooks run, what they are told of is on its way.
    fn run_hooks(&mut self) {
        for (wan, previous) in std::mem::take(&mut self.changed) {
            let Some(link) = self.links.iter().find(|link| link.mark() == wan) else { continue };
            let (state, reason) = (link.state(), link.reason());
            self.reconciler.run_hooks(LinkChange { wan, state, previous, reason, default: self.default });
        }
    }

    fn can_leave(&self, wan: WanMark) -> bool {
        can_leave(&self.links, self.default, wan)
    }

    fn label(&self, wan: WanMark) -> Option<WanLabel> {
        self.links.iter().find(|link| link.mark() == wan).map(|link| link.label().clone())
    }

    fn tell(&mut self, kind: Option<Kind>) {
        self.notices.extend(kind.map(Notice::from));
    }
}

/// Whether the flows of a dead link have anywhere to go, so that deleting their entries helps them.
///
/// They fall to the default, so that has to be ON. And no other link that is ON may have the same address
/// (two providers' modems like to give the same private one): its flows would be deleted as well.
fn can_leave(links: &[Link], default: Option<WanMark>, dead: WanMark) -> bool {
    let address = links.iter().find(|link| link.mark() == dead).map(|link| link.address().0);
    let mut others = links.iter().filter(|link| link.mark() != dead && link.is_on());
    others.clone().any(|link| default == Some(link.mark()))
        && !others.any(|link| address == Some(link.address().0))
}

#[cfg(test)]
pub(crate) mod tests;

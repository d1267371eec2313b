//! From targets to commands: what was asked for, what was carried out, what is still to do.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use super::audit::Auditor;
use super::bring_up::BringUps;
use super::change::LinkChange;
use super::command::{Command, Numbered, Role, Routes, Steering};
use super::event::{Binding, CommandId, Disturbance, Interface};
use super::moves::Moves;
use super::notice::{Kind, Task, WanLabel};
use super::outbox::{Outbox, Slot};
use super::settings::{Revision, Settings};
use crate::types::{IfIndex, IfName, LinkState, WanMark};

/// Every target of the engine and its commands on their way.
///
/// The fields stand in the order their commands are issued in when several are due: the data path first,
/// because one write there moves the packets, then what the kernel routes them by. Flows are moved last,
/// and only once both are confirmed; before that their next packet would only be given the old way again.
#[derive(Debug)]
pub(super) struct Reconciler {
    steer: Slot<Steering>,
    filters: Slot<Revision>,
    attach: Slot<BTreeMap<IfIndex, Role>>,
    routes: Slot<Routes>,
    probes: Vec<(WanLabel, Slot<Option<Binding>>)>,
    status: Slot<Vec<(IfName, LinkState)>>,
    moves: Moves,
    auditor: Auditor,
    bring_ups: BringUps,
    outbox: Outbox,
}

impl Reconciler {
    /// Nothing wanted yet, of these WANs nothing probed.
    pub(super) fn new(wans: impl IntoIterator<Item = WanLabel>, audit_period: Duration) -> Self {
        let wans: Vec<WanLabel> = wans.into_iter().collect();
        Self {
            auditor: Auditor::new(audit_period),
            bring_ups: BringUps::new(wans.iter().cloned()),
            steer: Slot::empty(),
            // Loaded with the programs.
            filters: Slot::settled(Revision::default()),
            attach: Slot::empty(),
            routes: Slot::empty(),
            probes: wans.into_iter().map(|label| (label, Slot::settled(None))).collect(),
            status: Slot::empty(),
            moves: Moves::default(),
            outbox: Outbox::default(),
        }
    }

    /// What the data path was last told, carried out or not.
    pub(super) fn steering(&self) -> Option<&Steering> {
        self.steer.target()
    }

    /// Sets the data path's target, and owes the move of flows whose decision may be another one by it.
    pub(super) fn want_steering(&mut self, steering: Steering) {
        let nothing = Steering::default();
        let before = self.steer.target().unwrap_or(&nothing);
        let default_changed = before.default != steering.default;
        let gained = steering.usable.keys().any(|wan| !before.usable.contains_key(wan));
        // A link that is no longer usable changes decisions as well, but only those for itself: its flows
        // move off its address, and nothing else is looked at.
        if default_changed || gained {
            self.moves.owe_unanswered();
        }
        self.steer.want(steering);
    }

    /// Another configuration: what of it is to be put in force. Commands follow the executor's.
    pub(super) fn configure(&mut self, settings: &Settings, now: Duration) {
        self.auditor.set_period(settings.audit_period, now);
        if settings.filters {
            self.filters.want(settings.revision);
            // The rules for the router's own traffic.
            self.routes.again_if_wanted();
            self.moves.owe_unanswered();
        }
        for (label, slot) in &mut self.probes {
            if settings.probes.contains(&label.mark) {
                slot.again();
            }
        }
    }

    /// Sets which interface runs which programs.
    pub(super) fn want_attached(&mut self, roles: BTreeMap<IfIndex, Role>) {
        self.attach.want(roles);
    }

    /// Sets the routing's target; due again even if it is the same one where the kernel may have dropped
    /// some of it.
    pub(super) fn want_routes(&mut self, routes: Routes, may_be_gone: bool) {
        self.routes.want(routes);
        if may_be_gone {
            self.routes.again();
        }
    }

    /// Sets what a WAN is probed over.
    pub(super) fn want_probe(&mut self, wan: WanMark, binding: Option<&Binding>) {
        if let Some((_, slot)) = self.probes.iter_mut().find(|(label, _)| label.mark == wan) {
            slot.want(binding.cloned());
        }
    }

    /// Sets what the status file says.
    pub(super) fn want_status(&mut self, states: Vec<(IfName, LinkState)>) {
        self.status.want(states);
    }

    /// A link went OFF: its flows are to move as soon as another one takes them.
    pub(super) fn owe_dead_link(&mut self, label: &WanLabel, address: Ipv4Addr) {
        self.moves.owe_dead_link(label, address);
    }

    /// Has a link's hooks run. Nothing waits for the answer, nor is it tried again: from here on it is the
    /// hooks' own matter what becomes of it.
    pub(super) fn run_hooks(&mut self, change: LinkChange) {
        self.outbox.push(Command::RunHooks(change));
    }

    /// A link is back: what was still owed for it is not any more.
    pub(super) fn forgive(&mut self, wan: WanMark) {
        self.moves.forgive(wan);
    }

    /// The kernel's state was changed by somebody.
    pub(super) fn disturbed(&mut self, what: Disturbance) {
        self.auditor.disturbed(what);
    }

    /// Something was put right; what to tell.
    pub(super) fn repaired(&mut self, what: &BTreeSet<String>, now: Duration) -> Vec<Kind> {
        self.auditor.repaired(what, now)
    }

    /// Interfaces that are down are to be switched on.
    pub(super) fn watch_down(&mut self, interfaces: &[Interface], now: Duration) {
        self.bring_ups.observe(interfaces, now);
    }

    /// When a link's interface, which is down, is switched on; `None` while that is not waited for.
    pub(super) fn bring_up_due(&self, wan: WanMark) -> Option<Duration> {
        self.bring_ups.due(wan)
    }

    /// Issues everything that is due; what to tell of it. `can_leave` tells whether a dead link's flows have
    /// anywhere to go.
    pub(super) fn issue(&mut self, now: Duration, can_leave: impl Fn(WanMark) -> bool) -> Vec<Kind> {
        let outbox = &mut self.outbox;
        self.steer.issue(outbox, now, |steering| Command::Steer(steering.clone()));
        self.filters.issue(outbox, now, |revision| Command::Filters(*revision));
        self.attach.issue(outbox, now, |roles| Command::Attach(roles.clone()));
        self.routes.issue(outbox, now, |routes| Command::Routes(routes.clone()));
        for (label, slot) in &mut self.probes {
            let wan = label.mark;
            slot.issue(outbox, now, |binding| Command::Probe { wan, binding: binding.clone() });
        }
        self.status.issue(outbox, now, |states| Command::WriteStatus(states.clone()));
        if self.steer.is_settled() && self.filters.is_settled() && self.routes.is_settled() {
            self.moves.issue(outbox, now, can_leave);
        }
        self.auditor.issue(outbox, now, &self.routes, &self.attach);
        self.bring_ups.issue(outbox, now)
    }

    /// Whether programs, data path or routes are being changed.
    pub(super) fn is_under_way(&self) -> bool {
        let data_path = self.steer.is_under_way() || self.filters.is_under_way();
        data_path || self.attach.is_under_way() || self.routes.is_under_way()
    }

    /// When something is to be tried again.
    pub(super) fn deadline(&self, can_leave: impl Fn(WanMark) -> bool) -> Option<Duration> {
        // While a move has to wait for data path and routes, only their answer can bring it on.
        let confirmed = self.steer.is_settled() && self.filters.is_settled() && self.routes.is_settled();
        let moves = if confirmed { self.moves.deadline(can_leave) } else { None };
        [
            self.steer.deadline(),
            self.filters.deadline(),
            self.attach.deadline(),
            self.routes.deadline(),
            self.status.deadline(),
            moves,
        ]
        .into_iter()
        .chain(self.probes.iter().map(|(_, slot)| slot.deadline()))
        .chain([self.auditor.deadline(&self.routes, &self.attach), self.bring_ups.deadline()])
        .flatten()
        .min()
    }

    /// A command was carried out; what to tell.
    pub(super) fn done(&mut self, id: CommandId, now: Duration) -> Option<Kind> {
        if self.auditor.ended(id, now) || self.bring_ups.ended(id, now).is_some() {
            return None;
        }
        match self.on_slot(id, |slot| slot.done()) {
            Some((task, ended_trouble)) => ended_trouble.then_some(Kind::CommandRecovered { task }),
            None => self.moves.done(id),
        }
    }

    /// A command failed; what was to be done by it, and what to tell.
    pub(super) fn failed(
        &mut self,
        id: CommandId,
        error: &str,
        now: Duration,
    ) -> (Option<Task>, Option<Kind>) {
        if self.auditor.ended(id, now) {
            // The target's own command finds the same, tells it and tries again in its own time; one that is
            // between two tries already did.
            self.routes.again_if_settled();
            self.attach.again_if_settled();
            return (None, None);
        }
        if let Some((task, retry_in)) = self.bring_ups.ended(id, now) {
            let told = Kind::CommandFailed { task, error: error.to_owned(), retry_in };
            return (None, Some(told));
        }
        match self.on_slot(id, |slot| slot.failed(error, now)) {
            Some((task, failure)) => {
                let (retry_in, error) = (failure.retry_in, error.to_owned());
                let told = failure.news.then(|| Kind::CommandFailed { task: task.clone(), error, retry_in });
                (Some(task), told)
            }
            None => (None, self.moves.failed(id, error, now)),
        }
    }

    /// The oldest command not fetched yet.
    pub(super) fn poll(&mut self) -> Option<Numbered> {
        self.outbox.pop()
    }

    /// Drops the commands not fetched yet.
    pub(super) fn withdraw(&mut self) {
        self.outbox.clear();
    }

    /// Does something to the slot that waits for this command; `None` where none does.
    fn on_slot<R>(&mut self, id: CommandId, act: impl FnOnce(&mut dyn Answered) -> R) -> Option<(Task, R)> {
        let slots: [(Task, &mut dyn Answered); 5] = [
            (Task::Steer, &mut self.steer),
            (Task::Filters, &mut self.filters),
            (Task::Attach, &mut self.attach),
            (Task::Routes, &mut self.routes),
            (Task::WriteStatus, &mut self.status),
        ];
        let probes = self
            .probes
            .iter_mut()
            .map(|(label, slot)| (Task::Probe(label.clone()), slot as &mut dyn Answered));
        let (task, slot) = slots.into_iter().chain(probes).find(|(_, slot)| slot.awaits(id))?;
        Some((task, act(slot)))
    }
}

/// A [`Slot`] whatever its target is.
trait Answered {
    fn awaits(&self, id: CommandId) -> bool;
    fn done(&mut self) -> bool;
    fn failed(&mut self, error: &str, now: Duration) -> super::outbox::Failure;
}

impl<T: PartialEq> Answered for Slot<T> {
    fn awaits(&self, id: CommandId) -> bool {
        Slot::awaits(self, id)
    }

    fn done(&mut self) -> bool {
        Slot::done(self)
    }

    fn failed(&mut self, error: &str, now: Duration) -> super::outbox::Failure {
        Slot::failed(self, error, now)
    }
}

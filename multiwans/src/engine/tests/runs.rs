//! Random runs of an engine, with every command held against the model as it is issued.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;

use super::model::Model;
use super::world::{World, address, config, interface, wan};
use crate::engine::*;
use crate::types::{IfIndex, IfName};

/// Something that happens. WANs are given by mark.
#[derive(Debug, Clone)]
pub(super) enum Op {
    Answered(u8),
    Silent(u8),
    /// An answered round of a binding that never was.
    Stale(u8),
    Up(u8, bool),
    Carrier(u8, bool),
    Address(u8, bool),
    Remove(u8),
    /// With a new index.
    Create(u8),
    /// An interface of the inside comes or goes.
    Inside(bool),
    Look,
    Disturb(Disturbance),
    Wait(u16),
    Succeed(Index),
    Fail(Index),
    Settle,
}

pub(super) fn op(marks: std::ops::RangeInclusive<u8>) -> impl Strategy<Value = Op> {
    let mark = move || marks.clone();
    prop_oneof![
        8 => mark().prop_map(Op::Answered),
        6 => mark().prop_map(Op::Silent),
        1 => mark().prop_map(Op::Stale),
        1 => (mark(), any::<bool>()).prop_map(|(mark, up)| Op::Up(mark, up)),
        1 => (mark(), any::<bool>()).prop_map(|(mark, carrier)| Op::Carrier(mark, carrier)),
        1 => (mark(), any::<bool>()).prop_map(|(mark, there)| Op::Address(mark, there)),
        1 => mark().prop_map(Op::Remove),
        2 => mark().prop_map(Op::Create),
        1 => any::<bool>().prop_map(Op::Inside),
        1 => Just(Op::Look),
        2 => any::<(bool, bool)>()
            .prop_map(|(routing, programs)| Op::Disturb(Disturbance { routing, programs })),
        2 => (0u16..5_000).prop_map(Op::Wait),
        4 => any::<Index>().prop_map(Op::Succeed),
        1 => any::<Index>().prop_map(Op::Fail),
        2 => Just(Op::Settle),
    ]
}

/// Three WANs in a failover order that is not the file's, and one outside of it.
pub(super) const ORDERS: [Option<u8>; 4] = [Some(2), Some(1), None, Some(3)];

/// What a command replaces: the next one of the same slot does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Replaces {
    Steer,
    Filters,
    Attach,
    Routes,
    Probe(u8),
    Status,
}

fn replaces(command: &Command) -> Option<Replaces> {
    match command {
        Command::Steer(_) => Some(Replaces::Steer),
        Command::Filters(_) => Some(Replaces::Filters),
        Command::Attach(_) => Some(Replaces::Attach),
        Command::Routes(_) => Some(Replaces::Routes),
        Command::Probe { wan, .. } => Some(Replaces::Probe(wan.get())),
        Command::WriteStatus(_) => Some(Replaces::Status),
        Command::MoveFlows(_) | Command::Audit { .. } | Command::BringUp { .. } | Command::RunHooks(_) => {
            None
        }
    }
}

pub(super) struct Run {
    pub(super) world: World,
    pub(super) model: Model,
    /// Commands in the order they were issued.
    pub(super) log: Vec<Command>,
    /// The last of each.
    pub(super) last: BTreeMap<Replaces, Command>,
    /// The last ones not carried out yet.
    pending: BTreeMap<Replaces, CommandId>,
    /// The last ones that failed: these may be issued again as they are.
    failed: BTreeSet<Replaces>,
    /// Interfaces as last shown.
    shown: Vec<Interface>,
    /// A WAN's interface was just seen changed: routes may be issued again as they are.
    wan_changed: bool,
    next_index: u32,
}

impl Run {
    /// Started, with its interfaces shown.
    pub(super) fn new() -> Self {
        let mut run = Self {
            world: World::of(&config(&ORDERS)),
            model: Model::new(&ORDERS),
            log: Vec::new(),
            last: BTreeMap::new(),
            pending: BTreeMap::new(),
            failed: BTreeSet::new(),
            shown: Vec::new(),
            wan_changed: false,
            next_index: 1_000,
        };
        run.world.fetch();
        let issued: Vec<Numbered> = run.world.open.iter().cloned().collect();
        issued.into_iter().for_each(|numbered| run.check(numbered));
        run.look();
        run
    }

    pub(super) fn of(ops: &[Op]) -> Self {
        let mut run = Self::new();
        ops.iter().for_each(|op| run.apply(op));
        run
    }

    pub(super) fn apply(&mut self, op: &Op) {
        match op {
            Op::Answered(mark) => self.answered(*mark),
            Op::Silent(mark) => self.round(*mark, None, Outcome::Silent { send_error: None }),
            Op::Stale(mark) => self.round(*mark, Some(IfIndex(u32::MAX)), answered()),
            Op::Up(mark, up) => self.change(*mark, |i| i.up = *up),
            Op::Carrier(mark, carrier) => self.change(*mark, |i| i.carrier = *carrier),
            Op::Address(mark, there) => self.change(*mark, |i| {
                i.addresses = if *there { vec![(address(*mark), 24)] } else { Vec::new() };
            }),
            Op::Remove(mark) => self.replace(&interface(*mark, 0).name, None),
            Op::Create(mark) => {
                self.next_index += 1;
                let created = interface(*mark, self.next_index);
                self.replace(&interface(*mark, 0).name, Some(created));
            }
            Op::Inside(there) => {
                let lan = IfName::new("lan0").unwrap();
                let created = there.then(|| Interface { name: lan.clone(), ..interface(9, 2) });
                self.replace(&lan, created);
            }
            Op::Look => self.look(),
            Op::Disturb(what) => self.send(Event::Disturbed(*what)),
            Op::Wait(millis) => {
                self.world.now += Duration::from_millis((*millis).into());
                self.send(Event::Tick);
            }
            Op::Succeed(index) => self.answer(index, true),
            Op::Fail(index) => self.answer(index, false),
            Op::Settle => self.settle(),
        }
    }

    pub(super) fn look(&mut self) {
        let wans = |interfaces: &[Interface]| -> BTreeMap<IfName, Interface> {
            let wans = interfaces.iter().filter(|i| i.name.as_str().starts_with("eth"));
            wans.map(|i| (i.name.clone(), i.clone())).collect()
        };
        let now = self.world.interfaces.clone();
        self.wan_changed = wans(&self.shown) != wans(&now);
        self.shown.clone_from(&now);
        self.send(Event::Interfaces(now));
        self.wan_changed = false;
    }

    pub(super) fn answered(&mut self, mark: u8) {
        self.round(mark, None, answered());
    }

    /// Carries out everything, retries too.
    pub(super) fn settle(&mut self) {
        let before = self.log.len();
        loop {
            while let Some(numbered) = self.world.open.pop_front() {
                self.conclude(&numbered, true);
                assert!(self.log.len() < before + 1_000, "no end of commands");
            }
            let Some(deadline) = self.world.deadline() else { return };
            self.world.now = deadline;
            self.send(Event::Tick);
        }
    }

    fn round(&mut self, mark: u8, index: Option<IfIndex>, outcome: Outcome) {
        let iface = interface(mark, 0).name;
        let shown = self.shown.iter().find(|i| i.name == iface).map(|i| i.index);
        let index = index.or(shown).unwrap_or(IfIndex(0));
        let binding = Binding { index, iface, source: address(mark) };
        self.send(Event::Round(Round { wan: wan(mark), binding, outcome }));
    }

    fn change(&mut self, mark: u8, change: impl FnOnce(&mut Interface)) {
        let name = interface(mark, 0).name;
        if let Some(interface) = self.world.interfaces.iter_mut().find(|i| i.name == name) {
            change(interface);
        }
        self.look();
    }

    fn replace(&mut self, name: &IfName, by: Option<Interface>) {
        self.world.interfaces.retain(|i| i.name != *name);
        self.world.interfaces.extend(by);
        self.look();
    }

    fn answer(&mut self, index: &Index, succeed: bool) {
        if !self.world.open.is_empty() {
            let position = index.index(self.world.open.len());
            let numbered = self.world.open.remove(position).unwrap();
            self.conclude(&numbered, succeed);
        }
    }

    fn conclude(&mut self, Numbered { id, command }: &Numbered, succeed: bool) {
        let slot = replaces(command).filter(|slot| self.pending.get(slot) == Some(id));
        if succeed {
            slot.map(|slot| self.pending.remove(&slot));
            self.send(Event::Done(*id));
            if let Command::BringUp { wan, .. } = command {
                // What does not come up is switched on for ever.
                self.change(wan.get(), |interface| interface.up = true);
            }
            return;
        }
        self.failed.extend(slot);
        if let Command::Audit { .. } = command {
            self.failed.extend([Replaces::Attach, Replaces::Routes]);
        }
        if let (Some(_), Command::Probe { wan, .. }) = (slot, command) {
            self.model.unprobed(*wan);
        }
        self.send(Event::Failed { id: *id, error: "busy".into() });
    }

    fn send(&mut self, event: Event) {
        self.model.learn(&event);
        let open = self.world.open.len();
        self.world.send(event);
        let issued: Vec<Numbered> = self.world.open.iter().skip(open).cloned().collect();
        issued.into_iter().for_each(|numbered| self.check(numbered));
        if let Some(deadline) = self.world.engine.next_deadline() {
            assert!(deadline > self.world.now, "a deadline in the past spins the driver");
        }
    }

    /// A command is what follows from the state of things, and is issued for a reason.
    fn check(&mut self, Numbered { id, command }: Numbered) {
        match &command {
            Command::Steer(steering) => assert_eq!(*steering, self.model.steering()),
            Command::Routes(routes) => assert_eq!(*routes, self.model.routes()),
            Command::Attach(roles) => assert_eq!(*roles, self.model.roles()),
            Command::WriteStatus(states) => assert_eq!(*states, self.model.states()),
            Command::Probe { wan, binding } => assert_eq!(*binding, self.model.binding(*wan)),
            Command::Filters(_) => unreachable!("these runs keep their configuration"),
            Command::MoveFlows(what) => self.check_move(what),
            Command::RunHooks(_) => unreachable!("the world keeps these apart"),
            Command::Audit { routes, programs } => {
                assert!(routes.as_ref().is_none_or(|routes| *routes == self.model.routes()));
                assert!(programs.as_ref().is_none_or(|roles| *roles == self.model.roles()));
            }
            Command::BringUp { iface, .. } => {
                let interface = self.shown.iter().find(|interface| interface.name == *iface);
                assert!(interface.is_some_and(|interface| !interface.up));
            }
        }
        if let Some(slot) = replaces(&command) {
            let repeated = self.last.get(&slot) == Some(&command);
            let reason = self.failed.contains(&slot) || slot == Replaces::Routes && self.wan_changed;
            assert!(!repeated || reason, "{command:?} again, and nothing has changed");
            self.failed.remove(&slot);
            self.pending.insert(slot, id);
            self.last.insert(slot, command.clone());
        }
        self.log.push(command);
    }

    fn check_move(&self, what: &MoveFlows) {
        for before in [Replaces::Steer, Replaces::Routes] {
            assert!(!self.pending.contains_key(&before), "{what:?} with {before:?} not carried out");
        }
        if let MoveFlows::OffDeadLink { wan, address: off } = what {
            assert_eq!(*off, address(wan.get()));
            assert!(!self.model.is_on(*wan), "WAN{wan} is ON");
            assert!(self.model.default.is_some_and(|default| self.model.is_on(default)));
        }
    }
}

fn answered() -> Outcome {
    Outcome::Answered { target: [1, 1, 1, 1].into(), rtt: Duration::from_millis(12) }
}

//! An engine with a virtual clock, interfaces to break and a driver that carries out what it is told to.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::{Alerts, Company, Config, Daemon, Dns, Flows, Hooks, LogLevel, Ping, Probe, Target, Wan};
use crate::engine::*;
use crate::types::{FwMark, IfIndex, IfName, LinkState, MarkMask, WanMark};

/// Beyond everything that is tested, but for the audit itself.
pub(super) const AUDIT_PERIOD: Duration = Duration::from_secs(1 << 32);

/// WANs 1 to n on eth1 to ethn with 10.0.k.2/24, each with its place in the failover order. Two silent
/// rounds take a link down.
pub(crate) fn config(orders: &[Option<u8>]) -> Config {
    let wans = (1..).zip(orders).map(|(mark, order)| Wan {
        description: format!("WAN{mark}"),
        note: None,
        mark: wan(mark),
        fwmark: FwMark(mark.into()),
        order_failover: *order,
        iface: IfName::new(&format!("eth{mark}")).unwrap(),
        ip: address(mark),
        prefix_len: 24,
        gateway: Ipv4Addr::new(10, 0, mark, 1),
        dns: Vec::new(),
        targets: vec![Target::Address(Ipv4Addr::new(1, 1, 1, 1))],
        filters: Vec::new(),
    });
    Config {
        company: Company::default(),
        daemon: Daemon {
            run_interval: AUDIT_PERIOD,
            status_file: PathBuf::new(),
            control_socket: PathBuf::new(),
            mark_mask: MarkMask::default(),
            log_level: LogLevel::Info,
            rule_priority: 30_000,
        },
        flows: Flows { max: 4_096 },
        alerts: Alerts { max: 2, interval: Duration::from_secs(1_800) },
        ping: Ping { count: 1, timeout: Duration::from_secs(3), targets: Vec::new() },
        probe: Probe { interval: Duration::from_secs(1) },
        hooks: Hooks { dir: PathBuf::new(), timeout: Duration::from_secs(30) },
        dns: Dns { retry: 1, timeout: Duration::from_secs(2), servers: Vec::new() },
        localnets: Vec::new(),
        email: None,
        wans: wans.collect(),
    }
}

pub(crate) fn wan(mark: u8) -> WanMark {
    WanMark::new(mark).unwrap()
}

pub(crate) fn address(mark: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, mark, 2)
}

/// A healthy `eth<mark>`.
pub(crate) fn interface(mark: u8, index: u32) -> Interface {
    Interface {
        index: IfIndex(index),
        name: IfName::new(&format!("eth{mark}")).unwrap(),
        up: true,
        carrier: true,
        loopback: false,
        port: false,
        addresses: vec![(address(mark), 24)],
    }
}

/// Indices of a world's interfaces: WAN k has 10 + k.
pub(super) fn index(mark: u8) -> u32 {
    10 + u32::from(mark)
}

pub(super) struct World {
    pub(super) engine: Engine,
    pub(super) now: Duration,
    /// What the next [`World::look`] shows.
    pub(super) interfaces: Vec<Interface>,
    /// Issued and not answered.
    pub(super) open: VecDeque<Numbered>,
    /// Changes whose hooks are to run. Nobody waits for an answer to these commands, so they are no part of
    /// the others.
    pub(super) hooks: Vec<LinkChange>,
    /// Everything that was handed in, as JSON lines.
    pub(super) record: Vec<String>,
}

impl World {
    pub(super) fn of(config: &Config) -> Self {
        let interfaces = config.wans.iter().map(|wan| interface(wan.mark.get(), index(wan.mark.get())));
        let interfaces = interfaces.collect();
        Self {
            engine: Engine::new(config),
            now: Duration::ZERO,
            interfaces,
            open: VecDeque::new(),
            hooks: Vec::new(),
            record: Vec::new(),
        }
    }

    pub(super) fn new(orders: &[Option<u8>]) -> Self {
        Self::of(&config(orders))
    }

    /// Started, all links ON, every command carried out, all notices read.
    pub(super) fn healthy(orders: &[Option<u8>]) -> Self {
        Self::new(orders).brought_up()
    }

    pub(super) fn brought_up(mut self) -> Self {
        self.look();
        let marks: Vec<u8> = self.engine.status().wans.iter().map(|wan| wan.mark.get()).collect();
        for mark in marks {
            self.answered(mark);
        }
        self.settle();
        self.notices();
        self
    }

    pub(super) fn now(&self) -> Now {
        Now { mono: self.now, wall: 1_700_000_000 + self.now.as_secs(), utc_offset: -3 * 3600 }
    }

    /// Hands in an event; the commands it gives.
    pub(super) fn send(&mut self, event: Event) -> Vec<Command> {
        self.record.push(serde_json::to_string(&(&event, self.now())).unwrap());
        self.engine.handle(&event, self.now());
        self.fetch()
    }

    pub(super) fn fetch(&mut self) -> Vec<Command> {
        let mut issued = Vec::new();
        while let Some(numbered) = self.engine.poll_command() {
            match numbered.command {
                Command::RunHooks(change) => self.hooks.push(change),
                _ => issued.push(numbered),
            }
        }
        self.open.extend(issued.iter().cloned());
        issued.into_iter().map(|numbered| numbered.command).collect()
    }

    pub(super) fn look(&mut self) -> Vec<Command> {
        self.send(Event::Interfaces(self.interfaces.clone()))
    }

    /// Changes `eth<mark>` and shows it.
    pub(super) fn change(&mut self, mark: u8, change: impl FnOnce(&mut Interface)) -> Vec<Command> {
        let name = format!("eth{mark}");
        change(self.interfaces.iter_mut().find(|interface| interface.name.as_str() == name).unwrap());
        self.look()
    }

    pub(super) fn round(&mut self, mark: u8, outcome: Outcome) -> Vec<Command> {
        let index = self.interfaces.iter().find(|i| i.name.as_str() == format!("eth{mark}")).map(|i| i.index);
        let binding = Binding {
            index: index.unwrap_or(IfIndex(0)),
            iface: IfName::new(&format!("eth{mark}")).unwrap(),
            source: address(mark),
        };
        self.send(Event::Round(Round { wan: wan(mark), binding, outcome }))
    }

    pub(super) fn answered(&mut self, mark: u8) -> Vec<Command> {
        let target = Ipv4Addr::new(1, 1, 1, 1);
        self.round(mark, Outcome::Answered { target, rtt: Duration::from_millis(12) })
    }

    pub(super) fn silent(&mut self, mark: u8) -> Vec<Command> {
        self.round(mark, Outcome::Silent { send_error: None })
    }

    /// The rounds that take an ON link down.
    pub(super) fn lose(&mut self, mark: u8) -> Vec<Command> {
        let mut commands = self.silent(mark);
        commands.extend(self.silent(mark));
        assert_eq!(self.state(mark), LinkState::Off);
        commands
    }

    /// The rounds that bring an OFF link back.
    pub(super) fn regain(&mut self, mark: u8) -> Vec<Command> {
        let commands = (0..3).flat_map(|_| self.answered(mark)).collect();
        assert_eq!(self.state(mark), LinkState::On);
        commands
    }

    /// Answers the open command this picks; what that gives.
    pub(super) fn answer(&mut self, pick: fn(&Command) -> bool, error: Option<&str>) -> Vec<Command> {
        let position =
            self.open.iter().position(|numbered| pick(&numbered.command)).expect("an open command");
        let id = self.open.remove(position).unwrap().id;
        self.send(match error {
            None => Event::Done(id),
            Some(error) => Event::Failed { id, error: error.to_owned() },
        })
    }

    /// Carries out everything; the commands this gives in turn.
    pub(super) fn settle(&mut self) -> Vec<Command> {
        let mut commands = Vec::new();
        while let Some(numbered) = self.open.pop_front() {
            commands.extend(self.send(Event::Done(numbered.id)));
            assert!(commands.len() < 1_000, "no end of commands: {:?}", &commands[990..]);
        }
        commands
    }

    /// When the engine wants to be woken, for anything but the audit.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.engine.next_deadline().filter(|deadline| *deadline < AUDIT_PERIOD)
    }

    /// Lets time pass to the next deadline.
    pub(super) fn wait(&mut self) -> Vec<Command> {
        self.now = self.deadline().expect("a deadline");
        self.send(Event::Tick)
    }

    pub(super) fn notices(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.engine.poll_notice()).map(|notice| notice.to_string()).collect()
    }

    pub(super) fn state(&self, mark: u8) -> LinkState {
        self.engine.status().wans.iter().find(|status| status.mark == wan(mark)).unwrap().state
    }
}

/// A steering target.
pub(super) fn steer(default: Option<u8>, usable: &[u8]) -> Command {
    let usable = usable.iter().map(|mark| (wan(*mark), IfIndex(index(*mark)))).collect();
    Command::Steer(Steering { default: default.map(wan), usable })
}

/// A routing target.
pub(super) fn routes(default: Option<u8>, present: &[u8]) -> Command {
    let present = present.iter().map(|mark| (wan(*mark), IfIndex(index(*mark)))).collect();
    Command::Routes(Routes { present, default: default.map(wan), steered: std::collections::BTreeSet::new() })
}

/// What the status file is to say of eth1, eth2, ….
pub(super) fn write_status(states: &[LinkState]) -> Command {
    let states = (1..).zip(states).map(|(mark, state)| (IfName::new(&format!("eth{mark}")).unwrap(), *state));
    Command::WriteStatus(states.collect())
}

pub(super) fn off_dead_link(mark: u8) -> Command {
    Command::MoveFlows(MoveFlows::OffDeadLink { wan: wan(mark), address: address(mark) })
}

pub(super) const UNANSWERED: Command = Command::MoveFlows(MoveFlows::Unanswered);

pub(super) fn is_steer(command: &Command) -> bool {
    matches!(command, Command::Steer(_))
}

pub(super) fn is_routes(command: &Command) -> bool {
    matches!(command, Command::Routes(_))
}

pub(super) fn is_move(command: &Command) -> bool {
    matches!(command, Command::MoveFlows(_))
}

//! The loop: whatever happens becomes an event, the engine decides, the executor acts.

use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::clock::Clock;
use super::executor::Order;
use super::mail::Mail;
use super::reload::{Prepared, Reloads};
use super::supervisor::Supervisor;
use crate::control::{Call, Request};
use crate::engine::{Command, CommandId, Disturbance, Engine, Event, Interface, Level, Round, Status};
use crate::net::{Error, Monitor};
use crate::types::{IfIndex, IfName};

/// Whose the engine's notices are in the log: mails get them as what they are and not as lines.
const NOTICES: &str = "multiwans::engine";

/// The signals that stop the daemon, and the one that does not.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    quit: Signal,
    hangup: Signal,
}

/// What a signal asks for.
enum Wish {
    Stop(&'static str),
    Reload,
}

impl Signals {
    /// From here on none of them ends the process by itself.
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            quit: signal(SignalKind::quit())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.interrupt.recv() => Wish::Stop("SIGINT"),
            _ = self.terminate.recv() => Wish::Stop("SIGTERM"),
            _ = self.quit.recv() => Wish::Stop("SIGQUIT"),
            _ = self.hangup.recv() => Wish::Reload,
        }
    }
}

/// The loop's side of everything that happens.
pub(super) struct Driver {
    pub(super) engine: Engine,
    pub(super) clock: Clock,
    pub(super) monitor: Monitor,
    pub(super) signals: Signals,
    pub(super) rounds: mpsc::Receiver<Round>,
    pub(super) calls: mpsc::Receiver<Call>,
    pub(super) results: mpsc::UnboundedReceiver<Event>,
    pub(super) orders: mpsc::UnboundedSender<Order>,
    pub(super) names: Rc<BTreeMap<IfIndex, IfName>>,
    pub(super) mail: Mail,
    pub(super) reloads: Reloads,
    pub(super) supervisor: Supervisor,
}

impl Driver {
    /// Runs until the operator asks to stop; the executor has its order to undo everything then. Beside the
    /// result, what the STOP mail needs.
    ///
    /// # Errors
    ///
    /// The kernel does not tell of its network any more. The executor is told to stop all the same.
    pub(super) async fn run(mut self) -> (Result<(), Error>, Mail, Status) {
        let result = self.turn().await;
        self.supervisor.stopping();
        self.feed(Event::Stop);
        // The executor ends only after this order, so it is there to take it.
        let _ = self.orders.send(Order::Stop { final_default: self.engine.final_default() });
        (result, self.mail, self.engine.status())
    }

    async fn turn(&mut self) -> Result<(), Error> {
        self.look().await?;
        loop {
            let deadline = self.engine.next_deadline().into_iter().chain(self.mail.next_deadline()).min();
            let deadline = deadline.map(|mono| Instant::from(self.clock.instant(mono)));
            tokio::select! {
                // Signals first, results before new facts: what was asked for is settled before more is.
                biased;
                wish = self.signals.next() => match wish {
                    Wish::Stop(name) => {
                        tracing::info!("{name} received");
                        return Ok(());
                    }
                    Wish::Reload => {
                        tracing::info!("SIGHUP received");
                        self.reload(None);
                    }
                },
                Some(result) = self.results.recv() => {
                    let reloaded = self.reloads.settle(&result);
                    self.feed(result);
                    if reloaded {
                        self.reloaded();
                    }
                }
                changed = self.monitor.changed() => {
                    let changed = changed?;
                    if changed.interfaces {
                        self.look().await?;
                    }
                    let disturbed = Disturbance {
                        routing: changed.routes || changed.rules || changed.settings,
                        programs: changed.filters,
                    };
                    if disturbed.any() {
                        self.feed(Event::Disturbed(disturbed));
                    }
                }
                // Before what can be many: a flood of results must not make the loop look dead.
                _ = self.supervisor.alive_due() => self.supervisor.alive(),
                entry = self.mail.logged() => self.mail.entry(entry, self.clock.now()),
                Some(round) = self.rounds.recv() => drop(self.feed(Event::Round(round))),
                Some(call) = self.calls.recv() => self.answer(call),
                read = self.reloads.read() => self.take_over(read),
                () = until(deadline) => drop(self.feed(Event::Tick)),
            }
        }
    }

    /// Looks at the interfaces.
    async fn look(&mut self) -> Result<(), Error> {
        let interfaces: Vec<Interface> = self.monitor.snapshot().await?;
        self.names =
            Rc::new(interfaces.iter().map(|interface| (interface.index, interface.name.clone())).collect());
        self.feed(Event::Interfaces(interfaces));
        Ok(())
    }

    /// Tells the engine, and passes on what it says. The commands by which a configuration is put in force.
    fn feed(&mut self, event: Event) -> Vec<CommandId> {
        let now = self.clock.now();
        self.engine.handle(&event, now);
        let mut any_told = false;
        while let Some(notice) = self.engine.poll_notice() {
            any_told = true;
            self.mail.notice(&notice, now);
            match notice.level {
                Level::Error => tracing::error!(target: NOTICES, "{notice}"),
                Level::Warn => tracing::warn!(target: NOTICES, "{notice}"),
                Level::Info => tracing::info!(target: NOTICES, "{notice}"),
                Level::Debug => tracing::debug!(target: NOTICES, "{notice}"),
            }
        }
        self.supervisor.tell(&self.engine, any_told);
        let mut configuring = Vec::new();
        while let Some(numbered) = self.engine.poll_command() {
            tracing::debug!(id = numbered.id.0, "{:?}", numbered.command);
            if let Command::Filters(_) | Command::Routes(_) | Command::Probe { .. } = numbered.command {
                configuring.push(numbered.id);
            }
            // As above: the executor outlives the loop.
            let _ = self.orders.send(Order::Command { numbered, names: Rc::clone(&self.names) });
        }
        // Last: what was decided is under way before anyone writes about it.
        self.mail.turn(now, || self.engine.status());
        configuring
    }

    /// Begins a reload, or puts it behind the one under way.
    fn reload(&mut self, asker: Option<oneshot::Sender<Value>>) {
        if self.reloads.ask(asker) {
            self.supervisor.reloading();
        }
    }

    /// Puts what was read in force, if it can be.
    fn take_over(&mut self, read: Result<Prepared, String>) {
        if let Some(takeover) = self.reloads.take_over(read) {
            self.mail.configure(&takeover.config, takeover.office);
            let mut commands = Vec::new();
            if let Some(configuration) = takeover.configuration {
                let settings = configuration.settings.clone();
                // As above: the executor outlives the loop.
                let _ = self.orders.send(Order::Configure(Box::new(configuration)));
                commands = self.feed(Event::Configured(settings));
            }
            if !self.reloads.awaits(commands) {
                return;
            }
        }
        self.reloaded();
    }

    fn reloaded(&mut self) {
        self.supervisor.reloaded();
        if self.reloads.begin() {
            self.supervisor.reloading();
        }
    }

    fn answer(&mut self, call: Call) {
        match call.request {
            Request::Reload { config } => match config.and_then(|config| self.reloads.refusal(&config)) {
                // The asker may be gone.
                Some(why) => drop(call.reply.send(json!({ "error": why }))),
                None => self.reload(Some(call.reply)),
            },
            Request::Status => {
                let status = with(json!(self.engine.status()), "kept", json!(self.reloads.kept()));
                let (tx, rx) = oneshot::channel();
                let _ = self.orders.send(Order::Describe(tx));
                tokio::task::spawn_local(async move {
                    let datapath = rx.await.unwrap_or(Value::Null);
                    let _ = call.reply.send(with(status, "datapath", datapath));
                });
            }
        }
    }
}

fn with(mut status: Value, key: &str, value: Value) -> Value {
    if let Some(fields) = status.as_object_mut() {
        fields.insert(key.to_owned(), value);
    }
    status
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

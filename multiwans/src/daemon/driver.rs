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
use super::supervisor::Supervisor;
use crate::control::{Call, Request};
use crate::engine::{Disturbance, Engine, Event, Interface, Level, Round, Status};
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
                    Wish::Reload => tracing::warn!("SIGHUP ignored: the configuration is read at start only"),
                },
                Some(result) = self.results.recv() => self.feed(result),
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
                Some(round) = self.rounds.recv() => self.feed(Event::Round(round)),
                Some(call) = self.calls.recv() => self.answer(call),
                () = until(deadline) => self.feed(Event::Tick),
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

    /// Tells the engine, and passes on what it says.
    fn feed(&mut self, event: Event) {
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
            }
        }
        self.supervisor.tell(&self.engine, any_told);
        while let Some(numbered) = self.engine.poll_command() {
            tracing::debug!(id = numbered.id.0, "{:?}", numbered.command);
            // As above: the executor outlives the loop.
            let _ = self.orders.send(Order::Command { numbered, names: Rc::clone(&self.names) });
        }
        // Last: what was decided is under way before anyone writes about it.
        self.mail.turn(now, || self.engine.status());
    }

    fn answer(&self, call: Call) {
        match call.request {
            Request::Status => {
                let status = self.engine.status();
                let (tx, rx) = oneshot::channel();
                let _ = self.orders.send(Order::Describe(tx));
                tokio::task::spawn_local(async move {
                    let datapath = rx.await.unwrap_or(Value::Null);
                    let _ = call.reply.send(with_datapath(json!(status), datapath));
                });
            }
        }
    }
}

fn with_datapath(mut status: Value, datapath: Value) -> Value {
    if let Some(fields) = status.as_object_mut() {
        fields.insert("datapath".to_owned(), datapath);
    }
    status
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

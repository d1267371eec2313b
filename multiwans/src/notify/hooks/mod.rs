//! Hooks: the administrator's programs that run when a link comes to another state.
//!
//! `<hooks.dir>/<iface>/{up,down}/*` run in version order, one after another, each with its time limit;
//! one that fails does not keep the next from running. Every interface has its own queue and task, so a
//! slow hook delays neither failover nor another interface's hooks:
//!
//! ```text
//! LinkChange ─> Hooks ─┬─ eth1: Pending ─> folder ─> process, process, … ─> log
//!                      └─ eth2: Pending ─> …
//! ```
//! Whoever may write to a hook is root; what is not root's alone is refused (see `trust`).

mod environment;
mod folder;
mod output;
mod process;
mod queue;
mod trust;
mod version;

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::config::{Config, Wan};
use crate::engine::LinkChange;
use crate::types::{IfName, LinkState, WanMark};
use folder::Hook;
use process::{Ended, GRACE, Run, Why};
use queue::{Pending, Pushed};

/// How long [`Hooks::stop`] waits in all. The slowest hook it meets was sent its TERM just before and has
/// all of [`GRACE`]; what is not gone 2 s after a KILL hangs in the kernel.
const STOP_MAX: Duration = GRACE.saturating_add(Duration::from_secs(2));

/// A change on its way to its hooks.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Change {
    wan: WanMark,
    state: LinkState,
    previous: LinkState,
    /// Everything else that hooks are told.
    variables: Vec<(&'static str, String)>,
}

/// Where hooks are and how long each may take.
#[derive(Debug, Clone)]
struct Place {
    dir: PathBuf,
    timeout: Duration,
}

/// Runs hooks. Nothing here waits for one but [`stop`](Self::stop).
#[derive(Debug)]
pub struct Hooks {
    place: watch::Sender<Place>,
    queues: BTreeMap<IfName, Queue>,
    stop: watch::Sender<bool>,
}

#[derive(Debug)]
struct Queue {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    pending: Mutex<Pending>,
    wake: Notify,
}

impl Shared {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        // Nothing panics while it holds the lock, and each step leaves the queue whole.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hooks {
    /// Hooks below `dir`, each of which may take `timeout`.
    pub fn new(dir: impl Into<PathBuf>, timeout: Duration) -> Self {
        let place = watch::Sender::new(Place { dir: dir.into(), timeout });
        Self { place, queues: BTreeMap::new(), stop: watch::Sender::new(false) }
    }

    /// From the next change on they are below `dir`, and each may take `timeout`.
    pub fn configure(&mut self, dir: impl Into<PathBuf>, timeout: Duration) {
        self.place.send_replace(Place { dir: dir.into(), timeout });
    }

    /// Takes note of a change; its hooks run as soon as those before them in the interface's queue are done.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with IO and time.
    pub fn run(&mut self, config: &Config, wan: &Wan, change: &LinkChange) {
        let described = environment::describe(config, wan, change);
        let queue = self.queues.entry(wan.iface.clone()).or_insert_with(|| {
            let shared = Arc::<Shared>::default();
            let worker = Worker {
                iface: wan.iface.clone(),
                place: self.place.subscribe(),
                shared: Arc::clone(&shared),
                stop: self.stop.subscribe(),
            };
            Queue { shared, task: tokio::spawn(worker.run()) }
        });
        let pushed = queue.shared.pending().push(described);
        let (name, state) = (&wan.description, change.state);
        match pushed {
            Pushed::Waits => queue.shared.wake.notify_one(),
            Pushed::Known => {}
            Pushed::Replaced => tracing::info!(
                "{name}: {state} again before the hooks of the change before could run; only its own will"
            ),
            Pushed::Cancelled => tracing::info!(
                "{name}: {state} again before the hooks of the change before could run; neither's will"
            ),
        }
    }

    /// Lets go: what waits is not run, what runs has 2 s to end, then TERM, then KILL.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        let mut dropped = 0;
        for queue in self.queues.values() {
            dropped += queue.shared.pending().clear();
            queue.shared.wake.notify_one();
        }
        if dropped > 0 {
            tracing::warn!("hooks of {dropped} changes are not run: the daemon stops");
        }
        let deadline = tokio::time::Instant::now() + STOP_MAX;
        for (iface, Queue { task, .. }) in self.queues {
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            if timeout(left, task).await.is_err() {
                tracing::warn!("a hook of {iface} could not be ended and is left behind");
            }
        }
    }
}

/// Works one interface's queue off.
struct Worker {
    iface: IfName,
    place: watch::Receiver<Place>,
    shared: Arc<Shared>,
    stop: watch::Receiver<bool>,
}

impl Worker {
    async fn run(self) {
        while !self.stopping() {
            let change = self.shared.pending().pop();
            match change {
                Some(change) => self.serve(&change).await,
                None => self.shared.wake.notified().await,
            }
        }
    }

    /// Also when there is nobody left to tell us.
    fn stopping(&self) -> bool {
        *self.stop.borrow() || self.stop.has_changed().is_err()
    }

    /// Runs a change's hooks.
    async fn serve(&self, change: &Change) {
        let place = self.place.borrow().clone();
        let (dir, iface, state) = (place.dir.clone(), self.iface.clone(), change.state);
        let found = tokio::task::spawn_blocking(move || folder::find(&dir, &iface, state)).await;
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                let wan = change.wan.get();
                tracing::error!(wan, "the hooks of {} could not be looked for: {error}", self.iface);
                return;
            }
        };
        for refused in &found.refused {
            tracing::warn!(wan = change.wan.get(), "{refused}");
        }
        for (position, hook) in found.hooks.iter().enumerate() {
            if self.stopping() {
                let left = found.hooks.len() - position;
                tracing::warn!(
                    "hook {} and what follows it ({left} in all) are not run: the daemon stops",
                    hook.name
                );
                return;
            }
            self.run_one(hook, change, &place).await;
        }
    }

    async fn run_one(&self, hook: &Hook, change: &Change, place: &Place) {
        let name = &hook.name;
        let run = Run {
            program: hook.program.clone(),
            // The folder of all of them, so that they find what they share.
            directory: place.dir.clone(),
            environment: environment::of(change),
            timeout: place.timeout,
        };
        tracing::debug!("hook {name} starts");
        let started = Instant::now();
        let wan = change.wan.get();
        let mut said = String::new();
        let log = |line: &str| {
            tracing::info!("hook {name}: {line}");
            said = format!("; it said last: {line}");
        };
        match process::run(run, self.stop.clone(), log).await {
            Ok(ended) => tell(change, place, name, &ended, &said, started.elapsed()),
            Err(error) => tracing::error!(wan, "hook {name} could not be run: {error}"),
        }
    }
}

/// Tells how a hook ended, in lines that can do without its output: a mail has no other.
fn tell(change: &Change, place: &Place, name: &str, ended: &Ended, said: &str, took: Duration) {
    let wan = change.wan.get();
    if ended.omitted > 0 {
        tracing::warn!(wan, "hook {name}: {} bytes more of its output are left out", ended.omitted);
    }
    let took = took.as_secs_f64();
    let status = ended.status;
    match (ended.ended_by_us, status.code(), status.signal()) {
        (None, Some(0), _) => tracing::info!("hook {name} done in {took:.1} s"),
        (None, Some(code), _) => {
            tracing::error!(wan, "hook {name} failed with exit code {code} after {took:.1} s{said}");
        }
        (None, None, signal) => {
            let signal = signal.unwrap_or_default();
            tracing::error!(wan, "hook {name} was killed by signal {signal} after {took:.1} s{said}");
        }
        (Some(Why::Timeout), ..) => {
            let limit = place.timeout.as_secs_f64();
            tracing::error!(
                wan,
                "hook {name} ran longer than hooks.timeout ({limit} s) and was ended after {took:.1} s{said}"
            );
        }
        (Some(Why::Stop), ..) => {
            tracing::warn!(wan, "hook {name} was ended after {took:.1} s: the daemon stops");
        }
    }
}

#[cfg(test)]
mod tests;

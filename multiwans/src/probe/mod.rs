//! Probers: one task per WAN asks its targets, over its own device and address, whether the internet is
//! still behind that link.
//!
//! A round asks all targets at once, one ICMP echo each. Rounds start on a fixed schedule, so several can
//! be open at a time. Which target answered first, or that none did, goes to the engine as a [`Round`].
//!
//! A process that could not run for a while (a stopped virtual machine, a debugger, an overloaded router)
//! must not take its own absence for the link's: rounds it missed are not made up for, and before any
//! round is called silent the socket is read empty.

mod echo;
mod names;
mod round;
mod socket;

use std::future::pending;
use std::io;
use std::net::Ipv4Addr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep_until};

use crate::engine::event::{Binding, Outcome, Round};
use crate::types::WanMark;
use echo::{Cookie, Echo};
pub use names::Names;
use round::Rounds;
use socket::EchoSocket;

/// Packets read at most before deadlines are looked at. More than a socket's default buffer (212 992
/// bytes, at least 576 each) can hold, so whatever had arrived is read; bounded, so that a flood of
/// forged replies cannot keep the prober from its deadlines. What is left waits for the next wake-up, at
/// the latest the next round.
const DRAIN_MAX: usize = 1024;

/// The clock of a prober.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Between the starts of two rounds; more than zero.
    pub interval: Duration,
    /// How long an answer may take; may be longer than the interval.
    pub timeout: Duration,
}

/// Whom to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Targets {
    /// As far as they are known; one listed twice is asked once.
    pub addresses: Vec<Ipv4Addr>,
    /// Whether names are being resolved for the first time.
    pub unresolved: bool,
}

impl From<Vec<Ipv4Addr>> for Targets {
    fn from(addresses: Vec<Ipv4Addr>) -> Self {
        Self { addresses, unresolved: false }
    }
}

/// A running prober. Dropping it stops it; nothing of it is sent or told after that.
#[derive(Debug)]
pub struct Prober {
    task: JoinHandle<()>,
}

impl Prober {
    /// Probes `targets` over `binding` until dropped, the first round at once. A target listed twice is
    /// asked once. Errors of the socket are no errors here: a round that could not be sent is `Silent`
    /// with the reason, and the next one tries a new socket.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with IO and time.
    pub fn spawn(
        wan: WanMark,
        binding: Binding,
        targets: Vec<Ipv4Addr>,
        timing: Timing,
        tx: mpsc::Sender<Round>,
    ) -> Self {
        Self::spawn_following(wan, binding, watch::Sender::new(targets.into()).subscribe(), timing, tx)
    }

    /// The same with targets that may change: each round asks those of its begin. Their sender may go; the
    /// last ones stay then.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with IO and time.
    pub fn spawn_following(
        wan: WanMark,
        binding: Binding,
        targets: watch::Receiver<Targets>,
        timing: Timing,
        tx: mpsc::Sender<Round>,
    ) -> Self {
        let task = Task {
            wan,
            binding,
            targets,
            identifier: next_identifier(),
            rounds: Rounds::new(timing.timeout),
            socket: None,
            tx,
        };
        Self { task: tokio::spawn(task.run(timing.interval)) }
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An ICMP identifier no other prober of this process has had lately: two probers on one host must not
/// read each other's replies. Begins anywhere, so that probers of two processes hardly meet.
fn next_identifier() -> u16 {
    static NEXT: OnceLock<AtomicU16> = OnceLock::new();
    // Without randomness a fixed start does as well: the cookie is what proves a reply.
    let next = NEXT.get_or_init(|| AtomicU16::new((getrandom::u32().unwrap_or(1) & 0xffff) as u16));
    next.fetch_add(1, Ordering::Relaxed)
}

/// The receiver of rounds is gone: nobody wants to know any more.
struct Unwanted;

struct Task {
    wan: WanMark,
    binding: Binding,
    targets: watch::Receiver<Targets>,
    identifier: u16,
    rounds: Rounds,
    /// `None`: not opened yet, or no longer any good.
    socket: Option<EchoSocket>,
    tx: mpsc::Sender<Round>,
}

impl Task {
    async fn run(mut self, every: Duration) {
        let mut ticks = interval(every.max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            let due = tokio::select! {
                _ = ticks.tick() => true,
                () = passed(self.rounds.next_deadline()) => false,
                () = readable(self.socket.as_ref()) => false,
            };
            if self.judge().await.is_err() {
                return;
            }
            if due {
                self.ask();
            }
        }
    }

    /// Reads the answers that wait, then closes the rounds whose time was up before that.
    async fn judge(&mut self) -> Result<(), Unwanted> {
        // Read before the socket is: what arrives in between can only speak for a round, never be missed.
        let now = Instant::now();
        for _ in 0..DRAIN_MAX {
            let Some(socket) = &self.socket else { break };
            match socket.receive() {
                Ok(None) => break,
                Ok(Some(None)) => {}
                Ok(Some(Some(reply))) => {
                    if reply.echo.identifier != self.identifier {
                        continue;
                    }
                    if let Some(outcome) = self.rounds.answer(&reply, Instant::now()) {
                        self.tell(outcome).await?;
                    }
                }
                Err(error) => {
                    tracing::debug!(wan = %self.wan, %error, "probe socket cannot be read, opening another");
                    self.socket = None;
                }
            }
        }
        while let Some(outcome) = self.rounds.expire(now) {
            self.tell(outcome).await?;
        }
        Ok(())
    }

    /// Begins a round.
    fn ask(&mut self) {
        let cookie = match getrandom::u64() {
            Ok(random) => Cookie(random),
            Err(error) => {
                self.rounds.begin(Cookie(0), Instant::now());
                self.rounds.not_asked(format!("no random number for the probe: {error}"));
                return;
            }
        };
        let sequence = self.rounds.begin(cookie, Instant::now());
        if self.socket.is_none() {
            match EchoSocket::open(&self.binding, self.identifier) {
                Ok(socket) => self.socket = Some(socket),
                Err(error) => {
                    let Binding { iface, source, .. } = &self.binding;
                    self.rounds.not_asked(format!("probe socket on {iface} with address {source}: {error}"));
                    return;
                }
            }
        }
        let Some(socket) = &self.socket else { return };
        let Targets { addresses: mut targets, unresolved } = self.targets.borrow_and_update().clone();
        if unresolved {
            self.rounds.unresolved();
        }
        targets.sort_unstable();
        targets.dedup();
        if targets.is_empty() {
            self.rounds.not_asked("no address to probe is known".to_owned());
        }
        let request = Echo { identifier: self.identifier, sequence, cookie }.request();
        let mut usable = false;
        for target in targets {
            match socket.send(&request, target) {
                Ok(()) => {
                    self.rounds.asked(target, Instant::now());
                    usable = true;
                }
                Err(error) => {
                    usable |= is_passing(&error);
                    self.rounds.not_asked(format!("{target} over {}: {error}", self.binding.iface));
                }
            }
        }
        if !usable {
            // It may be bound to a device or an address that is no more; which errors say so differs
            // between kernels.
            self.socket = None;
        }
    }

    async fn tell(&self, outcome: Outcome) -> Result<(), Unwanted> {
        let round = Round { wan: self.wan, binding: self.binding.clone(), outcome };
        self.tx.send(round).await.map_err(|_| Unwanted)
    }
}

/// Whether the kernel only had no room: the socket is as good as before, and answers to open rounds may
/// still come in on it.
fn is_passing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
        || matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::ENOMEM))
}

async fn passed(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => pending().await,
    }
}

/// Resolves when there may be something to read; the caller reads until there is not.
async fn readable(socket: Option<&EchoSocket>) {
    let Some(socket) = socket else { return pending().await };
    match socket.readable().await {
        Ok(mut guard) => guard.clear_ready(),
        // Only while the runtime shuts down.
        Err(_) => pending().await,
    }
}

//! One link's state machine.
//!
//! ```text
//!             interface not as configured,
//!  ┌────────┐ or 1+count silent rounds in a row   ┌─────┐
//!  │ UNKNOW │ ──────────────────────────────────> │ OFF │ <─┐ the cause may change
//!  └────────┘                                     └─────┘ ──┘ while it stays OFF
//!      │ one answered round                        ^   │
//!      v                                           │   │ RECOVERY_ROUNDS answered
//!   ┌────┐   interface not as configured,          │   │ rounds in a row
//!   │ ON │ ── or 1+count silent rounds in a row ───┘   │
//!   └────┘ <───────────────────────────────────────────┘
//! ```
//!
//! The interface is looked at first: while it is not as configured, nothing is probed and no round
//! counts. Rounds in a row are counted per [`Binding`]; a new one starts from zero.

use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::event::{Binding, Interface, Now, Outcome, Round, TimeOfDay};
use super::facts::{Fault, Requirement};
use super::notice::{Kind, Span, WanLabel};
use super::settings::LinkSettings;
use crate::config::{Ping, Wan};
use crate::types::{IfIndex, LinkState, WanMark};

/// Answered rounds in a row that bring a link back: one lucky answer of a link that loses most of its
/// packets is no recovery, and three take but 3 s at the default `probe.interval`.
pub(super) const RECOVERY_ROUNDS: u32 = 3;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A configured WAN and what is known of it.
#[derive(Debug)]
pub(super) struct Link {
    label: WanLabel,
    order: Option<u8>,
    requirement: Requirement,
    settings: LinkSettings,

    seen: Option<Interface>,
    binding: Option<Binding>,
    state: State,
    streak: Streak,
    since: Now,
    last_reply: Option<Reply>,
}

/// An answer to a probe.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reply {
    at: Duration,
    pub(super) target: Ipv4Addr,
    pub(super) rtt: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Unknow,
    On,
    Off(Cause),
}

/// Why a link is OFF.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Cause {
    /// Its interface is not as configured.
    Fault(Fault),
    /// Its interface is as configured again, the probes have not judged it yet.
    Cured(Fault),
    /// The probes are not answered.
    Silence(Silence),
}

/// What was known when the silent rounds were enough.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Silence {
    targets: usize,
    lasted: Duration,
    last_reply: Option<LastReply>,
    send_error: Option<String>,
}

/// The last reply before a silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LastReply {
    at: TimeOfDay,
    /// How long before the silence was enough.
    before: Duration,
    target: Ipv4Addr,
}

/// Rounds of one kind in a row, over one binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Streak {
    None,
    Answered(u32),
    /// The rounds, and when the first of them was sent.
    Silent(u32, Duration),
}

/// What a link learns; the machine's input.
enum Evidence {
    Faulty(Fault),
    Bound,
    /// Rounds in a row.
    Answered(u32),
    /// Rounds in a row, and what to say if they are enough.
    Silent(u32, Silence),
}

impl Link {
    /// A link nothing is known of yet.
    pub(super) fn new(wan: &Wan, ping: &Ping) -> Self {
        Self {
            label: WanLabel {
                description: wan.description.clone(),
                iface: wan.iface.clone(),
                mark: wan.mark,
            },
            order: wan.order_failover,
            requirement: Requirement {
                iface: wan.iface.clone(),
                address: wan.ip,
                prefix_len: wan.prefix_len,
            },
            settings: LinkSettings::of(wan, ping),
            seen: None,
            binding: None,
            state: State::Unknow,
            streak: Streak::None,
            since: Now { mono: Duration::ZERO, wall: 0, utc_offset: 0 },
            last_reply: None,
        }
    }

    /// Takes `now` as the moment it began to be UNKNOW.
    pub(super) fn begin(&mut self, now: Now) {
        self.since = now;
    }

    /// Judges it by these from now on; what is known of it stays.
    pub(super) fn configure(&mut self, settings: &LinkSettings) {
        self.settings = settings.clone();
    }

    /// Its name for people.
    pub(super) fn label(&self) -> &WanLabel {
        &self.label
    }

    /// Its number.
    pub(super) fn mark(&self) -> WanMark {
        self.label.mark
    }

    /// Whether it has filters for the router's own traffic that count.
    pub(super) fn steers_own(&self) -> bool {
        self.settings.steers_own
    }

    /// Its place in the failover order.
    pub(super) fn order(&self) -> Option<u8> {
        self.order
    }

    /// The configured address and prefix length.
    pub(super) fn address(&self) -> (Ipv4Addr, u8) {
        (self.requirement.address, self.requirement.prefix_len)
    }

    /// Its state.
    pub(super) fn state(&self) -> LinkState {
        match self.state {
            State::Unknow => LinkState::Unknow,
            State::On => LinkState::On,
            State::Off(_) => LinkState::Off,
        }
    }

    /// Whether it is ON.
    pub(super) fn is_on(&self) -> bool {
        self.state == State::On
    }

    /// Why it is not ON, as a sentence; empty when it is.
    pub(super) fn reason(&self) -> String {
        match &self.state {
            State::Unknow => "not judged yet".to_owned(),
            State::On => String::new(),
            State::Off(cause) => cause.to_string(),
        }
    }

    /// When it came to its state.
    pub(super) fn since(&self) -> Now {
        self.since
    }

    /// The last answer to one of its probes.
    pub(super) fn last_reply(&self) -> Option<Reply> {
        self.last_reply
    }

    /// What to probe over; `None`: nothing to probe.
    pub(super) fn binding(&self) -> Option<&Binding> {
        self.binding.as_ref()
    }

    /// Its interface's index, where that exists.
    pub(super) fn index(&self) -> Option<IfIndex> {
        self.seen.as_ref().map(|interface| interface.index)
    }

    /// Its interface's index, where that exists, is switched on and has the link's address: the kernel
    /// takes a route with that source only then.
    pub(super) fn routable_index(&self) -> Option<IfIndex> {
        let own = self.requirement.address;
        let interface = self.seen.as_ref()?;
        let has_address = interface.addresses.iter().any(|(address, _)| *address == own);
        (interface.up && has_address).then_some(interface.index)
    }

    /// Takes in the interfaces as they are. True when its own differs in anything from the last time: the
    /// kernel may have dropped routes with it.
    pub(super) fn observe(&mut self, interfaces: &[Interface], now: Now) -> (bool, Option<Kind>) {
        let interface = self.requirement.find(interfaces);
        let changed = self.seen.as_ref() != interface;
        let fact = self.requirement.check(interface);
        self.seen = interface.cloned();
        if self.binding.as_ref() != fact.as_ref().ok() {
            self.streak = Streak::None;
            self.binding = fact.as_ref().ok().cloned();
        }
        let evidence = fact.map_or_else(Evidence::Faulty, |_| Evidence::Bound);
        (changed, self.step(evidence, now))
    }

    /// Takes in a round, unless it belongs to another binding.
    pub(super) fn round(&mut self, round: &Round, now: Now) -> Option<Kind> {
        if self.binding.as_ref() != Some(&round.binding) {
            return None;
        }
        match &round.outcome {
            Outcome::Answered { target, rtt } => {
                self.last_reply = Some(Reply { at: now.mono, target: *target, rtt: *rtt });
                let answered = match self.streak {
                    Streak::Answered(rounds) => rounds.saturating_add(1),
                    Streak::None | Streak::Silent(..) => 1,
                };
                self.streak = Streak::Answered(answered);
                self.step(Evidence::Answered(answered), now)
            }
            // Those who were not asked may be the ones that answer.
            Outcome::Unresolved { .. } if self.state == State::Unknow => None,
            Outcome::Silent { send_error } | Outcome::Unresolved { send_error } => {
                self.silent(send_error.clone(), self.settings.timeout, now)
            }
        }
    }

    /// A prober that cannot be started is as good as a silent round; or else a link that was never probed
    /// would stay UNKNOW, and everything behind it in the failover order with it.
    pub(super) fn unprobed(&mut self, error: &str, now: Now) -> Option<Kind> {
        self.binding.as_ref()?;
        self.silent(Some(error.to_owned()), Duration::ZERO, now)
    }

    fn silent(&mut self, send_error: Option<String>, waited: Duration, now: Now) -> Option<Kind> {
        let (rounds, sent) = match self.streak {
            Streak::Silent(rounds, sent) => (rounds.saturating_add(1), sent),
            Streak::None | Streak::Answered(_) => (1, now.mono.saturating_sub(waited)),
        };
        self.streak = Streak::Silent(rounds, sent);
        let unanswered = now.mono.saturating_sub(sent);
        let last_reply = self.last_reply.map(|reply| LastReply {
            at: now.time_of_day(reply.at),
            before: now.mono.saturating_sub(reply.at),
            target: reply.target,
        });
        let silence = Silence {
            targets: self.settings.targets,
            // Rounds overlap when the timeout is longer than the interval: an answer to an earlier round may
            // have come after the first silent one was sent.
            lasted: last_reply.map_or(unanswered, |reply| unanswered.min(reply.before)),
            last_reply,
            send_error,
        };
        self.step(Evidence::Silent(rounds, silence), now)
    }

    /// The machine. What to tell of the step, if anything.
    fn step(&mut self, evidence: Evidence, now: Now) -> Option<Kind> {
        let next = match (&self.state, evidence) {
            (State::Unknow | State::On | State::Off(_), Evidence::Faulty(fault)) => {
                State::Off(Cause::Fault(fault))
            }

            (State::Off(Cause::Fault(fault)), Evidence::Bound) => State::Off(Cause::Cured(fault.clone())),
            (
                State::Unknow | State::On | State::Off(Cause::Cured(_) | Cause::Silence(_)),
                Evidence::Bound,
            ) => {
                return None;
            }

            (State::Unknow, Evidence::Answered(_)) => State::On,
            (State::Off(_), Evidence::Answered(rounds)) if rounds >= RECOVERY_ROUNDS => State::On,
            (State::On | State::Off(_), Evidence::Answered(_)) => return None,

            (State::Unknow | State::On | State::Off(Cause::Cured(_)), Evidence::Silent(rounds, silence))
                if rounds >= self.settings.silent_limit =>
            {
                State::Off(Cause::Silence(silence))
            }
            (State::Unknow | State::On | State::Off(_), Evidence::Silent(..)) => return None,
        };
        self.enter(next, now)
    }

    fn enter(&mut self, next: State, now: Now) -> Option<Kind> {
        if next == self.state {
            return None;
        }
        let was = self.state();
        let was_for = now.mono.saturating_sub(self.since.mono);
        self.state = next;
        if was != self.state() {
            self.since = now;
        }
        let wan = self.label.clone();
        match (&self.state, self.last_reply) {
            (State::Off(cause), _) => {
                let reason = cause.to_string();
                Some(match (was, cause) {
                    (LinkState::Off, Cause::Cured(_)) => Kind::LinkWaiting { wan, reason },
                    (LinkState::Off, _) => Kind::LinkStillOff { wan, reason },
                    (LinkState::On | LinkState::Unknow, _) => Kind::LinkOff { wan, reason },
                })
            }
            (State::On, Some(Reply { target, rtt, .. })) => {
                let off_for = (was == LinkState::Off).then_some(was_for);
                Some(Kind::LinkOn { wan, target, rtt, off_for })
            }
            // No link comes ON without a reply, nor ever becomes UNKNOW again.
            (State::On, None) | (State::Unknow, _) => None,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault(fault) => fault.fmt(f),
            Self::Cured(fault) => {
                write!(f, "waiting for {RECOVERY_ROUNDS} answered rounds in a row; before: {fault}")
            }
            Self::Silence(silence) => silence.fmt(f),
        }
    }
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { targets, lasted, last_reply, send_error } = self;
        match targets {
            1 => f.write_str("no reply from its target")?,
            _ => write!(f, "no reply from any of {targets} targets")?,
        }
        write!(f, " for {}", Span(*lasted))?;
        match last_reply {
            // A time of day says little about another day.
            Some(LastReply { before, target, .. }) if *before >= DAY => {
                write!(f, "; last reply {} before from {target}", Span(*before))?;
            }
            Some(LastReply { at, target, .. }) => write!(f, "; last reply {at} from {target}")?,
            None => f.write_str("; never had one")?,
        }
        match send_error {
            Some(error) => write!(f, "; sending failed: {error}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;

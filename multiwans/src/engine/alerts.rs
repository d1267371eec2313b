//! Which notices are worth a mail, and when: the seed's limits, without its wait for the end of a run.
//!
//! A *run* is `daemon.runInterval`. What is noticed is collected; then, by the seed's rules:
//!
//! | collected | mail |
//! | --- | --- |
//! | an error, and a link changed, or fewer than `alerts.max` mails since the trouble began, or `alerts.interval` passed since the last | ERROR |
//! | an error, but none of these | none; kept for the next mail |
//! | no error, but a link changed | WARNING |
//! | neither | none; the counters start again |
//!
//! A link that is OFF and a command that goes on failing are errors of every run until they end. A link
//! changed when it went from ON to OFF or back; its first judgement belongs to the START mail.
//!
//! A link's change does not wait for the run's end, it is told after [`COLLECT`]. Those that follow within
//! a run wait for its end and share a mail; one that was undone by then is a change as any other.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::time::Duration;

use super::event::Now;
use super::notice::{Kind, Level, Notice, Task};
use crate::config::Config;
use crate::types::{LinkState, WanMark};

/// How long a change waits for what belongs to it: the new default, a second link on the same cable.
pub const COLLECT: Duration = Duration::from_secs(2);

/// Entries one mail holds; of more, the oldest are left out. Two hundred lines are more than anyone reads,
/// and an error that comes with every probe makes more within `alerts.interval`.
const MAX_ENTRIES: usize = 200;

/// What a mail is about; its `Display` begins the subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// The daemon started and every link was judged.
    Start,
    /// Something is wrong.
    Error,
    /// Something changed, and nothing is wrong any more.
    Warning,
    /// The daemon stops.
    Stop,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "START",
            Self::Error => "ERROR",
            Self::Warning => "WARNING",
            Self::Stop => "STOP",
        })
    }
}

/// One collected notice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When it was noticed: Unix time in seconds.
    pub at: u64,
    /// How bad it is.
    pub level: Level,
    /// Whose it is, where it is one link's.
    pub wan: Option<WanMark>,
    /// The line.
    pub text: String,
}

/// A mail to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// What it is about.
    pub subject: Subject,
    /// What was noticed since the one before, oldest first.
    pub entries: Vec<Entry>,
    /// How many older ones there were beside.
    pub left_out: usize,
}

/// Collects notices and says when they make a mail.
#[derive(Debug)]
pub struct Alerts {
    max: u32,
    interval: Duration,
    run: Duration,

    /// When START is due; `None`: it was told.
    start_at: Option<Duration>,
    /// Links without a first judgement.
    unjudged: BTreeSet<WanMark>,
    states: BTreeMap<WanMark, LinkState>,
    /// Commands that go on failing.
    failing: Vec<Task>,
    /// An error was noticed in this run.
    had_error: bool,
    flaps: BTreeMap<WanMark, Flap>,
    run_ends: Duration,
    /// Mails since the trouble began.
    sent: u32,
    last_sent: Option<Duration>,

    entries: VecDeque<Entry>,
    left_out: usize,
}

/// One link's changes. Never more than one mail about it in a run, as the seed had it; nothing is lost
/// meanwhile, it is collected.
#[derive(Debug, Clone, Copy, Default)]
struct Flap {
    /// The first change that was not told yet.
    untold: Option<Duration>,
    /// When a change was told last.
    told: Option<Duration>,
}

impl Flap {
    fn due(&self, run: Duration) -> Option<Duration> {
        let soonest = self.untold? + COLLECT;
        Some(self.told.map_or(soonest, |told| soonest.max(told + run)))
    }
}

impl Alerts {
    /// Nothing is known of any link yet. Times count from the daemon's start.
    pub fn new(config: &Config) -> Self {
        let run = config.daemon.run_interval;
        Self {
            max: config.alerts.max.into(),
            interval: config.alerts.interval,
            run,
            // A link that nobody can judge must not keep the START mail for ever.
            start_at: Some(run),
            unjudged: config.wans.iter().map(|wan| wan.mark).collect(),
            states: BTreeMap::new(),
            failing: Vec::new(),
            had_error: false,
            flaps: BTreeMap::new(),
            run_ends: run,
            sent: 0,
            last_sent: None,
            entries: VecDeque::new(),
            left_out: 0,
        }
    }

    /// Follows the limits of another configuration; nothing that was collected is lost.
    pub fn configure(&mut self, config: &Config) {
        self.max = config.alerts.max.into();
        self.interval = config.alerts.interval;
        self.run = config.daemon.run_interval;
    }

    /// Takes in what was noticed.
    pub fn notice(&mut self, notice: &Notice, now: Now) {
        if notice.level == Level::Debug {
            return;
        }
        self.wake(now.mono);
        let wan = match &notice.kind {
            Kind::LinkOn { wan, .. } => {
                self.link(wan.mark, LinkState::On, now.mono);
                Some(wan.mark)
            }
            Kind::LinkOff { wan, .. } => {
                self.had_error = true;
                self.link(wan.mark, LinkState::Off, now.mono);
                Some(wan.mark)
            }
            Kind::LinkStillOff { wan, .. } => Some(wan.mark),
            Kind::CommandFailed { task, .. } => {
                if notice.level == Level::Error && !self.failing.contains(task) {
                    self.failing.push(task.clone());
                }
                None
            }
            Kind::CommandRecovered { task } | Kind::CommandGivenUp { task, .. } => {
                self.failing.retain(|failing| failing != task);
                None
            }
            _ => None,
        };
        self.entry(Entry { at: now.wall, level: notice.level, wan, text: notice.to_string() }, now.mono);
    }

    /// Takes in a line that comes from elsewhere than the engine.
    pub fn entry(&mut self, entry: Entry, now: Duration) {
        self.wake(now);
        self.had_error |= entry.level == Level::Error;
        if self.entries.len() == MAX_ENTRIES {
            self.entries.pop_front();
            self.left_out += 1;
        }
        self.entries.push_back(entry);
    }

    /// When to ask [`poll`](Self::poll) if nothing is noticed before; `None`: no need to.
    pub fn next_deadline(&self) -> Option<Duration> {
        if self.start_at.is_some() {
            return self.start_at;
        }
        let run_ends = (!self.is_idle()).then_some(self.run_ends);
        self.changes_due().chain(run_ends).min()
    }

    /// The mail that is due, if one is.
    pub fn poll(&mut self, now: Duration) -> Option<Alert> {
        if let Some(start_at) = self.start_at {
            if now < start_at {
                return None;
            }
            self.start_at = None;
            self.flaps.clear();
            self.begin_run(now);
            return Some(self.alert(Subject::Start));
        }
        let changed = self.changes_due().any(|due| due <= now);
        let run_over = now >= self.run_ends;
        if !changed && !run_over {
            return None;
        }
        if self.has_error() {
            let rested = self.last_sent.is_none_or(|last| now.saturating_sub(last) >= self.interval);
            if changed || self.sent < self.max || rested {
                return Some(self.send(Subject::Error, now));
            }
        } else if changed {
            return Some(self.send(Subject::Warning, now));
        } else if self.all_told() {
            self.sent = 0;
            self.last_sent = None;
            self.entries.clear();
            self.left_out = 0;
        }
        self.begin_run(now);
        None
    }

    /// The last mail, with what no mail told yet.
    pub fn stop(&mut self) -> Alert {
        self.alert(Subject::Stop)
    }

    /// At rest no runs are counted; the first thing noticed begins one.
    fn wake(&mut self, now: Duration) {
        if self.is_idle() && now >= self.run_ends {
            self.run_ends = now + self.run;
        }
    }

    fn link(&mut self, wan: WanMark, state: LinkState, now: Duration) {
        let before = self.states.insert(wan, state);
        self.unjudged.remove(&wan);
        if let Some(start_at) = &mut self.start_at {
            if self.unjudged.is_empty() {
                *start_at = (*start_at).min(now + COLLECT);
            }
        } else if before.is_some_and(|before| before != state) {
            self.flaps.entry(wan).or_default().untold.get_or_insert(now);
        }
    }

    /// When each change that was not told yet is to be.
    fn changes_due(&self) -> impl Iterator<Item = Duration> {
        self.flaps.values().filter_map(|flap| flap.due(self.run))
    }

    fn all_told(&self) -> bool {
        self.flaps.values().all(|flap| flap.untold.is_none())
    }

    fn has_error(&self) -> bool {
        let off = self.states.values().any(|state| *state == LinkState::Off);
        self.had_error || off || !self.failing.is_empty()
    }

    /// Nothing that a run's end would do anything about.
    fn is_idle(&self) -> bool {
        !self.has_error() && self.all_told() && self.sent == 0 && self.entries.is_empty()
    }

    fn begin_run(&mut self, now: Duration) {
        // An outage that is over and was not told yet still makes the next mail an ERROR.
        self.had_error &= !self.all_told();
        self.run_ends = now + self.run;
    }

    fn send(&mut self, subject: Subject, now: Duration) -> Alert {
        self.sent = self.sent.saturating_add(1);
        self.last_sent = Some(now);
        for flap in self.flaps.values_mut().filter(|flap| flap.untold.is_some()) {
            *flap = Flap { untold: None, told: Some(now) };
        }
        self.begin_run(now);
        self.alert(subject)
    }

    fn alert(&mut self, subject: Subject) -> Alert {
        let left_out = std::mem::take(&mut self.left_out);
        Alert { subject, entries: std::mem::take(&mut self.entries).into(), left_out }
    }
}

#[cfg(test)]
mod tests;

//! What a person should read in the log: typed, so that mails and the event journal need not parse text.

use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use serde::Serialize;

use crate::types::{IfName, WanMark};

/// One thing to tell, once per change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Notice {
    /// How bad it is.
    pub level: Level,
    /// What it is; its `Display` is the text.
    #[serde(flatten)]
    pub kind: Kind,
}

impl From<Kind> for Notice {
    fn from(kind: Kind) -> Self {
        Self { level: kind.level(), kind }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

/// How bad a notice is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// A person must act.
    Error,
    /// Something is degraded.
    Warn,
    /// A change of state.
    Info,
    /// On the way to one. In no mail.
    Debug,
}

/// A WAN as people know it: `WAN1 (eth1)`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WanLabel {
    /// `WANS[].description`.
    pub description: String,
    /// `WANS[].iface`.
    pub iface: IfName,
    /// `WANS[].mark`.
    pub mark: WanMark,
}

impl fmt::Display for WanLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.description, self.iface)
    }
}

/// What a notice is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Kind {
    /// A link may carry traffic.
    LinkOn {
        /// Which.
        wan: WanLabel,
        /// Who answered last.
        target: Ipv4Addr,
        /// How fast.
        rtt: Duration,
        /// How long it was OFF; `None` for the first judgement.
        off_for: Option<Duration>,
    },
    /// A link may not carry traffic any more, or was found so at start.
    LinkOff {
        /// Which.
        wan: WanLabel,
        /// Why.
        reason: String,
    },
    /// A link that is OFF is so for another reason now.
    LinkStillOff {
        /// Which.
        wan: WanLabel,
        /// Why now.
        reason: String,
    },
    /// A link that is OFF has its interface as configured again, and is probed.
    LinkWaiting {
        /// Which.
        wan: WanLabel,
        /// For what.
        reason: String,
    },
    /// What no filter claims takes another link now.
    DefaultChanged {
        /// The link before; `None` for the first choice.
        from: Option<WanLabel>,
        /// The link now.
        to: WanLabel,
    },
    /// No link that could be the default is ON.
    AllDown {
        /// Every link and why it is OFF.
        links: Vec<(WanLabel, String)>,
        /// The default that is left as it is; `None`: none was chosen yet.
        kept: Option<WanLabel>,
    },
    /// A command could not be carried out; it is tried again.
    CommandFailed {
        /// What was to be done.
        task: Task,
        /// Why not.
        error: String,
        /// When it is tried again.
        retry_in: Duration,
    },
    /// A command that had failed was carried out.
    CommandRecovered {
        /// What was to be done.
        task: Task,
    },
    /// A command failed so often that it is not tried again.
    CommandGivenUp {
        /// What was to be done.
        task: Task,
        /// Why not.
        error: String,
        /// How often it was tried.
        tries: u32,
    },
    /// Somebody else took or changed what is ours, and it was put right.
    Repaired {
        /// What was found and done.
        what: String,
    },
    /// Somebody else takes or changes the same thing again and again.
    Contested {
        /// What was found and done.
        what: String,
        /// How often by now.
        times: u32,
        /// The pauses grow up to this.
        longest_pause: Duration,
    },
    /// A link's interface is being switched on.
    BringingUp {
        /// Whose.
        wan: WanLabel,
        /// How often in a row, with this time.
        times: u32,
        /// If it goes down again soon, it is left so for this long.
        pause: Duration,
    },
    /// Another configuration is followed.
    Reloaded {
        /// What is different; never empty.
        changes: Vec<String>,
    },
    /// The engine issues nothing from here on.
    Stopping {
        /// Whose gateway stays the main table's default route; `None`: that route was never ours.
        default: Option<WanLabel>,
    },
}

impl Kind {
    /// How bad this is.
    pub fn level(&self) -> Level {
        match self {
            Self::AllDown { .. } => Level::Error,
            Self::CommandFailed { task, .. } => task.failure_level(),
            Self::LinkOff { .. }
            | Self::CommandGivenUp { .. }
            | Self::Repaired { .. }
            | Self::Contested { .. }
            | Self::BringingUp { .. } => Level::Warn,
            Self::LinkOn { .. }
            | Self::LinkStillOff { .. }
            | Self::DefaultChanged { .. }
            | Self::CommandRecovered { .. }
            | Self::Reloaded { .. }
            | Self::Stopping { .. } => Level::Info,
            // Either state that follows is told.
            Self::LinkWaiting { .. } => Level::Debug,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LinkOn { wan, target, rtt, off_for } => {
                write!(f, "{wan}: ON: {target} answers in {:.1} ms", rtt.as_secs_f64() * 1e3)?;
                match off_for {
                    Some(off_for) => write!(f, "; was OFF for {}", Span(*off_for)),
                    None => Ok(()),
                }
            }
            Self::LinkOff { wan, reason } => write!(f, "{wan}: OFF: {reason}"),
            Self::LinkStillOff { wan, reason } | Self::LinkWaiting { wan, reason } => {
                write!(f, "{wan}: still OFF: {reason}")
            }
            Self::DefaultChanged { from: Some(from), to } => write!(f, "default is {to} now, was {from}"),
            Self::DefaultChanged { from: None, to } => write!(f, "default is {to}"),
            Self::AllDown { links, kept } => {
                f.write_str("all links are down: ")?;
                for (wan, reason) in links {
                    write!(f, "{wan}: {reason}. ")?;
                }
                match kept {
                    Some(kept) => write!(f, "{kept} stays the default"),
                    None => f.write_str("The default route stays as it was found"),
                }
            }
            Self::CommandFailed { task, error, retry_in } => {
                write!(f, "could not {task}: {error}; next try in {}", Span(*retry_in))
            }
            Self::CommandRecovered { task } => write!(f, "could {task} after earlier failures"),
            Self::CommandGivenUp { task, error, tries: 1 } => write!(f, "could not {task}: {error}"),
            Self::CommandGivenUp { task, error, tries } => {
                write!(f, "could not {task}, given up after {tries} tries: {error}")
            }
            Self::Repaired { what } => f.write_str(what),
            Self::Contested { what, times, longest_pause } => write!(
                f,
                "{what}: {times} times in a row by now, another program works against multiwans; it is put \
                 back without further lines, after pauses of up to {}",
                Span(*longest_pause)
            ),
            Self::BringingUp { wan, times: 1, .. } => {
                write!(f, "{wan}: its interface is down; switching it on")
            }
            Self::BringingUp { wan, times, pause } => write!(
                f,
                "{wan}: its interface is down; switching it on for the {times}. time in a row, next time after {}",
                Span(*pause)
            ),
            Self::Reloaded { changes } => write!(f, "reloaded: {}", changes.join(", ")),
            Self::Stopping { default: Some(wan) } => write!(f, "stopping; {wan} stays the default route"),
            Self::Stopping { default: None } => f.write_str("stopping; the default route was not changed"),
        }
    }
}

/// What a command is for, worded to follow "could" and "could not".
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// `Command::Attach`.
    Attach,
    /// `Command::Steer`.
    Steer,
    /// `Command::Filters`.
    Filters,
    /// `Command::Routes`.
    Routes,
    /// `Command::Probe`.
    Probe(WanLabel),
    /// `Command::WriteStatus`.
    WriteStatus,
    /// `Command::BringUp`.
    BringUp(WanLabel),
    /// `MoveFlows::OffDeadLink`.
    MoveOffDeadLink(WanLabel),
    /// `MoveFlows::Unanswered`.
    MoveUnanswered,
}

impl Task {
    /// How bad it is when this fails: without its flows moved or its status written a router still routes.
    fn failure_level(&self) -> Level {
        match self {
            Self::Attach | Self::Steer | Self::Filters | Self::Routes | Self::Probe(_) => Level::Error,
            Self::WriteStatus | Self::BringUp(_) | Self::MoveOffDeadLink(_) | Self::MoveUnanswered => {
                Level::Warn
            }
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attach => f.write_str("attach the programs to the interfaces"),
            Self::Steer => f.write_str("tell the data path which links to use"),
            Self::Filters => f.write_str("put the filters in force"),
            Self::Routes => f.write_str("set up routes and rules"),
            Self::Probe(wan) => write!(f, "probe {wan}"),
            Self::WriteStatus => f.write_str("write the status file"),
            Self::BringUp(wan) => write!(f, "switch on the interface of {wan}"),
            Self::MoveOffDeadLink(wan) => write!(f, "move the flows off {wan}"),
            Self::MoveUnanswered => f.write_str("move the flows that were never answered"),
        }
    }
}

/// A duration for people: a tenth of a second matters at first, minutes do later.
pub(super) struct Span(pub(super) Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        match seconds {
            0..120 => write!(f, "{:.1} s", self.0.as_secs_f64()),
            120..7_200 => write!(f, "{} min {} s", seconds / 60, seconds % 60),
            _ => write!(f, "{} h {} min", seconds / 3_600, seconds / 60 % 60),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_lose_detail_as_they_grow() {
        let shown = |millis| Span(Duration::from_millis(millis)).to_string();
        assert_eq!(shown(4_040), "4.0 s");
        assert_eq!(shown(119_940), "119.9 s");
        assert_eq!(shown(120_000), "2 min 0 s");
        assert_eq!(shown(7_199_000), "119 min 59 s");
        assert_eq!(shown(90_061_000), "25 h 1 min");
    }

    #[test]
    fn notices_read_as_sentences() {
        let wan = WanLabel {
            description: "WAN1".into(),
            iface: IfName::new("eth1").unwrap(),
            mark: WanMark::new(1).unwrap(),
        };
        let all_down = Notice::from(Kind::AllDown {
            links: vec![(wan.clone(), "no carrier".into())],
            kept: Some(wan.clone()),
        });
        assert_eq!(all_down.level, Level::Error);
        assert_eq!(
            all_down.to_string(),
            "all links are down: WAN1 (eth1): no carrier. WAN1 (eth1) stays the default"
        );
        assert_eq!(
            serde_json::to_value(&all_down).unwrap(),
            serde_json::json!({
                "level": "error",
                "kind": "all_down",
                "links": [[{"description": "WAN1", "iface": "eth1", "mark": 1}, "no carrier"]],
                "kept": {"description": "WAN1", "iface": "eth1", "mark": 1}
            })
        );
        let failed = |task| {
            Notice::from(Kind::CommandFailed {
                task,
                error: "Device or resource busy".into(),
                retry_in: Duration::from_secs(1),
            })
        };
        assert_eq!(failed(Task::Routes).level, Level::Error);
        assert_eq!(failed(Task::WriteStatus).level, Level::Warn);
        assert_eq!(
            failed(Task::MoveOffDeadLink(wan)).to_string(),
            "could not move the flows off WAN1 (eth1): Device or resource busy; next try in 1.0 s"
        );
    }
}

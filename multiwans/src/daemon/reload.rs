//! Taking over another configuration while the daemon runs.
//!
//! ```text
//!  SIGHUP, `multiwans reload`      in a thread of its own             in the loop
//!  ───────────> waiting ──> read, validate, compare, compile ──> Event::Configured ──> commands ──> answer
//!                                        │ refused: nothing was changed
//!                                        └──────────────────────────────────────────────────────────> answer
//! ```
//!
//! One at a time. Who asks while one is under way is served by the next: the file may have changed since it
//! was read.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::config::{Config, Difference, LogLevel, Parsed};
use crate::control::canonical;
use crate::engine::{CommandId, Event, Revision, Settings};
use crate::notify::email::Office;
use crate::policy::Policies;

/// Where the configuration comes from, and what of it is not the daemon's own to follow.
pub trait Source: Send + Sync {
    /// The file it is read from.
    fn file(&self) -> &Path;

    /// Reads it anew, with everything it refers to.
    ///
    /// # Errors
    /// Every problem, one a line.
    fn load(&self) -> Result<Parsed, String>;

    /// Logs this much from now on.
    fn set_log_level(&self, level: LogLevel);
}

/// A configuration that can be put in force: what could be refused was tried.
pub(super) struct Prepared {
    config: Arc<Config>,
    difference: Difference,
    /// `None`: filters are as before.
    policies: Option<Policies>,
    office: Option<Office>,
    warnings: Vec<String>,
    /// What is wrong with lists that stay as they were.
    kept: Vec<String>,
}

/// The executor's part of a configuration.
pub(super) struct Configuration {
    pub(super) revision: Revision,
    pub(super) config: Arc<Config>,
    /// `None`: filters are as before.
    pub(super) policies: Option<Policies>,
    pub(super) settings: Settings,
}

/// Reloads asked for and under way.
pub(super) struct Reloads {
    source: Arc<dyn Source>,
    /// In force.
    config: Arc<Config>,
    revision: Revision,
    /// What is wrong with lists that stay as they were.
    kept: Vec<String>,
    waiting: Vec<Asker>,
    stage: Stage,
}

/// Who is to be told; `None`: nobody, the log says it.
type Asker = Option<oneshot::Sender<Value>>;

enum Stage {
    Idle,
    Reading(Vec<Asker>, JoinHandle<Result<Prepared, String>>),
    PuttingInForce(Vec<Asker>, Applied),
}

/// What was passed on and not answered yet.
struct Applied {
    commands: BTreeSet<CommandId>,
    failures: Vec<String>,
    answer: Value,
}

/// What is to be done with a configuration that was taken over.
pub(super) struct Takeover {
    pub(super) config: Arc<Config>,
    pub(super) office: Option<Office>,
    /// `None`: nothing is different.
    pub(super) configuration: Option<Configuration>,
}

impl Reloads {
    /// None yet; `config` is in force.
    pub(super) fn new(source: Arc<dyn Source>, config: Arc<Config>) -> Self {
        let (kept, waiting, stage) = (Vec::new(), Vec::new(), Stage::Idle);
        Self { source, config, revision: Revision::default(), kept, waiting, stage }
    }

    /// Why one of this file cannot be had: another one would be read.
    pub(super) fn refusal(&self, wanted: &Path) -> Option<String> {
        let own = canonical(self.source.file());
        (own != wanted).then(|| {
            let (wanted, own) = (wanted.display(), own.display());
            format!("configuration ({wanted}) must be the one that the daemon was started with: {own}")
        })
    }

    /// What is wrong with lists that stay as they were when they were last good.
    pub(super) fn kept(&self) -> &[String] {
        &self.kept
    }

    /// Somebody wants one. True when it begins now.
    pub(super) fn ask(&mut self, asker: Asker) -> bool {
        self.waiting.push(asker);
        self.begin()
    }

    /// Begins with what waits, unless one is under way.
    pub(super) fn begin(&mut self) -> bool {
        if self.waiting.is_empty() || !matches!(self.stage, Stage::Idle) {
            return false;
        }
        let (source, config) = (Arc::clone(&self.source), Arc::clone(&self.config));
        let reading = spawn_blocking(move || prepare(source.as_ref(), &config));
        self.stage = Stage::Reading(std::mem::take(&mut self.waiting), reading);
        true
    }

    /// Waits until one has been read, for ever where none is being read.
    pub(super) async fn read(&mut self) -> Result<Prepared, String> {
        let Stage::Reading(_, reading) = &mut self.stage else { return std::future::pending().await };
        reading.await.unwrap_or_else(|error| Err(format!("the configuration could not be read: {error}")))
    }

    /// Takes over what was read; logs what there is to say of it. `None`: it was refused, and that is it.
    pub(super) fn take_over(&mut self, read: Result<Prepared, String>) -> Option<Takeover> {
        let prepared = match read {
            Ok(prepared) => prepared,
            Err(why) => {
                tracing::error!("not reloaded, the configuration in force stays as it is:");
                why.lines().for_each(|line| tracing::error!("{line}"));
                self.answer(&json!({ "error": why }));
                return None;
            }
        };
        let Prepared { config, difference, policies, office, warnings, kept } = prepared;
        warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        kept.iter().for_each(|problem| tracing::error!("a list stays as it was: {problem}"));
        self.config = Arc::clone(&config);
        self.source.set_log_level(config.daemon.log_level);
        let answer = json!({ "changes": difference.live, "warnings": warnings, "kept": kept });
        self.kept = kept;
        let configuration = (!difference.is_empty()).then(|| {
            self.revision = self.revision.next();
            let settings = Settings::new(&config, difference, self.revision);
            Configuration { revision: self.revision, config: Arc::clone(&config), policies, settings }
        });
        if configuration.is_none() {
            tracing::info!("reloaded: nothing changed");
        }
        let applied = Applied { commands: BTreeSet::new(), failures: Vec::new(), answer };
        if let Stage::Reading(askers, _) = std::mem::replace(&mut self.stage, Stage::Idle) {
            self.stage = Stage::PuttingInForce(askers, applied);
        }
        Some(Takeover { config, office, configuration })
    }

    /// These commands put it in force. True where that was all.
    pub(super) fn awaits(&mut self, ids: impl IntoIterator<Item = CommandId>) -> bool {
        if let Stage::PuttingInForce(_, applied) = &mut self.stage {
            applied.commands.extend(ids);
        }
        self.finish()
    }

    /// Takes the answer to a command. True where it was the last one waited for.
    pub(super) fn settle(&mut self, result: &Event) -> bool {
        let Stage::PuttingInForce(_, applied) = &mut self.stage else { return false };
        match result {
            Event::Done(id) => drop(applied.commands.remove(id)),
            Event::Failed { id, error } if applied.commands.remove(id) => {
                applied.failures.push(error.clone())
            }
            _ => return false,
        }
        self.finish()
    }

    fn finish(&mut self) -> bool {
        let Stage::PuttingInForce(_, applied) = &mut self.stage else { return false };
        if !applied.commands.is_empty() {
            return false;
        }
        let answer = if applied.failures.is_empty() {
            applied.answer.take()
        } else {
            let why = applied.failures.join("; ");
            json!({ "error": format!("the new configuration is followed, but not all of it is in force yet and is tried again: {why}") })
        };
        self.answer(&answer);
        true
    }

    /// Tells whoever asked, who may be gone.
    fn answer(&mut self, answer: &Value) {
        let (Stage::Reading(askers, _) | Stage::PuttingInForce(askers, _)) =
            std::mem::replace(&mut self.stage, Stage::Idle)
        else {
            return;
        };
        for asker in askers.into_iter().flatten() {
            let _ = asker.send(answer.clone());
        }
    }
}

/// Everything that may be refused, and everything that takes its time. Changes nothing.
fn prepare(source: &dyn Source, in_force: &Config) -> Result<Prepared, String> {
    let Parsed { config, warnings, kept, .. } = source.load()?;
    let mut warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    let difference = Difference::between(in_force, &config);
    if !difference.at_restart.is_empty() {
        let lines = difference.at_restart.iter();
        let lines = lines.map(|key| format!("{key}: needs a restart (sessions of the default link stay)"));
        return Err(lines.collect::<Vec<_>>().join("\n"));
    }
    let policies = difference.filters.then(|| Policies::new(&config)).transpose();
    let policies = policies.map_err(|error| error.to_string())?;
    // Also where nothing changed: the file with the password may have.
    let office = Office::open(&config).map_err(|error| error.to_string())?;
    let office = office.map(|(office, warning)| {
        warnings.extend(warning);
        office
    });
    let kept = kept.iter().map(ToString::to_string).collect();
    Ok(Prepared { config: Arc::new(config), difference, policies, office, warnings, kept })
}

//! Carrying commands out: the one place where the daemon acts on the system.
//!
//! Commands come one after another and are answered one after another. The executor runs beside the
//! driver's loop, so that a long conntrack dump delays neither a probe's verdict nor a status request.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use super::datapath_status::{self, FilterCounts};
use super::reload::Configuration;
use super::{bring_up, sessions};
use crate::config::Config;
use crate::datapath::{Attachment, Datapath, FlowThread};
use crate::engine::{
    Binding, Command, CommandId, Disturbance, Event, MoveFlows, Numbered, Revision, Role, Round, Routes,
    Steering,
};
use crate::net::conntrack::{Conntrack, Deleted, Select, Tracking};
use crate::net::{Change, Kernel};
use crate::notify::{Hooks, StatusFile};
use crate::policy::Policies;
use crate::probe::{Names, Prober, Timing};
use crate::types::{IfIndex, IfName, WanMark};

/// How often is looked whether a program was detached, of which nothing tells: it is to be back within a second.
const LOOK: Duration = Duration::from_millis(500);

/// What the driver asks of the executor.
pub(super) enum Order {
    /// Carry out a command. `names`: the interfaces as the driver knows them now.
    Command { numbered: Numbered, names: Rc<BTreeMap<IfIndex, IfName>> },
    /// Follow this configuration from the next command on.
    Configure(Box<Configuration>),
    /// Tell the data path's side of the status.
    Describe(oneshot::Sender<Value>),
    /// Undo everything and end.
    Stop { final_default: Option<WanMark> },
}

/// What is left of the daemon after its stop.
pub(super) struct Undone {
    /// What could not be undone.
    pub(super) failures: Vec<String>,
    /// The main table's default route where it is ours: it stays on purpose.
    pub(super) default_route: Option<String>,
}

/// Everything the daemon holds of the system.
pub(super) struct Executor {
    config: Arc<Config>,
    datapath: Datapath,
    flows: FlowThread,
    kernel: Kernel,
    /// Filters to be put in force; `None`: they are.
    filters: Option<(Revision, Policies)>,
    filter_counts: FilterCounts,
    /// `None`: this kernel could not be asked; said once at start.
    conntrack: Option<Conntrack>,
    status_file: StatusFile,
    hooks: Hooks,
    /// Every WAN's targets.
    names: BTreeMap<WanMark, Names>,
    probers: BTreeMap<WanMark, Prober>,
    rounds: mpsc::Sender<Round>,
    steering: Steering,
    seeded: bool,
    /// What the command under way found taken by somebody else and put right.
    repaired: BTreeSet<String>,
}

impl Executor {
    /// Nothing is done yet.
    pub(super) fn new(
        config: Arc<Config>,
        datapath: Datapath,
        flows: FlowThread,
        kernel: Kernel,
        conntrack: Option<Conntrack>,
        rounds: mpsc::Sender<Round>,
    ) -> Self {
        let filter_counts = FilterCounts::new(&config);
        let status_file = StatusFile::new(&config.daemon.status_file);
        let hooks = Hooks::new(&config.hooks.dir, config.hooks.timeout);
        let names = config.wans.iter().map(|wan| (wan.mark, Names::new(wan, &config.dns))).collect();
        Self {
            config,
            datapath,
            flows,
            kernel,
            filters: None,
            filter_counts,
            conntrack,
            status_file,
            hooks,
            names,
            probers: BTreeMap::new(),
            rounds,
            steering: Steering::default(),
            seeded: false,
            repaired: BTreeSet::new(),
        }
    }

    /// Carries out orders until told to stop; then undoes everything and returns what that came to.
    pub(super) async fn run(
        mut self,
        mut orders: mpsc::UnboundedReceiver<Order>,
        results: mpsc::UnboundedSender<Event>,
    ) -> Undone {
        let mut final_default = None;
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let order = tokio::select! {
                biased;
                order = orders.recv() => order,
                () = self.kernel.names_changed() => {
                    let _ = results.send(Event::Disturbed(Disturbance { routing: true, programs: false }));
                    continue;
                }
                _ = look.tick() => {
                    if self.datapath.is_disturbed() {
                        let _ = results.send(Event::Disturbed(Disturbance { routing: false, programs: true }));
                    }
                    continue;
                }
            };
            let Some(order) = order else { break };
            match order {
                Order::Command {
                    numbered: Numbered { id, command: Command::BringUp { iface, .. } }, ..
                } => {
                    // The scripts of a network interface take their time.
                    let results = results.clone();
                    tokio::task::spawn_local(async move {
                        let result = bring_up::bring_up(&iface).await;
                        let _ = results.send(answer(id, result));
                    });
                }
                Order::Command { numbered: Numbered { id, command }, names } => {
                    let result = self.carry_out(command, &names).await;
                    if !self.repaired.is_empty() {
                        let _ = results.send(Event::Repaired(std::mem::take(&mut self.repaired)));
                    }
                    // The driver is gone only when it stops, and then nobody asks.
                    let _ = results.send(answer(id, result));
                }
                Order::Configure(configuration) => self.configure(*configuration),
                Order::Describe(reply) => {
                    let _ = reply.send(self.describe());
                }
                Order::Stop { final_default: wanted } => {
                    final_default = wanted;
                    break;
                }
            }
        }
        self.undo(final_default).await
    }

    async fn carry_out(&mut self, command: Command, names: &BTreeMap<IfIndex, IfName>) -> Result<(), String> {
        match command {
            Command::Attach(roles) => self.attach(&roles, names).await,
            Command::Steer(steering) => {
                self.datapath.steer(&steering).map_err(|error| error.to_string())?;
                self.steering = steering;
                Ok(())
            }
            Command::Filters(revision) => self.filters(revision),
            Command::Routes(routes) => self.routes(&routes).await,
            Command::MoveFlows(MoveFlows::OffDeadLink { address, .. }) => self.move_off(address).await,
            Command::MoveFlows(MoveFlows::Unanswered) => self.move_unanswered().await,
            Command::Probe { wan, binding } => {
                self.probe(wan, binding);
                Ok(())
            }
            Command::Audit { routes, programs } => self.audit(routes, programs, names).await,
            // It is answered in its own time: see `run`.
            Command::BringUp { .. } => Ok(()),
            Command::WriteStatus(states) => {
                self.status_file.write(&states).map_err(|error| error.to_string())
            }
            Command::RunHooks(change) => {
                if let Some(wan) = self.config.wans.iter().find(|wan| wan.mark == change.wan) {
                    self.hooks.run(&self.config, wan, &change);
                }
                Ok(())
            }
        }
    }

    /// Nothing is in force by this: the commands that follow do that.
    fn configure(&mut self, configuration: Configuration) {
        let Configuration { revision, config, policies, settings } = configuration;
        self.kernel.configure(&config);
        self.hooks.configure(&config.hooks.dir, config.hooks.timeout);
        for wan in config.wans.iter().filter(|wan| settings.probes.contains(&wan.mark)) {
            if let Some(names) = self.names.get_mut(&wan.mark) {
                *names = names.configured(wan, &config.dns);
            }
        }
        if let Some(policies) = policies {
            self.filters = Some((revision, policies));
        }
        self.config = config;
    }

    fn filters(&mut self, revision: Revision) -> Result<(), String> {
        let Some((_, policies)) = self.filters.as_ref().filter(|(waiting, _)| *waiting == revision) else {
            return Ok(());
        };
        self.datapath.install_both(policies).map_err(|error| error.to_string())?;
        self.filters = None;
        let counted = self.filter_counts.replaced(&mut self.datapath, &self.config);
        counted.map_err(|error| error.to_string())
    }

    async fn attach(
        &mut self,
        roles: &BTreeMap<IfIndex, Role>,
        names: &BTreeMap<IfIndex, IfName>,
    ) -> Result<(), String> {
        if !self.seeded {
            // Before the first packet is steered: sessions that are there stay where they are.
            self.seeded = true;
            self.seed().await;
            self.attach_output();
        }
        joined(self.datapath.attach(&named(roles, names)))
    }

    /// Looks whether these are as they were made, and puts right what is not.
    async fn audit(
        &mut self,
        routes: Option<Routes>,
        programs: Option<BTreeMap<IfIndex, Role>>,
        names: &BTreeMap<IfIndex, IfName>,
    ) -> Result<(), String> {
        let mut errors = Vec::new();
        if let Some(roles) = programs {
            let (repaired, failed) = self.datapath.audit(&named(&roles, names));
            self.repaired.extend(repaired);
            errors.extend(failed.iter().map(ToString::to_string));
        }
        if let Some(routes) = routes {
            errors.extend(self.routes(&routes).await.err());
        }
        joined(errors)
    }

    /// Without conntrack there are no translated sessions; one that cannot be read is classified, which
    /// most often comes to the same.
    async fn seed(&mut self) {
        let Some(conntrack) = &mut self.conntrack else { return };
        let entries = match conntrack.dump(Select::Translated).await {
            Ok(Tracking::On(entries)) => entries,
            Ok(Tracking::NotLoaded) => return,
            Err(error) => {
                tracing::warn!("sessions that are there already could not be read: {error}");
                return;
            }
        };
        match self.datapath.seed(&sessions::seeds(&self.config, &entries)) {
            0 => {}
            count => tracing::info!("{count} sessions that were there before stay on their links"),
        }
    }

    /// Once: who keeps us from it will not go away while we run, and everything else works without.
    fn attach_output(&mut self) {
        match self.datapath.attach_output() {
            Ok(()) => self.kernel.programs_steer_output(true),
            Err(error) => tracing::warn!(
                "no programs for the router's own sockets: {error}. Its filters (chainMangle: OUTPUT) are \
                 rules instead, and UDP services on 0.0.0.0 answer by the default WAN, whichever they were \
                 asked by"
            ),
        }
    }

    async fn routes(&mut self, routes: &Routes) -> Result<(), String> {
        let (done, result) = match self.kernel.apply(routes).await {
            Ok(done) => (done, Ok(())),
            Err(error) => {
                let text = error.to_string();
                (error.done, Err(text))
            }
        };
        for change in done {
            match change {
                // The engine tells it, and sees who does it again and again.
                Change::PutBack(text) => drop(self.repaired.insert(text)),
                change if change.is_detail() => tracing::debug!("{change}"),
                change => tracing::info!("{change}"),
            }
        }
        result
    }

    async fn move_off(&mut self, address: std::net::Ipv4Addr) -> Result<(), String> {
        let Some(conntrack) = &mut self.conntrack else { return Ok(()) };
        match conntrack.delete_from_address(address).await.map_err(|error| error.to_string())? {
            Tracking::NotLoaded => {}
            Tracking::On(Deleted::AtOnce) => tracing::info!("sessions translated to {address} may move"),
            Tracking::On(Deleted::OneByOne(count)) => {
                tracing::info!("{count} sessions translated to {address} may move");
            }
        }
        Ok(())
    }

    async fn move_unanswered(&mut self) -> Result<(), String> {
        let Some(conntrack) = &mut self.conntrack else { return Ok(()) };
        let entries =
            match conntrack.dump(Select::TranslatedUnanswered).await.map_err(|error| error.to_string())? {
                Tracking::On(entries) => entries,
                Tracking::NotLoaded => return Ok(()),
            };
        let misplaced = {
            let policy = self.datapath.in_force().map_err(|error| error.to_string())?;
            let filtered = |packet: &_, usable: &_, default| policy.first_match(packet, usable, default);
            sessions::misplaced(&self.config, &self.steering, &entries, filtered)
        };
        let mut moved = 0;
        for entry in &misplaced {
            let deleted = conntrack.delete_unanswered(entry).await;
            moved += usize::from(deleted.map_err(|error| error.to_string())?);
        }
        if moved > 0 {
            tracing::info!("{moved} sessions that were never answered may move");
        }
        Ok(())
    }

    fn probe(&mut self, wan: WanMark, binding: Option<Binding>) {
        self.probers.remove(&wan);
        let Some(names) = self.names.get_mut(&wan) else { return };
        names.resolve_over(binding.as_ref());
        let Some(binding) = binding else { return };
        let targets = names.targets();
        let timing = Timing { interval: self.config.probe.interval, timeout: self.config.ping.timeout };
        self.probers.insert(wan, Prober::spawn_following(wan, binding, targets, timing, self.rounds.clone()));
    }

    fn describe(&mut self) -> Value {
        let attachment = match self.datapath.attachment() {
            Attachment::Tcx => "tcx",
            Attachment::Clsact => "clsact",
        };
        match datapath_status::describe(
            &mut self.datapath,
            &self.config,
            &self.filter_counts,
            &self.flows.report(),
        ) {
            Ok(mut fields) => {
                fields.insert("attachment".to_owned(), json!(attachment));
                Value::Object(fields)
            }
            Err(error) => json!({ "attachment": attachment, "error": error.to_string() }),
        }
    }

    /// Takes everything back, as far as it goes.
    async fn undo(mut self, final_default: Option<WanMark>) -> Undone {
        self.probers.clear();
        self.names.clear();
        // Programs first: a mark without its rule would only be noise, a rule without marks does no harm.
        let mut failures: Vec<String> = self.datapath.detach().iter().map(ToString::to_string).collect();
        let default_route = self.kernel.remove(final_default).await.unwrap_or_else(|errors| {
            failures.extend(errors.iter().map(ToString::to_string));
            None
        });
        if let Err(error) = self.status_file.remove() {
            failures.push(error.to_string());
        }
        self.hooks.stop().await;
        Undone { failures, default_route }
    }
}

fn answer(id: CommandId, result: Result<(), String>) -> Event {
    match result {
        Ok(()) => Event::Done(id),
        Err(error) => Event::Failed { id, error },
    }
}

/// Roles with the interfaces' names, without interfaces that are gone by now.
fn named(
    roles: &BTreeMap<IfIndex, Role>,
    names: &BTreeMap<IfIndex, IfName>,
) -> BTreeMap<IfIndex, (IfName, Role)> {
    roles.iter().filter_map(|(index, role)| Some((*index, (names.get(index)?.clone(), *role)))).collect()
}

fn joined(errors: Vec<impl ToString>) -> Result<(), String> {
    if errors.is_empty() {
        return Ok(());
    }
    Err(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
}

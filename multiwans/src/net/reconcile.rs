//! Brings routes, rules, table names, the default route and rp_filter to what the engine wants, and back at stop.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::PathBuf;

use netlink_packet_route::route::RouteMessage;

use super::default_route::{Action, Origin, comes_back, decide};
use super::names_watch::NamesWatch;
use super::netns::Namespace;
use super::output_plan::OutputFilters;
use super::output_state;
use super::plan::Setup;
use super::repairs::Standing;
use super::routes::{self, Via};
use super::rt_tables::TableNames;
use super::rtnl::Rtnl;
use super::rules::{self, Rule};
use super::snapshot;
use super::sysctl::{LOOSE, RpFilter};
use super::undo::{Original, Undo};
use super::{ApplyError, Error};
use crate::config::Config;
use crate::engine::WanLabel;
use crate::engine::command::Routes;
use crate::types::{IfIndex, IfName, TableId, WanMark};

/// Where the files are. The defaults are the system's; tests have their own.
#[derive(Debug, Clone)]
pub struct Paths {
    /// iproute2's directory of table names.
    pub rt_tables: PathBuf,
    /// Where the undo journal lives.
    pub run: PathBuf,
    /// The kernel's IPv4 settings per interface.
    pub ipv4_conf: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            rt_tables: "/etc/iproute2/rt_tables.d".into(),
            run: "/run/multiwans".into(),
            ipv4_conf: "/proc/sys/net/ipv4/conf".into(),
        }
    }
}

/// One thing that was changed, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A rule was added.
    RuleAdded(Rule),
    /// A rule of ours that should not be there was deleted.
    RuleDeleted(String),
    /// The rules for the router's own traffic are others now: this many, none where no filter is in force.
    OutputRules(usize),
    /// A WAN's route was added.
    RouteAdded(WanLabel, Via),
    /// A route of ours that should not be there was deleted.
    RouteDeleted(String),
    /// The main table's default route is ours now.
    DefaultWritten {
        /// Through which WAN.
        wan: WanLabel,
        /// The route.
        via: Via,
        /// Somebody else's route that it took the place of, which is remembered.
        over: Option<String>,
    },
    /// The main table's original default route is back.
    DefaultRestored(String),
    /// The names of the tables were written.
    TablesNamed(PathBuf),
    /// Somebody else had taken or changed what is ours; the text says what, and that it is put right.
    PutBack(String),
    /// An interface's rp_filter is loose now.
    RpFilter {
        /// Which.
        iface: IfName,
        /// Its value before.
        from: u8,
    },
}

impl Change {
    /// Whether it is a part of something that is told as a whole, such as a failover.
    pub fn is_detail(&self) -> bool {
        matches!(
            self,
            Self::RuleAdded(_) | Self::RuleDeleted(_) | Self::RouteAdded(..) | Self::RouteDeleted(_)
        )
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RuleAdded(rule) => write!(f, "rule added: {rule}"),
            Self::RuleDeleted(rule) => write!(f, "rule deleted: {rule}"),
            Self::OutputRules(0) => write!(f, "rules for the router's own traffic removed"),
            Self::OutputRules(count) => write!(f, "rules for the router's own traffic: {count}"),
            Self::RouteAdded(wan, via) => write!(f, "route of {wan} added: {via}"),
            Self::RouteDeleted(route) => write!(f, "route deleted: {route}"),
            Self::DefaultWritten { wan, via, over: None } => {
                write!(f, "default route through {wan}: {via}")
            }
            Self::DefaultWritten { wan, via, over: Some(over) } => {
                write!(f, "default route through {wan}: {via}, in the place of {over}")
            }
            Self::DefaultRestored(route) => write!(f, "original default route restored: {route}"),
            Self::PutBack(text) => f.write_str(text),
            Self::TablesNamed(path) => write!(f, "table names written to {}", path.display()),
            Self::RpFilter { iface, from } => {
                write!(f, "rp_filter of {iface} set from {from} to {LOOSE} (loose)")
            }
        }
    }
}

/// Our part of the kernel's routing in one network namespace.
pub struct Kernel {
    setup: Setup,
    rtnl: Rtnl,
    names: TableNames,
    /// `None`: the names are looked at only when everything is.
    names_watch: Option<NamesWatch>,
    rp_filter: RpFilter,
    undo: Undo,
    /// Of the main table's default route.
    origin: Origin,
    /// What was so when it was last looked at: missing now, somebody took it.
    standing: Standing,
    /// Every table has been searched for routes of an earlier run; after that only the configured ones are looked at.
    swept: bool,
    /// The names could not be written, and that was said: they are a convenience, no reason to fail.
    nameless: bool,
    /// TCP and UDP of the router itself are steered by programs.
    programs: bool,
    /// Filters that come to too many rules, as far as that was said.
    left_out: Vec<String>,
}

/// What a run has done and what it could not do.
#[derive(Default)]
struct Outcome {
    done: Vec<Change>,
    failures: Vec<Error>,
}

impl Outcome {
    /// Notes how one step went.
    fn note(&mut self, step: Result<Change, Error>) {
        match step {
            Ok(change) => self.done.push(change),
            Err(error) => self.failures.push(error),
        }
    }
}

impl Kernel {
    /// For the calling thread's namespace; takes up the undo journal of an earlier run. Needs a tokio runtime. Changes
    /// nothing yet.
    pub fn new(config: &Config) -> Result<Self, Error> {
        Self::with_paths(config, &Paths::default())
    }

    /// [`Kernel::new`] with files elsewhere.
    pub fn with_paths(config: &Config, paths: &Paths) -> Result<Self, Error> {
        let namespace =
            Namespace::current().map_err(|e| Error::refused("tell which network namespace this is", e))?;
        let names = TableNames::new(&paths.rt_tables, &namespace);
        let names_watch = NamesWatch::open(names.path())
            .inspect_err(|e| tracing::warn!("changes of {} make no event: {e}", names.path().display()));
        Ok(Self {
            setup: Setup::from(config),
            rtnl: Rtnl::open().map_err(Error::Socket)?,
            names,
            names_watch: names_watch.ok(),
            rp_filter: RpFilter::new(&paths.ipv4_conf),
            undo: Undo::open(&paths.run, &namespace),
            origin: Origin::Unseen,
            standing: Standing::default(),
            swept: false,
            nameless: false,
            programs: false,
            left_out: Vec::new(),
        })
    }

    /// Waits for a change of the tables' names, by us too. May be dropped and called again without losing one.
    pub async fn names_changed(&mut self) {
        match &self.names_watch {
            Some(watch) => watch.changed().await,
            None => std::future::pending().await,
        }
    }

    /// Follows the filters of another configuration of the same WANs, with the next [`Kernel::apply`].
    pub fn configure(&mut self, config: &Config) {
        self.setup.output = OutputFilters::new(config);
    }

    /// Says whether programs steer the TCP and UDP of the router itself; rules do otherwise. Takes effect with the next
    /// [`Kernel::apply`].
    pub fn programs_steer_output(&mut self, programs: bool) {
        self.programs = programs;
    }

    /// Makes the kernel's routing what `wish` says and tells what that took: nothing, if it was so already. Adopts what
    /// an earlier run left, deletes what is ours and does not belong.
    ///
    /// # Errors
    /// What could not be done; everything else was. Calling it again tries again.
    pub async fn apply(&mut self, wish: &Routes) -> Result<Vec<Change>, ApplyError> {
        let mut outcome = Outcome::default();
        // Without a journal nothing that needs one is touched.
        let base = self.setup.rule_priority;
        let created = self.names.missing_directories();
        let journal = self.undo.update(|journal| {
            journal.rule_priorities.insert(base);
            journal.directories.extend(created);
        });
        match journal {
            Ok(()) => {
                self.name_tables(&mut outcome);
                self.loosen(wish, &mut outcome);
                // Tables before rules: a rule to an empty table would let its packets fall through to the main one.
                self.fill_tables(self.setup.routes(wish), &mut outcome).await;
                let output = self.output_rules(wish);
                self.set_rules(self.setup.rules(), output, &mut outcome).await;
                let default = self.setup.default(wish);
                let failures = outcome.failures.len();
                let via = default.as_ref().map(|(_, via)| *via);
                if let Some((wan, via)) = default {
                    self.set_default(wan, &via, &mut outcome).await;
                }
                let stands = outcome.failures.len() == failures;
                self.standing.default = via.filter(|_| stands);
            }
            Err(error) => outcome.failures.push(error),
        }
        let Outcome { done, failures } = outcome;
        if failures.is_empty() { Ok(done) } else { Err(ApplyError { done, failures }) }
    }

    /// Takes everything of ours away. Of the main table's default route the original comes back if it uses the link
    /// `final_default` (the best healthy one) or that is `None`; otherwise a default route through it stays, and is
    /// returned as text.
    ///
    /// # Errors
    /// All that went wrong; it goes on past every error. The undo journal is kept then, for another try.
    pub async fn remove(&mut self, final_default: Option<WanMark>) -> Result<Option<String>, Vec<Error>> {
        let mut outcome = Outcome::default();
        self.set_rules(Vec::new(), output_state::Wanted::default(), &mut outcome).await;
        self.fill_tables(Vec::new(), &mut outcome).await;
        self.leave_default(final_default, &mut outcome).await;
        let journal = self.undo.journal();
        for (iface, previous) in &journal.rp_filter {
            if let Err(error) = self.rp_filter.restore(iface, *previous) {
                outcome.failures.push(error);
            }
        }
        if let Err(error) = self.names.remove(&journal.directories) {
            outcome.failures.push(error);
        }
        if outcome.failures.is_empty()
            && let Err(error) = self.undo.discard()
        {
            outcome.failures.push(error);
        }
        self.origin = Origin::Unseen;
        let standing = routes::defaults(TableId::MAIN).unwrap_or_default();
        let stays = standing.iter().find(|route| routes::is_ours(route)).map(routes::describe);
        if outcome.failures.is_empty() { Ok(stays) } else { Err(outcome.failures) }
    }

    fn name_tables(&mut self, outcome: &mut Outcome) {
        let named = self.names.ensure(self.setup.uplinks.iter().map(|uplink| uplink.mark));
        if let Some(watch) = &self.names_watch {
            watch.arm();
        }
        if matches!(named, Ok(true)) {
            outcome.done.push(self.judged(Change::TablesNamed(self.names.path().to_owned())));
        }
        self.standing.named = named.is_ok();
        match named {
            Ok(_) => {}
            Err(error) if !self.nameless => {
                tracing::warn!("routing tables have numbers only: {error}");
                self.nameless = true;
            }
            Err(_) => {}
        }
    }

    fn loosen(&mut self, wish: &Routes, outcome: &mut Outcome) {
        let mut loose = BTreeSet::new();
        for uplink in &self.setup.uplinks {
            let Some(index) = wish.present.get(&uplink.mark) else { continue };
            let iface = &uplink.iface;
            let step = self.rp_filter.strict(iface).and_then(|strict| {
                let Some(from) = strict else { return Ok(None) };
                // Strict again though it was loosened: somebody wants that value, so that one comes back at stop.
                self.undo.update(|journal| {
                    journal.rp_filter.insert(iface.clone(), from);
                })?;
                self.rp_filter.loosen(iface)?;
                Ok(Some(Change::RpFilter { iface: iface.clone(), from }))
            });
            if step.is_ok() {
                loose.insert((iface.clone(), *index));
            }
            if let Some(step) = step.transpose() {
                let known = self.standing.loose.contains(&(iface.clone(), *index));
                outcome.note(step.map(|change| if known { self.judged(change) } else { change }));
            }
        }
        self.standing.loose = loose;
    }

    /// The rules for the router's own traffic.
    fn output_rules(&mut self, wish: &Routes) -> output_state::Wanted {
        let source = wish.default.and_then(|wan| self.setup.uplink(wan)).map(|uplink| uplink.ip);
        let wanted = output_state::Wanted::new(&self.setup, &wish.steered, source, self.programs);
        if wanted.left_out != self.left_out {
            for filter in &wanted.left_out {
                tracing::warn!(
                    "filter \"{filter}\" of the router's own traffic is not in force: too many rules"
                );
            }
            self.left_out.clone_from(&wanted.left_out);
        }
        wanted
    }

    async fn set_rules(&mut self, wanted: Vec<Rule>, output: output_state::Wanted, outcome: &mut Outcome) {
        let mut bases: Vec<u32> = self.undo.journal().rule_priorities.iter().copied().collect();
        bases.push(self.setup.rule_priority);
        let standing = match rules::ours(&mut self.rtnl, &bases).await {
            Ok(standing) => standing,
            Err(e) => return outcome.failures.push(Error::refused("list the rules", e)),
        };
        let (own, standing) = output_state::split(standing, &bases);
        let mut stand = wanted.clone();
        let difference = rules::difference(standing, wanted);
        for rule in difference.add {
            let step = rules::add(&mut self.rtnl, &rule).await;
            outcome.note(match step {
                Ok(()) => Ok(self.judged(Change::RuleAdded(rule))),
                Err(e) => {
                    stand.retain(|stands| *stands != rule);
                    Err(Error::refused(format!("add rule {rule}"), e))
                }
            });
        }
        for listed in difference.delete {
            let rule = rules::describe(&listed);
            let step = rules::delete(&mut self.rtnl, &listed).await;
            outcome.note(match step {
                Ok(()) => Ok(self.judged(Change::RuleDeleted(rule))),
                Err(e) => Err(Error::refused(format!("delete rule {rule}"), e)),
            });
        }
        self.standing.rules = stand;
        // Last, when nobody else's are among them any more.
        let stood = self.standing.output.take();
        match output_state::apply(&mut self.rtnl, &own, &output).await {
            Ok(change) => {
                let repaired = stood.as_deref() == Some(output.rules());
                outcome.done.extend(change.map(|count| match repaired {
                    true => {
                        Change::PutBack("rules for the router's own traffic were changed; put back".into())
                    }
                    false => Change::OutputRules(count),
                }));
                self.standing.output = Some(output.rules().to_vec());
            }
            Err(e) => {
                outcome.failures.push(Error::refused("write the rules for the router's own traffic", e))
            }
        }
    }

    /// A change, or the repair that it is.
    fn judged(&self, change: Change) -> Change {
        self.standing.judge(change)
    }

    /// Makes our routes in the WANs' tables exactly `wanted`.
    async fn fill_tables(&mut self, wanted: Vec<(WanLabel, Via)>, outcome: &mut Outcome) {
        let mut standing: BTreeMap<TableId, Vec<RouteMessage>> = BTreeMap::new();
        for table in self.setup.uplinks.iter().map(|uplink| uplink.mark.table()) {
            match routes::defaults(table) {
                Ok(routes) => drop(standing.insert(table, routes)),
                Err(e) => outcome.failures.push(Error::refused(format!("list table {}", table.name()), e)),
            }
        }
        let mut ours: Vec<_> = standing.values().flatten().filter(|m| routes::is_ours(m)).cloned().collect();
        if !self.swept {
            match routes::ours(&mut self.rtnl).await {
                Ok(all) => {
                    ours.extend(all.into_iter().filter(|m| !standing.contains_key(&routes::table(m))));
                    self.swept = true;
                }
                Err(e) => outcome.failures.push(Error::refused("list our routes", e)),
            }
        }

        let mut kept: Vec<RouteMessage> = Vec::new();
        let mut stand: Vec<Via> = wanted.iter().map(|(_, via)| *via).collect();
        for (wan, via) in wanted {
            let Some(routes) = standing.get(&via.table) else { continue };
            match routes.iter().find(|m| routes::metric(m) == 0) {
                Some(first) if via.is(first) => kept.push(first.clone()),
                _ => {
                    // Ours behind somebody else's is asked second: it has to be added anew, before that one.
                    for hidden in ours.iter().filter(|m| via.is(m)) {
                        self.delete_route(hidden, outcome).await;
                        kept.push(hidden.clone());
                    }
                    let step = routes::prepend(&mut self.rtnl, &via).await;
                    outcome.note(match step {
                        Ok(()) => Ok(self.judged(Change::RouteAdded(wan, via))),
                        Err(e) => {
                            stand.retain(|stands| *stands != via);
                            Err(self.route_refused(wan, &via, e).await)
                        }
                    });
                }
            }
        }
        self.standing.routes = stand;
        let in_wan_table =
            |m: &RouteMessage| u8::try_from(routes::table(m).0).ok().and_then(WanMark::new).is_some();
        for stale in ours.iter().filter(|m| in_wan_table(m) && !kept.contains(m)) {
            self.delete_route(stale, outcome).await;
        }
    }

    async fn delete_route(&mut self, listed: &RouteMessage, outcome: &mut Outcome) {
        let route = routes::describe(listed);
        let step = routes::delete(&mut self.rtnl, listed).await;
        outcome.note(match step {
            Ok(()) => Ok(Change::RouteDeleted(route)),
            Err(e) => Err(Error::refused(format!("delete route {route}"), e)),
        });
    }

    /// Brings the main table's default route to `via`.
    async fn set_default(&mut self, wan: WanLabel, via: &Via, outcome: &mut Outcome) {
        let standing = match routes::defaults(TableId::MAIN) {
            Ok(standing) => standing,
            Err(e) => return outcome.failures.push(Error::refused("list the main table", e)),
        };
        let Some(original) = self.find_original(&standing, outcome) else { return };
        let decision = decide(&standing, via, original.as_ref());
        match decision.action {
            Action::Leave => {}
            Action::Write { over } => {
                let step = routes::replace(&mut self.rtnl, via.message()).await;
                outcome.note(match step {
                    Ok(()) => {
                        let over = over.as_ref().map(routes::describe);
                        Ok(self.judged(Change::DefaultWritten { wan, via: *via, over }))
                    }
                    Err(e) => Err(self.route_refused(wan, via, e).await),
                });
            }
            Action::Restore { over } => {
                if let Some(original) = original {
                    let over = over.as_ref().map(routes::describe);
                    let repair = self.judged(Change::DefaultWritten { wan, via: *via, over: over.clone() });
                    let told = match (repair, over) {
                        (repair @ Change::PutBack(_), _) => repair,
                        (_, None) => Change::DefaultRestored(routes::describe(&original)),
                        (_, Some(over)) => Change::DefaultRestored(format!(
                            "{}, in the place of {over}",
                            routes::describe(&original)
                        )),
                    };
                    self.restore_default(original, told, outcome).await;
                }
            }
            Action::Withdraw(ours) => self.delete_route(&ours, outcome).await,
        }
        for stale in &decision.stale {
            self.delete_route(stale, outcome).await;
        }
    }

    /// The original, as the journal has it now; `None` where the journal could not be written.
    fn find_original(
        &mut self,
        standing: &[RouteMessage],
        outcome: &mut Outcome,
    ) -> Option<Option<RouteMessage>> {
        let remembered = self.undo.journal().default_route.as_ref();
        if remembered.is_some_and(|Original(original)| !routes::has_interface(original)) {
            // It cannot come back: whoever makes the interface anew (pppd, a DHCP client) sets another.
            if !self.remember(None, outcome) {
                return None;
            }
            self.origin = Origin::Missing;
        }
        let remembered = self.undo.journal().default_route.is_some();
        let (found, origin) = self.origin.look(standing, remembered);
        if let Some(found) = found
            && !self.remember(Some(found.clone()), outcome)
        {
            return None;
        }
        self.origin = origin;
        Some(self.undo.journal().default_route.clone().map(|Original(original)| original))
    }

    async fn restore_default(&mut self, original: RouteMessage, told: Change, outcome: &mut Outcome) {
        let route = routes::describe(&original);
        if let Err(e) = routes::replace(&mut self.rtnl, routes::writable(original)).await {
            outcome.failures.push(Error::refused(format!("restore route {route}"), e));
            // What the kernel refuses now (its address is gone), it would have taken away by itself. Ours is
            // written on the next call.
            self.origin = Origin::Missing;
            self.remember(None, outcome);
            return;
        }
        outcome.done.push(told);
    }

    /// Whether the journal says so now.
    fn remember(&mut self, original: Option<RouteMessage>, outcome: &mut Outcome) -> bool {
        match self.undo.update(|journal| journal.default_route = original.map(Original)) {
            Ok(()) => true,
            Err(error) => {
                outcome.failures.push(error);
                false
            }
        }
    }

    /// The main table's default route at stop.
    async fn leave_default(&mut self, final_default: Option<WanMark>, outcome: &mut Outcome) {
        let wanted = final_default.and_then(|wan| {
            let uplink = self.setup.uplink(wan)?;
            let index = nix::net::if_::if_nametoindex(uplink.iface.as_str()).ok()?;
            Some((uplink.label(), uplink.via(TableId::MAIN, IfIndex(index))))
        });
        if let Some(Original(original)) = self.undo.journal().default_route.clone()
            && comes_back(&original, wanted.as_ref().map(|(_, via)| via))
        {
            let standing = match routes::defaults(TableId::MAIN) {
                Ok(standing) => standing,
                Err(e) => return outcome.failures.push(Error::refused("list the main table", e)),
            };
            // Only over ours, or over nothing: somebody else's newer route stays.
            let first = standing.iter().find(|m| routes::metric(m) == 0);
            if first.is_none_or(routes::is_ours) {
                let told = Change::DefaultRestored(routes::describe(&original));
                return self.restore_default(original, told, outcome).await;
            }
        }
        if let Some((wan, via)) = wanted {
            self.set_default(wan, &via, outcome).await;
        }
    }

    /// Says what the kernel's answer to a route means. Its error numbers hardly tell (a route through an interface that
    /// is down, without its address or without a way to the gateway is `ENETUNREACH` all the same), so look.
    async fn route_refused(&mut self, wan: WanLabel, via: &Via, error: io::Error) -> Error {
        let refused = |error| Error::refused(format!("add {via}"), error);
        let Ok(interfaces) = snapshot::interfaces(&mut self.rtnl).await else {
            return refused(error);
        };
        match interfaces.iter().find(|interface| interface.index == via.oif) {
            Some(interface) if interface.up => {
                if !interface.addresses.iter().any(|(ip, _)| *ip == via.source) {
                    Error::NoAddress { wan, ip: via.source }
                } else if matches!(error.raw_os_error(), Some(libc::ENETUNREACH | libc::EHOSTUNREACH)) {
                    Error::GatewayUnreachable { wan, gateway: via.gateway }
                } else {
                    refused(error)
                }
            }
            _ => Error::InterfaceDown { wan },
        }
    }
}

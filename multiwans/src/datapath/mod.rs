//! The data path: the programs in the kernel and their maps.
//!
//! The only module that knows the names and layouts of maps. Everything here is synchronous and short;
//! the daemon's loop calls it in between other things.

mod attach;
mod cgroup;
mod clsact;
mod counters;
mod error;
mod flows;
mod held;
mod inner;
mod links;
mod maps;
mod object;
mod output;
mod policy_maps;
mod specific;
mod undisturbed;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use aya::programs::{SchedClassifier, TestRun, TestRunOptions};
use aya::{Ebpf, EbpfLoader};
use multiwans_common::{Direction, PolicySet, Program as Counting, Reason, Special, Traffic};

pub use attach::Attachment;
pub use cgroup::CgroupRootError;
pub use counters::Version;
pub use error::DatapathError;
pub use flows::{Census, Family, FlowKeeper, FlowReport, FlowThread, SeedFlow, Swept};
pub use policy_maps::{InForce, Written};
pub use specific::SpecificMap;

use self::undisturbed::undisturbed;
use crate::config::Config;
use crate::engine::command::{Role, Steering};
use crate::policy::{Compiled, Policies};
use crate::types::{IfIndex, IfName, WanMark};

/// How to load the programs.
#[derive(Debug, Clone, Copy, Default)]
pub struct LoadOptions {
    /// Have the programs tell each decision. Costs nothing when off: the verifier removes the code.
    pub log_decisions: bool,
    /// How to attach; `None`: the best way the kernel has.
    pub attachment: Option<Attachment>,
}

/// The loaded programs and their maps.
pub struct Datapath {
    ebpf: Ebpf,
    links: links::Links,
    interfaces: attach::Interfaces,
    output: output::Output,
    policies: policy_maps::PolicyMaps,
    flows: Arc<flows::FlowTable>,
}

/// A program, for [`Datapath::test_run`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// Ingress of inside interfaces.
    Steer,
    /// Ingress of WANs.
    Wan,
    /// Egress of inside interfaces.
    Learn,
}

impl Datapath {
    /// Loads the programs and puts the policies in force. Nothing is attached yet.
    ///
    /// The programs of sockets take those of the calling thread's network namespace for the router's own.
    pub fn load(config: &Config, policies: &Policies, options: LoadOptions) -> Result<Self, DatapathError> {
        undisturbed(|| Self::load_all(config, policies, options))
    }

    fn load_all(config: &Config, policies: &Policies, options: LoadOptions) -> Result<Self, DatapathError> {
        let object = object::object().ok_or(DatapathError::NoObject)?;
        let mask = config.daemon.mark_mask;
        let log_level: u8 = if options.log_decisions { aya_log_level_debug() } else { 0 };
        let seed = random();
        let mut ebpf = EbpfLoader::new()
            .override_global("MARK_MASK", &mask.bits(), true)
            .override_global("MARK_SHIFT", &mask.shift(), true)
            .override_global("NETNS_COOKIE", &netns_cookie()?, true)
            .override_global("AYA_LOG_LEVEL", &log_level, true)
            .override_global("FLOW_SEED", &seed, true)
            .override_global("ALL_FLOW_LINES", &flows::lines(config.flows.max), true)
            .map_max_entries(maps::FLOWS, flows::lines(config.flows.max))
            .load(object)?;
        for program in attach::PROGRAMS {
            attach::classifier(&mut ebpf, program)?
                .load()
                .map_err(|source| DatapathError::Program { program, source })?;
        }
        output::load(&mut ebpf)?;
        let flows = flows::FlowTable::new(&ebpf, seed, config.flows.max)?;
        let wans = config.wans.iter().map(|wan| (wan.mark, wan.fwmark, wan.ip));
        let links = links::Links::new(&mut ebpf, wans)?;
        let mut policy_maps = policy_maps::PolicyMaps::default();
        policy_maps.install(&mut ebpf, &of_sets(policies))?;
        let attachment = options.attachment.unwrap_or_else(attach::supported_attachment);
        Ok(Self {
            ebpf,
            links,
            interfaces: attach::Interfaces::new(attachment),
            output: output::Output::default(),
            policies: policy_maps,
            flows,
        })
    }

    /// Whether this build has its programs in it.
    pub fn is_built_in() -> bool {
        object::object().is_some()
    }

    /// How programs are attached on this kernel.
    pub fn attachment(&self) -> Attachment {
        self.interfaces.attachment()
    }

    /// Makes the interfaces carry exactly these roles. What could be done is done; the errors say what
    /// could not.
    pub fn attach(&mut self, roles: &BTreeMap<IfIndex, (IfName, Role)>) -> Vec<DatapathError> {
        let wans = roles
            .iter()
            .filter_map(|(index, (_, role))| match role {
                Role::Wan(mark) => Some((*index, *mark)),
                Role::Inside => None,
            })
            .collect();
        let mut errors = Vec::new();
        // A WAN's program asks for its interface's number with the first packet.
        errors.extend(self.links.place(&mut self.ebpf, wans).err());
        errors.extend(self.interfaces.apply(&mut self.ebpf, roles));
        errors
    }

    /// Makes sure that the interfaces carry exactly these roles, and that every program still is where it
    /// was attached. Returns a line for each that somebody had taken off and that runs again, and what could
    /// not be done.
    pub fn audit(&mut self, roles: &BTreeMap<IfIndex, (IfName, Role)>) -> (Vec<String>, Vec<DatapathError>) {
        let held = match held::links() {
            Ok(held) => held,
            Err(error) => return (Vec::new(), vec![DatapathError::Audit(error)]),
        };
        let mut errors = Vec::new();
        let taken_off = self.interfaces.give_up_broken(&mut self.ebpf, &held, &mut errors);
        errors.extend(self.attach(roles));
        let again = taken_off.iter().filter(|taken_off| self.interfaces.carries(taken_off.index));
        let mut again: Vec<String> = again.map(ToString::to_string).collect();
        let (sockets, failed) = self.output.audit(&mut self.ebpf, &held);
        again.extend(sockets);
        errors.extend(failed);
        (again, errors)
    }

    /// Whether a program was detached from where a link of ours held it: worth an [`Datapath::audit`]. Nothing
    /// tells of that, so it has to be asked now and then. (The loss of a `clsact` filter is an event.)
    pub fn is_disturbed(&self) -> bool {
        // What cannot be looked at is told by the audit.
        held::links().is_ok_and(|held| held.iter().any(|link| link.place.is_none()))
    }

    /// Attaches the programs for the router's own sockets to the root of the cgroups, once.
    ///
    /// # Errors
    ///
    /// There is no cgroup2, or another program holds its root for itself. None is attached then.
    pub fn attach_output(&mut self) -> Result<(), DatapathError> {
        self.output.attach(&mut self.ebpf)
    }

    /// The map of destinations that the main table routes by itself, to be kept up to date; `None`: it was taken.
    pub fn take_specific(&mut self) -> Result<Option<SpecificMap>, DatapathError> {
        SpecificMap::take(&mut self.ebpf)
    }

    /// Takes all programs off. Returns what could not be taken off.
    pub fn detach(&mut self) -> Vec<DatapathError> {
        let mut errors = self.output.detach(&mut self.ebpf);
        errors.extend(self.interfaces.clear(&mut self.ebpf));
        errors
    }

    /// Tells the programs the links' states.
    pub fn steer(&mut self, steering: &Steering) -> Result<(), DatapathError> {
        self.links.steer(&mut self.ebpf, steering)
    }

    /// Puts another policy in force; no packet is judged by a mixture. Says what had to be written: only what
    /// differs from the one before. On an error that one stays.
    pub fn install(&mut self, set: PolicySet, policy: &Compiled) -> Result<Written, DatapathError> {
        self.policies.install(&mut self.ebpf, &[(set, policy)])
    }

    /// The same for both, or for none of them.
    pub fn install_both(&mut self, policies: &Policies) -> Result<Written, DatapathError> {
        self.policies.install(&mut self.ebpf, &of_sets(policies))
    }

    /// The policy for forwarded traffic as it is in force.
    pub fn in_force(&self) -> Result<InForce, DatapathError> {
        self.policies.in_force(PolicySet::Forwarding)
    }

    /// Stores sessions that were there before the daemon. Returns how many the table took.
    pub fn seed(&mut self, flows: &[SeedFlow]) -> usize {
        flows::seed(&self.flows, flows, |mark: WanMark| self.links.generation(mark))
    }

    /// What keeps the flow table in order.
    ///
    /// # Errors
    /// The kernel refuses another handle of the table, or does not tell its memory.
    pub fn flow_keeper(&self) -> Result<FlowKeeper, DatapathError> {
        FlowKeeper::new(&self.ebpf, Arc::clone(&self.flows))
    }

    /// What a program did and why since the start, all CPUs together.
    pub fn reasons(&self, program: Counting) -> Result<Vec<(Reason, Traffic)>, DatapathError> {
        counters::reasons(&self.ebpf, program)
    }

    /// What was special about the packets of a program since the start, all CPUs together.
    pub fn special(&self, program: Counting) -> Result<Vec<(Special, Traffic)>, DatapathError> {
        counters::special(&self.ebpf, program)
    }

    /// What came in by a WAN and was marked so, or was steered to it, since the start.
    pub fn wan_traffic(&self, wan: WanMark, direction: Direction) -> Result<Traffic, DatapathError> {
        counters::wan(&self.ebpf, wan, direction)
    }

    /// What the first `count` filters for forwarded traffic took while their policy was in force.
    pub fn filter_traffic(&mut self, version: Version, count: u32) -> Result<Vec<Traffic>, DatapathError> {
        counters::filters(&mut self.ebpf, version, count)
    }

    /// The programs' log: a logger to be flushed whenever its file descriptor is readable.
    pub fn decisions(&mut self) -> Result<aya_log::EbpfLogger<&'static dyn log::Log>, DatapathError> {
        Ok(aya_log::EbpfLogger::init(&mut self.ebpf)?)
    }

    /// Runs a program on one packet (an Ethernet frame) and a `__sk_buff` to begin with; returns its
    /// verdict and how long it took, and writes the `__sk_buff` as it left it to `context_out`.
    pub fn test_run(
        &mut self,
        program: Program,
        frame: &[u8],
        context: &[u8],
        context_out: &mut [u8],
    ) -> Result<(u32, Duration), DatapathError> {
        let name = match program {
            Program::Steer => attach::STEER,
            Program::Wan => attach::WAN,
            Program::Learn => attach::LEARN,
        };
        let classifier: &mut SchedClassifier = attach::classifier(&mut self.ebpf, name)?;
        let options = TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(context),
            ctx_out: Some(context_out),
            ..TestRunOptions::new()
        };
        classifier
            .test_run(options)
            .map(|result| (result.return_value, result.duration))
            .map_err(|source| DatapathError::Program { program: name, source })
    }
}

fn of_sets(policies: &Policies) -> [(PolicySet, &Compiled); PolicySet::COUNT] {
    [(PolicySet::Forwarding, &policies.forwarding), (PolicySet::Output, &policies.output)]
}

/// A number that nobody can guess: the standard library takes it from the kernel.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

fn netns_cookie() -> Result<u64, DatapathError> {
    crate::net::namespace_cookie().map_err(DatapathError::Namespace)
}

/// `aya_log`'s number of the debug level.
const fn aya_log_level_debug() -> u8 {
    4
}

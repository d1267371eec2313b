//! What can go wrong between the daemon and the programs.

use aya::maps::MapError;
use aya::programs::ProgramError;

use crate::types::IfName;

/// An error of the data path.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// The daemon was compiled without its eBPF object.
    #[error("this multiwans was built without its data path: build it with `cargo xtask build`")]
    NoObject,
    /// The kernel or the loader refused the object.
    #[error("the kernel does not take the data path: {0}")]
    Load(#[from] aya::EbpfError),
    /// The kernel refused a program; with the last lines of what its verifier says.
    #[error("the kernel does not take program {program}: {source}")]
    Program {
        /// Which.
        program: &'static str,
        /// Why.
        #[source]
        source: ProgramError,
    },
    /// A program could not be attached.
    #[error("program {program} cannot be attached to {iface}: {source}")]
    Attach {
        /// Which.
        program: &'static str,
        /// To what.
        iface: IfName,
        /// Why.
        #[source]
        source: ProgramError,
    },
    /// A program could not be attached to the cgroups.
    #[error("program {program} cannot be attached to the root of cgroup2: {source}")]
    Cgroup {
        /// Which.
        program: &'static str,
        /// Why.
        #[source]
        source: ProgramError,
    },
    /// There is no root of the cgroups to attach to.
    #[error("{0}")]
    CgroupRoot(#[from] super::CgroupRootError),
    /// `clsact` could not be added or removed.
    #[error("the clsact qdisc of {iface} cannot be changed: {source}")]
    Clsact {
        /// Whose.
        iface: IfName,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Other software has put the one-directional `ingress` qdisc where we need `clsact`, and there is no
    /// TCX to do without both.
    #[error(
        "the ingress qdisc of {iface} must be clsact: it cannot filter what goes out, and kernels before 6.6 \
         have no other way (clsact takes the same filters)"
    )]
    IngressQdisc {
        /// Whose.
        iface: IfName,
    },
    /// What a killed daemon left could not be removed everywhere.
    #[error("filters that a killed daemon left cannot be removed: {0}")]
    Sweep(#[source] std::io::Error),
    /// What is attached could not be looked at.
    #[error("the attached programs cannot be looked at: {0}")]
    Audit(#[source] std::io::Error),
    /// The kernel does not tell which network namespace this is.
    #[error("the network namespace's number (SO_NETNS_COOKIE) cannot be had: {0}")]
    Namespace(#[source] std::io::Error),
    /// The object lacks a map or program that this daemon knows: they were not built together.
    #[error("the data path has no {0}: daemon and data path are not of the same build")]
    Missing(&'static str),
    /// A map could not be created, read or written.
    #[error("map {map}: {source}")]
    Map {
        /// Which.
        map: &'static str,
        /// Why.
        #[source]
        source: MapError,
    },
    /// A map's memory could not be had.
    #[error("map {map}: its memory cannot be mapped: {source}")]
    Memory {
        /// Which.
        map: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The kernel does not tell how many CPUs there may be.
    #[error("the number of CPUs cannot be had: {0}")]
    Cpus(#[source] std::io::Error),
    /// There is no other handle of a map.
    #[error("a map's descriptor cannot be had again: {0}")]
    Handle(#[source] std::io::Error),
    /// There is no thread to look after the flow table.
    #[error("the flow table's thread cannot be started: {0}")]
    Thread(#[source] std::io::Error),
    /// The log of the programs could not be read.
    #[error("the programs' log cannot be read: {0}")]
    Log(#[from] aya_log::Error),
}

impl DatapathError {
    /// A failure about an interface's `clsact`.
    pub(super) fn clsact(
        iface: &IfName,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Clsact { iface: iface.clone(), source: source.into() }
    }

    /// For `map_err` at a map's operation.
    pub(super) fn map(map: &'static str) -> impl Fn(MapError) -> Self {
        move |source| Self::Map { map, source }
    }
    /// For `map_err` at mapping a map's memory.
    pub(super) fn memory(map: &'static str) -> impl Fn(std::io::Error) -> Self {
        move |source| Self::Memory { map, source }
    }
}

//! The configuration once it is valid: every value in its type, every default filled in, disabled
//! WANs and filters gone.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;

use super::secret::Secret;
use crate::types::{FwMark, IfName, MarkMask, WanMark};

/// A whole, valid configuration. Keys and ranges: `config.example.yaml`.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `company`: what the footer of mails prints.
    pub company: Company,
    /// `daemon`.
    pub daemon: Daemon,
    /// `flows`
    pub flows: Flows,
    /// `alerts`: how often mails about the same trouble are sent.
    pub alerts: Alerts,
    /// `ping`: how links are judged.
    pub ping: Ping,
    /// `probe`: the clock of the probes, a key the seed did not have.
    pub probe: Probe,
    /// `dns`.
    pub dns: Dns,
    /// `hooks`: programs that run when a link's state changes, a section the seed did not have.
    pub hooks: Hooks,
    /// `localnets`: what a filter without `dst` does not match.
    pub localnets: Vec<Ipv4Net>,
    /// `email`; `None` where the section is absent: no mails.
    pub email: Option<Email>,
    /// Enabled WANs in steering order: by `orderFailover`, then those without one by mark.
    pub wans: Vec<Wan>,
}

/// `company`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Company {
    /// Name of the company.
    pub name: Option<String>,
    /// Department in charge.
    pub department: Option<String>,
    /// Its site.
    pub site: Option<String>,
}

/// `daemon`.
#[derive(Debug, Clone, PartialEq)]
pub struct Daemon {
    /// Period of the full audit, 10 to 60 s.
    pub run_interval: Duration,
    /// Where the states are written for monitoring.
    pub status_file: PathBuf,
    /// The Unix socket of `multiwans status` (new key).
    pub control_socket: PathBuf,
    /// `daemon.markMask`: the bits of the packet mark that are ours (new key, default 0xff).
    pub mark_mask: MarkMask,
    /// `daemon.logLevel`: how much is logged (new key, default info).
    pub log_level: LogLevel,
    /// `daemon.rulePriority`: first priority of our 100 `ip rule` priorities (new key, default 30000).
    pub rule_priority: u32,
}

/// `flows` (new section).
#[derive(Debug, Clone, PartialEq)]
pub struct Flows {
    /// Flows that the table holds, 1 024 to 4 194 304.
    pub max: u32,
}

/// `daemon.logLevel`, from the least to the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum LogLevel {
    /// A person must act.
    Error,
    /// Something is degraded.
    Warn,
    /// Changes of state.
    #[default]
    Info,
    /// Every packet's decision, every command.
    Debug,
}

/// `alerts`.
#[derive(Debug, Clone, PartialEq)]
pub struct Alerts {
    /// Mails sent at once when trouble begins, 2 to 10.
    pub max: u8,
    /// Pause before the next one, 5 to 720 minutes.
    pub interval: Duration,
}

/// `ping`.
#[derive(Debug, Clone, PartialEq)]
pub struct Ping {
    /// 1 or 2; see [`Probe`] for what it means here.
    pub count: u8,
    /// How long an answer may take, 1 to 5 s.
    pub timeout: Duration,
    /// Default targets; at least one is an address.
    pub targets: Vec<Target>,
}

/// `probe`. A round asks all targets of a WAN at once; it is good when one answers within
/// `ping.timeout`. `1 + ping.count` bad rounds in a row take a link down.
#[derive(Debug, Clone, PartialEq)]
pub struct Probe {
    /// Time between two rounds (`500ms`, `1s`), 100 ms to 60 s, default 1 s.
    pub interval: Duration,
}

/// One entry of `ping.targets` or `WANS[].ping`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// Probed as it is.
    Address(Ipv4Addr),
    /// A domain name: needs resolving first.
    Name(String),
}

/// `dns`.
#[derive(Debug, Clone, PartialEq)]
pub struct Dns {
    /// Tries per server, 1 to 5.
    pub retry: u8,
    /// 1 to 10 s.
    pub timeout: Duration,
    /// Default servers.
    pub servers: Vec<Ipv4Addr>,
}

/// `hooks`.
#[derive(Debug, Clone, PartialEq)]
pub struct Hooks {
    /// The folder of all hooks. Relative: to the folder of the configuration file, which only the one who
    /// reads the file knows.
    pub dir: PathBuf,
    /// How long one may run, 1 s to 1 h.
    pub timeout: Duration,
}

/// `email`.
#[derive(Debug, Clone, PartialEq)]
pub struct Email {
    /// Sender.
    pub from: String,
    /// Recipients.
    pub to: Vec<String>,
    /// SMTP server.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether and when the connection is encrypted (new key, its default follows the port).
    pub tls: MailTls,
    /// `email.caFile`: certificates to trust beside the system's (new key).
    pub ca_file: Option<PathBuf>,
    /// How to log in; `None`: not at all.
    pub login: Option<Login>,
}

/// `email.tls`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailTls {
    /// Never encrypted; the login too is sent in the clear.
    None,
    /// Encrypted where the server offers it, whoever it is; without a login or to the loopback only.
    Opportunistic,
    /// Encrypted by STARTTLS and the server's certificate valid, or no mail.
    Starttls,
    /// Encrypted from the first byte and the server's certificate valid, or no mail.
    Implicit,
}

/// `email.username` and where its password is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// `email.username`.
    pub user: String,
    /// Where its password is.
    pub password: PasswordSource,
}

/// Where the password of [`Login`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PasswordSource {
    /// `email.password`: in the configuration itself.
    Inline(Secret),
    /// `email.passwordFile` (new key).
    File(PathBuf),
    /// Neither key is given: the systemd credential `email-password`.
    Credential,
}

/// One enabled entry of `WANS`.
#[derive(Debug, Clone, PartialEq)]
pub struct Wan {
    /// Its name for people, unique.
    pub description: String,
    /// Free text.
    pub note: Option<String>,
    /// Its number: mark and table.
    pub mark: WanMark,
    /// The mark its packets carry: `mark` shifted into `daemon.markMask`.
    pub fwmark: FwMark,
    /// Place in the failover order from 1; `None`: never the default.
    pub order_failover: Option<u8>,
    /// Interface; `eth0:1` in the file is `eth0` here.
    pub iface: IfName,
    /// Its address.
    pub ip: Ipv4Addr,
    /// Its prefix length, 0 to 32.
    pub prefix_len: u8,
    /// Next hop of its default route.
    pub gateway: Ipv4Addr,
    /// DNS servers, its own or the global ones.
    pub dns: Vec<Ipv4Addr>,
    /// Probe targets, its own or the global ones.
    pub targets: Vec<Target>,
    /// Enabled filters in order. Also those of the WAN with order 1, which steer nothing.
    pub filters: Vec<Filter>,
}

/// One enabled entry of `filters`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Its name for people, unique over all WANs.
    pub description: String,
    /// Free text.
    pub note: Option<String>,
    /// Which traffic it looks at.
    pub chain: Chain,
    /// Protocol.
    pub protocol: Protocol,
    /// Sources; any where `src_files` is empty too.
    pub src: Vec<Ipv4Net>,
    /// `srcFiles`: more of them (new key).
    pub src_files: Vec<ListFile>,
    /// Destinations; anything but `localnets` where `dst_files` is empty too.
    pub dst: Vec<Ipv4Net>,
    /// `dstFiles`: more of them (new key).
    pub dst_files: Vec<ListFile>,
    /// Source ports; empty: any.
    pub sports: Vec<PortRange>,
    /// Destination ports; empty: any.
    pub dports: Vec<PortRange>,
}

impl Filter {
    /// The lists of its sources; `None`: any.
    pub fn sources(&self) -> Option<Vec<&[Ipv4Net]>> {
        lists(&self.src, &self.src_files)
    }

    /// The lists of its destinations; `None`: anything but `localnets`.
    pub fn destinations(&self) -> Option<Vec<&[Ipv4Net]>> {
        lists(&self.dst, &self.dst_files)
    }
}

fn lists<'a>(own: &'a [Ipv4Net], files: &'a [ListFile]) -> Option<Vec<&'a [Ipv4Net]>> {
    let named = !own.is_empty() || !files.is_empty();
    named.then(|| std::iter::once(own).chain(files.iter().map(|file| &*file.nets)).collect())
}

/// A list of prefixes in a file. Where filters name the same file, they share its prefixes.
#[derive(Debug, Clone, Eq)]
pub struct ListFile {
    /// The file, as the configuration names it. Relative: to the folder of the configuration file.
    pub path: PathBuf,
    /// What is in it; nothing before it was read.
    pub nets: Arc<[Ipv4Net]>,
}

impl PartialEq for ListFile {
    /// A list that thousands of filters share, and that did not change, is not compared a thousand times.
    fn eq(&self, other: &Self) -> bool {
        let Self { path, nets } = self;
        *path == other.path && (Arc::ptr_eq(nets, &other.nets) || *nets == other.nets)
    }
}

/// `chainMangle`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chain {
    /// Forwarded traffic.
    Prerouting,
    /// The router's own.
    Output,
}

/// `protocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Any protocol.
    All,
    /// TCP (6).
    Tcp,
    /// UDP (17).
    Udp,
    /// UDP-Lite (136).
    Udplite,
    /// SCTP (132).
    Sctp,
    /// ICMP (1).
    Icmp,
    /// GRE (47).
    Gre,
    /// ESP (50).
    Esp,
    /// AH (51).
    Ah,
}

impl Protocol {
    /// The IP protocol number; `None` for any.
    pub const fn number(self) -> Option<u8> {
        match self {
            Self::All => None,
            Self::Tcp => Some(6),
            Self::Udp => Some(17),
            Self::Udplite => Some(136),
            Self::Sctp => Some(132),
            Self::Icmp => Some(1),
            Self::Gre => Some(47),
            Self::Esp => Some(50),
            Self::Ah => Some(51),
        }
    }

    /// Whether its packets begin with a source and a destination port.
    pub const fn has_ports(self) -> bool {
        matches!(self, Self::Tcp | Self::Udp | Self::Udplite | Self::Sctp)
    }
}

/// Ports `first..=last`; a single port is a range of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    /// First port.
    pub first: u16,
    /// Last port, not below `first`.
    pub last: u16,
}

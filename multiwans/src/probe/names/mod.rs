//! Targets that are names: each WAN resolves them by its own servers and over itself, so that what is
//! probed is what that link's customers reach, and one link's DNS says nothing about another's.
//!
//! Resolving goes on whatever the link's state is: it may be what brings it back.

mod ask;
mod known;
mod message;

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_proto::rr::Name;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::Targets;
use crate::config::{Dns, Target, Wan};
use crate::engine::event::Binding;
use crate::types::WanMark;
use known::{Known, News};
use message::{Answer, Refusal};

/// Questions asked for one name: its own and those for aliases that an answer left open.
const QUESTIONS_MAX: usize = 8;

/// One WAN's targets: its addresses, and those of its names as far as they are known. What was resolved
/// stays known while there is nothing to resolve over. Dropping it ends all resolving.
#[derive(Debug)]
pub struct Names {
    board: Arc<Board>,
    server: Arc<Servers>,
    /// One task for each name, so that a slow one keeps no other waiting.
    tasks: JoinSet<()>,
}

/// Whom to ask, and how.
#[derive(Debug)]
struct Servers {
    wan: WanMark,
    /// `WAN1 (eth1)`.
    label: String,
    addresses: Vec<Ipv4Addr>,
    tries: u8,
    timeout: Duration,
}

/// Where the tasks put what they find.
#[derive(Debug)]
struct Board {
    fixed: Vec<Ipv4Addr>,
    /// Of each name in the configuration's order.
    known: Mutex<Vec<(Name, Known)>>,
    targets: watch::Sender<Targets>,
}

impl Names {
    /// Knows the addresses only; asks nobody yet.
    pub fn new(wan: &Wan, dns: &Dns) -> Self {
        Self::with(wan, dns, |_| Known::default())
    }

    /// By another configuration of the same WAN; of the names that it keeps stays known what is.
    #[must_use]
    pub fn configured(&self, wan: &Wan, dns: &Dns) -> Self {
        let known = self.board.with(|known| known.clone());
        Self::with(wan, dns, |name| {
            known.iter().find(|(other, _)| other == name).map(|(_, known)| known.clone()).unwrap_or_default()
        })
    }

    fn with(wan: &Wan, dns: &Dns, known_of: impl Fn(&Name) -> Known) -> Self {
        let (mut fixed, mut known) = (Vec::new(), Vec::<(Name, Known)>::new());
        for target in &wan.targets {
            match target {
                Target::Address(address) => fixed.push(*address),
                Target::Name(text) => match absolute(text) {
                    Some(name) if known.iter().any(|(other, _)| *other == name) => {}
                    Some(name) => {
                        let known_of = known_of(&name);
                        known.push((name, known_of));
                    }
                    // The configuration's rule for domains is the stricter one.
                    None => tracing::warn!(
                        wan = wan.mark.get(),
                        "{}: {text} cannot be asked for in DNS",
                        wan.description
                    ),
                },
            }
        }
        let targets = watch::Sender::new(targets(&fixed, &known));
        let server = Servers {
            wan: wan.mark,
            label: format!("{} ({})", wan.description, wan.iface),
            addresses: wan.dns.clone(),
            tries: dns.retry,
            timeout: dns.timeout,
        };
        Self {
            board: Arc::new(Board { fixed, known: Mutex::new(known), targets }),
            server: Arc::new(server),
            tasks: JoinSet::new(),
        }
    }

    /// All addresses to probe, now and whenever they change.
    pub fn targets(&self) -> watch::Receiver<Targets> {
        self.board.targets.subscribe()
    }

    /// Resolves over this binding from now on, each name at once; `None`: not at all.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with IO and time, where there are names.
    pub fn resolve_over(&mut self, binding: Option<&Binding>) {
        // Dropped and with it ended: what is on its way over another binding says nothing any more.
        self.tasks = JoinSet::new();
        let Some(binding) = binding else { return };
        let names: Vec<Name> = self.board.with(|known| known.iter().map(|(name, _)| name.clone()).collect());
        if self.board.targets.borrow().unresolved {
            let (board, patience) = (Arc::clone(&self.board), self.server.patience());
            self.tasks.spawn(async move {
                sleep(patience).await;
                board.give_up_waiting();
            });
        }
        for (place, name) in names.into_iter().enumerate() {
            let (board, server) = (Arc::clone(&self.board), Arc::clone(&self.server));
            self.tasks.spawn(keep_resolved(board, server, binding.clone(), place, name));
        }
    }
}

impl Board {
    fn with<T>(&self, act: impl FnOnce(&mut Vec<(Name, Known)>) -> T) -> T {
        // Nothing panics while it holds the lock.
        act(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes in what came of asking for the name at `place`; says what to tell, when to ask again, and which
    /// addresses are probed now.
    fn learn(
        &self,
        place: usize,
        result: Result<(Vec<Ipv4Addr>, Duration), String>,
        own: Ipv4Addr,
    ) -> Option<(Option<News>, Duration, Vec<Ipv4Addr>)> {
        self.with(|all| {
            let (_, known) = all.get_mut(place)?;
            let (news, next) = match result {
                Ok((addresses, ttl)) => known.found(addresses, ttl, own),
                Err(reason) => known.failed(reason),
            };
            let addresses = known.addresses().to_vec();
            self.publish(all);
            Some((news, next, addresses))
        })
    }

    /// From here on targets that are not known yet keep no round from being judged.
    fn give_up_waiting(&self) {
        self.with(|all| {
            all.iter_mut().for_each(|(_, known)| known.give_up_waiting());
            self.publish(all);
        });
    }

    fn publish(&self, all: &[(Name, Known)]) {
        let targets = targets(&self.fixed, all);
        self.targets.send_if_modified(|before| {
            let changed = *before != targets;
            *before = targets;
            changed
        });
    }
}

fn targets(fixed: &[Ipv4Addr], names: &[(Name, Known)]) -> Targets {
    let resolved = names.iter().flat_map(|(_, known)| known.addresses());
    Targets {
        addresses: fixed.iter().chain(resolved).copied().collect(),
        unresolved: names.iter().any(|(_, known)| known.is_awaited()),
    }
}

async fn keep_resolved(board: Arc<Board>, server: Arc<Servers>, binding: Binding, place: usize, name: Name) {
    loop {
        let result = server.resolve(&binding, &name).await;
        let Some((news, next, addresses)) = board.learn(place, result, binding.source) else { return };
        server.tell(&name, news, &addresses);
        sleep(next).await;
    }
}

impl Servers {
    /// How long a link's judgement waits for its names: until each server was asked as often as it may be.
    /// Aliases and TCP may take an attempt longer than that.
    fn patience(&self) -> Duration {
        let servers = u32::try_from(self.addresses.len()).unwrap_or(u32::MAX);
        self.timeout.saturating_mul(u32::from(self.tries)).saturating_mul(servers)
    }

    /// Asks one server after the other, each as often as it is silent and may be asked, until one gives
    /// addresses.
    async fn resolve(&self, binding: &Binding, name: &Name) -> Result<(Vec<Ipv4Addr>, Duration), String> {
        let mut reasons: Vec<String> = Vec::new();
        for server in &self.addresses {
            match self.resolve_by(*server, binding, name).await {
                Ok(found) => return Ok(found),
                Err(reason) => reasons.push(format!("{server}: {reason}")),
            }
        }
        Err(reasons.join("; "))
    }

    async fn resolve_by(
        &self,
        server: Ipv4Addr,
        binding: &Binding,
        name: &Name,
    ) -> Result<(Vec<Ipv4Addr>, Duration), String> {
        let mut name = name.clone();
        let mut ttl = Duration::MAX;
        for _ in 0..QUESTIONS_MAX {
            match self.ask(server, binding, &name).await? {
                Answer::Addresses(addresses, holds) => return Ok((addresses, ttl.min(holds))),
                Answer::Alias(target, holds) => {
                    name = target;
                    ttl = ttl.min(holds);
                }
                Answer::Refused(refusal) => return Err(refusal.to_string()),
                Answer::Truncated => return Err("the answer is truncated".to_owned()),
            }
        }
        Err(Refusal::Circle.to_string())
    }

    async fn ask(&self, server: Ipv4Addr, binding: &Binding, name: &Name) -> Result<Answer, String> {
        let mut reason = String::new();
        for _ in 0..self.tries {
            match ask::ask(server, binding, name, self.timeout).await {
                Ok(answer) => return Ok(answer),
                Err(silence) => reason = silence.to_string(),
            }
        }
        Err(reason)
    }

    fn tell(&self, name: &Name, news: Option<News>, addresses: &[Ipv4Addr]) {
        let (wan, label, name) = (self.wan.get(), &self.label, name.to_string());
        // As it stands in the configuration.
        let name = name.trim_end_matches('.');
        let listed = addresses.iter().map(Ipv4Addr::to_string).collect::<Vec<_>>().join(", ");
        match news {
            None => {}
            Some(News::Resolved) => tracing::info!("{label}: {name} is {listed}"),
            Some(News::Changed) => tracing::debug!("{label}: {name} is {listed} now"),
            Some(News::Failed(reason)) if addresses.is_empty() => {
                tracing::warn!(wan, "{label}: {name} cannot be resolved and is not probed: {reason}");
            }
            Some(News::Failed(reason)) => {
                let are = if addresses.len() == 1 { "is" } else { "are" };
                tracing::warn!(
                    wan,
                    "{label}: {name} cannot be resolved, {listed} {are} probed as before: {reason}"
                );
            }
            Some(News::FailedOtherwise(reason)) => {
                tracing::debug!("{label}: {name} still cannot be resolved: {reason}");
            }
        }
    }
}

/// The name from the root, whether or not it ends with a dot.
fn absolute(text: &str) -> Option<Name> {
    let mut name = Name::from_ascii(text).ok()?;
    name.set_fqdn(true);
    Some(name)
}

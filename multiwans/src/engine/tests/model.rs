//! The rules once more, as plainly as they can be put: a link's state from its whole history, everything
//! else from the links' states. Slow and obvious, to hold the engine against.

use std::collections::{BTreeMap, BTreeSet};

use super::world::{address, wan};
use crate::engine::*;
use crate::types::{IfName, LinkState, WanMark};

/// One WAN, `eth<mark>`, as the model sees it.
#[derive(Debug, Clone)]
struct ModelLink {
    mark: u8,
    order: Option<u8>,
    /// `g`: answered round, `s`: silent round, `F`: interface fault, `b`: new binding.
    history: String,
    state: LinkState,
    interface: Option<Interface>,
}

#[derive(Debug, Clone)]
pub(super) struct Model {
    links: Vec<ModelLink>,
    interfaces: Vec<Interface>,
    pub(super) default: Option<WanMark>,
}

impl ModelLink {
    /// The state, from the end of the history. Two silent rounds take a link down ([`super::world::config`]).
    fn push(&mut self, symbol: char) {
        self.history.push(symbol);
        if self.history.ends_with('F') || self.history.ends_with("ss") {
            self.state = LinkState::Off;
        } else if self.history.ends_with("ggg")
            || self.state == LinkState::Unknow && self.history.ends_with('g')
        {
            self.state = LinkState::On;
        }
    }

    fn is_fit(interface: Option<&Interface>, mark: u8) -> bool {
        interface.is_some_and(|i| i.up && i.carrier && i.addresses.contains(&(address(mark), 24)))
    }

    fn iface(&self) -> IfName {
        IfName::new(&format!("eth{}", self.mark)).unwrap()
    }

    fn mark(&self) -> WanMark {
        wan(self.mark)
    }

    /// What it is probed over.
    fn binding(&self) -> Option<Binding> {
        let interface = self.interface.as_ref().filter(|i| Self::is_fit(Some(i), self.mark))?;
        Some(Binding { index: interface.index, iface: self.iface(), source: address(self.mark) })
    }
}

impl Model {
    pub(super) fn new(orders: &[Option<u8>]) -> Self {
        let link = |(mark, order): (u8, &Option<u8>)| ModelLink {
            mark,
            order: *order,
            history: String::new(),
            state: LinkState::Unknow,
            interface: None,
        };
        Self { links: (1..).zip(orders).map(link).collect(), interfaces: Vec::new(), default: None }
    }

    /// A prober could not be started.
    pub(super) fn unprobed(&mut self, wan: WanMark) {
        if let Some(link) = self.links.iter_mut().find(|link| link.mark() == wan && link.binding().is_some())
        {
            link.push('s');
        }
    }

    pub(super) fn learn(&mut self, event: &Event) {
        match event {
            Event::Interfaces(interfaces) => {
                self.interfaces.clone_from(interfaces);
                for link in &mut self.links {
                    let now = interfaces.iter().find(|i| i.name == link.iface());
                    let was_fit = ModelLink::is_fit(link.interface.as_ref(), link.mark);
                    let same = link.interface.as_ref().map(|i| i.index) == now.map(|i| i.index);
                    if !ModelLink::is_fit(now, link.mark) {
                        link.push('F');
                    } else if !was_fit || !same {
                        link.push('b');
                    }
                    link.interface = now.cloned();
                }
            }
            Event::Round(round) => {
                let link = self.links.iter_mut().find(|link| link.mark() == round.wan).unwrap();
                if link.binding().as_ref() == Some(&round.binding) {
                    match round.outcome {
                        Outcome::Answered { .. } => link.push('g'),
                        Outcome::Unresolved { .. } if link.state == LinkState::Unknow => {}
                        Outcome::Silent { .. } | Outcome::Unresolved { .. } => link.push('s'),
                    }
                }
            }
            Event::Tick
            | Event::Done(_)
            | Event::Failed { .. }
            | Event::Disturbed(_)
            | Event::Repaired(_)
            | Event::Configured(_)
            | Event::Stop => {}
        }
        let mut ordered: Vec<&ModelLink> = self.links.iter().filter(|link| link.order.is_some()).collect();
        ordered.sort_by_key(|link| link.order);
        let on = ordered.iter().position(|link| link.state == LinkState::On);
        if let Some(on) = on {
            let waits = ordered[..on].iter().any(|link| link.state == LinkState::Unknow);
            if self.default.is_some() || !waits {
                self.default = Some(ordered[on].mark());
            }
        }
    }

    pub(super) fn is_on(&self, wan: WanMark) -> bool {
        self.links.iter().any(|link| link.mark() == wan && link.state == LinkState::On)
    }

    pub(super) fn binding(&self, wan: WanMark) -> Option<Binding> {
        self.links.iter().find(|link| link.mark() == wan)?.binding()
    }

    /// Whether a link that could be the default is ON.
    pub(super) fn has_candidate(&self) -> bool {
        self.links.iter().any(|link| link.order.is_some() && link.state == LinkState::On)
    }

    pub(super) fn steering(&self) -> Steering {
        let usable =
            self.links.iter().filter(|link| link.state == LinkState::On || self.default == Some(link.mark()));
        Steering {
            default: self.default,
            usable: usable.filter_map(|link| Some((link.mark(), link.interface.as_ref()?.index))).collect(),
        }
    }

    pub(super) fn routes(&self) -> Routes {
        let up = |link: &ModelLink| {
            let holds = |i: &&Interface| i.up && i.addresses.iter().any(|(ip, _)| *ip == address(link.mark));
            link.interface.as_ref().filter(holds).map(|i| i.index)
        };
        Routes {
            present: self.links.iter().filter_map(|link| Some((link.mark(), up(link)?))).collect(),
            default: self.default,
            steered: BTreeSet::new(),
        }
    }

    pub(super) fn roles(&self) -> BTreeMap<crate::types::IfIndex, Role> {
        let mut roles = BTreeMap::new();
        for interface in &self.interfaces {
            let wan = self.links.iter().find(|link| link.iface() == interface.name);
            roles.insert(interface.index, wan.map_or(Role::Inside, |link| Role::Wan(link.mark())));
        }
        roles
    }

    pub(super) fn states(&self) -> Vec<(IfName, LinkState)> {
        self.links.iter().map(|link| (link.iface(), link.state)).collect()
    }
}

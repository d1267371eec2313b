//! Where a value hangs in the tree, as people write it: `WANS[1].filters[0].dports[2]`.

use std::fmt;

/// The key's path. Links to its parent instead of owning text: a path is built for every value, but
/// only printed for a wrong one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Path<'p> {
    parent: Option<&'p Path<'p>>,
    step: Step<'p>,
}

#[derive(Debug, Clone, Copy)]
enum Step<'p> {
    Root,
    Key(&'p str),
    Index(usize),
    /// An index whose entry people know by a name: `WAN "WAN2"`.
    Named(usize, &'static str, Option<&'p str>),
}

impl<'p> Path<'p> {
    /// The whole file.
    pub(super) const ROOT: Path<'static> = Path { parent: None, step: Step::Root };

    /// `self.key`.
    pub(super) fn key(&'p self, key: &'p str) -> Path<'p> {
        Path { parent: Some(self), step: Step::Key(key) }
    }

    /// `self[index]`.
    pub(super) fn index(&'p self, index: usize) -> Path<'p> {
        Path { parent: Some(self), step: Step::Index(index) }
    }

    /// The same path, its last index known as `kind "name"` from here on.
    pub(super) fn named(self, kind: &'static str, name: Option<&'p str>) -> Path<'p> {
        match self.step {
            Step::Index(index) => Path { step: Step::Named(index, kind, name), ..self },
            _ => self,
        }
    }

    /// Whether it is the whole file.
    pub(super) fn is_root(&self) -> bool {
        matches!(self.step, Step::Root)
    }

    /// Who the value belongs to, outermost first: ` [WAN "WAN2", filter "HTTP"]`; empty for nobody.
    pub(super) fn owners(&self) -> String {
        let mut owners = Vec::new();
        let mut path = Some(self);
        while let Some(here) = path {
            if let Step::Named(_, kind, Some(name)) = here.step {
                owners.push(format!("{kind} \"{}\"", super::problem::Shown(name)));
            }
            path = here.parent;
        }
        owners.reverse();
        if owners.is_empty() { String::new() } else { format!(" [{}]", owners.join(", ")) }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.step {
            Step::Root => Ok(()),
            Step::Key(key) => {
                let dot = if self.parent.is_none_or(Path::is_root) { "" } else { "." };
                write!(f, "{dot}{}", super::problem::Shown(key))
            }
            Step::Index(index) | Step::Named(index, ..) => write!(f, "[{index}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_reads_as_people_write_it() {
        let root = Path::ROOT;
        let wans = root.key("WANS");
        let wan = wans.index(1).named("WAN", Some("WAN2"));
        let filters = wan.key("filters");
        let filter = filters.index(0).named("filter", Some("HTTP"));
        let dports = filter.key("dports");
        let port = dports.index(2);
        assert_eq!(port.to_string(), "WANS[1].filters[0].dports[2]");
        assert_eq!(port.owners(), " [WAN \"WAN2\", filter \"HTTP\"]");
        assert_eq!(wans.owners(), "");
    }
}

//! Values of the model spelt as in the file.

use std::fmt::{self, Write as _};

use ipnet::Ipv4Net;

use super::model::{Chain, Filter, ListFile, LogLevel, PortRange, Protocol};

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Prerouting => "PREROUTING",
            Self::Output => "OUTPUT",
        })
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        })
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::All => "all",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Udplite => "udplite",
            Self::Sctp => "sctp",
            Self::Icmp => "icmp",
            Self::Gre => "gre",
            Self::Esp => "esp",
            Self::Ah => "ah",
        })
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { self.first.fmt(f) } else { write!(f, "{}:{}", self.first, self.last) }
    }
}

impl Filter {
    /// What it selects, for people: `tcp from 10.0.0.0/8 to anything but localnets dports 80,443`.
    pub fn selects(&self) -> String {
        let mut text = self.protocol.to_string();
        let mut say = |word: &str, values: String| {
            if !values.is_empty() {
                // Writing to a String cannot fail.
                let _ = write!(text, " {word} {values}");
            }
        };
        say("from", nets(&self.src, &self.src_files));
        let to = nets(&self.dst, &self.dst_files);
        say("to", if to.is_empty() { "anything but localnets".to_owned() } else { to });
        say("sports", listed(&self.sports));
        say("dports", listed(&self.dports));
        text
    }
}

fn nets(own: &[Ipv4Net], files: &[ListFile]) -> String {
    let own = listed(own);
    let files = files.iter().map(|file| format!("{} ({})", file.path.display(), file.nets.len()));
    Some(own).filter(|own| !own.is_empty()).into_iter().chain(files).collect::<Vec<_>>().join(",")
}

/// The first few values and how many more there are: a filter may hold thousands.
fn listed<T: ToString>(values: &[T]) -> String {
    const SHOWN: usize = 8;
    let mut text = values.iter().take(SHOWN).map(T::to_string).collect::<Vec<_>>().join(",");
    if values.len() > SHOWN {
        // Writing to a String cannot fail.
        let _ = write!(text, ",… ({} in all)", values.len());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::listed;

    #[test]
    fn a_long_list_is_cut() {
        assert_eq!(listed(&[1, 2]), "1,2");
        assert_eq!(listed(&[0; 9]), "0,0,0,0,0,0,0,0,… (9 in all)");
    }
}

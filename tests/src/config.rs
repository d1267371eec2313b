//! The daemon's configuration for a lab.

use crate::Lab;
use crate::topology::{INTERNET, INTERNET_OTHERS, gateway, wan_iface, wan_ip};
use std::collections::BTreeMap;
use std::fmt;

/// The seed's list without the documentation networks, which are the lab's internet.
const LOCALNETS: [&str; 6] =
    ["127.0.0.0/8", "10.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16", "224.0.0.0/4"];

/// A configuration with every WAN of a lab: described `WAN<k>`, mark `k`, failover order `k`.
#[derive(Debug, Clone)]
pub struct Config {
    wans: u8,
    status_file: String,
    probe_interval: String,
    localnets: Vec<String>,
    filters: BTreeMap<u8, Vec<String>>,
    wan_keys: BTreeMap<u8, Vec<String>>,
    extra: String,
}

impl Config {
    /// One that probes quickly, for a lab.
    #[must_use]
    pub fn of(lab: &Lab) -> Self {
        Self {
            wans: lab.wans(),
            // In the daemon's view, where `/run` is the lab's.
            status_file: "/run/status".to_owned(),
            // Quick enough that a test is over in seconds, slow enough for two busy cores.
            probe_interval: "200ms".to_owned(),
            localnets: LOCALNETS.map(str::to_owned).to_vec(),
            filters: BTreeMap::new(),
            wan_keys: BTreeMap::new(),
            extra: String::new(),
        }
    }

    /// For a daemon that runs in the machine's own view of the file system.
    #[must_use]
    pub fn status_file(mut self, path: &str) -> Self {
        path.clone_into(&mut self.status_file);
        self
    }

    /// The time between probes, as the configuration spells it.
    #[must_use]
    pub fn probe_interval(mut self, interval: &str) -> Self {
        interval.clone_into(&mut self.probe_interval);
        self
    }

    /// Other local networks than the usual ones.
    #[must_use]
    pub fn localnets(mut self, networks: Vec<String>) -> Self {
        self.localnets = networks;
        self
    }

    /// Adds a network to the local ones.
    #[must_use]
    pub fn localnet(mut self, network: &str) -> Self {
        self.localnets.push(network.to_owned());
        self
    }

    /// Adds a filter to a WAN, after those it has. `body` holds every key but the description, as a YAML
    /// flow mapping's inside: `protocol: tcp, dports: [80]`. Forwarded traffic unless it says otherwise.
    #[must_use]
    pub fn filter(mut self, k: u8, description: &str, body: &str) -> Self {
        let chain = if body.contains("chainMangle") { "" } else { "chainMangle: PREROUTING, " };
        let filter = format!("{{description: {description}, {chain}{body}}}");
        self.filters.entry(k).or_default().push(filter);
        self
    }

    /// Adds a key to a WAN: `ping: [1.1.1.1]`.
    #[must_use]
    pub fn wan_key(mut self, k: u8, yaml: &str) -> Self {
        self.wan_keys.entry(k).or_default().push(yaml.to_owned());
        self
    }

    /// Adds lines of YAML at the top level.
    #[must_use]
    pub fn extra(mut self, yaml: &str) -> Self {
        self.extra.push_str(yaml);
        self.extra.push('\n');
        self
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "daemon: {{runInterval: 10, statusFile: {}}}", self.status_file)?;
        writeln!(f, "probe: {{interval: {}}}", self.probe_interval)?;
        writeln!(f, "ping: {{count: 1, timeout: 1, targets: [{INTERNET}, {}]}}", INTERNET_OTHERS[1])?;
        writeln!(f, "localnets: [{}]", self.localnets.join(", "))?;
        write!(f, "{}", self.extra)?;
        writeln!(f, "WANS:")?;
        for k in 1..=self.wans {
            writeln!(f, "  - description: WAN{k}")?;
            writeln!(f, "    mark: {k}")?;
            writeln!(f, "    orderFailover: {k}")?;
            writeln!(f, "    iface: {}", wan_iface(k))?;
            writeln!(f, "    ip: {}", wan_ip(k))?;
            writeln!(f, "    mask: 24")?;
            writeln!(f, "    gateway: {}", gateway(k))?;
            for key in self.wan_keys.get(&k).into_iter().flatten() {
                writeln!(f, "    {key}")?;
            }
            if let Some(filters) = self.filters.get(&k) {
                writeln!(f, "    filters:")?;
                for filter in filters {
                    writeln!(f, "      - {filter}")?;
                }
            }
        }
        Ok(())
    }
}

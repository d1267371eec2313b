//! A router between a LAN and several ISPs, in namespaces that have no link to the machine's network.

use crate::netns::{self, NETNS_DIR, Namespace};
use crate::router_files::{self, RouterFiles};
use crate::setup;
use crate::topology::{Ns, wan_iface};
use anyhow::{Context, Result, bail};
use std::fs;
use std::io::Write;
use std::net::Ipv4Addr;
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// All of a lab's namespaces begin with this.
const PREFIX: &str = "mw";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SecondLan {
    None,
    Connected,
    Later,
}

/// What a lab is to have.
#[derive(Debug, Clone)]
pub struct LabBuilder {
    wans: u8,
    second_lan: SecondLan,
    rp_filter: u8,
    name: Option<String>,
}

impl LabBuilder {
    /// How many ISPs; 2 unless told, at most 200.
    #[must_use]
    pub fn wans(mut self, wans: u8) -> Self {
        self.wans = wans;
        self
    }

    /// Adds a second LAN with one host.
    #[must_use]
    pub fn second_lan(mut self) -> Self {
        self.second_lan = SecondLan::Connected;
        self
    }

    /// Adds a second LAN that [`Lab::connect_second_lan`] is to connect.
    #[must_use]
    pub fn second_lan_later(mut self) -> Self {
        self.second_lan = SecondLan::Later;
        self
    }

    /// The router's reverse path filter on every interface: 0 off, 1 strict (unless told), 2 loose.
    #[must_use]
    pub fn rp_filter(mut self, mode: u8) -> Self {
        self.rp_filter = mode;
        self
    }

    /// A name of the user's choice instead of one that is unique to this process.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// Builds it: every link up, the router forwarding and masquerading, its default route by WAN 1.
    ///
    /// # Errors
    /// Without root, without the tools, or when the name is taken; nothing stays behind then.
    pub fn build(self) -> Result<Lab> {
        if !(1..=200).contains(&self.wans) {
            bail!("wans ({}) must be 1 to 200", self.wans);
        }
        remove_dead_labs();
        let name = match self.name {
            Some(name) => name_of_user(&name)?,
            None => name_of_process(),
        };
        let mut places = vec![Ns::Client, Ns::Router, Ns::Internet];
        places.extend((1..=self.wans).map(Ns::Isp));
        places.extend((self.second_lan != SecondLan::None).then_some(Ns::Lan2));

        let mut lab = Lab { name, wans: self.wans, places: Vec::new(), files: OnceLock::new() };
        for place in places {
            lab.create_place(place)?;
        }
        setup::build(&lab, self.rp_filter, self.second_lan == SecondLan::Connected)
            .with_context(|| format!("cannot build the lab {}", lab.name))?;
        Ok(lab)
    }
}

/// A running lab. Dropping it removes everything in it.
#[derive(Debug)]
pub struct Lab {
    name: String,
    wans: u8,
    places: Vec<(Ns, Namespace)>,
    files: OnceLock<RouterFiles>,
}

impl Lab {
    /// A lab of two ISPs and one LAN, unless told more.
    #[must_use]
    pub fn builder() -> LabBuilder {
        LabBuilder { wans: 2, second_lan: SecondLan::None, rp_filter: 1, name: None }
    }

    /// Opens the lab that was built under this name and kept. Dropping it leaves it in place.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(name: &str) -> Result<Self> {
        let mut lab = Self { name: name_of_user(name)?, wans: 0, places: Vec::new(), files: OnceLock::new() };
        for place in [Ns::Client, Ns::Router, Ns::Internet] {
            let namespace = Namespace::open(&lab.namespace_name(place))
                .with_context(|| format!("no lab is up under the name {name}"))?;
            lab.places.push((place, namespace));
        }
        if let Ok(namespace) = Namespace::open(&lab.namespace_name(Ns::Lan2)) {
            lab.places.push((Ns::Lan2, namespace));
        }
        while let Ok(namespace) = Namespace::open(&lab.namespace_name(Ns::Isp(lab.wans + 1))) {
            lab.wans += 1;
            lab.places.push((Ns::Isp(lab.wans), namespace));
        }
        Ok(lab)
    }

    /// Leaves the lab in place when this value is dropped.
    pub fn keep(&mut self) {
        self.places.iter_mut().for_each(|(_, namespace)| namespace.keep());
    }

    /// Removes the namespaces of the lab of this name, complete or not; says how many there were.
    ///
    /// # Errors
    /// When one cannot be removed.
    pub fn remove(name: &str) -> Result<usize> {
        let start = format!("{}-", name_of_user(name)?);
        let found: Vec<String> = namespaces().filter(|namespace| namespace.starts_with(&start)).collect();
        for namespace in &found {
            netns::remove(namespace).with_context(|| format!("cannot remove {namespace}"))?;
        }
        Ok(found.len())
    }

    /// What the names of the lab's namespaces begin with.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many ISPs there are.
    #[must_use]
    pub fn wans(&self) -> u8 {
        self.wans
    }

    /// The lab's places, with their namespaces.
    pub fn places(&self) -> impl Iterator<Item = (Ns, &Namespace)> {
        self.places.iter().map(|(place, namespace)| (*place, namespace))
    }

    /// The namespace of a place.
    ///
    /// # Panics
    /// When the lab was built without it.
    #[must_use]
    pub fn namespace(&self, place: Ns) -> &Namespace {
        self.places()
            .find_map(|(candidate, namespace)| (candidate == place).then_some(namespace))
            .unwrap_or_else(|| panic!("the lab has no {place}"))
    }

    /// The directories that stand in for the machine's own where a daemon of this lab writes.
    ///
    /// # Panics
    /// When they cannot be made.
    pub fn router_files(&self) -> &RouterFiles {
        self.files.get_or_init(|| {
            RouterFiles::create(&self.name)
                .unwrap_or_else(|error| panic!("no files for {}: {error:#}", self.name))
        })
    }

    /// Runs a closure on a thread in a place.
    ///
    /// # Panics
    /// When the closure does.
    pub fn in_ns<T: Send>(&self, place: Ns, action: impl FnOnce() -> T + Send) -> T {
        self.namespace(place).run(action)
    }

    /// Runs a command line (words separated by spaces, no quoting) in a place and gives what it printed.
    ///
    /// # Errors
    /// When it fails, with what it printed as an error.
    pub fn sh(&self, place: Ns, line: &str) -> Result<String> {
        self.feed(place, line, "")
    }

    /// The same, with a text on its standard input.
    ///
    /// # Errors
    /// When it fails, with what it printed as an error.
    pub fn feed(&self, place: Ns, line: &str, input: &str) -> Result<String> {
        let mut words = line.split_whitespace();
        let program = words.next().context("an empty command line")?;
        let mut command = self.namespace(place).command(program);
        let output = output_of(command.args(words), input)
            .with_context(|| format!("cannot run `{line}` in {place}"))?;
        if !output.status.success() {
            bail!(
                "`{line}` in {place}: {}: {}",
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Writes a file below `/proc/sys/net` as a place sees it.
    ///
    /// # Errors
    /// When there is no such setting.
    pub fn sysctl(&self, place: Ns, key: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/net/{key}");
        self.in_ns(place, || fs::write(&path, value))
            .with_context(|| format!("cannot set {path} to {value} in {place}"))
    }

    /// Makes the router's firewall forward a TCP port of a WAN to a host in the LAN.
    ///
    /// # Errors
    /// When the firewall refuses.
    pub fn forward_port(&self, k: u8, port: u16, host: Ipv4Addr, host_port: u16) -> Result<()> {
        let iface = wan_iface(k);
        let rule = format!(
            "iptables -t nat -A PREROUTING -i {iface} -p tcp --dport {port} -j DNAT --to {host}:{host_port}"
        );
        self.sh(Ns::Router, &rule).map(drop)
    }

    fn create_place(&mut self, place: Ns) -> Result<()> {
        let namespace = Namespace::create(&self.namespace_name(place))?;
        self.places.push((place, namespace));
        Ok(())
    }

    fn namespace_name(&self, place: Ns) -> String {
        format!("{}-{place}", self.name)
    }
}

fn output_of(command: &mut Command, input: &str) -> Result<Output> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(input.as_bytes()) {
            // It failed before it had read everything; its own message says more.
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => return Err(error.into()),
            _ => {}
        }
    }
    Ok(child.wait_with_output()?)
}

/// Unique among this machine's processes and the threads of this one: `mw4711x0`.
fn name_of_process() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{PREFIX}{}x{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Kept apart from a process' by its underscore: `mw_office`.
fn name_of_user(name: &str) -> Result<String> {
    let good = !name.is_empty() && name.len() <= 32 && name.bytes().all(|b| b.is_ascii_alphanumeric());
    if !good {
        bail!("name ({name:?}) must be 1 to 32 letters and digits");
    }
    Ok(format!("{PREFIX}_{name}"))
}

fn namespaces() -> impl Iterator<Item = String> {
    let entries = fs::read_dir(NETNS_DIR).ok().into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok())
}

/// Removes the labs of processes that were killed before they could.
fn remove_dead_labs() {
    for namespace in namespaces() {
        if let Some(pid) = owner(&namespace)
            && !fs::exists(format!("/proc/{pid}")).unwrap_or(true)
        {
            // Another process may be doing the same; what is left is left for the next.
            netns::remove(&namespace).ok();
            if let Some((lab, _)) = namespace.split_once('-') {
                router_files::remove(lab);
            }
        }
    }
}

/// The process that made this namespace, if a lab's process did.
fn owner(namespace: &str) -> Option<u32> {
    let (pid, rest) = namespace.strip_prefix(PREFIX)?.split_once('x')?;
    let (count, place) = rest.split_once('-')?;
    let is_ours = !place.is_empty() && count.parse::<u32>().is_ok();
    if is_ours { pid.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_process_lab_has_an_owner() {
        assert_eq!(owner("mw4711x0-rtr"), Some(4711));
        assert_eq!(owner("mw4711x12-isp3"), Some(4711));
        assert_eq!(owner("mw_4711x0-rtr"), None);
        assert_eq!(owner("mw4711-rtr"), None);
        assert_eq!(owner("office"), None);
        assert_eq!(owner("mwx0-rtr"), None);
    }

    #[test]
    fn names_that_ip_would_trip_over_are_refused() {
        for name in ["", "a b", "../x", "a-b", &"a".repeat(33)] {
            assert!(name_of_user(name).is_err(), "{name}");
        }
        assert_eq!(name_of_user("office").unwrap(), "mw_office");
    }
}

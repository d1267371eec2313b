//! A router for each data plane: a lab of its own, alike in everything but what steers.

use crate::frame::{Cable, Mac, append};
use crate::frame::{Datagram, FRAME_LEN};
use crate::generator::{Burst, Generator, Way};
use crate::oracle_plane::{self, Oracle};
use crate::policy::{DEFAULT_WAN, LIST_WAN, PORT_WAN, Policy, WANS, text};
use crate::sink::{Expect, Sink};
use crate::{nft_plane, seed_plane};
use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use multiwans_tests::netns::Namespace;
use multiwans_tests::status::State;
use multiwans_tests::topology::{CLIENT, gateway, wan_iface, wan_ip};
use multiwans_tests::wait::wait_until;
use multiwans_tests::{Config, Daemon, Lab, Ns};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The lab's local networks, as its configuration has them.
pub(crate) const LOCALNETS: [&str; 6] =
    ["127.0.0.0/8", "10.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16", "224.0.0.0/4"];

/// How long packets that were sent may take to be received: they are there when the call returns, unless the
/// kernel put them off to its own thread.
const DRAIN_TIME: Duration = Duration::from_millis(500);

/// How long flows are sent for the first time; enough for all of them but on the slowest router.
const ESTABLISH_TIME: Duration = Duration::from_secs(2);
/// How long their answers may take: every packet is, in the slowest router, as slow as the first.
const ANSWER_TIME: Duration = Duration::from_secs(20);

/// What steers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Plane {
    /// Nothing: forwarding and masquerade
    Nothing,
    /// The Bash tool's iptables, ipset and connection marks
    Seed,
    /// Nftables maps and connection marks
    Nft,
    /// A program that finds the WAN in the packet, and this project's rules
    Oracle,
    /// This project
    Multiwans,
}

impl Plane {
    pub(crate) const ALL: [Self; 5] = [Self::Nothing, Self::Seed, Self::Nft, Self::Oracle, Self::Multiwans];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Seed => "seed",
            Self::Nft => "nft",
            Self::Oracle => "oracle",
            Self::Multiwans => "multiwans",
        }
    }
}

/// A router without a policy yet.
pub(crate) struct Site {
    pub(crate) plane: Plane,
    pub(crate) lab: Lab,
    sinks: Vec<Sink>,
    _lan_sink: Sink,
    inward: Cable,
}

impl Site {
    /// Builds the lab: three WANs, masquerade by legacy iptables, no filter of reverse paths.
    pub(crate) fn build(plane: Plane) -> Result<Self> {
        let lab = Lab::builder().wans(WANS).rp_filter(0).build()?;
        // The lab's own rules are nftables' under iptables' name; all planes get the seed's way of translating.
        lab.sh(Ns::Router, "nft flush ruleset")?;
        let mut rules = "*nat\n".to_owned();
        let mut neighbours = String::new();
        for k in 1..=WANS {
            writeln!(rules, "-A POSTROUTING -o {} -j MASQUERADE", wan_iface(k))?;
            let mac = mac(lab.namespace(Ns::Isp(k)), "cust")?.map(|byte| format!("{byte:02x}")).join(":");
            writeln!(
                neighbours,
                "neigh replace {} lladdr {mac} dev {} nud permanent",
                gateway(k),
                wan_iface(k)
            )?;
        }
        rules.push_str("COMMIT\n");
        lab.feed(Ns::Router, "iptables-legacy-restore", &rules)?;
        lab.feed(Ns::Router, "ip -batch -", &neighbours)?;
        // Flows that are known stay so for the time of the measurement.
        for key in ["nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream"] {
            lab.sysctl(Ns::Router, &format!("netfilter/{key}"), "600")?;
        }
        let sinks = (1..=WANS)
            .map(|k| Sink::attach(lab.namespace(Ns::Isp(k)), "cust", Expect::Wan(k)))
            .collect::<Result<_>>()?;
        let lan_sink = Sink::attach(lab.namespace(Ns::Client), "eth0", Expect::Any)?;
        let inward = Cable {
            from: mac(lab.namespace(Ns::Client), "eth0")?,
            to: mac(lab.namespace(Ns::Router), "eth0")?,
        };
        Ok(Self { plane, lab, sinks, _lan_sink: lan_sink, inward })
    }

    /// Puts a policy in force.
    pub(crate) fn install(&self, policy: &Policy) -> Result<Router<'_>> {
        let mut router = Router { site: self, daemon: None, oracle: None };
        let done = match self.plane {
            Plane::Nothing => Ok(()),
            Plane::Seed => seed_plane::install(&self.lab, policy),
            Plane::Nft => nft_plane::install(&self.lab, policy),
            Plane::Oracle => oracle_plane::install(&self.lab).map(|oracle| router.oracle = Some(oracle)),
            Plane::Multiwans => start_daemon(&self.lab, policy).map(|daemon| router.daemon = Some(daemon)),
        };
        done.with_context(|| format!("cannot put the policy in force by {}", self.plane.as_str()))?;
        Ok(router)
    }

    /// The LAN's cable, towards the router.
    pub(crate) fn inward(&self) -> Cable {
        self.inward
    }

    /// Packets of ours that left, and those of them that left by the wrong WAN.
    fn received(&self) -> (u64, u64) {
        let wrong = self.sinks.iter().map(Sink::wrong).sum();
        (self.sinks.iter().map(Sink::right).sum::<u64>() + wrong, wrong)
    }

    /// Forgets every connection of the router.
    pub(crate) fn forget_connections(&self) -> Result<()> {
        self.lab.sh(Ns::Router, "conntrack -F").map(drop)
    }

    /// How many connections the router knows.
    pub(crate) fn connections(&self) -> Result<usize> {
        let count = self.lab.sh(Ns::Router, "conntrack -C")?;
        count.trim().parse().with_context(|| format!("conntrack -C says {count}"))
    }
}

/// A router with a policy in force. It is taken off when this value is dropped.
pub(crate) struct Router<'a> {
    pub(crate) site: &'a Site,
    pub(crate) daemon: Option<Daemon<'a>>,
    oracle: Option<Oracle>,
}

/// What became of a burst.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Passed {
    pub(crate) sent: usize,
    pub(crate) received: u64,
    pub(crate) time: Duration,
}

impl Passed {
    pub(crate) fn per_second(&self) -> f64 {
        self.received as f64 / self.time.as_secs_f64()
    }
}

impl Router<'_> {
    /// A generator of these packets from the LAN to this router.
    pub(crate) fn generator(&self, way: Way, packets: &[Datagram]) -> Result<Generator> {
        let mut frames = Vec::with_capacity(packets.len() * FRAME_LEN);
        for packet in packets {
            append(&mut frames, self.site.inward, packet, self.expected(packet));
        }
        Generator::new(way, self.sending_place(way), "eth0", frames)
    }

    /// Both ends of the LAN's cable have the same name.
    fn sending_place(&self, way: Way) -> &Namespace {
        self.site.lab.namespace(match way {
            Way::Lan => Ns::Client,
            Way::Driver => Ns::Router,
        })
    }

    fn expected(&self, packet: &Datagram) -> u8 {
        if self.site.plane == Plane::Nothing { DEFAULT_WAN } else { packet.wan }
    }

    /// Sends, and counts what leaves the router.
    ///
    /// # Errors
    /// When a packet left by another WAN than its filters say, or more were lost than may happen: such a figure is
    /// void. (A known flow that takes another WAN is lost: masquerading drops its packet and forgets it.)
    pub(crate) fn pass(
        &self,
        generator: &mut Generator,
        way: Way,
        cpu: usize,
        most: usize,
        time: Duration,
    ) -> Result<Passed> {
        let (before, wrong_before) = self.site.received();
        let burst = generator.send(self.sending_place(way), cpu, most, time)?;
        self.drain(before + burst.sent as u64);
        let (after, wrong) = self.site.received();
        if wrong != wrong_before {
            bail!(
                "{} packets of {} left by the wrong WAN with {}",
                wrong - wrong_before,
                burst.sent,
                self.site.plane.as_str()
            );
        }
        let received = after - before;
        let lost = (burst.sent as u64).saturating_sub(received);
        if lost > burst.sent as u64 / 1000 {
            bail!("{lost} of {} packets were lost with {}", burst.sent, self.site.plane.as_str());
        }
        Ok(Passed { sent: burst.sent, received, time: burst.time })
    }

    /// The same with a sink at the router's own door: what the generator takes without a router.
    pub(crate) fn pass_nothing(
        &self,
        generator: &mut Generator,
        way: Way,
        cpu: usize,
        most: usize,
        time: Duration,
    ) -> Result<Burst> {
        let router = self.site.lab.namespace(Ns::Router);
        let sink = Sink::attach(router, "eth0", Expect::Any)?;
        let burst = generator.send(self.sending_place(way), cpu, most, time)?;
        if sink.right() < burst.sent as u64 / 2 {
            bail!("only {} of {} packets reached the router", sink.right(), burst.sent);
        }
        Ok(burst)
    }

    fn drain(&self, expected: u64) {
        // What is missing then is lost; the caller sees it in the count.
        wait_until("the last packets", DRAIN_TIME, || self.site.received().0 >= expected).ok();
    }

    /// Makes flows known: their packets go out, and answers come back over their WANs. Gives how many it were, from
    /// the first on: a slow router gets fewer, for this is to take seconds.
    pub(crate) fn establish(&self, flows: &[Datagram], cpu: usize) -> Result<usize> {
        let lab = &self.site.lab;
        self.site.forget_connections()?;
        let mut out = self.generator(Way::Lan, flows)?;
        let passed = self.pass(&mut out, Way::Lan, cpu, flows.len(), ESTABLISH_TIME)?;
        let flows = &flows[..passed.sent];
        for k in 1..=WANS {
            let isp = lab.namespace(Ns::Isp(k));
            let cable = Cable { from: mac(isp, "cust")?, to: mac(lab.namespace(Ns::Router), &wan_iface(k))? };
            let mut frames = Vec::new();
            for flow in flows.iter().filter(|flow| self.expected(flow) == k) {
                append(&mut frames, cable, &answer(flow, k), k);
            }
            let count = frames.len() / FRAME_LEN;
            if count > 0 {
                Generator::new(Way::Lan, isp, "cust", frames)?.send(isp, cpu, count, ANSWER_TIME)?;
            }
        }
        let answered = || lab.sh(Ns::Router, "conntrack -L --status SEEN_REPLY -o save");
        wait_until("the answers of all flows", ANSWER_TIME, || {
            answered().is_ok_and(|list| list.matches("-p udp").count() >= flows.len())
        })?;
        Ok(flows.len())
    }

    /// Takes the policy off, so that the next one can come.
    pub(crate) fn remove(mut self) -> Result<()> {
        let lab = &self.site.lab;
        self.site.forget_connections()?;
        match self.site.plane {
            Plane::Nothing => Ok(()),
            Plane::Seed => seed_plane::remove(lab),
            Plane::Nft => nft_plane::remove(lab),
            Plane::Oracle => {
                self.oracle = None;
                oracle_plane::remove(lab)
            }
            Plane::Multiwans => self.daemon.take().map_or(Ok(()), |mut daemon| daemon.terminate()),
        }
    }
}

/// What answers a flow at its WAN: masquerading kept the port, for no two flows have the same.
fn answer(flow: &Datagram, k: u8) -> Datagram {
    Datagram {
        source: flow.destination,
        source_port: flow.destination_port,
        destination: wan_ip(k),
        destination_port: flow.source_port,
        wan: flow.wan,
    }
}

/// The same behind the router, after its destination was translated back.
pub(crate) fn answer_inside(flow: &Datagram) -> Datagram {
    Datagram {
        source: flow.destination,
        source_port: flow.destination_port,
        destination: flow.source,
        destination_port: flow.source_port,
        wan: flow.wan,
    }
}

fn start_daemon<'a>(lab: &'a Lab, policy: &Policy) -> Result<Daemon<'a>> {
    // At `debug` the programs would report every packet.
    let config = configuration(lab, policy, &lab.router_files().run())?;
    let daemon = Daemon::start_at(lab, &config, "info")?;
    daemon.wait_status("all links in service", Duration::from_secs(30), |status| {
        status.wans.iter().all(|wan| wan.state == State::On)
    })?;
    Ok(daemon)
}

/// The policy as the daemon's configuration, and its lists as files in `lists` beside where the configuration will be.
pub(crate) fn configuration(lab: &Lab, policy: &Policy, folder: &Path) -> Result<Config> {
    let lists = folder.join("lists");
    fs::create_dir_all(&lists).with_context(|| format!("cannot create {}", lists.display()))?;
    let mut config = Config::of(lab).probe_interval("2s");
    for (number, port) in policy.ports.iter().enumerate() {
        let body = format!("protocol: udp, dports: [{port}]");
        config = config.filter(PORT_WAN, &format!("port {number}"), &body);
    }
    for (number, list) in policy.lists.iter().enumerate() {
        let mut lines = String::new();
        for net in list {
            writeln!(lines, "{}", text(*net))?;
        }
        let file = lists.join(number.to_string());
        fs::write(&file, lines).with_context(|| format!("cannot write {}", file.display()))?;
        let body = format!("protocol: all, dstFiles: [lists/{number}]");
        config = config.filter(LIST_WAN, &format!("list {number}"), &body);
    }
    Ok(config)
}

/// The same as files in a folder, with more lines of YAML, for the library; gives the configuration's path.
pub(crate) fn configuration_file(lab: &Lab, policy: &Policy, folder: &Path, extra: &str) -> Result<PathBuf> {
    let config = configuration(lab, policy, folder)?.extra(extra);
    let path = folder.join("config.yaml");
    fs::write(&path, config.to_string()).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// The link-layer address of an interface.
pub(crate) fn mac(place: &Namespace, iface: &str) -> Result<Mac> {
    let found = place.run(|| -> nix::Result<Option<Mac>> {
        let mut addresses = nix::ifaddrs::getifaddrs()?.filter(|address| address.interface_name == iface);
        Ok(addresses.find_map(|address| address.address?.as_link_addr()?.addr()))
    })?;
    found.with_context(|| format!("no {iface} in {}", place.name()))
}

/// The host that flows to be established belong to.
pub(crate) const FLOW_HOST: std::net::Ipv4Addr = CLIENT;

//! What the demo does to its network, in order, and what it measures.

use super::table;
use super::timeline::{Timeline, Voice};
use super::traffic::{Class, FORWARDED_PORT, INTERNET_PORTS, SERVER_PORT, Traffic, shown};
use anyhow::{Result, ensure};
use multiwans_tests::status::{State, Status};
use multiwans_tests::topology::{CLIENT, wan_ip};
use multiwans_tests::wait::{stays_true, wait_for, wait_until};
use multiwans_tests::{Config, Daemon, Lab, Ns, Residue};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long every state of the network is shown.
const SCENE: Duration = Duration::from_secs(2);
/// Past this the demo has failed.
const DEADLINE: Duration = Duration::from_secs(20);
/// Between two looks at the daemon's status.
const STATUS_INTERVAL: Duration = Duration::from_millis(100);

/// What is measured and seen in one scene.
struct Scene {
    title: &'static str,
    /// From what was done to the first default flow by the expected link.
    took: Option<Duration>,
    seen: [Option<Ipv4Addr>; Class::ALL.len()],
}

/// Builds the lab, tells the story in it, and checks that nothing is left.
pub(super) fn tell() -> Result<()> {
    let timeline = Timeline::start();
    timeline.say(Voice::Act, "building the lab: LAN client, router, two ISPs, an internet host");
    let lab = Lab::builder().build()?;
    lab.forward_port(2, FORWARDED_PORT, CLIENT, SERVER_PORT)?;
    let _internet = lab.serve_internet(&INTERNET_PORTS)?;
    let _server = lab.observe_tcp(Ns::Client, SERVER_PORT)?;
    let before = Residue::take(&lab)?;

    timeline.say(Voice::Act, "starting multiwans: WAN1 is the default, WAN2 its standby, mail goes by WAN2");
    let config = Config::of(&lab).filter(2, "mail", "protocol: tcp, dports: [25]");
    let mut daemon = Daemon::start(&lab, &config)?;

    let traffic = Traffic::new();
    let told = AtomicBool::new(false);
    let scenes = thread::scope(|scope| {
        for class in Class::ALL {
            let (traffic, lab, timeline) = (&traffic, &lab, &timeline);
            scope.spawn(move || traffic.run(class, lab, timeline));
        }
        scope.spawn(|| report_status(&daemon, &told, &timeline));
        let scenes = play(&lab, &traffic, &timeline);
        // Whether it went well or not: the threads are to end.
        traffic.stop();
        told.store(true, Ordering::Relaxed);
        scenes
    })?;

    timeline.say(Voice::Act, "SIGTERM: multiwans stops");
    daemon.terminate()?;
    let after = Residue::take(&lab)?.without_default_route();
    before.without_default_route().check_same(&after)?;
    ensure!(lab.default_gateway()? == Some(1), "the default route is not by WAN1 after the stop");
    timeline.say(Voice::Result, "rules, routes, packet programs, rp_filter: all as before the start");
    drop(daemon);
    drop(lab);

    print_results(&scenes, traffic.flows());
    Ok(())
}

fn play(lab: &Lab, traffic: &Traffic, timeline: &Timeline) -> Result<Vec<Scene>> {
    let stage = Stage { traffic, timeline };
    let mut scenes =
        vec![stage.scene("all well", "traffic: four kinds, ten new flows a second each", 1, || Ok(()))?];
    scenes[0].took = None;
    let act = "ISP 1 swallows every packet; its carrier stays up, its gateway answers";
    scenes.push(stage.scene("ISP 1 swallows", act, 2, || lab.blackhole(1))?);
    scenes.push(stage.scene("ISP 1 healed", "ISP 1 forwards again", 1, || lab.heal(1))?);
    scenes.push(stage.scene("cable 1 pulled", "the cable of WAN1 is pulled", 2, || lab.pull_cable(1))?);
    scenes.push(stage.scene("cable put back", "the cable is put back", 1, || lab.plug_cable(1))?);
    Ok(scenes)
}

struct Stage<'a> {
    traffic: &'a Traffic,
    timeline: &'a Timeline,
}

impl Stage<'_> {
    /// Does something to the network, waits until default traffic takes the expected WAN, and looks
    /// around once everything is calm.
    fn scene(
        &self,
        title: &'static str,
        act: &str,
        wan: u8,
        action: impl FnOnce() -> Result<()>,
    ) -> Result<Scene> {
        let expected = wan_ip(wan);
        self.timeline.say(Voice::Act, act);
        let start = Instant::now();
        action()?;
        let arrived = wait_for(&format!("{title}: a flow by WAN{wan}"), DEADLINE, || {
            self.traffic.seen_with(Class::Web, expected)
        })?;
        let took = arrived.saturating_duration_since(start);
        if title != "all well" {
            let text = format!("{:.3} s from that to the first new flow by WAN{wan}", took.as_secs_f64());
            self.timeline.say(Voice::Result, &text);
        }
        wait_until(&format!("{title}: traffic of every kind"), DEADLINE, || self.is_calm(expected))?;
        stays_true(&format!("{title}: traffic of every kind"), SCENE, || self.is_calm(expected))?;
        Ok(Scene { title, took: Some(took), seen: Class::ALL.map(|class| self.traffic.seen(class)) })
    }

    /// True when default traffic takes this WAN's address and the rest takes WAN2's, which never fails.
    fn is_calm(&self, default: Ipv4Addr) -> bool {
        let expected = |class| match class {
            Class::Web | Class::Dns => default,
            Class::Mail | Class::Inbound => wan_ip(2),
        };
        Class::ALL.into_iter().all(|class| self.traffic.seen(class) == Some(expected(class)))
    }
}

/// Says what changes in the daemon's status until the story is told.
fn report_status(daemon: &Daemon<'_>, told: &AtomicBool, timeline: &Timeline) {
    let mut last: Option<Status> = None;
    while !told.load(Ordering::Relaxed) {
        // A status that cannot be had now is had a moment later; the traffic shows a daemon that is gone.
        if let Ok(status) = daemon.status() {
            for change in changes(last.as_ref(), &status) {
                timeline.say(Voice::Daemon, &change);
            }
            last = Some(status);
        }
        thread::sleep(STATUS_INTERVAL);
    }
}

fn changes(old: Option<&Status>, new: &Status) -> Vec<String> {
    let mut changes = Vec::new();
    for (at, wan) in new.wans.iter().enumerate() {
        let before = old.and_then(|old| old.wans.get(at)).map(|wan| wan.state);
        if before == Some(wan.state) {
            continue;
        }
        let reason = if wan.reason.is_empty() { String::new() } else { format!(": {}", wan.reason) };
        changes.push(match wan.state {
            State::On => format!("{} ({}) is ON{reason}", wan.description, wan.iface),
            State::Off => format!("{} ({}) is OFF{reason}", wan.description, wan.iface),
            State::Unknown => format!("{} ({}) is not decided yet", wan.description, wan.iface),
        });
    }
    if old.is_none_or(|old| old.default != new.default) {
        let default = new.default.as_deref().unwrap_or("none: every link is down");
        changes.push(format!("the default is {default}"));
    }
    changes
}

fn print_results(scenes: &[Scene], flows: u32) {
    let mut rows = vec![vec!["which address the internet saw of new flows".to_owned()]];
    rows[0].extend(scenes.iter().map(|scene| scene.title.to_owned()));
    for (at, class) in Class::ALL.into_iter().enumerate() {
        let mut row = vec![class.name().to_owned()];
        row.extend(scenes.iter().map(|scene| scene.seen[at].map_or_else(|| "no answer".to_owned(), shown)));
        rows.push(row);
    }
    let mut took = vec!["seconds until default traffic flowed there".to_owned()];
    took.extend(scenes.iter().map(|scene| scene.took.map_or_else(String::new, seconds)));
    rows.push(took);
    println!("\n{}\n", table::render(&rows));
    println!("{flows} flows were opened. The lab is gone; nothing is left behind.");
}

fn seconds(duration: Duration) -> String {
    format!("{:.3}", duration.as_secs_f64())
}

//! `cargo xtask lab`: the tests' lab to play in by hand.

use crate::command::find_program;
use crate::{setup, workspace};
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use multiwans_tests::topology::{CLIENT, INTERNET, INTERNET_OTHERS, ROUTER};
use multiwans_tests::{Config, Lab, Ns};
use std::env;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

/// What the internet host answers on, over TCP and UDP.
const SERVED_PORTS: [u16; 6] = [25, 53, 80, 443, 5060, 8080];

#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Build a LAN client, a router, ISPs and an internet host; they stay until `down`
    Up {
        /// How many ISPs
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=200))]
        wans: u8,
        #[command(flatten)]
        name: Name,
    },
    /// Remove it all
    Down(Name),
    /// Open a shell in one of its places
    Shell {
        /// Where
        #[arg(value_enum, default_value_t = Place::Router)]
        place: Place,
        /// Which ISP, for `shell isp`
        #[arg(long, default_value_t = 1)]
        isp: u8,
        #[command(flatten)]
        name: Name,
    },
    /// Answer on the internet host until killed; `up` starts this
    #[command(hide = true)]
    Serve(Name),
}

#[derive(Debug, Args)]
pub(crate) struct Name {
    /// Which lab, where there are several
    #[arg(long, default_value = "dev")]
    name: String,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Place {
    Client,
    Router,
    Isp,
    Internet,
}

pub(crate) fn run(task: &Task) -> Result<()> {
    setup::require_root("the lab is made of network namespaces")?;
    setup::ensure_lab_tools()?;
    match task {
        Task::Up { wans, name } => up(*wans, &name.name),
        Task::Down(name) => down(&name.name),
        Task::Shell { place, isp, name } => shell(*place, *isp, &name.name),
        Task::Serve(name) => serve(&name.name),
    }
}

fn up(wans: u8, name: &str) -> Result<()> {
    let mut lab = Lab::builder().wans(wans).name(name).build()?;
    let files = files_of(name);
    fs::create_dir_all(&files).with_context(|| format!("cannot create {}", files.display()))?;
    let config = files.join("config.yaml");
    fs::write(&config, example(&lab, name).to_string())
        .with_context(|| format!("cannot write {}", config.display()))?;
    start_server(name)?;
    lab.keep();
    explain(&lab, name);
    Ok(())
}

fn example(lab: &Lab, name: &str) -> Config {
    let status_file = files_of(name).join("status");
    let config = Config::of(lab).status_file(&status_file.display().to_string());
    if lab.wans() < 2 { config } else { config.filter(2, "mail", "protocol: tcp, dports: [25]") }
}

fn explain(lab: &Lab, name: &str) {
    let files = files_of(name);
    let router = lab.namespace(Ns::Router);
    let option = if name == "dev" { String::new() } else { format!(" --name {name}") };
    println!("The lab {name} is up:\n");
    println!("  client {CLIENT} -- {ROUTER} router -- {} ISPs -- internet {INTERNET}\n", lab.wans());
    println!("Namespaces (`ip -n NAME …`):");
    for (_, namespace) in lab.places() {
        println!("  {}", namespace.name());
    }
    println!(
        "\nRun the daemon in the router (cargo xtask build makes it; its /run and /etc/iproute2 are this machine's):"
    );
    println!(
        "  nsenter --net={} {} run -c {} --socket {}",
        router.path().display(),
        workspace::target().join("debug/multiwans").display(),
        files.join("config.yaml").display(),
        files.join("control.sock").display(),
    );
    println!("See which address the internet host sees of the client's flows (TCP or UDP {SERVED_PORTS:?}):");
    let client = lab.namespace(Ns::Client).path();
    println!(
        "  nsenter --net={} bash -c 'head -n1 </dev/tcp/{INTERNET}/80; head -n1 </dev/tcp/{}/25'",
        client.display(),
        INTERNET_OTHERS[1]
    );
    println!("Break ISP 1 with the carrier up, and mend it:");
    let isp = lab.namespace(Ns::Isp(1)).path();
    println!("  nsenter --net={} sysctl -w net.ipv4.ip_forward=0   # 1 mends it", isp.display());
    println!("Pull its cable, and put it back:");
    println!("  ip -n {} link set cust down   # up puts it back", lab.namespace(Ns::Isp(1)).name());
    println!("A shell in the router, and the end of it all:");
    println!("  cargo xtask lab shell{option}\n  cargo xtask lab down{option}");
}

fn down(name: &str) -> Result<()> {
    stop_server(name)?;
    let removed = Lab::remove(name)?;
    let files = files_of(name);
    if files.exists() {
        fs::remove_dir_all(&files).with_context(|| format!("cannot remove {}", files.display()))?;
    }
    if removed == 0 {
        bail!("no lab is up under the name {name}");
    }
    println!("The lab {name} is gone ({removed} namespaces).");
    Ok(())
}

fn shell(place: Place, isp: u8, name: &str) -> Result<()> {
    let lab = Lab::open(name)?;
    let place = match place {
        Place::Client => Ns::Client,
        Place::Router => Ns::Router,
        Place::Isp if (1..=lab.wans()).contains(&isp) => Ns::Isp(isp),
        Place::Isp => bail!("isp ({isp}) must be 1 to {}", lab.wans()),
        Place::Internet => Ns::Internet,
    };
    let namespace = lab.namespace(place);
    eprintln!("a shell in {}; `exit` leaves it", namespace.name());
    let shell = env::var_os("SHELL").map(PathBuf::from).filter(|shell| shell.is_file());
    let shell = shell.or_else(|| find_program("bash")).unwrap_or_else(|| "/bin/sh".into());
    Err(namespace.command(shell).exec()).context("cannot run a shell")
}

/// Runs until `down` kills it.
fn serve(name: &str) -> Result<()> {
    let lab = Lab::open(name)?;
    let _servers = lab.serve_internet(&SERVED_PORTS)?;
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}

fn start_server(name: &str) -> Result<()> {
    let mut command = Command::new(env::current_exe()?);
    command.args(["lab", "serve", "--name", name]).stdin(Stdio::null()).stdout(Stdio::null());
    // A group of its own: a Ctrl-C in the terminal that built the lab does not end it.
    let child = command.stderr(Stdio::null()).process_group(0).spawn().context("cannot run the servers")?;
    fs::write(pid_file(name), child.id().to_string()).context("cannot write the servers' pid file")
}

fn stop_server(name: &str) -> Result<()> {
    let Ok(pid) = fs::read_to_string(pid_file(name)) else { return Ok(()) };
    // The number may be another process' by now.
    let command_line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    if command_line.ends_with(&format!("\0lab\0serve\0--name\0{name}\0")) {
        let status = Command::new("kill").arg(&pid).status().context("cannot run kill")?;
        if !status.success() {
            bail!("cannot stop the lab's servers, process {pid}");
        }
    }
    Ok(())
}

fn pid_file(name: &str) -> PathBuf {
    files_of(name).join("servers.pid")
}

fn files_of(name: &str) -> PathBuf {
    workspace::target().join("lab").join(name)
}

//! The daemon: what must hold before it starts, and the loop that drives the engine.
//!
//! ```text
//!  net::Monitor ─┐
//!  probers      ─┤ Event                Command          ┌─> data path
//!  signals      ─┼───────> driver+Engine ───────> executor ─> routes, rules, conntrack
//!  control      ─┤ <───────                              └─> probers, status file
//!  results      ─┘
//! ```

mod bring_up;
mod clock;
mod datapath_status;
mod decisions;
mod driver;
mod executor;
pub mod lock;
mod mail;
mod reload;
pub mod requirements;
mod sessions;
mod specific;
mod supervisor;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use crate::config::Config;
use crate::control::Server;
use crate::datapath::{Attachment, Datapath, FlowThread, LoadOptions};
use crate::engine::Engine;
use crate::engine::alerts::Entry;
use crate::net::conntrack::Conntrack;
use crate::net::{Kernel, Monitor, SpecificRoutes};
use crate::policy::Policies;
use clock::Clock;
use driver::{Driver, Signals};
use executor::{Executor, Undone};
use mail::Mail;
use reload::Reloads;
pub use reload::Source;
use supervisor::Supervisor;

/// Rounds that may wait for the loop. A round waits for a millisecond or so; with every WAN probed ten
/// times a second this is seconds of them.
const ROUNDS_WAITING: usize = 1024;
/// Control requests that may wait; the server has no more connections than that.
const CALLS_WAITING: usize = 16;

/// How to run.
#[derive(Debug)]
pub struct Options {
    /// Log what the programs decide for each packet.
    pub log_decisions: bool,
    /// Errors and warnings that mails are to tell, beside what the engine notices.
    pub for_mail: mpsc::Receiver<Entry>,
}

/// Runs the daemon until it is asked to stop. `source` is where `config` came from, for a reload.
///
/// # Errors
///
/// What keeps it from starting (nothing was changed then), or what could not be undone at the stop.
pub fn run(config: Config, options: Options, source: Arc<dyn Source>) -> anyhow::Result<()> {
    if !Datapath::is_built_in() {
        bail!("{}", crate::datapath::DatapathError::NoObject);
    }
    let unmet = requirements::unmet();
    if !unmet.is_empty() {
        let texts: Vec<String> = unmet.iter().map(ToString::to_string).collect();
        bail!("{}", texts.join("; "));
    }
    let _lock = lock::InstanceLock::acquire()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the runtime cannot be started")?;
    let result = LocalSet::new().block_on(&runtime, serve(config, options, source));
    // A hook's folder on a file server that hangs keeps a thread waiting, which must not keep the process.
    runtime.shutdown_background();
    result
}

async fn serve(config: Config, options: Options, source: Arc<dyn Source>) -> anyhow::Result<()> {
    let clock = Clock::start();
    // Before anything is changed: from here on a signal means a clean stop.
    let signals = Signals::listen().context("signals cannot be received")?;
    let mail = Mail::start(&config, options.for_mail, clock.now())?;
    let policies = Policies::new(&config)?;
    let load = LoadOptions { log_decisions: options.log_decisions, attachment: None };
    tracing::info!("multiwans {} starts: {} WANs", env!("CARGO_PKG_VERSION"), config.wans.len());
    let mut datapath = Datapath::load(&config, &policies, load)?;
    let server = Server::bind(&config.daemon.control_socket)?;
    let monitor = Monitor::open().context("the kernel's network cannot be watched")?;
    let kernel = Kernel::new(&config).context("the kernel's network cannot be changed")?;
    let conntrack = Conntrack::open()
        .inspect_err(|error| tracing::warn!("sessions cannot be moved at a failover: {error}"))
        .ok();
    if let Some(map) = datapath.take_specific()? {
        let routes = SpecificRoutes::open(&config).context("the kernel's routes cannot be watched")?;
        tokio::task::spawn_local(specific::follow(routes, map));
    }
    announce(datapath.attachment());
    let keeper = datapath.flow_keeper()?;
    tracing::info!("the flow table holds {} flows in {} KiB", keeper.max(), keeper.bytes() / 1024);
    let flows = FlowThread::start(keeper)?;
    if options.log_decisions {
        decisions::follow(datapath.decisions()?)?;
    }

    let config = Arc::new(config);
    let (rounds_tx, rounds) = mpsc::channel(ROUNDS_WAITING);
    let (calls_tx, calls) = mpsc::channel(CALLS_WAITING);
    let (orders, orders_rx) = mpsc::unbounded_channel();
    let (results_tx, results) = mpsc::unbounded_channel();
    let control = tokio::task::spawn_local(server.serve(calls_tx));
    let executor = Executor::new(Arc::clone(&config), datapath, flows, kernel, conntrack, rounds_tx);
    let executor = tokio::task::spawn_local(executor.run(orders_rx, results_tx));
    let driver = Driver {
        engine: Engine::new(&config),
        clock,
        monitor,
        signals,
        rounds,
        calls,
        results,
        orders,
        names: Rc::new(BTreeMap::new()),
        mail,
        reloads: Reloads::new(source, config),
        supervisor: Supervisor::from_env(),
    };

    let (result, mail, status) = driver.run().await;
    let Undone { failures, default_route } = executor.await.context("the executor ended before its time")?;
    control.abort();
    // Dropped here, and with it the socket's path.
    let _ = control.await;
    for failure in &failures {
        tracing::error!("left behind: {failure}");
    }
    mail.stop(clock.now(), status).await;
    result.context("the kernel does not tell of its network any more")?;
    if !failures.is_empty() {
        bail!("stopped, but {} could not be undone", counted(failures.len()));
    }
    match default_route {
        None => tracing::info!("stopped; nothing of multiwans is left in the kernel"),
        Some(route) => tracing::info!("stopped; of multiwans only the default route is left: {route}"),
    }
    Ok(())
}

fn counted(things: usize) -> String {
    if things == 1 { "one thing".to_owned() } else { format!("{things} things") }
}

fn announce(attachment: Attachment) {
    let how = match attachment {
        Attachment::Tcx => "TCX links",
        Attachment::Clsact => "clsact filters, for this kernel has no TCX",
    };
    tracing::info!("programs are loaded and go to their interfaces as {how}");
}

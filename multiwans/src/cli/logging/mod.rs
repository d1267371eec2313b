//! Where log lines go.
//!
//! * Under systemd: to the journal, in its own protocol, and nowhere else.
//! * Otherwise: to stderr, readable on a terminal, as syslog writes them elsewhere. Where stderr is no place
//!   that anybody reads live or collects (a file, `/dev/null`: a daemon of an init script), to the local
//!   syslog as well, under the facility `daemon`, as the Bash tool did with `logger`.
//!
//! Errors and warnings are handed to whoever writes mails as well. Nobody who logs waits: see `queue`.

mod datagram;
mod lines;
mod queue;
mod record;

use std::env;
use std::fs::{File, Metadata};
use std::io::{self, IsTerminal as _, stderr};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layered};
use tracing_subscriber::prelude::*;
use tracing_subscriber::registry::Registry;
use tracing_subscriber::reload;

use crate::config::LogLevel;
use crate::engine::alerts::Entry;
use datagram::{Datagrams, JOURNAL, SYSLOG};
use lines::{Lines, Style};
use queue::Queue;
use record::Record;

/// What lines are found by, in the journal and in syslog.
const IDENTIFIER: &str = "multiwans";
/// `LOG_DAEMON` (RFC 5424, 6.2.1).
const FACILITY_DAEMON: u8 = 3;

/// For lines on their way at the end of the process. What takes them works, or it hangs.
const FLUSH_TIME: Duration = Duration::from_secs(1);

/// Lines for mails that may wait for the daemon's loop: a mail tells no more than 200.
const FOR_MAIL_WAITING: usize = 256;

/// Keeps logging; dropped last of all, so that what was logged is written.
#[derive(Debug)]
pub(super) struct Logging {
    queues: Arc<[Queue]>,
    filter: Filter,
}

impl Logging {
    /// What sets how much is logged.
    pub(super) fn filter(&self) -> Filter {
        self.filter.clone()
    }
}

/// How much is logged, to be changed while logging goes on.
#[derive(Debug, Clone)]
pub(super) struct Filter(reload::Handle<Targets, Layered<Front, Registry>>);

impl Filter {
    /// Logs this much from now on.
    pub(super) fn set(&self, level: LogLevel) {
        // It fails where the subscriber is gone, which outlives everything.
        let _ = self.0.reload(targets(level));
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        let until = Instant::now() + FLUSH_TIME;
        self.queues.iter().for_each(|queue| queue.flush(until));
    }
}

/// Starts logging. Beside it, what mails are to tell.
///
/// # Errors
/// The system gives no thread.
pub(super) fn init(level: LogLevel) -> io::Result<(Logging, mpsc::Receiver<Entry>)> {
    let queues: Arc<[Queue]> = outputs()?.into();
    let (for_mail, mail) = mpsc::channel(FOR_MAIL_WAITING);
    let front = Front { queues: Arc::clone(&queues), for_mail };
    let (filter, handle) = reload::Layer::new(targets(level));
    tracing_subscriber::registry().with(front).with(filter).init();
    Ok((Logging { queues, filter: Filter(handle) }, mail))
}

/// At `debug` only our own modules and programs tell more; libraries stay at warnings.
fn targets(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    };
    // The prefix covers `multiwans_ebpf`, whose lines come through the programs' log.
    Targets::new().with_default(level.min(LevelFilter::WARN)).with_target("multiwans", level)
}

/// Takes what is logged, and hands it on.
#[derive(Debug)]
struct Front {
    queues: Arc<[Queue]>,
    for_mail: mpsc::Sender<Entry>,
}

impl<S: Subscriber> Layer<S> for Front {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let record = Arc::new(Record::of(event));
        if let Some(entry) = record.for_mail() {
            // Without mails nobody takes it, and a mail holds fewer than may wait.
            let _ = self.for_mail.try_send(entry);
        }
        for queue in self.queues.iter() {
            queue.push(Arc::clone(&record));
        }
    }
}

fn outputs() -> io::Result<Vec<Queue>> {
    // Not `stderr()` itself: its lock would be held by whoever hangs in a write.
    let Ok(stderr_file) = stderr().as_fd().try_clone_to_owned().map(File::from) else {
        // It is closed.
        return Datagrams::connect(SYSLOG).into_iter().map(syslog).collect();
    };
    let stderr_is = stderr_file.metadata().ok();
    if is_journal(stderr_is.as_ref())
        && let Ok(journal) = Datagrams::connect(JOURNAL)
    {
        return Ok(vec![Queue::start(Lines::new(Style::Journal), journal)?]);
    }
    let is_terminal = stderr().is_terminal();
    let style = if is_terminal { Style::Terminal } else { Style::File };
    let mut outputs = vec![Queue::start(Lines::new(style), stderr_file)?];
    // A pipe or socket has a collector at its other end, and each line would reach it twice.
    let is_collected =
        stderr_is.is_some_and(|stderr| stderr.file_type().is_fifo() || stderr.file_type().is_socket());
    if !is_terminal
        && !is_collected
        && let Ok(socket) = Datagrams::connect(SYSLOG)
    {
        outputs.push(syslog(socket)?);
    }
    Ok(outputs)
}

fn syslog(socket: Datagrams) -> io::Result<Queue> {
    Queue::start(Lines::new(Style::Syslog), socket)
}

/// systemd tells by device and inode which of our outputs leads to the journal: an inherited variable alone
/// does not mean that this one does.
fn is_journal(stderr: Option<&Metadata>) -> bool {
    let named = env::var("JOURNAL_STREAM").ok();
    stderr.zip(named).is_some_and(|(stderr, named)| named == format!("{}:{}", stderr.dev(), stderr.ino()))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::engine::Level;
    use crate::types::WanMark;

    #[test]
    fn errors_and_warnings_of_ours_are_for_mails_but_what_mails_have_anyway() {
        let (for_mail, mut mail) = mpsc::channel(FOR_MAIL_WAITING);
        let front = Front { queues: Vec::new().into(), for_mail };
        tracing::subscriber::with_default(tracing_subscriber::registry().with(front), || {
            tracing::error!(target: "multiwans::notify::hooks", wan = 7u64, times = 3, "failed\nbadly");
            tracing::warn!(target: "multiwans::net", "odd");
            tracing::info!(target: "multiwans::net", "fine");
            tracing::error!(target: "multiwans::engine", "a notice");
            tracing::error!(target: "multiwans::notify::email::post", "no mail can be sent");
            tracing::error!(target: "hickory_proto", "a library's");
        });
        let told: Vec<_> = std::iter::from_fn(|| mail.try_recv().ok())
            .map(|entry| (entry.level, entry.wan.map(WanMark::get), entry.text))
            .collect();
        let expected =
            [(Level::Error, Some(7), "failed badly times=3".into()), (Level::Warn, None, "odd".into())];
        assert_eq!(told, expected);
    }

    /// An output that takes its time.
    struct Slow(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Slow {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            std::thread::sleep(Duration::from_millis(50));
            self.0.lock().unwrap().write(line)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_end_of_logging_waits_for_what_was_logged() {
        let written = Arc::default();
        let queue = Queue::start(Lines::new(Style::File), Slow(Arc::clone(&written))).unwrap();
        queue.push(Arc::new(Record::missing(1)));
        let filter = Filter(reload::Layer::new(targets(LogLevel::Info)).1);
        drop(Logging { queues: vec![queue].into(), filter });
        assert!(!written.lock().unwrap().is_empty());
    }
}

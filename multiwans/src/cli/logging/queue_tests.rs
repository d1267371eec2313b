//! Outputs that nobody reads.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use super::super::datagram::Datagrams;
use super::super::lines::Style;
use super::*;

/// More than queue, batch and any pipe or socket hold together.
const MANY: usize = 20_000;

/// What one call may take at most, on a machine that does other things too. Waiting for the other side would
/// take for ever.
const AT_ONCE: Duration = Duration::from_secs(5);

fn record(text: impl Into<String>) -> Arc<Record> {
    Arc::new(Record { text: text.into(), ..Record::missing(0) })
}

fn push_many(queue: &Queue) {
    let started = Instant::now();
    (0..MANY).for_each(|n| queue.push(record(format!("line {n}"))));
    assert!(started.elapsed() < AT_ONCE, "{:?}", started.elapsed());
}

/// Checks what the reader got in the end: each line in order, gaps that say how large they are, and what
/// came after them.
fn check(texts: impl Iterator<Item = String>) {
    let mut next = 0;
    let mut gaps = 0;
    for text in texts {
        if let Some((_, missing)) = text.split_once("WARN: ").filter(|(_, rest)| rest.contains("missing")) {
            let missing: usize = missing.split(' ').next().unwrap().parse().unwrap();
            assert!(missing > 0, "{text}");
            gaps += 1;
            next += missing;
        } else if text.ends_with("the last") {
            assert!(gaps > 0, "nothing was missing");
            assert_eq!(next, MANY);
            return;
        } else {
            assert!(text.ends_with(&format!("line {next}")), "{text} instead of line {next}");
            next += 1;
        }
    }
    panic!("no last line after {next}");
}

#[test]
fn a_pipe_nobody_empties_keeps_nobody_waiting_and_what_is_missing_is_told() {
    let (reader, writer) = io::pipe().unwrap();
    let queue =
        Queue::start(Lines::new(Style::File), File::from(std::os::fd::OwnedFd::from(writer))).unwrap();
    push_many(&queue);
    let started = Instant::now();
    queue.flush(started + Duration::from_millis(100));
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(100) && took < AT_ONCE, "it does not hang: {took:?}");

    let read = thread::spawn(move || check(BufReader::new(reader).lines().map(Result::unwrap)));
    // Room again, and everything before is out.
    queue.flush(Instant::now() + AT_ONCE);
    queue.push(record("the last"));
    read.join().unwrap();
}

#[test]
fn a_journal_that_hangs_keeps_nobody_waiting_and_what_is_missing_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let journal = UnixDatagram::bind(&path).unwrap();
    let queue = Queue::start(Lines::new(Style::File), Datagrams::connect(&path).unwrap()).unwrap();
    push_many(&queue);

    let read = thread::spawn(move || {
        let mut buffer = [0; 512];
        check(std::iter::from_fn(move || {
            let length = journal.recv(&mut buffer).ok()?;
            Some(String::from_utf8_lossy(&buffer[..length]).trim_end().to_owned())
        }));
    });
    queue.flush(Instant::now() + AT_ONCE);
    queue.push(record("the last"));
    read.join().unwrap();
}

#[test]
fn a_flush_leaves_nothing_behind() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let queue = Queue::start(Lines::new(Style::File), file.reopen().unwrap()).unwrap();
    for n in 0..1_000 {
        queue.push(record(format!("line {n}")));
    }
    queue.flush(Instant::now() + AT_ONCE);
    assert_eq!(std::fs::read_to_string(file.path()).unwrap().lines().count(), 1_000);
}

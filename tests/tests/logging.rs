//! Logs that nobody takes in: they may not hold up what they tell of.

use anyhow::Result;
use multiwans_tests::topology::{CLIENT, INTERNET, wan_ip};
use multiwans_tests::wait::wait_until;
use multiwans_tests::{Config, Daemon, Lab, Ns, raw};
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The kernel tells of a pulled cable at once.
const CABLE_NOTICED: Duration = Duration::from_secs(2);
const RETURN_NOTICED: Duration = Duration::from_secs(15);

/// Fails over and back while nothing of the log is taken in.
fn check_failover(lab: &Lab, daemon: &mut Daemon<'_>) -> Result<()> {
    daemon.wait_ready()?;
    let client = lab.client(Ns::Client);
    for _ in 0..3 {
        lab.pull_cable(1)?;
        client.wait_seen(wan_ip(2), INTERNET, 80, CABLE_NOTICED)?;
        lab.plug_cable(1)?;
        client.wait_seen(wan_ip(1), INTERNET, 80, RETURN_NOTICED)?;
    }
    Ok(())
}

#[test]
fn a_journal_that_hangs_delays_neither_failover_nor_stop() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80])?;
    let path = lab.router_files().run().join("systemd/journal/socket");
    fs::create_dir_all(path.parent().unwrap_or(&path))?;
    let journal = UnixDatagram::bind(&path)?;
    // Full before the daemon says its first word.
    let others = UnixDatagram::unbound()?;
    others.set_nonblocking(true)?;
    while others.send_to(b"MESSAGE=of others\n", &path).is_ok() {}

    let stderr = lab.router_files().run().join("stderr");
    let mut daemon = Daemon::spawn_with(&lab, &Config::of(&lab), |command| {
        if let Ok((file, at)) =
            fs::File::create(&stderr).and_then(|file| Ok((file.try_clone()?, file.metadata()?)))
        {
            command.env("JOURNAL_STREAM", format!("{}:{}", at.dev(), at.ino())).stderr(file);
        }
    })?;
    check_failover(&lab, &mut daemon)?;
    let stop = Instant::now();
    daemon.terminate()?;
    assert!(stop.elapsed() < Duration::from_secs(5), "{:?}", stop.elapsed());
    journal.set_nonblocking(true)?;
    let mut buffer = [0; 4096];
    while let Ok(length) = journal.recv(&mut buffer) {
        assert_eq!(&buffer[..length], b"MESSAGE=of others\n", "it was full all the time");
    }
    Ok(())
}

#[test]
fn a_pipe_nobody_empties_delays_no_failover_and_loses_no_line() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80])?;
    let (mut reader, mut writer) = io::pipe()?;
    // As large as a pipe is at first; one byte more would wait.
    writer.write_all(&[b'\n'; 65_536])?;
    let writer = OwnedFd::from(writer);
    let mut daemon = Daemon::spawn_with(&lab, &Config::of(&lab), move |command| {
        command.stderr(writer);
    })?;
    check_failover(&lab, &mut daemon)?;

    let read = thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).map(|_| text)
    });
    daemon.terminate()?;
    wait_until("the log's end", Duration::from_secs(5), || read.is_finished())?;
    let text = read.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
    let log = text.trim_start();
    assert!(log.lines().next().is_some_and(|line| line.contains("starts: 2 WANs")), "{log}");
    assert_eq!(log.matches("OFF: no carrier").count(), 3, "{log}");
    assert!(log.trim_end().ends_with("stopped; nothing of multiwans is left in the kernel"), "{log}");
    Ok(())
}

#[test]
fn a_flood_of_decisions_keeps_the_loop_from_nothing() -> Result<()> {
    let lab = Lab::builder().build()?;
    // Each packet's decision is told, and they come faster than lines can be written.
    let mut daemon = Daemon::start(&lab, &Config::of(&lab))?;
    let steered = || daemon.counter(&["programs", "steer", "default", "packets"]);
    let over = AtomicBool::new(false);
    let slowest = thread::scope(|scope| -> Result<Duration> {
        let flood = || -> Result<()> {
            let sender = lab.raw_sender(Ns::Client)?;
            let packet = raw::ipv4(CLIENT, INTERNET, 17, 0, 0, &raw::udp(4000, 9, b"x"));
            while !over.load(Ordering::Relaxed) {
                // A full queue of the interface is no matter here.
                sender.send(&packet).ok();
            }
            Ok(())
        };
        let flooding = [(); 3].map(|()| scope.spawn(flood));
        let begin = Instant::now();
        let mut slowest = Duration::ZERO;
        let mut asked = Ok(0);
        while begin.elapsed() < Duration::from_secs(3) && asked.is_ok() {
            let asking = Instant::now();
            asked = steered();
            slowest = slowest.max(asking.elapsed());
        }
        over.store(true, Ordering::Relaxed);
        let joined = flooding.into_iter().map(|flood| flood.join().expect("the flood panicked"));
        joined.collect::<Result<Vec<()>>>()?;
        asked.and(Ok(slowest))
    })?;
    let packets = steered()?;
    println!("{packets} packets; the slowest answer took {slowest:?}");
    assert!(packets > 10_000, "{packets}");
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    daemon.terminate()
}

//! Flows that last: they go on in the background and tell at the end what they suffered.

use crate::client::{Client, parse_address};
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, Write};
use std::mem::{size_of, zeroed};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The time between two messages: short beside any fault that a test makes.
const INTERVAL: Duration = Duration::from_millis(10);

/// How long after the last message its answer may come.
const STRAGGLERS: Duration = Duration::from_millis(500);

/// A TCP connection that exchanges numbered messages until it is finished.
#[derive(Debug)]
pub struct TcpSession {
    /// The address that the other end saw when it began.
    pub seen: Ipv4Addr,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<TcpReport>>,
}

/// What a [`TcpSession`] suffered.
#[derive(Debug, Clone, Copy)]
pub struct TcpReport {
    /// Messages that went and came back, in order.
    pub messages: u32,
    /// The longest that one took.
    pub slowest: Duration,
    /// Segments that the kernel sent again: above 0 a packet was lost.
    pub retransmits: u32,
}

/// A stream of numbered datagrams.
#[derive(Debug)]
pub struct UdpStream {
    /// The address that the other end saw when it began.
    pub seen: Ipv4Addr,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<UdpReport>>,
}

/// What a [`UdpStream`] suffered.
#[derive(Debug, Clone)]
pub struct UdpReport {
    /// Datagrams sent.
    pub sent: u32,
    /// Datagrams that were not answered.
    pub lost: u32,
    /// The addresses that the other end saw, without repetition, in order of appearance.
    pub seen: Vec<Ipv4Addr>,
}

impl Client<'_> {
    /// Opens a connection to a TCP observer and keeps it busy.
    ///
    /// # Errors
    /// When nothing answers within a second.
    pub fn tcp_session(&self, to: Ipv4Addr, port: u16) -> Result<TcpSession> {
        let stream = self.connect(to, port)?;
        // Longer than a failover: a stalled session is not a broken one.
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut line = String::new();
        reader.read_line(&mut line).context("a TCP session's first line")?;
        let seen = parse_address(&line)?;
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let stop = Arc::clone(&stop);
            thread::spawn(move || exchange(&stream, &mut reader, &stop))
        };
        Ok(TcpSession { seen, stop, thread })
    }

    /// Sends datagrams to a UDP observer without pause. The first has been answered when this returns.
    ///
    /// # Errors
    /// When nothing answers in time.
    pub fn udp_stream(&self, to: Ipv4Addr, port: u16) -> Result<UdpStream> {
        let socket = self.udp(to, port)?;
        socket.send(b"first")?;
        let mut answer = [0; 128];
        let length = socket.recv(&mut answer).context("a UDP stream's first answer")?;
        let seen = parse_address(std::str::from_utf8(&answer[..length])?)?;
        socket.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let stop = Arc::clone(&stop);
            thread::spawn(move || stream(&socket, seen, &stop))
        };
        Ok(UdpStream { seen, stop, thread })
    }
}

impl TcpSession {
    /// Ends the session.
    ///
    /// # Errors
    /// When it broke: reset, out of order, or silent for long.
    pub fn finish(self) -> Result<TcpReport> {
        self.stop.store(true, Ordering::Relaxed);
        join(self.thread)
    }
}

impl UdpStream {
    /// Ends the stream and waits a moment for late answers.
    ///
    /// # Errors
    /// When the observer answered something else than was sent.
    pub fn finish(self) -> Result<UdpReport> {
        self.stop.store(true, Ordering::Relaxed);
        join(self.thread)
    }
}

fn join<T>(thread: JoinHandle<Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn exchange(mut stream: &TcpStream, reader: &mut impl BufRead, stop: &AtomicBool) -> Result<TcpReport> {
    let mut report = TcpReport { messages: 0, slowest: Duration::ZERO, retransmits: 0 };
    let mut answer = String::new();
    while !stop.load(Ordering::Relaxed) {
        let start = Instant::now();
        let broke = || format!("the TCP session broke after {} messages", report.messages);
        let message = format!("{}\n", report.messages);
        stream.write_all(message.as_bytes()).with_context(broke)?;
        answer.clear();
        reader.read_line(&mut answer).with_context(broke)?;
        if answer != message {
            bail!("the TCP session sent {message:?} and got {answer:?}");
        }
        report.messages += 1;
        report.slowest = report.slowest.max(start.elapsed());
        thread::sleep(INTERVAL);
    }
    report.retransmits = retransmits(stream)?;
    Ok(report)
}

fn stream(socket: &UdpSocket, first_seen: Ipv4Addr, stop: &AtomicBool) -> Result<UdpReport> {
    let (mut answered, mut seen, mut sent) = (BTreeSet::new(), vec![first_seen], 0_u32);
    while !stop.load(Ordering::Relaxed) {
        // An error here is a past datagram's (no route, refused); that one counts as lost.
        socket.send(sent.to_string().as_bytes()).ok();
        sent += 1;
        thread::sleep(INTERVAL);
        read_answers(socket, &mut answered, &mut seen)?;
    }
    let end = Instant::now();
    while answered.len() < sent as usize && end.elapsed() < STRAGGLERS {
        thread::sleep(INTERVAL);
        read_answers(socket, &mut answered, &mut seen)?;
    }
    let lost = (0..sent).filter(|number| !answered.contains(number)).count();
    Ok(UdpReport { sent, lost: u32::try_from(lost)?, seen })
}

fn read_answers(socket: &UdpSocket, answered: &mut BTreeSet<u32>, seen: &mut Vec<Ipv4Addr>) -> Result<()> {
    let mut buffer = [0; 128];
    loop {
        let length = match socket.recv(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            // An ICMP error about a datagram that counts as lost.
            Err(_) => continue,
        };
        let answer = std::str::from_utf8(&buffer[..length])?;
        let address = parse_address(answer)?;
        if !seen.contains(&address) {
            seen.push(address);
        }
        let number = answer.split_whitespace().nth(1).context("an answer without its number")?;
        answered.insert(number.parse()?);
    }
}

/// How many segments the kernel has sent again on this connection.
fn retransmits(stream: &TcpStream) -> io::Result<u32> {
    // SAFETY: tcp_info is made of integers only, for which zeros are values.
    let mut info: libc::tcp_info = unsafe { zeroed() };
    let mut length = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).map_err(io::Error::other)?;
    // SAFETY: `info` and `length` are ours alone, and `length` is the size of `info`; the kernel writes
    // no more than that.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(info.tcpi_total_retrans)
}

//! Servers that tell whoever talks to them which address they see.
//!
//! Over TCP: the first line is the client's `address:port`, then every line comes back as it is.
//! Over UDP: every datagram comes back with the client's `address:port` and a space put before it.

use crate::Lab;
use crate::topology::{Ns, internet_addresses};
use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How long a server takes at most to notice that it is to end.
const STOP_CHECK_MS: u8 = 50;

/// The longest datagram that comes back whole.
const MAX_DATAGRAM: usize = 2048;

/// A server's thread; it ends when this value is dropped.
#[derive(Debug)]
pub struct Observer {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Lab {
    /// Answers on TCP and UDP on all of the internet host's addresses.
    ///
    /// # Errors
    /// When a port is taken.
    pub fn serve_internet(&self, ports: &[u16]) -> Result<Vec<Observer>> {
        let addresses: Vec<Ipv4Addr> = internet_addresses().collect();
        let mut observers = Vec::new();
        for &port in ports {
            observers.push(self.observe_tcp(Ns::Internet, port)?);
            observers.push(self.observe_udp(Ns::Internet, &addresses, port)?);
        }
        Ok(observers)
    }

    /// Answers TCP connections to a port, on every address of a place.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn observe_tcp(&self, place: Ns, port: u16) -> Result<Observer> {
        self.accept_tcp(place, port, serve)
    }

    /// Answers every HTTP request to a port with the address it came from, on every address of a place.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn observe_http(&self, place: Ns, port: u16) -> Result<Observer> {
        self.accept_tcp(place, port, serve_http)
    }

    fn accept_tcp(
        &self,
        place: Ns,
        port: u16,
        serve: fn(TcpStream, SocketAddr, &AtomicBool),
    ) -> Result<Observer> {
        let listener = self
            .in_ns(place, || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))
            .with_context(|| format!("cannot listen on TCP port {port} in {place}"))?;
        listener.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        let threads = vec![spawn(&stop, listener, move |listener, stop| {
            if let Ok((stream, peer)) = listener.accept() {
                let stop = Arc::clone(stop);
                thread::spawn(move || serve(stream, peer, &stop));
            }
        })];
        Ok(Observer { stop, threads })
    }

    /// Answers UDP datagrams to a port, from the address they were sent to.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn observe_udp(&self, place: Ns, addresses: &[Ipv4Addr], port: u16) -> Result<Observer> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for &address in addresses {
            let socket = self
                .in_ns(place, || UdpSocket::bind((address, port)))
                .with_context(|| format!("cannot listen on UDP {address}:{port} in {place}"))?;
            socket.set_nonblocking(true)?;
            threads.push(spawn(&stop, socket, |socket, _| answer(socket)));
        }
        Ok(Observer { stop, threads })
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic in there has been printed, and the test fails by not being answered.
            thread.join().ok();
        }
    }
}

/// Calls the action each time the socket has something to read, until told to stop.
fn spawn<S: AsFd + Send + 'static>(
    stop: &Arc<AtomicBool>,
    socket: S,
    action: impl Fn(&S, &Arc<AtomicBool>) + Send + 'static,
) -> JoinHandle<()> {
    let stop = Arc::clone(stop);
    thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            if is_readable(&socket) {
                action(&socket, &stop);
            }
        }
    })
}

/// Waits for something to read, but not for long.
pub(crate) fn is_readable(socket: &impl AsFd) -> bool {
    let mut wanted = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    poll(&mut wanted, PollTimeout::from(STOP_CHECK_MS)).is_ok_and(|ready| ready > 0)
}

/// One connection. It ends without a word when the client does.
fn serve(stream: TcpStream, peer: SocketAddr, stop: &AtomicBool) {
    let exchange = || -> io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_millis(STOP_CHECK_MS.into())))?;
        let mut reader = BufReader::new(&stream);
        writeln!(&stream, "{peer}")?;
        let mut line = String::new();
        while !stop.load(Ordering::Relaxed) {
            match reader.read_line(&mut line) {
                Ok(0) => break,
                Ok(_) => {
                    (&stream).write_all(line.as_bytes())?;
                    line.clear();
                }
                // What was read of a line so far stays in it.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    };
    // Tests end connections in every way there is; what they expected they check on their side.
    exchange().ok();
}

/// One request, whatever it asks for.
fn serve_http(stream: TcpStream, peer: SocketAddr, _: &AtomicBool) {
    let exchange = || -> io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        // To the empty line: a request that was not read through would be reset.
        for line in BufReader::new(&stream).lines() {
            if line?.is_empty() {
                break;
            }
        }
        let address = peer.ip();
        let length = address.to_string().len();
        write!(&stream, "HTTP/1.0 200 OK\r\nContent-Length: {length}\r\n\r\n{address}")
    };
    // As above.
    exchange().ok();
}

fn answer(socket: &UdpSocket) {
    let mut datagram = [0; MAX_DATAGRAM];
    if let Ok((length, peer)) = socket.recv_from(&mut datagram) {
        let mut reply = format!("{peer} ").into_bytes();
        reply.extend_from_slice(&datagram[..length]);
        // A lost answer is what the client counts.
        socket.send_to(&reply, peer).ok();
    }
}

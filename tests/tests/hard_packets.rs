//! Packets that are hard to read, through real interfaces.

use anyhow::{Context, Result, ensure};
use multiwans_tests::netns::Namespace;
use multiwans_tests::raw::{self, udp_last_fragment_first};
use multiwans_tests::topology::{CLIENT, INTERNET, ROUTER, wan_ip};
use multiwans_tests::wait::wait_until;
use multiwans_tests::{Config, Daemon, Lab, Ns};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

/// Enough for anything in the lab, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);
/// An IPv4 option of one byte (RFC 791).
const NO_OPERATION: u8 = 1;

#[test]
fn fragments_in_the_wrong_order_leave_by_the_wan_of_their_ports() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80])?;
    let config = Config::of(&lab).filter(2, "datagrams", "protocol: udp, dports: [80]");
    let mut daemon = Daemon::start(&lab, &config)?;
    let sender = lab.raw_sender(Ns::Client)?;
    for number in 0..10u16 {
        let from = SocketAddrV4::new(CLIENT, 4000 + number);
        let socket = lab.client(Ns::Client).from(CLIENT).source_port(from.port()).udp(INTERNET, 80)?;
        for fragment in
            udp_last_fragment_first(from, SocketAddrV4::new(INTERNET, 80), 100 + number, &[b'x'; 2000])
        {
            sender.send(&fragment)?;
        }
        let mut answer = [0; 4096];
        let length = socket.recv(&mut answer).context("the answer to a fragmented datagram")?;
        assert!(answer[..length].starts_with(b"10.0.2.2:"), "{:?}", String::from_utf8_lossy(&answer[..40]));
        assert!(length > 2000);
    }
    assert_eq!(daemon.counter(&["packets", "fragment_unknown"])?, 10);
    for program in ["steer", "wan", "learn"] {
        // Each datagram in two; so are the answers.
        assert_eq!(daemon.special(program, "first_fragment")?, 10, "{program}");
        assert_eq!(daemon.special(program, "later_fragment")?, 10, "{program}");
    }
    // In order, as the kernel itself sends them.
    let socket = lab.client(Ns::Client).from(CLIENT).udp(INTERNET, 80)?;
    for _ in 0..10 {
        socket.send(&[b'x'; 2000])?;
        let length = socket.recv(&mut [0; 4096]).context("the answer to a datagram in two fragments")?;
        assert!(length > 2000);
    }
    assert_eq!(daemon.counter(&["packets", "fragment_unknown"])?, 10);
    assert_eq!(daemon.counter(&["programs", "steer", "fragment", "packets"])?, 10);
    assert_eq!(daemon.special("steer", "first_fragment")?, 20);
    assert_eq!(daemon.special("steer", "later_fragment")?, 20);
    daemon.terminate()
}

#[test]
fn options_cost_a_packet_nothing() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80])?;
    let config = Config::of(&lab).filter(2, "datagrams", "protocol: udp, dports: [80]");
    let mut daemon = Daemon::start(&lab, &config)?;
    let sender = lab.raw_sender(Ns::Client)?;
    for words in 1..=10u8 {
        let port = 4000 + u16::from(words);
        let socket = lab.client(Ns::Client).from(CLIENT).source_port(port).udp(INTERNET, 80)?;
        let mut packet = raw::ipv4(CLIENT, INTERNET, 17, 0, port, &raw::udp(port, 80, b"who"));
        packet.splice(20..20, vec![NO_OPERATION; usize::from(words) * 4]);
        packet[0] += words;
        packet[3] += words * 4;
        sender.send(&packet)?;
        let mut answer = [0; 64];
        let length = socket.recv(&mut answer).with_context(|| format!("{words} words of options"))?;
        assert!(answer[..length].starts_with(b"10.0.2.2:"), "{:?}", String::from_utf8_lossy(&answer));
    }
    assert_eq!(daemon.special("steer", "options")?, 10);
    assert_eq!(daemon.counter(&["packets", "malformed"])?, 0);
    daemon.terminate()
}

#[test]
fn what_is_cut_off_or_lies_of_its_length_passes_unmarked() -> Result<()> {
    let lab = Lab::builder().build()?;
    let mut daemon = Daemon::start(&lab, &Config::of(&lab))?;
    let sender = lab.frame_sender(Ns::Client, "eth0")?;
    let router = mac_of(&lab, Ns::Router, "eth0")?;
    let send = |length: usize, total: u16| -> Result<()> {
        let mut packet = raw::ipv4(CLIENT, INTERNET, 17, 0, 7, &raw::udp(4000, 80, &[b'x'; 100]));
        packet[2..4].copy_from_slice(&total.to_be_bytes());
        packet.truncate(length);
        sender.send(&[&router[..], &[2, 0, 0, 0, 0, 1, 8, 0], &packet].concat())
    };
    for _ in 0..10 {
        // Less than there should be; less than its headers; and in the middle of a header.
        send(127, 128)?;
        send(128, 19)?;
        send(128, 27)?;
        send(24, 128)?;
    }
    wait_until("malformed packets to be seen", PATIENCE, || {
        daemon.counter(&["programs", "steer", "malformed", "packets"]).is_ok_and(|packets| packets == 40)
    })?;
    assert_eq!(daemon.special("steer", "truncated")?, 20);
    assert_eq!(daemon.special("steer", "lying_length")?, 20);
    daemon.terminate()
}

#[test]
fn tagged_packets_are_left_to_their_vlan_except_priorities() -> Result<()> {
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80])?;
    let config = Config::of(&lab).filter(2, "datagrams", "protocol: udp, dports: [80]");
    let mut daemon = Daemon::start(&lab, &config)?;
    let sender = lab.frame_sender(Ns::Client, "eth0")?;
    let router = mac_of(&lab, Ns::Router, "eth0")?;
    let ask = |vlan: u16, port: u16| -> Result<UdpSocket> {
        let socket = lab.client(Ns::Client).from(CLIENT).source_port(port).udp(INTERNET, 80)?;
        let mut frame = [&router[..], &[2, 0, 0, 0, 0, 1], &[0x81, 0]].concat();
        // The kernel takes the tag out and puts it beside the packet, as network cards do.
        frame.extend((0xa000 | vlan).to_be_bytes());
        frame.extend([8, 0]);
        frame.extend(raw::ipv4(CLIENT, INTERNET, 17, 0, 7, &raw::udp(port, 80, b"who")));
        sender.send(&frame)?;
        Ok(socket)
    };
    let mut answer = [0; 64];
    let length = ask(0, 4000)?.recv(&mut answer).context("an answer to a packet with a priority")?;
    assert!(answer[..length].starts_with(b"10.0.2.2:"), "{:?}", String::from_utf8_lossy(&answer[..length]));
    for port in 4001..4011 {
        ask(5, port)?;
    }
    wait_until("tagged packets to be seen", PATIENCE, || {
        daemon.counter(&["programs", "steer", "vlan_tagged", "packets"]).is_ok_and(|packets| packets == 10)
    })?;
    assert_eq!(daemon.special("steer", "priority_tag")?, 1);
    assert_eq!(daemon.special("steer", "tag_offloaded")?, 10);
    assert_eq!(daemon.special("steer", "tag_in_packet")?, 0);
    // Of two tags the kernel takes one out.
    let inner = raw::ipv4(CLIENT, INTERNET, 17, 0, 7, &raw::udp(4011, 80, b"who"));
    let tags = [0x88, 0xa8, 0, 6, 0x81, 0, 0, 5, 8, 0];
    sender.send(&[&router[..], &[2, 0, 0, 0, 0, 1], &tags, &inner].concat())?;
    wait_until("the inner tag to be seen", PATIENCE, || {
        daemon.special("steer", "tag_in_packet").is_ok_and(|packets| packets == 1)
    })?;
    assert_eq!(daemon.special("steer", "tag_offloaded")?, 11);
    daemon.terminate()
}

/// An interface's link-layer address.
fn mac_of(lab: &Lab, place: Ns, iface: &str) -> Result<[u8; 6]> {
    let text = lab.sh(place, &format!("ip -o link show dev {iface}"))?;
    let mac = text.split("link/ether ").nth(1).context("no link-layer address")?;
    let bytes: Vec<u8> =
        mac.split([':', ' ']).take(6).map(|part| u8::from_str_radix(part, 16)).collect::<Result<_, _>>()?;
    bytes.try_into().ok().context("a link-layer address of six bytes")
}

/// `struct ifreq` for `TUNSETIFF`.
#[repr(C)]
struct TunRequest {
    name: [u8; 16],
    flags: libc::c_short,
    rest: [u8; 22],
}

/// `TUNSETIFF` (linux/if_tun.h).
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
/// `sizeof(struct virtio_net_hdr)`.
const VNET_HEADER: usize = 10;

/// A tun device in the calling thread's namespace whose packets have a `virtio_net_hdr`.
fn tun(name: &str) -> Result<File> {
    let file = File::options().read(true).write(true).open("/dev/net/tun").context("no tun devices")?;
    let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    let mut request = TunRequest { name: [0; 16], flags: flags.try_into()?, rest: [0; 22] };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: the kernel reads and writes a `struct ifreq`, which the request is as long as.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &raw mut request) };
    ensure!(result == 0, "TUNSETIFF: {}", std::io::Error::last_os_error());
    // SAFETY: no memory is passed.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
    ensure!(result == 0, "O_NONBLOCK: {}", std::io::Error::last_os_error());
    Ok(file)
}

#[test]
fn an_interface_without_link_layer_and_buffers_in_pieces() -> Result<()> {
    const HOST: Ipv4Addr = Ipv4Addr::new(192, 168, 80, 2);
    let lab = Lab::builder().build()?;
    let _servers = lab.serve_internet(&[80])?;
    let mut device = lab.in_ns(Ns::Router, || tun("tun0"))?;
    lab.sh(Ns::Router, "ip address add 192.168.80.1/24 dev tun0")?;
    lab.sh(Ns::Router, "ip link set tun0 up")?;
    let config = Config::of(&lab).filter(2, "vpn", "protocol: udp, src: [192.168.80.0/24], dports: [80]");
    let mut daemon = Daemon::start(&lab, &config)?;

    // Of the long one only the IP header, as `hdr_len` says, is in the linear part: what does not fit a
    // page with it stands in pages of its own.
    for (port, length, linear) in [(5000, 100, 0), (5001, 1400, 20), (5002, 6000, 20), (5003, 6000, 24)] {
        let packet = raw::ipv4(HOST, INTERNET, 17, 0, port, &raw::udp(port, 80, &vec![b'x'; length]));
        let mut header = [0; VNET_HEADER];
        header[2..4].copy_from_slice(&u16::to_ne_bytes(linear));
        device.write_all(&[&header[..], &packet].concat())?;
        let mut answer = Vec::new();
        wait_until("the answer", PATIENCE, || {
            let mut buffer = vec![0; 4096];
            match device.read(&mut buffer) {
                Ok(length) => answer = buffer[..length].to_vec(),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            // UDP, to this port.
            answer.len() > VNET_HEADER + 28
                && answer[VNET_HEADER + 9] == 17
                && answer[VNET_HEADER + 22..VNET_HEADER + 24] == port.to_be_bytes()
        })
        .with_context(|| {
            format!("{length} bytes: {}", daemon.status_json().unwrap_or_default()["datapath"])
        })?;
        let text = &answer[VNET_HEADER + 28..];
        assert!(text.starts_with(b"10.0.2.2:"), "{length} bytes: {:?}", String::from_utf8_lossy(text));
    }
    assert_eq!(daemon.counter(&["packets", "malformed"])?, 0);
    // All that came by the device, and the answers, but for those that reach other interfaces.
    assert_eq!(daemon.special("steer", "no_link_layer")?, 4);
    // Of the last one the ports are linear, and they are all that is looked for.
    assert_eq!(daemon.special("steer", "pulled")?, 1);
    assert!(daemon.special("learn", "no_link_layer")? >= 4);
    assert_eq!(daemon.special("wan", "no_link_layer")?, 0);
    daemon.terminate()
}

#[test]
fn large_buffers_count_as_the_segments_on_the_wire() -> Result<()> {
    const BYTES: u64 = 20_000_000;
    let lab = Lab::builder().build()?;
    let listener = lab.in_ns(Ns::Internet, || TcpListener::bind((INTERNET, 9000)))?;
    let config = Config::of(&lab).filter(2, "uploads", "protocol: tcp, dports: [9000]");
    let mut daemon = Daemon::start(&lab, &config)?;
    let sink = thread::spawn(move || -> std::io::Result<u64> {
        std::io::copy(&mut listener.accept()?.0, &mut std::io::sink())
    });
    let mut stream = lab.client(Ns::Client).connect(INTERNET, 9000)?;
    let block = vec![0; 1 << 20];
    let mut left = usize::try_from(BYTES)?;
    while left > 0 {
        left -= stream.write(&block[..left.min(block.len())])?;
    }
    drop(stream);
    let received = sink.join().map_err(|_| anyhow::anyhow!("the sink panicked"))??;
    assert_eq!(received, BYTES);

    let wan = |what| daemon.counter(&["wans", "2", "out", what]);
    let (packets, bytes) = (wan("packets")?, wan("bytes")?);
    let large = daemon.special("steer", "gso")?;
    assert!(large > packets / 2 && large <= packets, "{large} of {packets} packets came in large buffers");
    // Full segments have 1448 bytes, after headers of 52; a few are sent twice.
    let segments = BYTES.div_ceil(1448);
    assert!((segments..segments * 11 / 10).contains(&packets), "{packets} packets, {segments} segments");
    let wire = BYTES + segments * 52;
    assert!((wire..wire * 11 / 10).contains(&bytes), "{bytes} bytes, {wire} on the wire");
    // The filter chose all of it, though the flow table knew the flow after its first answer.
    let filter = daemon.status_json()?["datapath"]["filters"][0].clone();
    assert_eq!(
        (filter["packets"].as_u64(), filter["bytes"].as_u64()),
        (Some(packets), Some(bytes)),
        "{filter}"
    );
    daemon.terminate()
}

#[test]
fn an_error_from_inside_leaves_by_the_wan_of_the_flow_it_is_about() -> Result<()> {
    let lab = Lab::builder().build()?;
    // Nobody listens there.
    let rule =
        format!("iptables -t nat -A PREROUTING -i eth2 -p udp --dport 9000 -j DNAT --to {CLIENT}:9000");
    lab.sh(Ns::Router, &rule)?;
    let mut daemon = Daemon::start(&lab, &Config::of(&lab))?;
    let socket = lab.in_ns(Ns::Internet, || -> std::io::Result<UdpSocket> {
        let socket = UdpSocket::bind((INTERNET, 0))?;
        socket.connect((wan_ip(2), 9000))?;
        Ok(socket)
    })?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(b"anybody?")?;
    let error = socket.recv(&mut [0; 16]).err().context("an answer from nobody")?;
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
    assert_eq!((daemon.special("steer", "icmp_error")?, daemon.special("steer", "related")?), (1, 1));
    daemon.terminate()
}

#[test]
fn a_router_behind_the_lan_tells_the_sender_what_fits() -> Result<()> {
    const BYTES: u64 = 300_000;
    let lab = Lab::builder().build()?;
    let inner = Namespace::create(&format!("{}-inner", lab.name()))?;
    lab.sysctl(Ns::Client, "ipv4/ip_forward", "1")?;
    lab.sh(
        Ns::Client,
        &format!("ip link add inner mtu 1200 type veth peer name eth0 mtu 1200 netns {}", inner.name()),
    )?;
    lab.sh(Ns::Client, "ip address add 192.168.51.1/24 dev inner")?;
    lab.sh(Ns::Client, "ip link set inner up")?;
    for line in [
        "ip address add 192.168.51.2/24 dev eth0",
        "ip link set eth0 up",
        // The server asks for more than fits, as one behind a tunnel does.
        "ip route add default via 192.168.51.1 advmss 1460",
    ] {
        let mut words = line.split(' ');
        let status = inner.command(words.next().context("a command")?).args(words).status()?;
        ensure!(status.success(), "{line}: {status}");
    }
    lab.sh(Ns::Router, &format!("ip route add 192.168.51.0/24 via {CLIENT}"))?;
    lab.forward_port(2, 8080, Ipv4Addr::new(192, 168, 51, 2), 8000)?;
    let listener = inner.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8000)))?;
    let mut daemon = Daemon::start(&lab, &Config::of(&lab))?;

    let sink = thread::spawn(move || -> std::io::Result<u64> {
        let mut stream: TcpStream = listener.accept()?.0;
        stream.set_read_timeout(Some(PATIENCE))?;
        std::io::copy(&mut stream, &mut std::io::sink())
    });
    let mut stream = lab.client(Ns::Internet).from(INTERNET).connect(wan_ip(2), 8080)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(&vec![0; usize::try_from(BYTES)?])?;
    drop(stream);
    let received = sink.join().map_err(|_| anyhow::anyhow!("the sink panicked"))?;
    assert_eq!(received.context("the sender was not told")?, BYTES);
    let (errors, related) = (daemon.special("steer", "icmp_error")?, daemon.special("steer", "related")?);
    assert!(errors >= 1 && errors == related, "{related} of {errors} errors are about a known flow");
    daemon.terminate()
}

#[test]
fn what_is_for_the_router_or_for_all_goes_to_no_wan() -> Result<()> {
    let lab = Lab::builder().build()?;
    let config = Config::of(&lab).filter(2, "everything", "protocol: all, dst: [0.0.0.0/0]");
    let mut daemon = Daemon::start(&lab, &config)?;
    let sent = |daemon: &Daemon<'_>| -> Result<(u64, u64)> {
        Ok((
            daemon.counter(&["wans", "1", "out", "packets"])?,
            daemon.counter(&["wans", "2", "out", "packets"])?,
        ))
    };
    let before = sent(&daemon)?;
    // Known as soon as the routes were read once.
    wait_until("the router's address to be known", PATIENCE, || {
        lab.ping(Ns::Client, None, ROUTER).is_ok()
            && daemon.counter(&["packets", "to_router"]).is_ok_and(|packets| packets > 0)
    })?;
    let before = (before.0, sent(&daemon)?.1);
    for _ in 0..10 {
        lab.ping(Ns::Client, None, ROUTER)?;
    }
    let socket = lab.in_ns(Ns::Client, || UdpSocket::bind((CLIENT, 0)))?;
    socket.set_broadcast(true)?;
    let to_all = [Ipv4Addr::BROADCAST, Ipv4Addr::new(192, 168, 50, 255), Ipv4Addr::new(224, 0, 0, 251)];
    for address in to_all {
        for _ in 0..10 {
            socket.send_to(b"all", (address, 5353))?;
        }
    }
    wait_until("broadcasts to be seen", PATIENCE, || {
        daemon.counter(&["programs", "steer", "not_unicast", "packets"]).is_ok_and(|packets| packets >= 30)
    })?;
    assert_eq!(sent(&daemon)?, before);
    // ARP is no IPv4; to the network's own broadcast address goes a broadcast of the link layer.
    assert_eq!(daemon.special("steer", "broadcast")?, 20);
    // The client's kernel may tell which groups it is in.
    assert!(daemon.special("steer", "multicast")? >= 10);
    assert!(daemon.counter(&["packets", "to_router"])? >= 11);
    daemon.terminate()
}

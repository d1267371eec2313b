//! Programs as people run them on the router (curl, dig, ping, a script that sends datagrams), also as an
//! unprivileged user: by the WAN of the filter, and by the default once that WAN is dead.

use anyhow::{Context, Result, ensure};
use multiwans_tests::dns::DnsServer;
use multiwans_tests::observer::Observer;
use multiwans_tests::portless::ProtocolObserver;
use multiwans_tests::topology::{INTERNET, wan_iface, wan_ip};
use multiwans_tests::wait::wait_for;
use multiwans_tests::{Config, Daemon, Lab, Ns};
use std::fs;
use std::net::Ipv4Addr;
use std::time::Duration;

const FAILOVER: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(1);
const ICMP: u8 = 1;

/// nobody, without a capability.
const NOBODY: &str = "setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps -all ";

/// Servers in the internet that know who asked.
struct Internet {
    _http: Observer,
    _udp: Observer,
    dns: DnsServer,
    icmp: ProtocolObserver,
}

/// How often a program has been run: each question of its own.
type Count = u32;

impl Internet {
    fn start(lab: &Lab) -> Result<Self> {
        let dns = lab.serve_dns(Ns::Internet, 53, &["address=/example.org/192.0.2.1"])?;
        Ok(Self {
            _http: lab.observe_http(Ns::Internet, 80)?,
            _udp: lab.observe_udp(Ns::Internet, &[INTERNET], 7000)?,
            dns,
            icmp: lab.observe_protocol(Ns::Internet, ICMP)?,
        })
    }

    /// Whom each program's server sees when a user runs it in a place; `user` is what the line begins with.
    fn seen(&mut self, lab: &Lab, place: Ns, user: &str, count: &mut Count) -> Result<Vec<(&str, Ipv4Addr)>> {
        *count += 1;
        let curl = lab.sh(place, &format!("{user}curl --silent --max-time 2 http://{INTERNET}/"))?;

        let name = format!("n{count}.example.org");
        let answer = lab.sh(place, &format!("{user}dig +short +tries=1 +time=2 @{INTERNET} {name}"))?;
        ensure!(answer.trim() == "192.0.2.1", "dig: {answer}");
        let dig = wait_for("the server's log", PATIENCE, || {
            let log = fs::read_to_string(self.dns.log()).unwrap_or_default();
            let line = log.lines().find(|line| line.contains(&format!("query[A] {name} from ")))?;
            line.rsplit(' ').next().map(str::to_owned)
        })?;

        // 16 bytes as ping repeats them.
        let part = format!("{count:016}");
        let pattern: String = part.bytes().map(|byte| format!("{byte:02x}")).collect();
        lab.sh(place, &format!("{user}ping -n -c 1 -W 2 -s 64 -p {pattern} {INTERNET}"))?;
        // Less than a whole one, wherever the pattern begins.
        let ping = self.icmp.source_of(&part.as_bytes()[1..])?;

        let udp = lab.feed(place, &format!("{user}perl -"), &sender(None))?;

        [("curl", curl), ("dig", dig), ("ping", ping.to_string()), ("sendto", udp)]
            .into_iter()
            .map(|(program, text)| {
                let address = text.trim().parse();
                Ok((program, address.with_context(|| format!("{program}: {text:?}"))?))
            })
            .collect()
    }

    fn expect(&mut self, lab: &Lab, place: Ns, user: &str, wan: u8, count: &mut Count) -> Result<()> {
        let seen = self.seen(lab, place, user, count).with_context(|| format!("{user}in {place}"))?;
        for (program, address) in seen {
            assert_eq!(address, wan_ip(wan), "{user}{program} in {place}");
        }
        Ok(())
    }
}

/// A program in Perl, which is on every Debian: a datagram without connect, by a device or not; it prints
/// whom the other end saw.
fn sender(device: Option<&str>) -> String {
    // SO_BINDTODEVICE is 25.
    let bind = device.map(|device| format!("setsockopt($s, SOL_SOCKET, 25, '{device}') or die $!;"));
    format!(
        "use Socket; alarm 2; socket(my $s, PF_INET, SOCK_DGRAM, 0) or die $!; {}\n\
         send($s, 'who', 0, pack_sockaddr_in(7000, inet_aton('{INTERNET}'))) or die $!;\n\
         recv($s, my $answer, 99, 0) // die $!; print $answer =~ s/:.*//r;\n",
        bind.unwrap_or_default()
    )
}

#[test]
fn programs_of_every_user_leave_by_the_filters_wan_and_by_the_default_once_it_is_dead() -> Result<()> {
    let lab = Lab::builder().build()?;
    let mut internet = Internet::start(&lab)?;
    let own = |rest: &str| format!("chainMangle: OUTPUT, {rest}");
    let config = Config::of(&lab)
        .filter(2, "curl", &own("protocol: tcp, dports: [80]"))
        .filter(2, "dig and sendto", &own("protocol: udp, dports: [53, 7000]"))
        .filter(2, "ping", &own("protocol: icmp"));
    let mut count = 0;
    let everyone = |internet: &mut Internet, wan: u8, count: &mut Count| -> Result<()> {
        for _ in 0..3 {
            internet.expect(&lab, Ns::Router, "", wan, count)?;
            internet.expect(&lab, Ns::Router, NOBODY, wan, count)?;
            // As a container: below the same cgroup, in another network namespace.
            internet.expect(&lab, Ns::Client, "", 1, count)?;
        }
        Ok(())
    };
    everyone(&mut internet, 1, &mut count).context("before the daemon")?;
    let mut daemon = Daemon::start(&lab, &config)?;
    everyone(&mut internet, 2, &mut count)?;
    lab.blackhole(2)?;
    daemon.wait_status("WAN2 to be OFF", FAILOVER, |s| s.is_off(2))?;
    everyone(&mut internet, 1, &mut count).context("with WAN2 dead")?;
    lab.heal(2)?;
    daemon.wait_status("WAN2 to be ON", FAILOVER * 2, |s| s.is_on(2))?;
    everyone(&mut internet, 2, &mut count).context("with WAN2 back")?;
    daemon.terminate()?;
    everyone(&mut internet, 1, &mut count).context("after the daemon")
}

#[test]
fn programs_bound_to_a_wan_leave_by_it() -> Result<()> {
    let lab = Lab::builder().wans(3).build()?;
    let mut internet = Internet::start(&lab)?;
    // What is chosen on the command line counts more than a filter.
    let all = "chainMangle: OUTPUT, protocol: all";
    let mut daemon = Daemon::start(&lab, &Config::of(&lab).filter(2, "all", all))?;
    let check = |internet: &mut Internet, wans: &[u8], round: u8| -> Result<()> {
        for &k in wans {
            let device = wan_iface(k);
            let part = format!("w{k}-round-{round:07}");
            let pattern: String = part.bytes().map(|byte| format!("{byte:02x}")).collect();
            lab.sh(Ns::Router, &format!("ping -n -c 1 -W 2 -s 64 -I {device} -p {pattern} {INTERNET}"))
                .with_context(|| format!("ping -I {device}"))?;
            assert_eq!(internet.icmp.source_of(&part.as_bytes()[1..])?, wan_ip(k), "ping -I {device}");
            let curl = format!("curl --silent --max-time 2 --interface {device} http://{INTERNET}/");
            assert_eq!(lab.sh(Ns::Router, &curl)?, wan_ip(k).to_string(), "curl --interface {device}");
            let udp = lab.feed(Ns::Router, "perl -", &sender(Some(&device)));
            let udp = udp.with_context(|| format!("a datagram of {device}"))?;
            assert_eq!(udp.trim(), wan_ip(k).to_string(), "a datagram of {device}");
            // A neighbour there stays one.
            lab.sh(Ns::Router, &format!("ping -n -c 1 -W 2 -I {device} 10.0.{k}.1"))?;
        }
        Ok(())
    };
    check(&mut internet, &[1, 2, 3], 1)?;
    lab.blackhole(1)?;
    daemon.wait_status("WAN2 to be the default", FAILOVER, |s| s.defaults_to(2))?;
    check(&mut internet, &[2, 3], 2)?;
    daemon.terminate()
}

use std::net::Ipv4Addr;

use super::super::{html, text};
use super::*;
use crate::config;
use crate::engine::alerts::Subject;
use crate::types::{IfName, LinkState};

const CONFIG: &str = "
company: {name: Açúcar & Cia, department: T.I., site: 'https://example.org/'}
ping: {targets: [1.1.1.1]}
WANS:
  - {description: Fibra <João>, mark: 1, orderFailover: 1, iface: eth1, ip: 10.0.1.2, mask: 24, gateway: 10.0.1.1}
  - description: LTE
    mark: 2
    iface: wwan0
    ip: 10.0.2.2
    mask: 30
    gateway: 10.0.2.1
    filters:
      - {description: web, chainMangle: PREROUTING, protocol: tcp, dports: [80, '443:445']}
";

fn book(text: &str) -> Book {
    Book::new(&config::parse(text, "test").unwrap().config, TimeZone::UTC)
}

fn router() -> Router {
    Router {
        hostname: "gw".into(),
        addresses: vec!["eth1: 10.0.1.2/24".into(), "lan: 192.168.0.1/24".into()],
        uptime: Some(Duration::from_secs(3 * 86_400 + 3600 + 61)),
    }
}

fn status() -> Status {
    let wan = |description: &str, iface, mark, state, reason: &str| WanStatus {
        description: description.into(),
        iface: IfName::new(iface).unwrap(),
        mark: WanMark::new(mark).unwrap(),
        state,
        reason: reason.into(),
        since: 1_795_338_000,
        order: (mark == 1).then_some(1),
        address: String::new(),
        usable: true,
        last_rtt_ms: None,
        last_target: None::<Ipv4Addr>,
    };
    Status {
        default: Some("Fibra <João>".into()),
        wans: vec![
            wan("Fibra <João>", "eth1", 1, LinkState::Off, "no carrier"),
            wan("LTE", "wwan0", 2, LinkState::On, ""),
        ],
    }
}

fn report(subject: Subject) -> Report {
    let entry = |level, wan: Option<u8>, text: &str| Entry {
        at: 1_795_338_061,
        level,
        wan: wan.and_then(WanMark::new),
        text: text.into(),
    };
    let entries = vec![
        entry(Level::Warn, Some(1), "Fibra <João> (eth1): OFF: no carrier"),
        entry(Level::Error, None, "all links are down"),
        entry(Level::Info, Some(1), "two\nlines"),
    ];
    let alert = Alert { subject, entries, left_out: 7 };
    Report { alert, status: status(), written: 1_795_338_063, started: 1_795_337_000 }
}

#[test]
fn subjects_have_the_seed_s_form() {
    for (subject, word) in [
        (Subject::Start, "START"),
        (Subject::Error, "ERROR"),
        (Subject::Warning, "WARNING"),
        (Subject::Stop, "STOP"),
    ] {
        assert_eq!(
            book(CONFIG).write(&report(subject), &router()).subject,
            format!(
                "{word}: MultiWans - Failover e redirecionamento de links WANS: gw (22/11/2026 09:01:03)"
            )
        );
    }
}

#[test]
fn the_text_is_this() {
    let document = book(CONFIG).write(&report(Subject::Error), &router());
    let version = env!("CARGO_PKG_VERSION");
    let expected = format!(
        "\
MultiWans - Failover e redirecionamento de links WANS
=====================================================
Hostname:        gw
Addresses:       eth1: 10.0.1.2/24
                 lan: 192.168.0.1/24
System uptime:   3 d 1 h 1 min
Daemon started:  2026-11-22 08:43:20
Mail written:    2026-11-22 09:01:03

Router
======
                     WARNING: 7 older lines are left out of this mail
2026-11-22 09:01:01  ERROR: all links are down

Fibra <João> (eth1): OFF
========================
2026-11-22 09:01:01  WARNING: Fibra <João> (eth1): OFF: no carrier
2026-11-22 09:01:01  two\u{fffd}lines

LTE (wwan0): ON
===============
2026-11-22 09:00:00  ON

WANs
====
ORDER  WAN           IFACE  ADDRESS      GATEWAY   MARK  STATE
1      Fibra <João>  eth1   10.0.1.2/24  10.0.1.1  1     OFF, default
-      LTE           wwan0  10.0.2.2/30  10.0.2.1  2     ON

Filters
=======
FILTER  WAN  CHAIN       SELECTS
web     LTE  PREROUTING  tcp to anything but localnets dports 80,443:445

System
======
Version:  multiwans {version}

© AÇÚCAR & CIA - T.I. - 2026
https://example.org/
"
    );
    assert_eq!(text::render(&document), expected);
}

#[test]
fn the_html_says_the_same_and_is_well_formed() {
    let document = book(CONFIG).write(&report(Subject::Error), &router());
    let html = html::render(&document);
    for said in [
        "<td style=\"padding:2px 12px 2px 0;text-align:left;vertical-align:top\">eth1: 10.0.1.2/24<br>lan: 192.168.0.1/24</td>",
        "<h3 style=\"margin:16px 0 4px\">Fibra &lt;João&gt; (eth1): OFF</h3>",
        "color:#b00020\">ERROR: all links are down</td>",
        "OFF, default</td>",
        "tcp to anything but localnets dports 80,443:445",
        "© AÇÚCAR &amp; CIA - T.I. - 2026<br>https://example.org/",
    ] {
        assert!(html.contains(said), "{said} in {html}");
    }
    let count = |tag: &str| html.matches(tag).count();
    for tag in ["table", "tr", "td", "h3", "p", "body", "html"] {
        let opened = count(&format!("<{tag}>")) + count(&format!("<{tag} "));
        assert_eq!(opened, count(&format!("</{tag}>")), "{tag}");
    }
}

#[test]
fn nothing_configured_is_nothing_printed() {
    let bare = "ping: {targets: [1.1.1.1]}\nWANS: [{description: a, mark: 1, iface: eth0, ip: 10.0.0.2, mask: \
                24, gateway: 10.0.0.1}]";
    let nobody = Router { hostname: "gw".into(), addresses: vec![], uptime: None };
    let text = text::render(&book(bare).write_test(&nobody, 1_795_338_063));
    assert!(!text.contains('©') && !text.contains("Filters") && !text.contains("uptime"), "{text}");
    assert!(text.contains("nothing happened"), "{text}");
}

#[test]
fn of_a_large_policy_the_mail_lists_the_first_filters() {
    let filter = |n| format!("      - {{description: f{n}, chainMangle: OUTPUT, protocol: all}}\n");
    let many: String = (0..150).map(filter).collect();
    let text = text::render(&book(&format!("{CONFIG}{many}")).write(&report(Subject::Stop), &router()));
    assert!(
        text.contains("Filters (and 51 more)") && text.contains("f98") && !text.contains("f99"),
        "{text}"
    );
}

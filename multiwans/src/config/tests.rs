//! The whole of `parse`, where the golden folders are too coarse.

use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;

/// The manual: every key of the schema is in it.
const EXAMPLE: &str = include_str!("../../../config.example.yaml");

fn parse_example() -> Parsed {
    parse(EXAMPLE, "config.example.yaml").unwrap()
}

/// The example with its commented-out WAN, which has every key, put to use.
fn uncommented() -> String {
    let from_first = EXAMPLE.lines().skip_while(|line| !line.starts_with("  # # Name of the link"));
    let block = from_first.take_while(|line| line.starts_with("  #"));
    block.fold(EXAMPLE.to_owned(), |text, line| format!("{text}{}\n", line.replacen("  # ", "  ", 1)))
}

#[test]
fn the_manuals_commented_wan_is_valid_and_complete() {
    let parsed = parse(&uncommented(), "config.example.yaml").unwrap();
    assert_eq!(parsed.warnings, []);
    let wan = &parsed.config.wans[2];
    assert_eq!((wan.description.as_str(), wan.dns.len(), wan.targets.len()), ("WAN3", 2, 2));
    let filter = &wan.filters[0];
    let lists = [filter.src.len(), filter.dst.len(), filter.sports.len(), filter.dports.len()];
    assert_eq!(lists, [2, 1, 2, 3]);
    // Every key of the schema stands in the manual.
    for key in wan::KEYS.iter().chain(filter::KEYS) {
        let other_spelling = ["sport", "dport"].contains(key);
        assert!(other_spelling || uncommented().contains(&format!("{key}:")), "{key}");
    }
}

#[test]
fn values_left_out_are_the_manuals_defaults() {
    let minimal = "
ping: {targets: [1.1.1.1]}
email: {}
WANS: [{description: a, mark: 1, iface: eth0, ip: 10.0.0.2, mask: 24, gateway: 10.0.0.1}]
";
    let config = parse(minimal, "minimal").unwrap().config;
    let manual = parse_example().config;
    // The example spells out the defaults of everything but what is personal.
    assert_eq!(config.daemon, manual.daemon);
    assert_eq!(config.alerts, manual.alerts);
    assert_eq!(config.probe, manual.probe);
    assert_eq!(config.localnets, manual.localnets);
    assert_eq!((config.ping.count, config.ping.timeout), (manual.ping.count, manual.ping.timeout));
    assert_eq!((config.dns.retry, config.dns.timeout), (manual.dns.retry, manual.dns.timeout));
    let email = config.email.unwrap();
    assert_eq!(
        (email.from.as_str(), email.host.as_str(), email.port, email.login),
        ("root", "localhost", 25, None)
    );
    assert_eq!(email.to, ["root"]);
    assert!(parse(minimal.replace("email: {}", "").as_str(), "minimal").unwrap().config.email.is_none());
}

#[test]
fn a_password_is_kept_as_it_is_written_and_never_printed() {
    let text = EXAMPLE.replace("S3nh@Al3@t0R1@", "1.10");
    let config = parse(&text, "f").unwrap().config;
    let email = config.email.as_ref().unwrap();
    let login = email.login.as_ref().unwrap();
    assert_eq!(login.user, "email@empresa.com.br");
    assert_eq!(login.password, PasswordSource::Inline(Secret::new("1.10")));
    assert!(!format!("{config:?}").contains("1.10"));
    let problems = parse(&EXAMPLE.replace("S3nh@Al3@t0R1@", "[hunter2]"), "f").unwrap_err();
    assert!(!problems.to_string().contains("hunter2"), "{problems}");
}

#[test]
fn encryption_follows_the_port_unless_told() {
    let tls = |extra: &str| {
        let text = format!(
            "ping: {{targets: [1.1.1.1]}}\nemail: {{{extra}}}\nWANS: [{{description: a, mark: 1, iface: eth0, ip: \
             10.0.0.2, mask: 24, gateway: 10.0.0.1}}]\n"
        );
        parse(&text, "f").unwrap().config.email.unwrap().tls
    };
    assert_eq!(tls(""), MailTls::Opportunistic);
    assert_eq!(tls("port: 2525"), MailTls::Opportunistic);
    assert_eq!(tls("port: 465"), MailTls::Implicit);
    assert_eq!(tls("port: 587"), MailTls::Starttls);
    assert_eq!(tls("port: 587, tls: none"), MailTls::None);
    assert_eq!(tls("port: 2465, tls: implicit"), MailTls::Implicit);
}

#[test]
fn a_big_policy_is_a_valid_one() {
    // Above the YAML library's own limit of 250 000 nodes.
    use std::fmt::Write as _;
    let mut text = EXAMPLE.to_owned();
    text.push_str(
        "      - description: many\n        chainMangle: PREROUTING\n        protocol: all\n        dst:\n",
    );
    for host in 0..260_000u32 {
        writeln!(text, "          - {}", Ipv4Addr::from(0x0800_0000 + host)).unwrap();
    }
    let parsed = parse(&text, "big").unwrap();
    assert_eq!(parsed.config.wans[1].filters[2].dst.len(), 260_000);
}

#[test]
fn problems_point_at_the_text_they_quote() {
    let broken = EXAMPLE.replace("gateway: 10.0.3.1\n    filters", "gateway: 10.0.3.x\n    filters");
    let problems = parse(&broken, "f").unwrap_err();
    let problem = problems.iter().next().unwrap();
    let line = broken.lines().nth(problem.line as usize - 1).unwrap();
    let at: String = line.chars().skip(problem.column as usize - 1).collect();
    assert_eq!(at, "10.0.3.x");
    assert_eq!(problem.path, "WANS[1].gateway");
}

/// What a hand, a merge or a broken disk does to a line.
fn mutated() -> impl Strategy<Value = String> {
    let lines: Vec<&'static str> =
        EXAMPLE.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    let values = prop_oneof![
        "\\PC{0,12}",
        "[-&*!|>'\"%@`{}\\[\\],:#? 0-9a-z.~/]{0,12}",
        Just("null".to_owned()),
        Just("[]".to_owned()),
        Just("{}".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
    ];
    (prop::collection::vec((0..lines.len(), 0..5u8, values), 1..6)).prop_map(move |changes| {
        let mut text: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        for (index, change, value) in changes {
            let line = &mut text[index];
            match change {
                0 => line.clear(),
                1 => *line = line.repeat(2),
                2 => line.insert_str(0, "  "),
                3 => *line = line.trim_start().to_owned(),
                _ => {
                    let keep = line.find(": ").map_or(0, |colon| colon + 2);
                    line.truncate(keep);
                    line.push_str(&value);
                }
            }
        }
        text.join("\n")
    })
}

/// What must hold for any text: an answer, and places that exist.
fn check_any(text: &str) -> Result<(), TestCaseError> {
    let problems = match parse(text, "any.yaml") {
        Ok(parsed) => {
            prop_assert!(!parsed.config.wans.is_empty());
            parsed.warnings
        }
        Err(problems) => {
            prop_assert!(problems.iter().any(|problem| problem.severity == Severity::Error));
            problems.iter().cloned().collect()
        }
    };
    // YAML ends a line at a lone CR too.
    let lines = u32::try_from(text.matches(['\r', '\n']).count()).unwrap() + 1;
    for pair in problems.windows(2) {
        prop_assert!((pair[0].line, pair[0].column) <= (pair[1].line, pair[1].column));
    }
    for problem in &problems {
        prop_assert!(problem.line >= 1 && problem.line <= lines && problem.column >= 1, "{problem}");
        prop_assert!(!problem.to_string().contains('\n'), "{problem}");
    }
    Ok(())
}

#[test]
fn the_loopback_is_no_wan() {
    let file = "ping: {targets: [1.1.1.1]}\nWANS:\n  - {description: A, mark: 1, iface: lo, ip: 10.0.1.2, mask: 24, gateway: 10.0.1.1}";
    let problems = parse(file, "f").unwrap_err().to_string();
    assert!(problems.contains("WANS[0].iface (lo) must be a link to the internet"), "{problems}");
}

#[test]
fn more_filters_than_the_programs_hold_are_an_error() {
    let file = |count: usize| {
        let filters: String = (0..count)
            .map(|n| format!("      - {{description: f{n}, chainMangle: PREROUTING, protocol: all}}\n"))
            .collect();
        format!(
            "ping: {{targets: [1.1.1.1]}}\nWANS:\n  - description: A\n    mark: 1\n    iface: eth1\n    \
             ip: 10.0.1.2\n    mask: 24\n    gateway: 10.0.1.1\n    filters:\n{filters}"
        )
    };
    assert!(parse(&file(4096), "f").is_ok());
    let problems = parse(&file(4097), "f").unwrap_err().to_string();
    assert!(
        problems.contains("f:2:1: WANS: filters with chainMangle PREROUTING (4097) must be at most 4096"),
        "{problems}"
    );
}

proptest! {
    #[test]
    fn arbitrary_text_is_answered(text in "(?s).{0,200}") {
        check_any(&text)?;
    }

    #[test]
    fn yaml_like_text_is_answered(text in "([-?:,\\[\\]{}#&*!|>'\"%@` \n\ta0~.<]{0,8}(WANS|mark|ping|: |- |\n  ){0,2}){0,12}") {
        check_any(&text)?;
    }

    #[test]
    fn a_mutated_configuration_is_answered(text in mutated()) {
        check_any(&text)?;
    }
}

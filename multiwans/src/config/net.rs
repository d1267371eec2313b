//! Rules for addresses, prefixes, ports, names of devices and hosts, and the lists made of them.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::model::{PortRange, Target};
use super::problem::Report;
use super::scalar::{Rule, decimal};
use super::section::Found;
use crate::types::IfName;

/// An address that one host can have on a network.
pub(super) fn host_address(text: &str) -> Rule<Ipv4Addr> {
    text.parse()
        .ok()
        .filter(|address: &Ipv4Addr| one_host(*address) && !address.is_loopback())
        .ok_or_else(|| "an IPv4 address of a host".into())
}

/// A DNS server's address; the router's own resolver on 127.0.0.1 too.
pub(super) fn server_address(text: &str) -> Rule<Ipv4Addr> {
    text.parse().ok().filter(|address| one_host(*address)).ok_or_else(|| "an IPv4 address of a host".into())
}

fn one_host(address: Ipv4Addr) -> bool {
    !address.is_unspecified() && !address.is_multicast() && !address.is_broadcast()
}

/// An address to probe, or a domain that has some.
pub(super) fn target(text: &str) -> Rule<Target> {
    match text.parse() {
        Ok(address) if one_host(address) => Ok(Target::Address(address)),
        Err(_) if is_domain(text) => Ok(Target::Name(text.to_owned())),
        _ => Err("an IPv4 address of a host or a domain".into()),
    }
}

/// A domain of at least two labels (RFC 1123), absolute or not. A numeric last label is a mistyped
/// address, never a domain.
fn is_domain(text: &str) -> bool {
    is_host_name(text) && text.trim_end_matches('.').contains('.')
}

/// A host's name (RFC 1123 §2.1): labels of letters, digits and inner hyphens.
pub(super) fn is_host_name(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let numeric = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    // 253 characters are what the 255 bytes of the wire format leave (RFC 1035 §2.3.4).
    name.len() <= 253 && !numeric && name.split('.').all(label)
}

/// The device of an interface name: `eth0:1` is an alias address on `eth0`.
pub(super) fn device(text: &str) -> Rule<IfName> {
    let (name, alias) = text.split_once(':').map_or((text, None), |(name, alias)| (name, Some(alias)));
    IfName::new(name).filter(|_| alias.is_none_or(|alias| IfName::new(alias).is_some())).ok_or_else(|| {
        format!("an interface name of at most {} bytes, without white space or \"/\"", IfName::MAX_BYTES)
            .into()
    })
}

/// A prefix as written; `bool`: it had host bits, which are cut off.
pub(super) fn prefix(text: &str) -> Rule<(Ipv4Net, bool)> {
    let (address, len) = text.split_once('/').unwrap_or((text, "32"));
    let parsed =
        address.parse().ok().zip(decimal(len)).and_then(|(address, len)| Ipv4Net::new(address, len).ok());
    match parsed {
        Some(net) => Ok((net.trunc(), net != net.trunc())),
        None => Err("an IPv4 address or a prefix in CIDR notation".into()),
    }
}

/// A port or a range `a:b`.
pub(super) fn ports(text: &str) -> Rule<PortRange> {
    let range = match text.split_once(':') {
        Some((first, last)) => decimal(first).zip(decimal(last)).filter(|(first, last)| first < last),
        None => decimal(text).map(|port| (port, port)),
    };
    range
        .map(|(first, last)| PortRange { first, last })
        .ok_or_else(|| "a port 0..65535 or a range a:b with a < b".into())
}

/// A list of prefixes; host bits are a warning.
pub(super) fn prefixes(list: &Found<'_>, report: &mut Report) -> Vec<Ipv4Net> {
    let mut nets = Vec::new();
    for item in list.items(report) {
        let Some((net, cut)) = item.read(prefix, report) else { continue };
        if cut {
            let text = item.text().unwrap_or_default();
            report.warning(
                item.at,
                &item.path,
                format_args!("{text} has host bits set and is taken as {net}"),
            );
        }
        nets.push(net);
    }
    nets
}

/// A list of DNS servers.
pub(super) fn servers(list: &Found<'_>, report: &mut Report) -> Vec<Ipv4Addr> {
    if list.is_empty_list() {
        report.error(list.at, &list.path, format_args!("must list at least one server"));
    }
    list.items(report).filter_map(|item| item.read(server_address, report)).collect()
}

/// A list of probe targets: one address at least, and better first, so that a link can be judged
/// without DNS.
pub(super) fn targets(list: &Found<'_>, report: &mut Report) -> Vec<Target> {
    let mut targets = Vec::new();
    let mut whole = !list.is_mapping();
    for item in list.items(report) {
        match item.read(target, report) {
            Some(target) => targets.push((target, item)),
            None => whole = false,
        }
    }
    let is_address = |(target, _): &(Target, Found<'_>)| matches!(target, Target::Address(_));
    if whole && !targets.iter().any(is_address) {
        report.error(list.at, &list.path, format_args!("must list at least one IPv4 address"));
    } else if let Some((Target::Name(name), item)) = targets.first() {
        report.warning(
            item.at,
            &item.path,
            format_args!("the first target ({name}) should be an IPv4 address: a name needs DNS before it can be probed"),
        );
    }
    targets.into_iter().map(|(target, _)| target).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_addresses() {
        for good in ["10.0.2.2", "1.1.1.1", "255.255.255.254"] {
            assert!(host_address(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "10.0.2",
            "10.0.2.256",
            "10.0.2.02",
            "10.0.2.2/24",
            "0.0.0.0",
            "127.0.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "10.0.2.2 ",
            "gw",
        ] {
            assert!(host_address(bad).is_err(), "{bad}");
        }
        assert!(server_address("127.0.0.1").is_ok());
        assert!(server_address("0.0.0.0").is_err());
    }

    #[test]
    fn targets_are_addresses_or_domains() {
        assert_eq!(target("1.1.1.1"), Ok(Target::Address(Ipv4Addr::new(1, 1, 1, 1))));
        for good in ["google.com", "a.dns.br", "xn--bcher-kva.example.", "1-a.b2"] {
            assert!(matches!(target(good), Ok(Target::Name(_))), "{good}");
        }
        let long_label = format!("{}.com", "a".repeat(64));
        let long_name = format!("{}com", "abcdefghi.".repeat(26));
        for bad in [
            "",
            ".",
            "1.2.3.400",
            "1.2.3",
            "google",
            "-a.com",
            "a-.com",
            "a..com",
            ".com",
            "a_b.com",
            "a b.com",
            "http://a.com",
            "a.com..",
            "224.0.0.1",
            "2001:db8::1",
            &long_label,
            &long_name,
        ] {
            assert!(target(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_alias_means_its_device() {
        for (text, device_name) in
            [("eth0", "eth0"), ("eth0:1", "eth0"), ("vlan10.5:web", "vlan10.5"), ("br-lan", "br-lan")]
        {
            assert_eq!(device(text).unwrap().as_str(), device_name);
        }
        for bad in ["", ":1", "eth0:", "eth0:1:2", "a/b", "a b", "1234567890123456"] {
            assert!(device(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn prefixes_lose_their_host_bits() {
        assert_eq!(prefix("10.0.0.0/8"), Ok(("10.0.0.0/8".parse().unwrap(), false)));
        assert_eq!(prefix("10.0.0.1/8"), Ok(("10.0.0.0/8".parse().unwrap(), true)));
        assert_eq!(prefix("10.0.0.1"), Ok(("10.0.0.1/32".parse().unwrap(), false)));
        assert_eq!(prefix("0.0.0.0/0"), Ok(("0.0.0.0/0".parse().unwrap(), false)));
        for bad in [
            "",
            "/",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/08",
            "10.0.0/8",
            "!10.0.0.0/8",
            "10.0.0.0/255.0.0.0",
            "::/0",
        ] {
            assert!(prefix(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ports_and_ranges() {
        for (text, first, last) in
            [("0", 0, 0), ("65535", 65535, 65535), ("0:1", 0, 1), ("1024:65535", 1024, 65535)]
        {
            assert_eq!(ports(text), Ok(PortRange { first, last }), "{text}");
        }
        for bad in [
            "", "65536", "70000", "-1", "80:80", "90:80", ":80", "80:", "1:2:3", "80-90", "http", "1.0",
            "080",
        ] {
            assert!(ports(bad).is_err(), "{bad}");
        }
    }
}

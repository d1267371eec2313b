//! The `email` section.

use super::model::{Email, Login, MailTls, PasswordSource};
use super::net::is_host_name;
use super::problem::Report;
use super::scalar::{Rule, file_path, free_text, integer};
use super::secret::Secret;
use super::section::{Found, Section};

const KEYS: &[&str] =
    &["from", "to", "host", "port", "tls", "caFile", "username", "password", "passwordFile"];

/// Who gets the mail of a router nobody configured for mail.
const DEFAULT_USER: &str = "root";
const DEFAULT_HOST: &str = "localhost";
const DEFAULT_PORT: u16 = 25;

/// Submission over implicit TLS (RFC 8314 §3.3).
const SUBMISSIONS_PORT: u16 = 465;
/// Submission with STARTTLS (RFC 6409).
const SUBMISSION_PORT: u16 = 587;

/// Limit of the part before the `@` (RFC 5321 §4.5.3.1.1).
const MAX_LOCAL_PART: usize = 64;
/// Limit of a whole address: a path of 256 less its angle brackets (RFC 5321 §4.5.3.1.3).
const MAX_ADDRESS: usize = 254;

const ADDRESS_RULE: &str = "a mail address or the name of a local user";

/// Reads `email`; `None` where it is absent: no mails are sent.
pub(super) fn read(root: &Section<'_>, report: &mut Report) -> Option<Email> {
    root.find("email")?;
    let email = root.section("email", KEYS, report);
    let port = email.with_default("port", integer(1..=u16::MAX), DEFAULT_PORT, report);
    Some(Email {
        from: email.with_default("from", address, DEFAULT_USER.to_owned(), report),
        to: recipients(&email, report),
        host: email.with_default("host", host, DEFAULT_HOST.to_owned(), report),
        port,
        tls: email.with_default("tls", tls, tls_of_port(port), report),
        ca_file: email.optional("caFile", file_path, report),
        login: login(&email, report),
    })
}

/// `to` as text with commas, as the seed has it, or as a list.
fn recipients(email: &Section<'_>, report: &mut Report) -> Vec<String> {
    let Some(list) = email.find("to") else { return vec![DEFAULT_USER.to_owned()] };
    if list.is_empty_list() {
        report.error(list.at, &list.path, format_args!("must list at least one recipient"));
    }
    let mut recipients = Vec::new();
    for item in list.items(report) {
        match item.text() {
            Some(text) => split(text, &item, &mut recipients, report),
            None => item.must_be(ADDRESS_RULE, report),
        }
    }
    recipients
}

fn split(text: &str, item: &Found<'_>, recipients: &mut Vec<String>, report: &mut Report) {
    for part in text.split(',').map(str::trim) {
        match address(part) {
            Ok(address) => recipients.push(address),
            Err(rule) => report.must_be(item.at, &item.path, part, &rule),
        }
    }
}

fn login(email: &Section<'_>, report: &mut Report) -> Option<Login> {
    let user = email.optional("username", non_empty, report);
    // Never through a rule: its message would show the password.
    let inline = email.find("password").and_then(|found| match found.text() {
        Some(text) if !text.is_empty() => Some(PasswordSource::Inline(Secret::new(text))),
        _ => {
            report.error(found.at, &found.path, format_args!("must be a text that is not empty"));
            None
        }
    });
    // Nor this one: a password may have been put here by mistake.
    let file = email.find("passwordFile").and_then(|found| match found.text().map(file_path) {
        Some(Ok(path)) => Some(PasswordSource::File(path)),
        _ => {
            report.error(found.at, &found.path, format_args!("must be an absolute path to a file"));
            None
        }
    });
    let given = |key| email.find(key).is_some();
    if let Some(found) = email.find("passwordFile").filter(|_| given("password")) {
        report.error(found.at, &found.path, format_args!("password and passwordFile must not both be given"));
    }
    for key in ["password", "passwordFile"] {
        if let Some(found) = email.find(key).filter(|_| !given("username")) {
            report.warning(found.at, &found.path, format_args!("ignored without email.username"));
        }
    }
    let password = inline.or(file).unwrap_or(PasswordSource::Credential);
    user.map(|user| Login { user, password })
}

fn tls(text: &str) -> Rule<MailTls> {
    match text {
        "none" => Ok(MailTls::None),
        "opportunistic" => Ok(MailTls::Opportunistic),
        "starttls" => Ok(MailTls::Starttls),
        "implicit" => Ok(MailTls::Implicit),
        _ => Err("none, opportunistic, starttls or implicit".into()),
    }
}

fn tls_of_port(port: u16) -> MailTls {
    match port {
        SUBMISSIONS_PORT => MailTls::Implicit,
        SUBMISSION_PORT => MailTls::Starttls,
        _ => MailTls::Opportunistic,
    }
}

fn non_empty(text: &str) -> Rule<String> {
    if text.trim().is_empty() { Err("a text that is not empty".into()) } else { free_text(text) }
}

fn host(text: &str) -> Rule<String> {
    let valid = is_host_name(text) || text.parse::<std::net::IpAddr>().is_ok();
    if valid { Ok(text.to_owned()) } else { Err("a host name or an address".into()) }
}

/// `user@domain` (RFC 5321's dot-string form), or a local user's name.
fn address(text: &str) -> Rule<String> {
    let valid = match text.rsplit_once('@') {
        Some((local, domain)) => is_dot_atom(local) && is_host_name(domain) && text.len() <= MAX_ADDRESS,
        None => is_dot_atom(text),
    };
    if valid { Ok(text.to_owned()) } else { Err(ADDRESS_RULE.into()) }
}

/// RFC 5322 §3.2.3.
fn is_dot_atom(text: &str) -> bool {
    let atext = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte);
    text.len() <= MAX_LOCAL_PART && text.split('.').all(|atom| !atom.is_empty() && atom.bytes().all(atext))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_local_users() {
        for good in ["root", "noc-team", "a@b.example", "first.last+tag@sub.example.org", "root@localhost"] {
            assert!(address(good).is_ok(), "{good}");
        }
        let long = format!("{}@example.org", "a".repeat(65));
        for bad in [
            "",
            "@",
            "a@",
            "@b.example",
            "a b@c.example",
            "a@b@c",
            "a..b@c.example",
            ".a@b.example",
            "a@b_c",
            "a@1.2",
            "a;b@c.d e",
            "a\n@b.c",
            &long,
        ] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }
}

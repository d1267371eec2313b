//! A document as the message that goes over the wire.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lettre::address::AddressError;
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};
use lettre::{Address, Message as Mime};

use super::document::Document;
use super::server::is_this_host;
use super::{html, text};
use crate::config::Email;

/// A message and its envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its subject, for the log.
    pub subject: String,
    /// The sender.
    pub(super) from: Address,
    /// Who has not got it yet.
    pub(super) recipients: Vec<Address>,
    /// Header and body.
    pub(super) bytes: Vec<u8>,
}

impl Message {
    /// Puts a document into a message, dated `written` (Unix time in seconds), from the router of that name.
    ///
    /// # Errors
    /// An address that cannot be one; as text.
    pub fn new(email: &Email, document: &Document, hostname: &str, written: u64) -> Result<Self, String> {
        let domain = domain(email, hostname);
        let address = |text: &str| {
            full(text, &domain).map_err(|error| format!("{text} is not a mail address: {error}"))
        };
        let from = address(&email.from)?;
        let recipients = email.to.iter().map(|to| address(to)).collect::<Result<Vec<_>, _>>()?;

        let sender = Mailbox::new(None, from.clone());
        let mut builder = Mime::builder()
            .from(sender.clone())
            .reply_to(sender)
            .subject(document.subject.as_str())
            .date(UNIX_EPOCH + Duration::from_secs(written))
            .message_id(Some(format!("<{}@{domain}>", unique())))
            // RFC 3834: no out-of-office answers, please.
            .raw_header(HeaderValue::new(
                HeaderName::new_from_ascii_str("Auto-Submitted"),
                "auto-generated".to_owned(),
            ));
        for recipient in &recipients {
            builder = builder.to(Mailbox::new(None, recipient.clone()));
        }
        let body = MultiPart::alternative_plain_html(text::render(document), html::render(document));
        let mime = builder.multipart(body).map_err(|error| error.to_string())?;
        Ok(Self { subject: document.subject.clone(), from, recipients, bytes: mime.formatted() })
    }
}

/// A local user's name gets a domain: a server on this host knows `localhost`, any other can at best know
/// the router's name.
fn domain(email: &Email, hostname: &str) -> String {
    let usable = !is_this_host(&email.host) && Address::new("root", hostname).is_ok();
    if usable { hostname.to_owned() } else { "localhost".to_owned() }
}

fn full(text: &str, domain: &str) -> Result<Address, AddressError> {
    match text.rsplit_once('@') {
        Some((user, domain)) => Address::new(user, domain),
        None => Address::new(text, domain),
    }
}

/// Two mails in one nanosecond would need two daemons on one router.
fn unique() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{:x}.{:x}", since.as_nanos(), std::process::id())
}

#[cfg(test)]
mod tests {
    use super::super::document::Block;
    use super::*;
    use crate::config::MailTls;

    fn email(host: &str) -> Email {
        Email {
            from: "root".into(),
            to: vec!["noc@example.org".into(), "root".into()],
            host: host.into(),
            port: 25,
            tls: MailTls::Opportunistic,
            ca_file: None,
            login: None,
        }
    }

    fn message(host: &str, hostname: &str) -> Message {
        let document = Document {
            subject: "ERROR: Ligação \u{1f4e1}: router (22/11/2026 09:00:00)".into(),
            blocks: vec![Block::Footer(vec![format!("© {}", "ÇÃO ".repeat(300))])],
        };
        Message::new(&email(host), &document, hostname, 1_795_338_000).unwrap()
    }

    #[test]
    fn it_is_ascii_of_short_lines_whatever_it_says() {
        let text = String::from_utf8(message("mail.example", "router").bytes).unwrap();
        assert!(text.is_ascii());
        assert!(text.lines().all(|line| line.len() <= 998), "RFC 5322 §2.1.1");
        for header in [
            "From: root@router\r\n",
            "Reply-To: root@router\r\n",
            "To: noc@example.org, root@router\r\n",
            "Message-ID: <",
            "Date: Sun, 22 Nov 2026 09:00:00 +0000\r\n",
            "Auto-Submitted: auto-generated\r\n",
            "multipart/alternative",
            "text/plain; charset=utf-8",
            "text/html; charset=utf-8",
        ] {
            assert!(text.contains(header), "{header}\n{text}");
        }
    }

    #[test]
    fn local_users_get_a_domain() {
        let addresses = |host, hostname| {
            let message = message(host, hostname);
            let recipients: Vec<String> = message.recipients.iter().map(ToString::to_string).collect();
            (message.from.to_string(), recipients.join(" "))
        };
        let told = |from: &str, to: &str| (from.to_owned(), to.to_owned());
        assert_eq!(addresses("localhost", "rtr"), told("root@localhost", "noc@example.org root@localhost"));
        assert_eq!(addresses("mail.example", "rtr"), told("root@rtr", "noc@example.org root@rtr"));
        // Host names may be anything.
        assert_eq!(
            addresses("mail.example", "my router"),
            told("root@localhost", "noc@example.org root@localhost")
        );
    }
}

//! One conversation with the server: a message handed over, recipient by recipient.

use std::fmt;
use std::future::Future;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::pin::pin;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use lettre::Address;
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::DEFAULT_MECHANISMS;
use lettre::transport::smtp::client::AsyncSmtpConnection;
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::ClientId;
use tokio::time::timeout;

use super::message::Message;
use super::router::hostname;
use super::server::{Encryption, Server};

/// For a name's addresses. The system's resolver asks each of its servers twice for 5 s.
const RESOLVE_TIME: Duration = Duration::from_secs(20);
/// For a TCP connection to one address: three SYNs.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// For one answer. RFC 5321 §4.5.3.2 wants minutes, from a mail server with thousands of mails to move;
/// a dawdling server delays a router's next mail, which may be about something new.
const ANSWER_TIME: Duration = Duration::from_secs(60);
/// After this much silence at the begin, who watches is told.
const QUIET_TIME: Duration = Duration::from_secs(5);
/// For the whole conversation.
const TOTAL_TIME: Duration = Duration::from_secs(180);
/// For the good-bye, which nobody needs.
const QUIT_TIME: Duration = Duration::from_secs(1);

/// Why something was not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What was under way, and what went wrong; without the password.
    pub text: String,
    /// Whether trying again is of no use.
    pub permanent: bool,
    /// Whether it is about the server or the way to it, rather than this message.
    pub(super) of_server: bool,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What became of a message that got as far as its recipients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Who gets it.
    pub accepted: Vec<Address>,
    /// Who does not, and why.
    pub refused: Vec<(Address, Failure)>,
}

impl Server {
    /// Hands a message over. `tell` hears of each step that succeeded, and of a long wait for the first.
    ///
    /// # Errors
    /// What kept it from every recipient.
    pub async fn deliver(
        &self,
        message: &Message,
        tell: &mut dyn FnMut(String),
    ) -> Result<Delivery, Failure> {
        match timeout(TOTAL_TIME, self.converse(message, tell)).await {
            Ok(result) => result,
            Err(_) => Err(late("the conversation did not end", TOTAL_TIME)),
        }
    }

    async fn converse(&self, message: &Message, tell: &mut dyn FnMut(String)) -> Result<Delivery, Failure> {
        let mut connection = self.connect(tell).await?;
        let result = self.hand_over(&mut connection, message, tell).await;
        // Its answer changes nothing.
        let _ = timeout(QUIT_TIME, connection.quit()).await;
        result
    }

    async fn connect(&self, tell: &mut dyn FnMut(String)) -> Result<AsyncSmtpConnection, Failure> {
        let found = timeout(RESOLVE_TIME, tokio::net::lookup_host((self.host.as_str(), self.port))).await;
        let addresses: Vec<SocketAddr> = match found {
            Ok(Ok(addresses)) => addresses.collect(),
            Ok(Err(error)) => {
                return Err(unreachable(format!("{} could not be resolved: {error}", self.host)));
            }
            Err(_) => return Err(late(&format!("{} could not be resolved", self.host), RESOLVE_TIME)),
        };
        let mut last = unreachable(format!("{} has no address", self.host));
        for address in addresses {
            match self.connect_to(address, tell).await {
                Ok(connection) => return Ok(connection),
                Err(failure) => last = failure,
            }
        }
        Err(last)
    }

    async fn connect_to(
        &self,
        address: SocketAddr,
        tell: &mut dyn FnMut(String),
    ) -> Result<AsyncSmtpConnection, Failure> {
        let hello = hello(address);
        let implicit = match self.encryption {
            Encryption::Implicit => Some(self.tls().map_err(|error| self.failure("TLS", &error))?),
            Encryption::Never | Encryption::IfOffered | Encryption::StartTls => None,
        };
        let what = format!("connection to {address}");
        let connecting =
            AsyncSmtpConnection::connect_tokio1(address, Some(CONNECT_TIME), &hello, implicit, None);
        let silent = match self.encryption {
            Encryption::Implicit => "",
            _ => {
                "; a server that waits for TLS from the first byte is as silent: for that (port 465) email.tls must be implicit"
            }
        };
        let mut connecting = pin!(connecting);
        let connected = match timeout(QUIET_TIME, &mut connecting).await {
            Ok(connected) => connected,
            Err(_) => {
                let (quiet, limit) = (QUIET_TIME.as_secs(), ANSWER_TIME.as_secs());
                tell(format!("{what}: no answer within {quiet} s, waiting for up to {limit} s{silent}"));
                timeout(ANSWER_TIME - QUIET_TIME, connecting).await.map_err(|_| {
                    let late = late(&format!("{what}: no answer"), ANSWER_TIME);
                    Failure { text: late.text + silent, ..late }
                })?
            }
        };
        let mut connection = connected.map_err(|error| self.failure(&what, &error))?;
        tell(format!("connected to {address}{}", encrypted(&connection)));

        let wanted = match self.encryption {
            Encryption::Never | Encryption::Implicit => false,
            Encryption::IfOffered => connection.can_starttls(),
            Encryption::StartTls if !connection.can_starttls() => return Err(self.no_starttls()),
            Encryption::StartTls => true,
        };
        if wanted {
            let tls = self.tls().map_err(|error| self.failure("TLS", &error))?;
            self.step("STARTTLS", connection.starttls(tls, &hello)).await?;
            let whose = match self.encryption {
                Encryption::IfOffered => "certificate not checked",
                _ => "certificate valid",
            };
            tell(format!("encrypted by STARTTLS ({whose})"));
        }
        if let Some(credentials) = self.credentials() {
            self.step("login", connection.auth(DEFAULT_MECHANISMS, &credentials)).await?;
            tell("logged in".to_owned());
        }
        Ok(connection)
    }

    async fn hand_over(
        &self,
        connection: &mut AsyncSmtpConnection,
        message: &Message,
        tell: &mut dyn FnMut(String),
    ) -> Result<Delivery, Failure> {
        let of_message = |failure: Failure| Failure { of_server: false, ..failure };
        let from = Mail::new(Some(message.from.clone()), Vec::new());
        let step = format!("sender {}", message.from);
        self.step(&step, connection.command(from)).await.map_err(of_message)?;
        tell(format!("{step} accepted"));

        let mut delivery = Delivery { accepted: Vec::new(), refused: Vec::new() };
        for recipient in &message.recipients {
            let step = format!("recipient {recipient}");
            let command = Rcpt::new(recipient.clone(), Vec::new());
            match self.step(&step, connection.command(command)).await {
                Ok(_) => {
                    tell(format!("{step} accepted"));
                    delivery.accepted.push(recipient.clone());
                }
                // No answer: whatever follows would be taken for the answer.
                Err(failure) if failure.of_server => return Err(failure),
                Err(failure) => delivery.refused.push((recipient.clone(), failure)),
            }
        }
        if delivery.accepted.is_empty() {
            return Ok(delivery);
        }
        self.step("message", connection.command(Data)).await.map_err(of_message)?;
        let answer = self.step("message", connection.message(&message.bytes)).await.map_err(of_message)?;
        let words: Vec<&str> = answer.message().collect();
        tell(format!("message accepted: {}", self.without_secrets(&words.join(" "))));
        Ok(delivery)
    }

    /// One command and its answer, in time.
    async fn step<T>(&self, what: &str, doing: impl Future<Output = Result<T, Error>>) -> Result<T, Failure> {
        match timeout(ANSWER_TIME, doing).await {
            Ok(result) => result.map_err(|error| self.failure(what, &error)),
            Err(_) => Err(late(&format!("{what}: no answer"), ANSWER_TIME)),
        }
    }

    fn failure(&self, what: &str, error: &Error) -> Failure {
        let said = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
        // The library wraps one in the other.
        let said = said.strip_prefix("Connection error: ").unwrap_or(&said);
        let text = match error.status() {
            Some(code) => format!("{what} refused: {code} {said}"),
            None if said.is_empty() => format!("{what} failed: {error}"),
            None => format!("{what} failed: {said}{}", hint(said)),
        };
        // A client error is ours, such as no way to log in that both sides know; it will be the same again.
        let permanent = error.is_permanent() || error.is_client();
        let of_server = error.status().is_none() && !error.is_client();
        Failure { text: self.without_secrets(text.trim_end()), permanent, of_server }
    }

    fn no_starttls(&self) -> Failure {
        let why = match self.login {
            Some(_) => "; the password is not sent without encryption unless email.tls is none",
            None => "",
        };
        let text = format!("{} offers no STARTTLS{why}", self.host);
        Failure { text, permanent: true, of_server: false }
    }

    /// A server may quote the line it did not like, and that may have been the one with the password.
    fn without_secrets(&self, text: &str) -> String {
        let Some((user, secret)) = &self.login else { return one_line(text) };
        let password = secret.expose();
        let plain = BASE64.encode(format!("\0{user}\0{password}"));
        let shown = [password, &BASE64.encode(password), &plain];
        if shown.iter().any(|secret| text.contains(*secret)) {
            "the server's answer quotes the password and is not shown".to_owned()
        } else {
            one_line(text)
        }
    }
}

/// What to do about rustls' more frequent complaints.
fn hint(said: &str) -> &'static str {
    if said.contains("invalid peer certificate") {
        "; it must be valid for email.host, by an authority of the system's or of email.caFile"
    } else if said.contains("received corrupt message") {
        "; the server speaks no TLS here, see email.tls"
    } else {
        ""
    }
}

/// Servers answer in several lines; a log has one for each thing.
fn one_line(text: &str) -> String {
    text.split(|c: char| c.is_control()).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

fn encrypted(connection: &AsyncSmtpConnection) -> &'static str {
    if connection.is_encrypted() { ", encrypted by TLS (certificate valid)" } else { "" }
}

fn unreachable(text: String) -> Failure {
    Failure { text, permanent: false, of_server: true }
}

fn late(what: &str, time: Duration) -> Failure {
    unreachable(format!("{what} within {} s", time.as_secs()))
}

/// Who we are: a name only where it is a full one, which servers insist on; else the address.
fn hello(server: SocketAddr) -> ClientId {
    let name = hostname();
    let full = name.contains('.') && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '.');
    if full { ClientId::Domain(name) } else { own_address(server).unwrap_or_default() }
}

/// The address that packets to the server leave with. Connecting a UDP socket sends nothing.
fn own_address(server: SocketAddr) -> Option<ClientId> {
    let any: IpAddr = if server.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(server).ok()?;
    Some(match socket.local_addr().ok()?.ip() {
        IpAddr::V4(address) => ClientId::Ipv4(address),
        IpAddr::V6(address) => ClientId::Ipv6(address),
    })
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;

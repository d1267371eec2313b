//! The SMTP server as configured: where it is, how it is talked to, who we are to it.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, TlsParameters, TlsParametersBuilder};
use thiserror::Error;

use super::password;
use crate::config::{Email, MailTls, PasswordSource, Secret};

/// What keeps mails from being sent at all.
#[derive(Debug, Error)]
pub enum SetupError {
    /// A user, but no password anywhere.
    #[error(
        "email.username needs a password: email.password, email.passwordFile or the systemd credential \
         email-password"
    )]
    NoPassword,
    /// A file that cannot be read.
    #[error("{what} ({}) must be readable: {source}", path.display())]
    Unreadable {
        /// Its key.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file that holds something else.
    #[error("{what} ({}) must hold one line with the password", path.display())]
    NotAPassword {
        /// Its key.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// No certificate in `email.caFile`.
    #[error("email.caFile ({}) must hold certificates in PEM form", path.display())]
    NoCertificates {
        /// The file.
        path: PathBuf,
    },
    /// The system gives no more threads.
    #[error("no thread for mails: {0}")]
    NoThread(io::Error),
}

/// How a connection is encrypted, once user and host are taken into account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encryption {
    /// Not at all.
    Never,
    /// By STARTTLS where offered, with whatever certificate: RFC 7435's opportunistic security, better
    /// than clear text, and all that a mail without a password needs.
    IfOffered,
    /// By STARTTLS with a valid certificate, or no mail.
    StartTls,
    /// From the first byte with a valid certificate, or no mail.
    Implicit,
}

/// A server to hand mails to.
#[derive(Debug)]
pub struct Server {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) encryption: Encryption,
    pub(super) login: Option<(String, Secret)>,
    /// Where the password was read from.
    source: Option<PasswordSource>,
    authorities: Vec<Certificate>,
}

impl Server {
    /// Takes the configuration and fetches what it refers to. Beside it, what is odd about that.
    ///
    /// # Errors
    /// A password or certificate that is not where it should be.
    pub fn new(email: &Email) -> Result<(Self, Option<String>), SetupError> {
        let (login, warning) = match &email.login {
            Some(login) => {
                let (secret, warning) = password::fetch(&login.password)?;
                (Some((login.user.clone(), secret)), warning)
            }
            None => (None, None),
        };
        let authorities = match &email.ca_file {
            Some(path) => authorities(path)?,
            None => Vec::new(),
        };
        let server = Self {
            host: email.host.clone(),
            port: email.port,
            encryption: encryption(email),
            login,
            source: email.login.as_ref().map(|login| login.password.clone()),
            authorities,
        };
        Ok((server, warning))
    }

    /// Reads the password anew: a daemon runs for years, longer than passwords are used.
    ///
    /// # Errors
    /// It is not where it was; the one read before stays.
    pub(super) fn renew_password(&mut self) -> Result<(), SetupError> {
        if let (Some((_, secret)), Some(source)) = (&mut self.login, &self.source) {
            (*secret, _) = password::fetch(source)?;
        }
        Ok(())
    }

    /// The credentials, for the one moment they are sent.
    pub(super) fn credentials(&self) -> Option<Credentials> {
        self.login.as_ref().map(|(user, secret)| Credentials::new(user.clone(), secret.expose().to_owned()))
    }

    /// TLS towards this server. The system's certificates are read anew each time, on the mail thread: a
    /// daemon runs for years, longer than they are valid.
    pub(super) fn tls(&self) -> Result<TlsParameters, lettre::transport::smtp::Error> {
        let builder = TlsParametersBuilder::new(self.host.clone());
        let builder = match self.encryption {
            Encryption::IfOffered => builder
                .certificate_store(CertificateStore::None)
                .dangerous_accept_invalid_certs(true)
                .dangerous_accept_invalid_hostnames(true),
            Encryption::Never | Encryption::StartTls | Encryption::Implicit => builder,
        };
        self.authorities.iter().cloned().fold(builder, TlsParametersBuilder::add_root_certificate).build()
    }
}

fn authorities(path: &std::path::Path) -> Result<Vec<Certificate>, SetupError> {
    let pem = std::fs::read(path).map_err(|source| SetupError::Unreadable {
        what: "email.caFile",
        path: path.to_owned(),
        source,
    })?;
    // One `Certificate` holds all that are in the file, and accepts a file without any.
    let any = pem.windows(BEGIN.len()).any(|window| window == BEGIN);
    match Certificate::from_pem(&pem) {
        Ok(certificate) if any => Ok(vec![certificate]),
        _ => Err(SetupError::NoCertificates { path: path.to_owned() }),
    }
}

const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// A password leaves this host only over a connection that proved whose it is, unless `tls: none` asks for
/// the contrary in so many words.
fn encryption(email: &Email) -> Encryption {
    match email.tls {
        MailTls::None => Encryption::Never,
        MailTls::Opportunistic if email.login.is_some() && !is_this_host(&email.host) => Encryption::StartTls,
        MailTls::Opportunistic => Encryption::IfOffered,
        MailTls::Starttls => Encryption::StartTls,
        MailTls::Implicit => Encryption::Implicit,
    }
}

/// Whether the server is on this host. Only what cannot be anything else counts.
pub(super) fn is_this_host(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Login, PasswordSource};

    fn email(host: &str, tls: MailTls, login: bool) -> Email {
        Email {
            from: "root".into(),
            to: vec!["root".into()],
            host: host.into(),
            port: 25,
            tls,
            ca_file: None,
            login: login.then(|| Login {
                user: "u".into(),
                password: PasswordSource::Inline(Secret::new("hunter2")),
            }),
        }
    }

    #[test]
    fn a_password_needs_a_proven_server_unless_told_otherwise() {
        let chosen = |host, tls, login| encryption(&email(host, tls, login));
        use MailTls::Opportunistic;
        assert_eq!(chosen("mail.example", Opportunistic, false), Encryption::IfOffered);
        assert_eq!(chosen("mail.example", Opportunistic, true), Encryption::StartTls);
        assert_eq!(chosen("localhost", Opportunistic, true), Encryption::IfOffered);
        assert_eq!(chosen("127.0.0.1", Opportunistic, true), Encryption::IfOffered);
        assert_eq!(chosen("::1", Opportunistic, true), Encryption::IfOffered);
        assert_eq!(chosen("10.0.0.1", Opportunistic, true), Encryption::StartTls);
        assert_eq!(chosen("mail.example", MailTls::None, true), Encryption::Never);
        assert_eq!(chosen("localhost", MailTls::Starttls, false), Encryption::StartTls);
        assert_eq!(chosen("localhost", MailTls::Implicit, false), Encryption::Implicit);
    }

    #[test]
    fn the_password_is_not_in_what_debug_shows() {
        let (server, _) = Server::new(&email("mail.example", MailTls::Starttls, true)).unwrap();
        assert!(!format!("{server:?} {:?}", server.credentials()).contains("hunter2"));
    }

    #[test]
    fn a_file_without_certificates_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        std::fs::write(&path, "no certificate").unwrap();
        let mut email = email("mail.example", MailTls::Starttls, false);
        email.ca_file = Some(path.clone());
        let error = Server::new(&email).unwrap_err().to_string();
        assert_eq!(error, format!("email.caFile ({}) must hold certificates in PEM form", path.display()));
        email.ca_file = Some(dir.path().join("none.pem"));
        assert!(Server::new(&email).unwrap_err().to_string().contains("must be readable"));
    }
}

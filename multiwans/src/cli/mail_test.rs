//! `multiwans mail-test`: do mails arrive, and where do they get stuck?

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::tz::TimeZone;

use super::fail;
use super::load::{load_without_lists, open_password};
use crate::config::{Config, Email};
use crate::notify::email::{Book, Message, Router, Server};

/// Sends one mail as the configuration says and prints each step on stdout, what went wrong on stderr. Exit
/// code 0: the server took it for every recipient.
pub(super) fn run(path: &Path) -> ExitCode {
    let config = match load_without_lists(path) {
        Ok(parsed) => parsed.config,
        Err(error) => return fail(&error),
    };
    let Some(email) = &config.email else {
        return fail(&format!("{}: has no section email: no mails are sent", path.display()));
    };
    if let Some(warning) = open_password(path, &config) {
        eprintln!("multiwans: {warning}");
    }
    match send(&config, email) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => fail(&why),
    }
}

fn send(config: &Config, email: &Email) -> Result<(), String> {
    let (server, warning) = Server::new(email).map_err(|error| error.to_string())?;
    if let Some(warning) = warning {
        eprintln!("multiwans: {warning}");
    }
    let router = Router::look();
    // A clock before 1970 is wrong anyway.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let document = Book::new(config, TimeZone::system()).write_test(&router, now);
    let message = Message::new(email, &document, &router.hostname, now)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("the runtime cannot be started: {error}"))?;
    say(&format!("server {} port {}", email.host, email.port));
    let result = runtime.block_on(server.deliver(&message, &mut |step| say(&step)));
    // A name may still be being resolved; nobody waits for that.
    runtime.shutdown_background();

    let delivery = result.map_err(|failure| failure.to_string())?;
    if delivery.refused.is_empty() {
        say(&format!("delivered: {}", message.subject));
        return Ok(());
    }
    let refused: Vec<String> = delivery.refused.iter().map(|(_, failure)| failure.to_string()).collect();
    Err(refused.join("; "))
}

/// A reader that went away (`| head`) takes nothing from the verdict.
fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

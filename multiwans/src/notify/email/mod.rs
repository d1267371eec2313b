//! Mails about the links: written by the daemon, delivered by a thread of their own.
//!
//! ```text
//!  daemon loop ── Report ──> [thread: document ─> message ─> queue ─> session] ──> SMTP server
//! ```
//! The daemon only puts a [`Report`] into a channel. Everything that takes time (reading certificates,
//! resolving a name, TLS, a server that dawdles) happens on the thread, which has a runtime of its own: no
//! mail delays a failover.

mod content;
mod document;
mod html;
mod message;
mod password;
mod post;
mod queue;
mod router;
mod server;
mod session;
mod text;

pub use content::{Book, Report};
pub use document::Document;
pub use message::Message;
pub use post::{Mailer, Office};
pub use router::Router;
pub use server::{Server, SetupError};
pub use session::{Delivery, Failure};

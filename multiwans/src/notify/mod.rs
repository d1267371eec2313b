//! What others are told of the links: the status file that monitoring reads, mails, the administrator's
//! hooks.

pub mod email;
pub mod hooks;
mod status_file;

pub use hooks::Hooks;
pub use status_file::{StatusFile, StatusFileError};

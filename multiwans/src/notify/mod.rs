//! What others are told of the links: the status file that monitoring reads, mails.

pub mod email;
mod status_file;

pub use status_file::{StatusFile, StatusFileError};

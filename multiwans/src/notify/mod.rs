//! What others are told of the links: the status file that monitoring reads.

mod status_file;

pub use status_file::{StatusFile, StatusFileError};

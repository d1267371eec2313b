//! The subcommands, one file each, and what several of them share.

pub mod check;
pub mod load;
pub mod status;

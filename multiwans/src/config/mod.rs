//! The configuration file: YAML in, a typed and validated [`Config`] or every problem at once out.

mod model;

pub use model::*;

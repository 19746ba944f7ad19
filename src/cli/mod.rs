//! The verbs of the command line.

pub(crate) mod broker;
pub(crate) mod size;

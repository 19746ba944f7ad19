//! Sizes on the command line: `1GiB`, `512MiB`, `65536`.

pub(crate) use ganger_supervisor::cli::units::size as parse;

//! The supervisor answers `bind`.

mod filter;

pub(crate) use filter::filter;

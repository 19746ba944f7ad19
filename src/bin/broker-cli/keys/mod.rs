//! Verbs on keys.

pub(crate) mod append;
pub(crate) mod delete;
pub(crate) mod get;
pub(crate) mod incr;
pub(crate) mod scan;
pub(crate) mod set;
pub(crate) mod ttl;
pub(crate) mod update;
pub(crate) mod watch;

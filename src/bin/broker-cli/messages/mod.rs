//! Verbs on messages.

pub(crate) mod publish;
pub(crate) mod reply;
pub(crate) mod request;
pub(crate) mod subscribe;

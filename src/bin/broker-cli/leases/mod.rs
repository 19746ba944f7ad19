//! Verbs on leases: locks, semaphores, elections.

pub(crate) mod elect;
pub(crate) mod lock;

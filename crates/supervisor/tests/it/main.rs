//! The supervisor's parts against the real system: processes, sockets, programs.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

/// Commands, deadlines and connections, as the other modules want them.
mod support;

/// Slot listeners: who gets a connection, and what never gets lost.
mod listen;
/// Starting and ending processes.
mod spawn;

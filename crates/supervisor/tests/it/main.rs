//! The supervisor's parts against the real system: processes, sockets, programs.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

/// Commands, deadlines and connections, as the other modules want them.
mod support;

/// Which rung of the ladder a program gets.
mod choose;
/// A worker with its delivery.
mod delivery;
/// Inherited listeners.
mod inherited;
/// Slot listeners: who gets a connection, and what never gets lost.
mod listen;
/// Node as a worker of a cluster whose primary is the supervisor.
mod node;
/// Kept connections end politely.
mod preload;
/// Programs whose `bind` the supervisor answers.
mod seccomp;
/// Starting and ending processes.
mod spawn;

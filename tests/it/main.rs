//! The integration tests: one binary, one module per subject.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

/// Processes, deadlines, watchdogs: the only place where tests touch them.
mod harness;

/// Making and attaching: names, races, foreign files, read-only, fork.
mod attach;
/// Random kills and stops of many processes under a checked load.
mod chaos;
/// One beyond each limit, and machines without memory.
mod limits;
/// The reader in Python that was written from `docs/region.md`, on live regions.
mod python_reader;
/// A writer killed, or stopped, after every single instruction.
mod step;
/// Single-stepping of child processes.
mod tracer;

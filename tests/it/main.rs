//! The integration tests: one binary, one module per subject.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

/// Processes, deadlines, watchdogs: the only place where tests touch them.
mod harness;
/// Regions as tests want them: names that go away, handles by descriptor, audits.
mod regions;

/// Making and attaching: names, races, foreign files, read-only, fork.
mod attach;
/// Random kills and stops of many processes under a checked load.
mod chaos;
/// The client against the broker.
mod client;
/// Waiting for one another.
mod events;
/// Expiries, by a clock that the test sets.
mod expiry;
/// One beyond each limit, and full regions.
mod limits;
/// An open-loop load generator that judges every answer.
mod load;
/// Sparse regions, and machines without memory.
mod memory;
/// A reader in another language, written from the document alone.
mod python_reader;
/// Many processes: sessions, forks, ephemeral keys.
mod sessions;
/// A writer killed, or stopped, after every single instruction.
mod step;
/// The supervisor runs real programs, under a load of which every answer is judged.
mod supervisor;
/// The mechanical rules that sources keep.
mod tidy;
/// Single-stepping of child processes.
mod tracer;

//! The integration tests: one binary, one module per subject.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

/// One beyond each limit of the broker.
mod broker_limits;
/// Brokers as tests want them: processes with homes that go away.
mod brokers;
/// Processes, deadlines, watchdogs: the only place where tests touch them.
mod harness;
/// Ports that no other test has and no connection takes.
mod ports;
/// Regions as tests want them: names that go away, handles by descriptor, audits.
mod regions;

/// What the broker says of itself, its limits and its stop.
mod administration;
/// Making and attaching: names, races, foreign files, read-only, fork.
mod attach;
/// The broker and its clients killed, stopped, lied to.
mod broker_faults;
/// Random kills and stops of many processes under a checked load.
mod chaos;
/// The command line: every verb and exit code, with real brokers.
mod cli;
/// The client against the broker.
mod client;
/// One conformance, by the client in Rust and by the one in Python.
mod conformance;
/// Waiting for one another.
mod events;
/// Expiries, by a clock that the test sets.
mod expiry;
/// Forks while other threads attach.
mod forks;
/// Locks, semaphores, elections.
mod leases;
/// One beyond each limit, and full regions.
mod limits;
/// An open-loop load generator that judges every answer.
mod load;
/// Sparse regions, and machines without memory.
mod memory;
/// A reader in another language, written from the document alone.
mod python_reader;
/// What an operation does not do: system calls, stores by reads.
mod quiet;
/// Many processes: sessions, forks, ephemeral keys.
mod sessions;
/// State that outlives the broker, and the machine.
mod snapshots;
/// A writer killed, or stopped, after every single instruction.
mod step;
/// The supervisor runs real programs, under a load of which every answer is judged.
mod supervisor;
/// The mechanical rules that sources keep.
mod tidy;
/// Single-stepping of child processes.
mod tracer;
/// Watching keys through the broker.
mod watches;

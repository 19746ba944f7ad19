//! Tests of the region within one process.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

/// What the fuzzer runs too.
#[path = "../../../../fuzz/bodies/mod.rs"]
#[allow(unreachable_pub)]
mod bodies;
/// Replay of the fuzzer's corpus.
mod corpus;
/// The change feed.
mod feed;
/// Shared memory with any bytes in it.
mod files;
/// Regions of random and damaged bytes.
mod hostile;
/// Every operation against a plain map.
mod model;
/// Regions that are damaged while they are used, and in memory from the system.
mod scribble;
/// Several threads on one region.
mod threads;
/// Serde values, and values of more pages than an entry lists.
mod values;
/// Ends what hangs.
mod watchdog;

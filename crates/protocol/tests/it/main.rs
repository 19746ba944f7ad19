//! Tests of the protocol as its users see it.

#![allow(clippy::unwrap_used)]

/// Replay of the fuzzer's corpus.
mod corpus;
/// `docs/protocol.md` against the code.
mod document;
/// A broker that is none, for the Python client.
mod fake;
/// Any frames, in any pieces.
mod frames;
/// Every message, and what other versions may make of it.
mod messages;
/// `examples/broker_client.py`.
mod python;
/// One of each message.
mod samples;

//! The broker's parts together, from outside.

#![allow(clippy::unwrap_used)] // helpers of tests, which the lint takes for library code

mod pubsub;
mod topics;

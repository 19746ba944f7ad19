//! Tests of the region within one process.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

/// Regions of random and damaged bytes.
mod hostile;
/// Every operation against a plain map.
mod model;

//! Ganger's broker.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod ids;
pub mod leases;
pub mod message;
pub mod requests;
pub mod topics;

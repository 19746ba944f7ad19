//! Wire messages and frame codec of Ganger's broker.
//!
//! Not written yet: this crate is the place set aside for the protocol, and holds nothing so far.

#![forbid(unsafe_code)]

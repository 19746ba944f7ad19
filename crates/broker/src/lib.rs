//! Ganger's broker: sessions, topics, key-value access over the socket, watch and janitor.
//!
//! Not written yet: this crate is the place set aside for the broker, and holds nothing so far.

#![forbid(unsafe_code)]

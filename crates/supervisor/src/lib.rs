//! Ganger's supervisor: spawn, balance, restart, reload and scale workers.
//!
//! Not written yet: this crate is the place set aside for the supervisor, and holds nothing so far.

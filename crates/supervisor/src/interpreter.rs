//! Which program runs a bare script.

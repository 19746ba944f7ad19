//! When a worker is ready.

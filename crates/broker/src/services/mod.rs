//! What the broker does besides passing messages on, each service by itself: none knows of sockets
//! or of a runtime. What a service has to tell is drawn from it or returned by it, so a slow client
//! costs it a bounded amount of memory, and nobody else anything.

pub mod chores;
pub mod leases;
pub mod listings;
pub mod metrics;
pub mod region_error;
pub mod taps;
pub mod watch;

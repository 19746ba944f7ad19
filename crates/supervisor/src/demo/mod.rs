//! A web service to try everything with: it counts hits, keeps sessions and a rate limit in the
//! region, and tells all browsers what happens through the broker. A worker keeps nothing itself, so
//! any of them may be killed.

mod limit;
mod page;
mod service;
mod state;
pub mod worker;

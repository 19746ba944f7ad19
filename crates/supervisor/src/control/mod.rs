//! The control socket: how the command line asks a running supervisor.
//!
//! `control.sock` in the home directory, for its owner and root alone. Frames are a length (four
//! bytes, big-endian) and MessagePack. Each side begins with a [`Hello`], whose shape never changes,
//! so that an old command line gets a clear error from a new supervisor and the other way round.
//! Then the client sends one [`Request`] after another; each is answered by any number of
//! [`Reply`]s, the last of which is `Done` or `Failed`.
//!
//! Whoever connects can send garbage, read slowly or go away: each costs its own connection alone,
//! and what was begun (a reload, say) goes on without its spectator.

pub mod client;
mod messages;
mod outbox;
pub mod server;
pub mod streams;

pub use messages::{Hello, Reply, Request, Scale, PROTOCOL};

/// Longest frame that a client may send: an app with a large environment fits.
pub const REQUEST_MAX: usize = 4 * 1024 * 1024;
/// Longest frame that a supervisor sends: the status of thousands of workers fits.
pub const REPLY_MAX: usize = 16 * 1024 * 1024;
/// Connections at a time.
pub const CONNECTIONS_MAX: usize = 64;

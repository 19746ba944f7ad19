//! What worker code links.
//!
//! [`Kv`] is a handle on a key-value store in shared memory. Every process that has it attached
//! reads and writes it directly, at the speed of a map of its own: no server stands in between, and
//! a process that is killed at any instruction hurts nobody.
//!
//! ```no_run
//! use ganger_client::Kv;
//!
//! // The region that the supervisor (or whoever started this process) made.
//! let kv = Kv::from_env()?;
//! kv.incr("visits", 1)?;
//! # Ok::<(), ganger_client::KvError>(())
//! ```
//!
//! # Contents
//! | what | where |
//! |---|---|
//! | make a region | [`Kv::create`], [`Kv::create_named`], [`Kv::open_or_create`], [`Config`] |
//! | attach to one | [`Kv::from_env`], [`Kv::open`], [`Kv::from_fd`], [`KvOptions`] |
//! | hand it on | [`Kv::fd`], [`REGION_FD_VARIABLE`], [`REGION_VARIABLE`] |
//! | read | [`Kv::get`], [`Kv::get_into`], [`Kv::get_many`], [`Kv::exists`] |
//! | read with what is known | [`Kv::entry`], [`Kv::ttl`] |
//! | write | [`Kv::set`], [`Kv::set_for`], [`Kv::set_with`] and [`SetOptions`], [`Kv::append`] |
//! | remove | [`Kv::delete`], [`Kv::delete_if`], [`Kv::clear`] |
//! | count | [`Kv::incr`], [`Kv::incr_for`] |
//! | read, change, write | [`Kv::update`], [`Kv::try_update`], [`Kv::get_or_insert_with`] |
//! | values of serde types | [`Kv::get_typed`], [`Kv::set_typed`], [`Kv::update_typed`] |
//! | times to live | [`Kv::expire`], [`Kv::touch`], [`Kv::persist`] |
//! | all keys | [`Kv::scan_all`], [`Kv::scan`], [`Kv::len`] |
//! | follow changes | [`Kv::feed`] |
//! | look after it | [`Kv::stats`], [`Kv::reap`], [`Kv::sweep`], [`Kv::check`] |
//!
//! Keys are 1 to 1024 bytes of anything, values up to a quarter of the region. Everything that
//! takes a key or a value takes `impl AsRef<[u8]>`: `"text"`, `b"bytes"`, a `String`, a `Vec<u8>`.
//! All calls return [`KvError`] when they fail.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod env;
mod error;
mod kv;
mod options;
mod set;

pub use env::{REGION_FD_VARIABLE, REGION_VARIABLE};
pub use error::{KvError, Result};
pub use kv::{Expiry, Kv};
pub use options::KvOptions;
pub use set::SetOptions;

pub use ganger_region::{
    AttachError, Audit, BootClock, Change, Clock, Config, CreateError, Cursor, Damaged, Entry,
    Feed, FeedItem, ReadError, Reaped, ScanPage, SessionError, Stats, TypedError, WhenFull,
    WriteError,
};

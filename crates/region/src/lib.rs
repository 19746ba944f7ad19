//! A key-value store in shared memory that `kill -9` can't hurt.
//!
//! A [`Region`] is one file of shared memory that any number of processes attach to. All of them
//! read and write it directly, at the speed of a map in their own memory; no process stands in
//! between.
//!
//! ```
//! use ganger_region::{Config, Options, Region};
//!
//! let region = Region::create(&Config::new(16 << 20), Options::new())?;
//! region.set(b"greeting", b"hello")?;
//! assert_eq!(region.get(b"greeting")?.as_deref(), Some(&b"hello"[..]));
//! assert_eq!(region.incr(b"visits", 1)?, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What holds, whatever dies when
//! - A read takes no lock, makes no system call and writes no shared word (in regions that evict:
//!   one bit, when it is clear). It works on a read-only mapping.
//! - A process killed at any instruction leaves no reader or writer hanging, tears no value, loses
//!   no write that was acknowledged and no memory for good.
//! - What is read from the region is never trusted: damage is an error, not a crash.
//!
//! The bytes, the invariants and the protocols are written down in `docs/region.md`.
//!
//! # Modules, in reading order

#![warn(missing_docs)]

// The bytes.
mod areas;
mod backing;
#[allow(missing_docs)]
#[doc(hidden)]
pub mod layout;
mod memory;
#[cfg(loom)]
#[doc(hidden)]
pub mod model;
mod sync;
// Who may touch them.
mod clock;
mod config;
mod futex;
mod limits;
mod lock;
mod region;
mod session;
mod shard;
// What is in them.
mod alloc;
mod build;
mod entry;
mod grow;
mod index;
mod key;
mod pool;
// Operations.
mod counter;
mod ephemeral;
#[cfg(not(loom))]
mod event;
mod evict;
mod feed;
mod glance;
mod read;
mod replace;
mod scan;
mod stats;
mod sweep;
mod typed;
mod update;
mod write;
// When things went wrong.
mod check;
mod error;
mod repair;

pub use check::Audit;
pub use clock::{BootClock, Clock};
pub use config::{Access, Config, Options, WhenFull};
pub use ephemeral::Reaped;
pub use error::{
    AttachError, CreateError, Damaged, ReadError, SessionError, TypedError, WriteError,
};
#[cfg(not(loom))]
pub use event::{Event, EventError, EventReset, FutexEvent};
pub use feed::{Change, Feed, FeedItem};
pub use read::Entry;
#[doc(hidden)]
pub use region::test_support;
pub use region::Region;
pub use scan::{Cursor, KeysPage, ScanPage};
pub use stats::Stats;
pub use write::SetOptions;

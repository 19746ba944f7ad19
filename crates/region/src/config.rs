//! What a region is made with, and how a handle attaches to one.

use crate::clock::{BootClock, Clock};
use crate::error::CreateError;
use crate::layout::{Geometry, FEATURE_EVICT, PAGE_LEN, SESSIONS_MAX, SHARDS_MAX};
use crate::limits::LOCK_TIMEOUT;
use std::sync::Arc;
use std::time::Duration;

/// What a full region does with a write that needs room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenFull {
    /// Refuse it with [`WriteError::Full`](crate::WriteError::Full): a store.
    #[default]
    Reject,
    /// Drop entries that were not read for long (SIEVE, Zhang et al., NSDI 2024): a cache.
    Evict,
}

/// How a new region is made.
#[derive(Debug, Clone)]
pub struct Config {
    len: u64,
    sessions: u64,
    shards: Option<u64>,
    when_full: WhenFull,
}

impl Config {
    /// A region of `len` bytes, bookkeeping included, rounded up to 64 KiB. The bytes are reserved,
    /// not used: memory is taken as the region fills. At least 576 KiB, more with many
    /// sessions or shards; at most 16 TiB.
    pub fn new(len: u64) -> Self {
        Self {
            len,
            sessions: 256,
            shards: None,
            when_full: WhenFull::Reject,
        }
    }

    /// How many handles can write at the same time (default 256, at most 16,384).
    #[must_use]
    pub fn sessions(mut self, sessions: u64) -> Self {
        self.sessions = sessions;
        self
    }

    /// In how many independently locked parts the keys are divided: a power of two up to 256. The
    /// default grows with the region: one for each 4 MiB.
    #[must_use]
    pub fn shards(mut self, shards: u64) -> Self {
        self.shards = Some(shards);
        self
    }

    /// What happens when there is no room (default: [`WhenFull::Reject`]).
    #[must_use]
    pub fn when_full(mut self, when_full: WhenFull) -> Self {
        self.when_full = when_full;
        self
    }

    pub(crate) fn geometry(&self) -> Result<Geometry, CreateError> {
        let error = |why| CreateError::Size { len: self.len, why };
        if !(1..=SESSIONS_MAX).contains(&self.sessions) {
            return Err(error("sessions must be 1 to 16384"));
        }
        if self
            .shards
            .is_some_and(|shards| !shards.is_power_of_two() || shards > SHARDS_MAX)
        {
            return Err(error("shards must be a power of two up to 256"));
        }
        let len = self
            .len
            .checked_next_multiple_of(PAGE_LEN)
            .ok_or(error("at most 16 TiB"))?;
        let features = if self.when_full == WhenFull::Evict {
            FEATURE_EVICT
        } else {
            0
        };
        Geometry::new(len, self.shards, self.sessions, features).ok_or(error(
            "at least 576 KiB (more with many sessions or shards), at most 16 TiB",
        ))
    }
}

/// Whether a handle may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// Read and write; takes a session.
    #[default]
    ReadWrite,
    /// Read only: the memory is mapped without write permission. This protects from accidents; a
    /// process of the same user can always get at the file by other ways.
    ReadOnly,
}

/// How a handle behaves; the same region may be attached with different ones.
#[derive(Clone)]
pub struct Options {
    pub(crate) access: Access,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) lock_timeout: Duration,
    pub(crate) takes_unsealed: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            access: Access::ReadWrite,
            clock: Arc::new(BootClock),
            lock_timeout: LOCK_TIMEOUT,
            takes_unsealed: false,
        }
    }
}

impl Options {
    /// Read and write, the boot clock, 10 s of patience.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the handle may write.
    #[must_use]
    pub fn access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// The clock that expiries are held against. All handles of a region must agree on it.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// How long a write waits for a living process that holds a shard's lock before it fails with
    /// [`WriteError::Stalled`](crate::WriteError::Stalled) (default 10 s).
    #[must_use]
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = timeout;
        self
    }

    /// Takes a descriptor of a region with a name, too, in [`Region::from_fd`](crate::Region::from_fd).
    /// Such a region can't be sealed: who may write to its file could cut it short, which ends
    /// every process that has it attached. So only for descriptors from those who are trusted.
    #[must_use]
    pub fn take_unsealed(mut self) -> Self {
        self.takes_unsealed = true;
        self
    }
}

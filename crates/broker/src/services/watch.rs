//! Watching keys: their state, then every change.
//!
//! A thread follows the region's changes while somebody watches (and a while longer, for those who
//! come back) and notes them in a log: key and revision, no value. Each watch has a bounded queue
//! of numbers into that log. It is drained by whoever writes to its client: only then is the value
//! read, so what a client is told is never older than what it was told before, and a slow client
//! costs a few bytes per change, never a value. What does not fit its queue, or leaves the log, or
//! is a gap of the feed itself, ends in a new snapshot, which says so. A snapshot is found key by key
//! as it is written, and a client that says how much it has room for gets no more than that.

use crate::ids::Subscriber;
use crate::reserved;
use ganger_protocol::watch::{Select, Watch};
use ganger_protocol::{ErrorBody, ErrorCode, Limits};
use ganger_region::Region;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

mod log;
mod pump;
mod table;
mod tell;
mod window;

pub use tell::{Budget, Drained, Watcher};

use log::Log;
use table::{Following, Table};

/// Bytes of the keys in the log, and of its own.
const LOG_BYTES: usize = 32 << 20;

/// Lets watches be drained that have something to tell.
pub type Wake = Box<dyn Fn(&[Subscriber]) + Send + Sync>;

/// What happened to watches so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WatchTotals {
    /// Watches begun.
    pub opened: u64,
    /// Watches refused because of a limit.
    pub refused: u64,
    /// Watches that went on where they were.
    pub resumed: u64,
    /// Snapshots begun.
    pub snapshots: u64,
    /// Entries of snapshots told.
    pub entries: u64,
    /// Changes that came from the region.
    pub changes: u64,
    /// Changes told to watchers.
    pub told: u64,
    /// Times the region could not say what changed in a shard.
    pub gaps: u64,
    /// Times a watcher was too slow and began anew.
    pub slow: u64,
    /// Expired keys taken out so that watchers hear of it.
    pub swept: u64,
}

/// All watches of a broker.
#[derive(Debug)]
pub struct Watches {
    shared: Arc<Shared>,
    pump: Mutex<Option<JoinHandle<()>>>,
}

pub(crate) struct Shared {
    region: Region,
    epoch: u64,
    frame_bytes: usize,
    per_connection: usize,
    /// Frames that may be ahead of a client, whatever it asks for.
    window_frames: usize,
    linger: Duration,
    table: Mutex<Table>,
    wake: Wake,
}

impl Watches {
    /// Without watches. `epoch` names this run of the broker; `wake` is called by the thread.
    pub fn new(region: Region, epoch: u64, limits: &Limits, wake: Wake) -> Self {
        let log = Log::new(limits.watch_log, LOG_BYTES);
        let shared = Shared {
            region,
            epoch,
            frame_bytes: limits.frame_bytes,
            per_connection: limits.watches,
            window_frames: limits.watch_backlog,
            linger: Duration::from_millis(limits.channel_linger_ms),
            table: Mutex::new(Table::new(log, limits.watch_backlog)),
            wake,
        };
        Self {
            shared: Arc::new(shared),
            pump: Mutex::new(None),
        }
    }

    /// Begins a watch. It is to be drained at once, and then whenever it is woken.
    pub fn open(&self, who: Subscriber, watch: &Watch) -> Result<Watcher, ErrorBody> {
        let shared = &self.shared;
        let shard = check(&watch.select)?.map(|key| shared.region.shard_of_key(key));
        let limit = shared.per_connection;
        // The thread is begun under this lock, so that there is one.
        let mut pump = self.pump.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = shared.with_table(|table| {
            if table.contains(who) {
                return Err(ErrorCode::IdInUse.into());
            }
            if table.of_connection(who.connection) >= limit {
                table.totals.refused += 1;
                return Err(ErrorBody::from(ErrorCode::TooManyWatches).limit(limit));
            }
            table.totals.opened += 1;
            table.add(who, watch.select.clone(), shard);
            let is_first = table.following == Following::No;
            if is_first {
                table.following = Following::Soon;
            }
            Ok(is_first)
        })?;
        let watcher = Watcher::new(Arc::clone(shared), who, watch);
        if is_first {
            match pump::spawn(Arc::clone(shared)) {
                Ok(thread) => *pump = Some(thread),
                Err(error) => {
                    shared.with_table(|table| table.following = Following::No);
                    return Err(ErrorBody::new(ErrorCode::Unavailable, error.to_string()));
                }
            }
        }
        Ok(watcher)
    }

    /// Watches there are.
    pub fn len(&self) -> usize {
        self.shared.with_table(|table| table.len())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Watches of a connection.
    pub fn of_connection(&self, connection: crate::ids::ConnectionId) -> usize {
        self.shared
            .with_table(|table| table.of_connection(connection))
    }

    /// Changes kept for watches that are behind, or come back.
    pub fn log_len(&self) -> usize {
        self.shared.with_table(|table| table.log.len())
    }

    /// What happened so far.
    pub fn totals(&self) -> WatchTotals {
        self.shared.with_table(|table| table.totals)
    }
}

impl Drop for Watches {
    fn drop(&mut self) {
        self.shared.with_table(|table| table.stops = true);
        // If it can't be woken, it looks by itself.
        let _ = self.shared.region.wake_feeds();
        let pump = self.pump.get_mut().unwrap_or_else(PoisonError::into_inner);
        // Who is woken may be the last who knows of this.
        let is_other = |thread: &JoinHandle<()>| thread.thread().id() != thread::current().id();
        if let Some(thread) = pump.take().filter(is_other) {
            // It panicked, or it is over: gone either way.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn stops(&self) -> bool {
        self.with_table(|table| table.stops)
    }

    /// Acts on the table, and then wakes whoever that concerns.
    fn with_table<R>(&self, act: impl FnOnce(&mut Table) -> R) -> R {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = act(&mut table);
        let wakes = table.take_wakes();
        drop(table);
        if !wakes.is_empty() {
            (self.wake)(&wakes);
        }
        outcome
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("region", &self.region)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

/// Refuses what can't be watched. Returns the key, if it is one.
fn check(select: &Select) -> Result<Option<&[u8]>, ErrorBody> {
    let (name, least) = match select {
        Select::Key(key) => (key, 1),
        Select::Prefix(prefix) => (prefix, 0),
        _ => return Err(ErrorCode::UnknownOperation.into()),
    };
    let most = ganger_protocol::limits::KEY_LEN_MAX;
    if !(least..=most).contains(&name.len()) {
        return Err(ErrorBody::from(ErrorCode::KeyLen)
            .actual(name.len())
            .limit(most));
    }
    if reserved::is_reserved(name) {
        return Err(ErrorCode::ReservedKey.into());
    }
    Ok((least == 1).then_some(&name[..]))
}

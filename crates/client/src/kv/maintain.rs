//! Following changes and looking after a region.

use super::Kv;
use crate::error::Result;
use ganger_region::{Audit, Feed, Reaped, Stats};

/// # Following changes
impl Kv {
    /// Opens the change feed, which tells which keys changed from now on, and turns it on for all
    /// writers if it is not. A read-only handle can follow a feed that is on. A reader that is too
    /// slow gets a [`FeedItem::Gap`](crate::FeedItem::Gap); nobody ever waits for it.
    ///
    /// ```
    /// # let kv = ganger_client::Kv::create(ganger_client::Config::new(1 << 20))?;
    /// use ganger_client::{Change, FeedItem};
    /// use std::time::Duration;
    ///
    /// let mut feed = kv.feed()?;
    /// kv.set("price", "12.50")?;
    /// assert!(feed.wait(Duration::from_secs(1)));
    /// feed.poll(|item| match item {
    ///     FeedItem::Change { change, key, .. } => {
    ///         assert_eq!((change, key), (Change::Set, b"price".to_vec()));
    ///     }
    ///     other => println!("look at all keys anew: {other:?}"),
    /// });
    /// # Ok::<(), ganger_client::KvError>(())
    /// ```
    pub fn feed(&self) -> Result<Feed> {
        Ok(self.region.feed()?)
    }

    /// Lets every write wake read-only waiters of the feed at once, which can't announce that they
    /// wait. Without it they look once a millisecond; with it a write costs a system call more
    /// while the feed is on.
    ///
    /// ```
    /// # let kv = ganger_client::Kv::create(ganger_client::Config::new(1 << 20))?;
    /// kv.wake_read_only_waiters(true)?;
    /// # Ok::<(), ganger_client::KvError>(())
    /// ```
    pub fn wake_read_only_waiters(&self, wake: bool) -> Result<()> {
        Ok(self.region.wake_read_only_waiters(wake)?)
    }

    /// The shard a key belongs to: what a [`FeedItem::Gap`](crate::FeedItem::Gap) names.
    ///
    /// ```
    /// # let kv = ganger_client::Kv::create(ganger_client::Config::new(1 << 20))?;
    /// assert!(kv.shard_of_key("price") < kv.stats().shards);
    /// # Ok::<(), ganger_client::KvError>(())
    /// ```
    pub fn shard_of_key(&self, key: impl AsRef<[u8]>) -> u64 {
        self.region.shard_of_key(key.as_ref())
    }
}

/// # Looking after the region
/// Nothing of this has to be called for reads and writes to go on.
impl Kv {
    /// How full the region is and what happened in it.
    ///
    /// ```
    /// # let kv = ganger_client::Kv::create(ganger_client::Config::new(1 << 20))?;
    /// kv.set("key", "value")?;
    /// let stats = kv.stats();
    /// assert_eq!((stats.entries, stats.bytes), (1, 8));
    /// # Ok::<(), ganger_client::KvError>(())
    /// ```
    pub fn stats(&self) -> Stats {
        self.region.stats()
    }

    /// Cleans up after processes that died: frees their sessions, repairs the shards they held
    /// locked, removes their ephemeral entries.
    ///
    /// ```
    /// # let kv = ganger_client::Kv::create(ganger_client::Config::new(1 << 20))?;
    /// let reaped = kv.reap()?;
    /// assert_eq!(reaped.sessions, 0);
    /// # Ok::<(), ganger_client::KvError>(())
    /// ```
    pub fn reap(&self) -> Result<Reaped> {
        Ok(self.region.reap()?)
    }

    /// Takes the room of all entries back that are expired by now, and returns how many there were.
    ///
    /// ```
    /// # let kv = ganger_client::Kv::create(ganger_client::Config::new(1 << 20))?;
    /// kv.set_for("key", "value", std::time::Duration::ZERO)?;
    /// assert_eq!(kv.sweep()?, 1);
    /// # Ok::<(), ganger_client::KvError>(())
    /// ```
    pub fn sweep(&self) -> Result<u64> {
        Ok(self.region.sweep()?)
    }

    /// Checks every invariant of the region, shard by shard. Writers wait for milliseconds per
    /// million keys; readers don't.
    ///
    /// ```
    /// # let kv = ganger_client::Kv::create(ganger_client::Config::new(1 << 20))?;
    /// kv.set("key", "value")?;
    /// let audit = kv.check()?;
    /// assert!(audit.is_clean(), "{:?}", audit.problems);
    /// # Ok::<(), ganger_client::KvError>(())
    /// ```
    pub fn check(&self) -> Result<Audit> {
        Ok(self.region.check()?)
    }
}

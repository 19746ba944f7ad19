//! Follows the change feed of a whole round, and adds up what it is told.

use super::keys::{key_of, LEASES};
use super::walk::Sum;
use crate::harness::{self, path_of};
use ganger_region::{Access, Cursor, Feed, FeedItem, Options, Region};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// So long after the last gap it looks at the keys anew. While many die there is always another
/// gap soon.
const QUIET: Duration = Duration::from_millis(15);

pub(super) struct Follower {
    region: Region,
    feed: Feed,
    sum: Sum,
    last_gap: Instant,
}

impl Follower {
    /// Of a region without keys. It follows through a handle that can't write.
    pub(super) fn new(region: &Region) -> Self {
        // Turns the feed on, which the other handle could not.
        region.feed().unwrap();
        let options = Options::new().access(Access::ReadOnly);
        let fd = harness::open(&path_of(region.fd().unwrap()));
        let region = Region::from_fd(fd, options).unwrap();
        Self {
            feed: region.feed().unwrap(),
            sum: Sum::new(region.stats().shards),
            region,
            last_gap: Instant::now(),
        }
    }

    /// Follows until the others stop.
    pub(super) fn run(&mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            self.feed.wait(Duration::from_millis(5));
            self.poll();
            if self.sum.is_incomplete() && self.last_gap.elapsed() > QUIET {
                let now = keys_of(&self.region);
                self.sum.catch_up(&now, |key| self.region.shard_of_key(key));
            }
        }
    }

    fn poll(&mut self) -> usize {
        let (sum, last_gap) = (&mut self.sum, &mut self.last_gap);
        self.feed.poll(|item| {
            if let FeedItem::Gap { .. } = item {
                *last_gap = Instant::now();
            }
            sum.take(item, |key| self.region.shard_of_key(key));
        })
    }

    /// Compares what was told with the keys that are there, when nobody writes any more; how many
    /// keys that proved, and how many changes and gaps were told.
    pub(super) fn judge(mut self) -> (u64, u64, u64) {
        while self.poll() > 0 {}
        let now = keys_of(&self.region);
        // Nobody is told of an expiry before the entry is removed.
        let expires = |key: &[u8]| key_of(key).is_some_and(|key| LEASES.contains(&key));
        let shard_of = |key: &[u8]| self.region.shard_of_key(key);
        let (proven, faults) = self.sum.judge(&now, shard_of, expires);
        assert!(faults.is_empty(), "{:#?}", &faults[..faults.len().min(10)]);
        (proven, self.sum.changes, self.sum.gaps)
    }
}

/// All keys that are there, with their revisions.
fn keys_of(region: &Region) -> HashMap<Vec<u8>, u64> {
    let mut keys = HashMap::new();
    let mut next = Some(Cursor::START);
    while let Some(from) = next {
        let page = region.scan(b"", from, 50).unwrap();
        let entries = page.entries.into_iter();
        keys.extend(entries.map(|(key, entry)| (key, entry.revision)));
        next = page.next;
    }
    keys
}

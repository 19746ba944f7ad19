//! Walks over all keys, their number, and the change feed.

use super::super::keys::{key_of, name, HOT, REGISTERS, STABLE};
use super::super::log::{finished, now, Seen, Verb};
use super::super::walk::judge_walk;
use super::{seen, Client};
use ganger_region::{Cursor, FeedItem};
use std::time::Duration;

/// More than there are keys and shards together.
const KEYS_MAX: u64 = REGISTERS + 200;

impl Client<'_> {
    /// A whole scan: of all keys, of all keys without their values, or of a prefix that all stable
    /// keys have and some others.
    pub(super) fn walk(&mut self) {
        let draw = self.random.below(100);
        let limit = 1 + usize::try_from(self.random.below(200)).unwrap();
        let begun = self.logs.begin(self.slot, Verb::Scan, 0, 0);
        let mut met = Vec::new();
        let mut sights = Vec::new();
        let mut next = Some(Cursor::START);
        while let Some(from) = next {
            if draw < 40 {
                let page = self.region.scan_keys(b"", from, limit, limit).unwrap();
                met.extend(page.keys.iter().map(|key| key_of(key).unwrap()));
                next = page.next;
                continue;
            }
            let prefix: &[u8] = if draw < 90 { b"key-16" } else { b"" };
            let start = now();
            let page = self.region.scan(prefix, from, limit).unwrap();
            let end = finished();
            for (key, entry) in page.entries {
                assert!(key.starts_with(prefix));
                let key = key_of(&key).unwrap();
                met.push(key);
                if is_register(key) {
                    let result = seen(key, Some(&entry.value));
                    sights.push((key, (start, end), result, entry.revision));
                }
            }
            next = page.next;
        }
        self.logs.end(&begun, met.len() as u64, 0);
        let stable = if self.evicts { 0..0 } else { STABLE };
        let faults = judge_walk(&met, &stable);
        assert!(faults.is_empty(), "{faults:?}");
        self.log_sights(&sights);
    }

    /// What a scan met are reads. Those of keys that few write are only proven.
    fn log_sights(&self, sights: &[(u64, (u64, u64), u64, u64)]) {
        for &(key, times, result, revision) in sights {
            assert_ne!(result, super::TORN, "key {key}");
            if (key < HOT || STABLE.contains(&key)) && !self.logs.is_full(self.slot) {
                let seen = Seen { result, revision };
                self.logs.add(self.slot, Verb::Get, key, times, seen);
            }
        }
    }

    pub(super) fn count(&mut self) {
        let begun = self.logs.begin(self.slot, Verb::Len, 0, 0);
        let len = self.region.len();
        self.logs.end(&begun, len, 0);
        let least = if self.evicts {
            0
        } else {
            STABLE.end - STABLE.start
        };
        assert!((least..KEYS_MAX).contains(&len), "{len} keys");
    }

    /// Follows the change feed for a moment. Who writes is told of its own write, or of a gap.
    pub(super) fn follow(&mut self) {
        if !self.logs.uses_feed() {
            return;
        }
        let begun = self.logs.begin(self.slot, Verb::Follow, 0, 0);
        let mut feed = self.region.feed().unwrap();
        let mut told = 0;
        for _ in 0..2 {
            feed.wait(Duration::from_micros(300));
            feed.poll(|item| {
                assert_known(&item);
                told += 1;
            });
        }
        self.logs.end(&begun, told, 0);
        if self.writes {
            self.follow_own_write();
        }
    }

    fn follow_own_write(&mut self) {
        let mut feed = self.region.feed().unwrap();
        let key = self.random.below(REGISTERS);
        let name = name(key);
        let id = self.make_value(key);
        let begun = self.logs.begin(self.slot, Verb::Set, key, id);
        let own = self.region.set(&name, &self.value).unwrap();
        self.logs.end(&begun, 1, own);
        let own_shard = self.region.shard_of_key(&name);
        let mut is_told = false;
        feed.poll(|item| {
            assert_known(&item);
            is_told |= match item {
                FeedItem::Change { key, revision, .. } => key == name && revision == own,
                FeedItem::Gap { shard } => shard == own_shard,
                _ => false,
            };
        });
        assert!(is_told, "key {key} at revision {own}");
    }
}

fn is_register(key: u64) -> bool {
    key < REGISTERS || STABLE.contains(&key)
}

fn assert_known(item: &FeedItem) {
    if let FeedItem::Change { key, .. } = item {
        assert!(key_of(key).is_some(), "{item:?}");
    }
}

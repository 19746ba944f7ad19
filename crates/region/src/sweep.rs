//! Taking back the room of expired entries. They read as absent from the moment they expire; the
//! space comes back bit by bit, by whoever writes to their shard, or at once through
//! [`Region::sweep`].

use crate::entry::EntryRef;
use crate::error::{Damaged, WriteError};
use crate::feed::Change;
use crate::index::{names_entry, Bucket, Found};
use crate::layout::{shard, slot};
use crate::limits::{SWEEP_BUCKETS, SWEEP_EVERY};
use crate::region::{Inner, Region};
use crate::scan::{bucket_at, position_of, POSITIONS};
use crate::shard::{shard_words, Locked};
use crate::sync::Ordering;

impl Region {
    /// Removes all entries that are expired by now and returns how many there were. A shard is
    /// locked for one bucket at a time, so writers hardly wait.
    pub fn sweep(&self) -> Result<u64, WriteError> {
        let inner = &*self.inner;
        inner.owner()?;
        let mut removed = 0;
        for index in 0..inner.geometry.shard_count {
            removed += sweep_shard(inner, index)?;
        }
        Ok(removed)
    }

    /// In how many milliseconds the next entry expires; `None` if none will. It may be told too early
    /// (then a [`sweep`](Region::sweep) finds nothing, and it is told better), but never too late.
    pub fn next_expiry_ms(&self) -> Option<u64> {
        let inner = &*self.inner;
        let now_ms = inner.clock.now_ms();
        let of_shard = |index| {
            let words = shard_words(inner, index);
            let has_any = words.at(shard::TTL_ENTRIES).load(Ordering::Relaxed) != 0;
            has_any.then(|| words.at(shard::NEXT_EXPIRY).load(Ordering::Relaxed))
        };
        let next = (0..inner.geometry.shard_count).filter_map(of_shard).min();
        next.map(|at_ms| at_ms.saturating_sub(now_ms))
    }
}

/// Sweeps all shards that may have something expired; whether that made room.
pub(crate) fn sweep_all(region: &Inner) -> Result<bool, WriteError> {
    let mut removed = 0;
    for index in 0..region.geometry.shard_count {
        removed += sweep_shard(region, index)?;
    }
    Ok(removed > 0)
}

fn sweep_shard(region: &Inner, index: u64) -> Result<u64, WriteError> {
    let words = shard_words(region, index);
    let due = || {
        words.at(shard::TTL_ENTRIES).load(Ordering::Relaxed) != 0
            && words.at(shard::NEXT_EXPIRY).load(Ordering::Relaxed) <= region.clock.now_ms()
    };
    if !due() {
        return Ok(0);
    }
    let mut removed = 0;
    let mut position = 0;
    let mut earliest = u64::MAX;
    let mut begun_at = None;
    loop {
        let locked = Locked::lock(region, index)?;
        let revision = locked.get(shard::REVISION);
        let begun_at = *begun_at.get_or_insert(revision);
        if position >= POSITIONS {
            // Raised only if nobody else wrote meanwhile; a bound that is too low costs time,
            // nothing else.
            if revision == begun_at.wrapping_add(2 * removed) {
                locked.set(shard::NEXT_EXPIRY, earliest);
            }
            return Ok(removed);
        }
        let (_, end) = bucket_at(position, locked.root());
        let swept = locked.sweep_bucket(position)?;
        removed += swept.removed;
        earliest = earliest.min(swept.earliest);
        position = end;
    }
}

struct Swept {
    removed: u64,
    /// When the first of the entries that stay expires.
    earliest: u64,
}

impl Locked<'_> {
    /// Part of every write: now and then looks at one bucket for expired entries.
    #[inline(always)]
    pub(crate) fn sweep_a_little(&self) {
        // A write raises the revision by 2, one over an expired key by 4: neither may step over all
        // turns.
        if self.get(shard::TTL_ENTRIES) != 0 && self.get(shard::REVISION) % (4 * SWEEP_EVERY) < 4 {
            self.aside().sweep_next_bucket();
        }
    }

    #[cold]
    fn sweep_next_bucket(&self) {
        if self.is_due() {
            // Damage in some other bucket is no reason for this write to fail; reading that bucket
            // reports it.
            let _ = self.sweep_at_hand();
        }
    }

    /// Looks for expired entries in the next few buckets, and removes those of the first that has
    /// any; `false` if none has.
    pub(crate) fn sweep_for_room(&self) -> Result<bool, Damaged> {
        for _ in 0..SWEEP_BUCKETS {
            if self.get(shard::TTL_ENTRIES) == 0 || !self.is_due() {
                return Ok(false);
            }
            if self.sweep_at_hand()?.removed != 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn is_due(&self) -> bool {
        self.get(shard::NEXT_EXPIRY) <= self.region.clock.now_ms()
    }

    fn sweep_at_hand(&self) -> Result<Swept, Damaged> {
        let bucket = self.get(shard::SWEEP_HAND) % self.root().buckets();
        self.set(shard::SWEEP_HAND, bucket + 1);
        self.sweep_bucket(position_of(bucket))
    }

    /// Sweeps the bucket at a position.
    fn sweep_bucket(&self, position: u64) -> Result<Swept, Damaged> {
        let mut swept = Swept {
            removed: 0,
            earliest: u64::MAX,
        };
        loop {
            // A removal may move slots and merge buckets, so the search begins anew after each.
            let (number, _) = bucket_at(position, self.root());
            let first = Bucket::of_shard(self.region, self.index, number)?;
            let mut gone: Option<Found<'_>> = None;
            for bucket in first.chain(self.region) {
                for place in bucket?.slots() {
                    let word = place.load(Ordering::Relaxed);
                    if gone.is_some() || !names_entry(word) {
                        continue;
                    }
                    let entry = EntryRef::at(self.region, word & slot::OFFSET_MASK)?;
                    if entry.is_expired() {
                        gone = Some(Found {
                            slot: place,
                            word,
                            entry,
                        });
                    } else if entry.expires_at() != 0 {
                        swept.earliest = swept.earliest.min(entry.expires_at());
                    }
                }
            }
            let Some(found) = gone else { break };
            self.next_revision();
            self.remove(first, &found, Change::Expire)?;
            self.add(shard::EXPIRED, 1);
            swept.removed += 1;
        }
        Ok(swept)
    }

    /// Counts an entry whose expiry changes from `old` to `new` (0 for none).
    #[inline(always)]
    pub(crate) fn count_expiry(&self, old: u64, new: u64) {
        if old != 0 {
            self.sub(shard::TTL_ENTRIES, 1);
        }
        if new != 0 {
            if self.get(shard::TTL_ENTRIES) == 0 || self.get(shard::NEXT_EXPIRY) > new {
                self.set(shard::NEXT_EXPIRY, new);
            }
            self.add(shard::TTL_ENTRIES, 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::sync::local::{AtomicU64, Ordering};
    use crate::{Config, Options, Region, SetOptions, WriteError};
    use std::sync::Arc;

    #[test]
    fn the_next_expiry_is_never_told_too_late() {
        let now = Arc::new(AtomicU64::new(1));
        let clock = Arc::clone(&now);
        let options = Options::new().clock(move || clock.load(Ordering::Relaxed));
        let region = Region::create(&Config::new(4 << 20).shards(2), options).unwrap();
        region.set(b"for ever", b"").unwrap();
        assert_eq!(region.next_expiry_ms(), None);
        for (number, ttl_ms) in [300, 200, 400].into_iter().enumerate() {
            let options = SetOptions::new().ttl_ms(ttl_ms);
            let key = format!("{number}");
            region.set_with(key.as_bytes(), b"", options).unwrap();
        }
        assert_eq!(region.next_expiry_ms(), Some(200));
        now.fetch_add(150, Ordering::Relaxed);
        assert_eq!(region.next_expiry_ms(), Some(50));
        for left in [2, 1, 0] {
            now.fetch_add(100, Ordering::Relaxed);
            assert_eq!(
                (region.next_expiry_ms(), region.sweep().unwrap()),
                (Some(0), 1)
            );
            assert_eq!(region.next_expiry_ms().is_some(), left > 0);
        }
    }

    #[test]
    fn sweeping_misses_nothing_though_buckets_merge_meanwhile() {
        let now = Arc::new(AtomicU64::new(1));
        let clock = Arc::clone(&now);
        let options = Options::new().clock(move || clock.load(Ordering::Relaxed));
        let config = Config::new(4 << 20).shards(1);
        let region = Region::create(&config, options).unwrap();
        for number in 0..2000_u64 {
            // A few outlive the first sweep, but not the second.
            let ttl_ms = if number % 100 == 0 { 200 } else { 100 };
            let options = SetOptions::new().ttl_ms(ttl_ms);
            region
                .set_with(format!("{number}").as_bytes(), b"value", options)
                .unwrap();
        }
        for (after_ms, left) in [(150, 20), (100, 0)] {
            now.fetch_add(after_ms, Ordering::Relaxed);
            region.sweep().unwrap();
            assert_eq!(region.len(), left);
            assert!(region.check().unwrap().is_clean());
        }
    }

    #[test]
    fn whatever_is_written_sweeps_what_others_left() {
        // Where the writes begin among the turns must not matter.
        for earlier in 0..32 {
            let now = Arc::new(AtomicU64::new(1));
            let clock = Arc::clone(&now);
            let options = Options::new().clock(move || clock.load(Ordering::Relaxed));
            let region = Region::create(&Config::new(1 << 20).shards(1), options).unwrap();
            for number in 0..20_u64 {
                let options = SetOptions::new().ttl_ms(50);
                region
                    .set_with(&number.to_le_bytes(), b"", options)
                    .unwrap();
            }
            for _ in 0..earlier {
                region.set(b"other", b"").unwrap();
            }
            assert_eq!(region.delete(b"other").unwrap(), earlier > 0);
            now.fetch_add(50, Ordering::Relaxed);
            // Each finds the one before expired.
            for _ in 0..200 {
                let options = SetOptions::new().ttl_ms(10);
                region.set_with(b"one", b"", options).unwrap();
                now.fetch_add(10, Ordering::Relaxed);
            }
            assert_eq!(region.len(), 1, "after {earlier} writes");
        }
    }

    #[test]
    fn a_write_that_finds_no_room_takes_that_of_an_expired_entry() {
        // Whichever bucket is swept next, and however many writes before that.
        let ways = (0..16).flat_map(|number| (0..8).map(move |writes| (number, writes)));
        for (number, writes) in ways {
            let now = Arc::new(AtomicU64::new(1));
            let clock = Arc::clone(&now);
            let options = Options::new().clock(move || clock.load(Ordering::Relaxed));
            let config = Config::new(1 << 20).shards(1);
            let region = Region::create(&config, options).unwrap();
            let (key, expiring) = (format!("{number}"), SetOptions::new().ttl_ms(100));
            region
                .set_with(key.as_bytes(), &[1; 200_000], expiring)
                .unwrap();
            let page = [1; 60_000];
            let mut others = (0_u32..).map(u32::to_le_bytes);
            let is_full = |key: [u8; 4]| matches!(region.set(&key, &page), Err(WriteError::Full));
            let refused = others.find(|key| is_full(*key)).unwrap();
            for _ in 0..writes {
                region.persist(&0_u32.to_le_bytes()).unwrap();
            }
            now.fetch_add(100, Ordering::Relaxed);
            region.set(&refused, &page).unwrap();
        }
    }
}

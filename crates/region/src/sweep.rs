//! Taking back the room of expired entries. They read as absent from the moment they expire; the
//! space comes back bit by bit, by whoever writes to their shard, or at once through
//! [`Region::sweep`].

use crate::entry::EntryRef;
use crate::error::{Damaged, WriteError};
use crate::feed::Change;
use crate::index::{names_entry, Bucket, Found};
use crate::layout::{shard, slot};
use crate::limits::SWEEP_EVERY;
use crate::region::{Inner, Region};
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
    let mut bucket = 0;
    let mut earliest = u64::MAX;
    let mut begun_at = None;
    loop {
        let locked = Locked::lock(region, index)?;
        let revision = locked.get(shard::REVISION);
        let begun_at = *begun_at.get_or_insert(revision);
        if bucket >= locked.root().buckets() {
            // Raised only if nobody else wrote meanwhile; a bound that is too low costs time,
            // nothing else.
            if revision == begun_at + 2 * removed {
                locked.set(shard::NEXT_EXPIRY, earliest);
            }
            return Ok(removed);
        }
        let swept = locked.sweep_bucket(bucket)?;
        removed += swept.removed;
        earliest = earliest.min(swept.earliest);
        bucket += 1;
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
        if self.get(shard::TTL_ENTRIES) != 0 && self.get(shard::REVISION) % (2 * SWEEP_EVERY) == 0 {
            self.sweep_next_bucket();
        }
    }

    #[cold]
    fn sweep_next_bucket(&self) {
        if self.get(shard::NEXT_EXPIRY) > self.region.clock.now_ms() {
            return;
        }
        let bucket = self.get(shard::SWEEP_HAND) % self.root().buckets();
        self.set(shard::SWEEP_HAND, bucket + 1);
        // Damage in some other bucket is no reason for this write to fail; reading that bucket
        // reports it.
        let _ = self.sweep_bucket(bucket);
    }

    fn sweep_bucket(&self, bucket: u64) -> Result<Swept, Damaged> {
        let mut swept = Swept {
            removed: 0,
            earliest: u64::MAX,
        };
        let first = Bucket::of_shard(self.region, self.index, bucket)?;
        let mut gone: Option<Found<'_>> = None;
        loop {
            // A removal may move slots, so the search begins anew after each.
            if let Some(found) = gone.take() {
                self.next_revision();
                self.remove(first, &found, Change::Expire)?;
                self.add(shard::EXPIRED, 1);
                swept.removed += 1;
                if bucket >= self.root().buckets() {
                    break;
                }
            }
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
            if gone.is_none() {
                break;
            }
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

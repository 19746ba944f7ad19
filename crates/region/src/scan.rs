//! Walking all keys, without stopping anybody.
//!
//! A cursor is a position in the order of bit-reversed hashes within a shard. In that order every
//! bucket covers one interval, and splitting or merging buckets only divides or joins intervals. So
//! a scan meets every key that is there all the time exactly once, however much the index grows or
//! shrinks meanwhile.

use crate::entry::EntryRef;
use crate::error::{Damaged, ReadError, WriteError};
use crate::index::{endless, names_entry, Bucket};
use crate::layout::{bucket_bits, bucket_of, slot};
use crate::limits::{CHAIN_MAX, READ_ATTEMPTS};
use crate::read::{copy_entry, Entry};
use crate::region::{Inner, Region};
use crate::shard::{shard_words, Locked, Root};
use crate::sync::{fence, spin_loop, Ordering};

/// Where a scan stands. It can be kept, sent and used again, in any process that has the region
/// attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Cursor(u64);

/// Bits of a cursor that order the keys of a shard.
const POSITION_BITS: u32 = 56;
/// Positions there are.
pub(crate) const POSITIONS: u64 = 1 << POSITION_BITS;

impl Cursor {
    /// The beginning.
    pub const START: Self = Self(0);

    /// The cursor as a number, to be kept elsewhere.
    pub fn to_u64(self) -> u64 {
        self.0
    }

    /// The cursor of a number that [`Cursor::to_u64`] gave.
    pub fn from_u64(number: u64) -> Self {
        Self(number)
    }

    fn new(shard: u64, position: u64) -> Self {
        Self(shard << POSITION_BITS | position)
    }

    fn parts(self) -> (u64, u64) {
        (self.0 >> POSITION_BITS, self.0 & ((1 << POSITION_BITS) - 1))
    }
}

/// What one step of a scan found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScanPage {
    /// Keys with their entries, in no particular order.
    pub entries: Vec<(Vec<u8>, Entry)>,
    /// Where to go on; `None` when all was seen.
    pub next: Option<Cursor>,
}

/// What one step of a scan for keys alone found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeysPage {
    /// The keys, in no particular order.
    pub keys: Vec<Vec<u8>>,
    /// Where to go on; `None` when all was seen.
    pub next: Option<Cursor>,
}

impl Region {
    /// The entries whose keys begin with `prefix`, from `cursor` on, until at least `limit` were
    /// found or all keys seen. Keys that are there during the whole scan are met exactly once; keys
    /// that come or go meanwhile, at most once. All keys are looked at, whatever the prefix.
    pub fn scan(&self, prefix: &[u8], cursor: Cursor, limit: usize) -> Result<ScanPage, ReadError> {
        let copy = |key, entry: &EntryRef<'_>| Ok((key, copy_entry(&self.inner, entry)?));
        let (entries, next) = self.walk(prefix, cursor, limit, usize::MAX, copy)?;
        Ok(ScanPage { entries, next })
    }

    /// As [`Region::scan`], but tells the keys alone, and looks at `buckets` buckets at most, of a few
    /// keys each: for those who may not be away for as long as it takes to find keys of a rare prefix,
    /// nor hold more than a few values at a time. A page may so be empty and not the last.
    pub fn scan_keys(
        &self,
        prefix: &[u8],
        cursor: Cursor,
        limit: usize,
        buckets: usize,
    ) -> Result<KeysPage, ReadError> {
        let (keys, next) = self.walk(prefix, cursor, limit, buckets, |key, _| Ok(key))?;
        Ok(KeysPage { keys, next })
    }

    fn walk<T>(
        &self,
        prefix: &[u8],
        cursor: Cursor,
        limit: usize,
        buckets: usize,
        copy: impl Fn(Vec<u8>, &EntryRef<'_>) -> Result<T, Damaged>,
    ) -> Result<(Vec<T>, Option<Cursor>), ReadError> {
        let inner = &*self.inner;
        let mut all = Vec::new();
        let (mut shard, mut position) = cursor.parts();
        let mut looks = buckets.max(1);
        while shard < inner.geometry.shard_count {
            let (found, next) = scan_bucket(inner, shard, position, prefix, &copy)?;
            all.extend(found);
            (shard, position) = match next {
                Some(position) => (shard, position),
                None => (shard + 1, 0),
            };
            looks -= 1;
            let is_enough = all.len() >= limit.max(1) || looks == 0;
            if is_enough && shard < inner.geometry.shard_count {
                return Ok((all, Some(Cursor::new(shard, position))));
            }
        }
        Ok((all, None))
    }

    /// Removes all entries. Each shard's go bucket by bucket; what others write meanwhile may stay.
    pub fn clear(&self) -> Result<u64, WriteError> {
        let inner = &*self.inner;
        let mut removed = 0;
        for index in 0..inner.geometry.shard_count {
            let mut position = 0;
            while position < POSITIONS {
                let locked = Locked::lock(inner, index)?;
                let (_, end) = bucket_at(position, locked.root());
                removed += locked.clear_bucket(position)?;
                position = end;
            }
        }
        Ok(removed)
    }
}

impl Locked<'_> {
    /// Removes all entries of the bucket at a position, and those that come to it from merged ones
    /// meanwhile.
    fn clear_bucket(&self, position: u64) -> Result<u64, Damaged> {
        let mut removed = 0;
        loop {
            let (number, _) = bucket_at(position, self.root());
            let first = Bucket::of_shard(self.region, self.index, number)?;
            let mut slots = Vec::new();
            for bucket in first.chain(self.region) {
                slots.extend(
                    bucket?
                        .slots()
                        .filter(|slot| names_entry(slot.load(Ordering::Relaxed))),
                );
            }
            // The last one, so that nothing has to move up from an overflow bucket.
            let Some(slot) = slots.pop() else { break };
            let word = slot.load(Ordering::Relaxed);
            let entry = EntryRef::at(self.region, word & slot::OFFSET_MASK)?;
            self.next_revision();
            let found = crate::index::Found { slot, word, entry };
            self.remove(first, &found, crate::feed::Change::Delete)?;
            removed += 1;
        }
        Ok(removed)
    }
}

/// The entries of the bucket that covers `position`, from there on, and the position after the
/// bucket; `None` if it is the shard's last.
fn scan_bucket<T>(
    inner: &Inner,
    shard: u64,
    position: u64,
    prefix: &[u8],
    copy: &impl Fn(Vec<u8>, &EntryRef<'_>) -> Result<T, Damaged>,
) -> Result<(Vec<T>, Option<u64>), ReadError> {
    let words = shard_words(inner, shard);
    for _ in 0..READ_ATTEMPTS {
        let root = Root::load(words);
        fence(Ordering::Acquire); // as in `View::new`
        let (number, end) = bucket_at(position, root);
        let first = Bucket::of_shard(inner, shard, number);
        let version = first.map_or(0, |bucket| bucket.version());
        fence(Ordering::Acquire); // as in `View::new`
        let found = first.and_then(|first| copy_bucket(inner, first, position..end, prefix, copy));
        fence(Ordering::Acquire); // as in `View::is_unchanged`
        let same_version = first.map_or(true, |bucket| bucket.version() == version);
        if same_version && Root::load(words) == root {
            return Ok((found?, (end < POSITIONS).then_some(end)));
        }
        spin_loop();
    }
    Err(ReadError::Contended)
}

fn copy_bucket<T>(
    inner: &Inner,
    first: Bucket<'_>,
    positions: std::ops::Range<u64>,
    prefix: &[u8],
    copy: &impl Fn(Vec<u8>, &EntryRef<'_>) -> Result<T, Damaged>,
) -> Result<Vec<T>, Damaged> {
    let mut entries = Vec::new();
    // Who died while it compacted the chain left an entry in two slots.
    let mut seen = Vec::new();
    let mut link = 0;
    let mut bucket = Some(first);
    for _ in 0..CHAIN_MAX {
        let Some(here) = bucket else {
            return Ok(entries);
        };
        for slot in here.slots() {
            // Once, as in `Bucket::find`: the last slot may turn from a link into an entry.
            link = slot.load(Ordering::Relaxed);
            fence(Ordering::Acquire); // as in `Bucket::find`
            if !names_entry(link) {
                continue;
            }
            let offset = link & slot::OFFSET_MASK;
            if seen.contains(&offset) {
                continue;
            }
            seen.push(offset);
            let entry = EntryRef::at(inner, offset)?;
            if !positions.contains(&position_of(entry.hash())) || entry.is_expired() {
                continue;
            }
            let key = entry.key();
            if key.starts_with(prefix) {
                entries.push(copy(key, &entry)?);
            }
        }
        bucket = Bucket::linked(inner, link)?;
    }
    Err(endless(link))
}

/// The bucket that covers a position, and the position behind it. Walks go by positions, because
/// buckets that merge or split while one goes by their numbers would be missed.
pub(crate) fn bucket_at(position: u64, root: Root) -> (u64, u64) {
    let number = bucket_of(hash_at(position), root.buckets());
    let covered = 1 << (POSITION_BITS - bucket_bits(number, root.buckets()));
    (number, (position & !(covered - 1)) + covered)
}

pub(crate) fn position_of(hash: u64) -> u64 {
    hash.reverse_bits() >> (64 - POSITION_BITS)
}

fn hash_at(position: u64) -> u64 {
    (position << (64 - POSITION_BITS)).reverse_bits()
}

#[cfg(test)]
mod tests {
    use crate::{Config, Options, Region};

    /// Merging buckets meanwhile once moved entries into buckets that were done already, where they
    /// stayed.
    #[test]
    fn clear_leaves_nothing_behind() {
        let region = Region::create(&Config::new(4 << 20).shards(1), Options::new()).unwrap();
        for keys in [1, 100, 1000, 10_000_u32] {
            for key in 0..keys {
                region.set(&key.to_le_bytes(), b"value").unwrap();
            }
            assert_eq!(region.clear().unwrap(), u64::from(keys));
            assert_eq!((region.len(), region.stats().buckets), (0, 16));
            assert_eq!(region.check().unwrap().problems, Vec::<String>::new());
        }
    }

    #[test]
    fn a_scan_of_few_buckets_at_a_time_meets_each_key_once() {
        let region = Region::create(&Config::new(4 << 20).shards(2), Options::new()).unwrap();
        for key in 0..1000_u32 {
            region.set(format!("{key}").as_bytes(), b"").unwrap();
        }
        let (mut found, mut pages, mut empty) = (Vec::new(), 0, 0);
        let mut cursor = Some(super::Cursor::START);
        while let Some(from) = cursor {
            let page = region.scan_keys(b"99", from, usize::MAX, 4).unwrap();
            assert!(page.keys.len() <= 4 * 100);
            empty += u32::from(page.keys.is_empty());
            found.extend(page.keys);
            cursor = page.next;
            pages += 1;
        }
        found.sort_unstable();
        assert_eq!(
            (found.len(), &found[0][..], &found[10][..]),
            (11, &b"99"[..], &b"999"[..])
        );
        assert!(pages >= 8 && empty > 0, "{pages} pages, {empty} empty");
    }
}

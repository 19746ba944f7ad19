//! Reading: no lock, no system call, no store to a shared word.
//!
//! A lookup notes the shard's root and the bucket's version, finds the entry, copies what it wants,
//! and looks at root and version again: unchanged means that the entry was there, whole, all the
//! time. If something changed, the key is looked up anew; where that leads to the same entry with
//! the same revision, the copy still stands (an entry's bytes never change), so a long copy is not
//! begun again because of writes to other keys.

use crate::entry::EntryRef;
use crate::error::{Damaged, ReadError};
use crate::glance::{look_further, Glance, Then, View, LONG};
use crate::index::Bucket;
use crate::key::Key;
use crate::layout::{entry, slot, tag_of, KEY_LEN_MAX};
use crate::limits::READ_ATTEMPTS;
use crate::memory::LINE_LEN;
use crate::region::{Inner, Region};
use crate::shard::{shard_words, Root};
use crate::sync::{fence, spin_loop, AtomicU64, Ordering};

/// A value with what is known about it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// The value; a counter's is its `i64`, little-endian.
    pub value: Vec<u8>,
    /// What compare-and-set compares: every write of the key gives it another revision.
    pub revision: u64,
    /// Milliseconds until it expires, if it does.
    pub ttl_ms: Option<u64>,
    /// Whether [`Region::incr`] made it.
    pub is_counter: bool,
    /// Whether it goes with a session: that of who set it.
    pub is_ephemeral: bool,
}

impl Region {
    /// The value of a key.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        let mut value = Vec::new();
        Ok(self.get_into(key, &mut value)?.then_some(value))
    }

    /// Puts the value of a key into `value`, whose former contents go and whose memory is used
    /// again. `false`, and an empty `value`, if there is none.
    #[inline(always)]
    pub fn get_into(&self, key: &[u8], value: &mut Vec<u8>) -> Result<bool, ReadError> {
        let inner = &*self.inner;
        if let Some((short, hash)) = inner.short_key(key) {
            if let Some(found) = glance_into(inner, hash, short, value) {
                return Ok(found);
            }
        }
        get_any(inner, key, value)
    }

    /// The value of a key with its revision and time to live.
    pub fn entry(&self, key: &[u8]) -> Result<Option<Entry>, ReadError> {
        let inner = &*self.inner;
        let hash = inner.hash(checked_key(key)?);
        read(inner, hash, key, |entry| copy_entry(inner, entry))
    }

    /// Whether a key is there.
    pub fn exists(&self, key: &[u8]) -> Result<bool, ReadError> {
        let inner = &*self.inner;
        let hash = inner.hash(checked_key(key)?);
        Ok(read(inner, hash, key, |_| Ok(()))?.is_some())
    }

    /// The time to live of a key in milliseconds: `None` without the key, `Some(None)` if it never
    /// expires.
    pub fn ttl(&self, key: &[u8]) -> Result<Option<Option<u64>>, ReadError> {
        let inner = &*self.inner;
        let hash = inner.hash(checked_key(key)?);
        read(inner, hash, key, |entry| Ok(ttl_of(inner, entry)))
    }

    /// The values of several keys, in their order. Many keys that are not in the processor's caches
    /// are read much faster together than one by one, because the memory is asked for all of them
    /// at once.
    pub fn get_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Vec<u8>>>, ReadError> {
        let inner = &*self.inner;
        let mut values = Vec::with_capacity(keys.len());
        for batch in keys.chunks(PREFETCH) {
            let mut hashes = [0; PREFETCH];
            for (hash, key) in hashes.iter_mut().zip(batch) {
                *hash = inner.hash(checked_key(key.as_ref())?);
            }
            prefetch(inner, &hashes[..batch.len()]);
            for (hash, key) in hashes.into_iter().zip(batch) {
                let mut value = Vec::new();
                let is_there = get_hashed(inner, hash, key.as_ref(), &mut value)?;
                values.push(is_there.then_some(value));
            }
        }
        Ok(values)
    }
}

/// Keys whose memory is asked for at once.
const PREFETCH: usize = 16;
/// And so many cache lines of each entry: what a key and a value of some 60 bytes take, wherever in a
/// line they begin.
const ENTRY_LINES: u64 = 3;

pub(crate) fn checked_key(key: &[u8]) -> Result<&[u8], ReadError> {
    if (1..=KEY_LEN_MAX).contains(&key.len()) {
        Ok(key)
    } else {
        Err(ReadError::KeyLen { len: key.len() })
    }
}

/// A read that copies the value.
struct CopyOut<'a> {
    inner: &'a Inner,
    value: &'a mut Vec<u8>,
}

impl<'r> Then<'r> for CopyOut<'_> {
    type Output = bool;

    #[inline(always)]
    fn then(self, view: &View<'r>, glance: Glance<'r>) -> Option<bool> {
        match glance {
            Glance::Entry(hit) if !hit.is_expired(self.inner) => {
                mark_visited(self.inner, hit.slot, hit.word);
                hit.copy_value(self.value);
                view.is_unchanged().then_some(true)
            }
            Glance::Nothing => {
                self.value.clear();
                view.is_unchanged().then_some(false)
            }
            _ => None,
        }
    }
}

/// Any other read.
struct Take<'r, F> {
    inner: &'r Inner,
    take: F,
}

impl<'r, T, F: FnMut(&EntryRef<'_>) -> Result<T, Damaged>> Then<'r> for Take<'r, F> {
    type Output = Result<Option<T>, Damaged>;

    #[inline(always)]
    fn then(mut self, view: &View<'r>, glance: Glance<'r>) -> Option<Self::Output> {
        match glance {
            Glance::Entry(hit) if !hit.is_expired(self.inner) => {
                mark_visited(self.inner, hit.slot, hit.word);
                let taken = (self.take)(&hit.found(self.inner).entry);
                view.is_unchanged().then(|| taken.map(Some))
            }
            Glance::Nothing => view.is_unchanged().then_some(Ok(None)),
            _ => None,
        }
    }
}

/// Whether the key is there, and then its value; `None` if that takes more than a glance.
/// `CopyOut::then`, spelled out here, keeps everything in registers.
#[inline(always)]
fn glance_into<K: Key>(inner: &Inner, hash: u64, key: K, value: &mut Vec<u8>) -> Option<bool> {
    let view = View::new(inner, inner.geometry.shard_of(hash), hash)?;
    match view.glance(inner, hash, key) {
        Glance::Entry(hit) if !hit.is_expired(inner) => {
            if K::MAY_EVICT {
                mark_visited(inner, hit.slot, hit.word);
            }
            hit.copy_value(value);
            view.is_unchanged().then_some(true)
        }
        Glance::Nothing => {
            value.clear();
            view.is_unchanged().then_some(false)
        }
        Glance::Link(_) => look_further(inner, hash, key.bytes(), CopyOut { inner, value }),
        _ => None,
    }
}

/// [`Region::get_into`] for a key of any length.
#[inline(never)]
fn get_any(inner: &Inner, key: &[u8], value: &mut Vec<u8>) -> Result<bool, ReadError> {
    let hash = inner.hash(checked_key(key)?);
    get_hashed(inner, hash, key, value)
}

/// The same for one whose hash is known.
#[inline(always)]
fn get_hashed(
    inner: &Inner,
    hash: u64,
    key: &[u8],
    value: &mut Vec<u8>,
) -> Result<bool, ReadError> {
    value.clear();
    if let Some(found) = glance_into(inner, hash, key, value) {
        return Ok(found);
    }
    get_patiently(inner, hash, key, value)
}

#[inline(never)]
fn get_patiently(
    inner: &Inner,
    hash: u64,
    key: &[u8],
    value: &mut Vec<u8>,
) -> Result<bool, ReadError> {
    let found = read(inner, hash, key, |entry| {
        value.clear();
        entry.copy_value(value).map(|_| ())
    })?;
    if found.is_none() {
        value.clear();
    }
    Ok(found.is_some())
}

/// Calls `take` on the key's entry until it saw the entry whole.
pub(crate) fn read<T>(
    inner: &Inner,
    hash: u64,
    key: &[u8],
    mut take: impl FnMut(&EntryRef<'_>) -> Result<T, Damaged>,
) -> Result<Option<T>, ReadError> {
    let shard = inner.geometry.shard_of(hash);
    // What nearly every read is: nothing changes meanwhile, and the value is not long.
    if let Some(view) = View::new(inner, shard, hash) {
        let take = Take {
            inner,
            take: &mut take,
        };
        let taken = match view.glance(inner, hash, key) {
            Glance::Link(_) => look_further(inner, hash, key, take),
            glance => take.then(&view, glance),
        };
        if let Some(taken) = taken {
            return Ok(taken?);
        }
    }
    read_patiently(inner, hash, key, take)
}

/// The same for all other cases.
fn read_patiently<T>(
    inner: &Inner,
    hash: u64,
    key: &[u8],
    mut take: impl FnMut(&EntryRef<'_>) -> Result<T, Damaged>,
) -> Result<Option<T>, ReadError> {
    let shard = inner.geometry.shard_of(hash);
    let words = shard_words(inner, shard);
    let mut taken: Option<((u64, u64), T)> = None;
    for attempt in 0..READ_ATTEMPTS {
        if attempt > 0 {
            wait(attempt);
        }
        let root = Root::load(words);
        // As in `View::new`.
        fence(Ordering::Acquire);
        let bucket = match Bucket::of_hash(inner, shard, root, hash) {
            Ok(bucket) => bucket,
            Err(damaged) => {
                // As in `View::is_unchanged`: who met an index page that is gone sees the root that
                // went before.
                fence(Ordering::Acquire);
                if Root::load(words) == root {
                    return Err(damaged.into());
                }
                continue;
            }
        };
        let view = View::of_bucket(shard, words, root, bucket);
        let found = match bucket.find(inner, hash, key) {
            Ok(Some(found)) if !found.entry.is_expired() => found,
            absent if view.is_unchanged() => {
                absent?;
                return Ok(None);
            }
            _ => continue,
        };
        let identity = (found.entry.offset, found.entry.revision());
        if let Some((copied, value)) = taken.take() {
            if copied == identity && view.is_unchanged() {
                return Ok(Some(value));
            }
        }
        let is_long = is_long(&found.entry);
        if is_long && !view.is_unchanged() {
            continue;
        }
        let result = take(&found.entry);
        if view.is_unchanged() {
            mark_visited(inner, found.slot, found.word);
            return Ok(Some(result?));
        }
        // That the view held after the revision was read proves which entry the copy began with.
        taken = result
            .ok()
            .filter(|_| is_long)
            .map(|value| (identity, value));
    }
    Err(ReadError::Contended)
}

#[inline(always)]
fn is_long(entry: &EntryRef<'_>) -> bool {
    entry.meta.value_len() > LONG
}

/// Tells the eviction hand that the entry is in use: the only store a read ever makes, only in
/// regions that evict, and only when the mark is not set yet.
#[inline(always)]
fn mark_visited(inner: &Inner, slot: &AtomicU64, word: u64) {
    if inner.geometry.evicts() && word & slot::VISITED == 0 && inner.is_writable() {
        set_visited(slot, word);
    }
}

#[cold]
#[inline(never)]
fn set_visited(slot: &AtomicU64, word: u64) {
    // Fails if the slot changed, so a writer's store is never undone.
    let _ = slot.compare_exchange(
        word,
        word | slot::VISITED,
        Ordering::Relaxed,
        Ordering::Relaxed,
    );
}

/// Now and then lets others run: the writer this read waits for may need this processor.
#[cold]
fn wait(attempt: u32) {
    if cfg!(loom) {
        // After a yield the model would no longer show this thread the old values it may still
        // meet.
        return;
    }
    if attempt % 64 == 63 {
        std::thread::yield_now();
    }
    spin_loop();
}

pub(crate) fn copy_entry(inner: &Inner, entry: &EntryRef<'_>) -> Result<Entry, Damaged> {
    let mut value = Vec::new();
    let revision = entry.copy_value(&mut value)?;
    Ok(Entry {
        value,
        revision,
        ttl_ms: ttl_of(inner, entry),
        is_counter: entry.meta.has(entry::COUNTER),
        is_ephemeral: entry.meta.has(entry::EPHEMERAL),
    })
}

fn ttl_of(inner: &Inner, entry: &EntryRef<'_>) -> Option<u64> {
    match entry.expires_at() {
        0 => None,
        at => Some(at.saturating_sub(inner.clock.now_ms())),
    }
}

/// Asks the memory for the buckets of all hashes, then for the entries they name. One key in
/// fifty is in the second bucket of its chain, which is asked for with the entries of the others.
fn prefetch(inner: &Inner, hashes: &[u64]) {
    let mut buckets = [None; PREFETCH];
    for (bucket, &hash) in buckets.iter_mut().zip(hashes) {
        let shard = inner.geometry.shard_of(hash);
        let words = shard_words(inner, shard);
        let number = Root::load(words).bucket_of(hash);
        *bucket = Bucket::near(inner, shard, words, number);
        if let Some(bucket) = bucket {
            inner.memory.prefetch(bucket.offset);
        }
    }
    for _ in 0..2 {
        for (bucket, &hash) in buckets.iter_mut().zip(hashes) {
            *bucket = bucket
                .take()
                .and_then(|bucket| prefetch_entry(inner, &bucket, hash));
        }
    }
}

/// Asks for the entry that a bucket names, or for the next bucket if it names none, and returns that.
fn prefetch_entry<'r>(inner: &'r Inner, bucket: &Bucket<'r>, hash: u64) -> Option<Bucket<'r>> {
    let tag = tag_of(hash);
    let mut last = 0;
    for slot in bucket.slots() {
        last = slot.load(Ordering::Relaxed);
        if last >> slot::TAG_SHIFT == tag {
            let offset = last & slot::OFFSET_MASK;
            for line in 0..ENTRY_LINES {
                inner.memory.prefetch(offset + line * LINE_LEN as u64);
            }
            return None;
        }
    }
    let next = Bucket::linked(inner, last).ok()??;
    inner.memory.prefetch(next.offset);
    Some(next)
}

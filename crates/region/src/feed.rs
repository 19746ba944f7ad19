//! The change feed: each shard keeps a ring of what was written to it last, so that watchers learn
//! which keys changed. It is off until somebody opens it, and costs a look at one word until then.
//!
//! The rings never make a writer wait. A reader that is too slow, or a writer that died between its
//! commit and its record, leads to a [`FeedItem::Gap`]: the reader then looks at the shard's keys
//! anew.

use crate::clock::wait_begins;
use crate::error::WriteError;
use crate::futex;
use crate::layout::{header, shard, FEED_WORDS, KEY_LEN_MAX, WORD};
use crate::memory::Words;
use crate::region::{Inner, Region};
use crate::shard::{shard_words, Locked};
use crate::sync::{fence, Ordering};
use std::time::Duration;

/// What happened to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// It has a new value.
    Set,
    /// It was deleted.
    Delete,
    /// It expired, or its session ended.
    Expire,
    /// It was evicted.
    Evict,
}

/// One thing learnt from a feed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FeedItem {
    /// A key changed. The changes of a key come in the order they were made.
    Change {
        /// What happened.
        change: Change,
        /// To which key.
        key: Vec<u8>,
        /// The revision of the change; its shard's revisions only grow.
        revision: u64,
    },
    /// Changes of a shard were lost. All keys of it ([`Region::shard_of_key`]) may have changed.
    Gap {
        /// The shard.
        shard: u64,
    },
}

/// A reader of the change feed. It begins with the changes made after it was opened.
#[derive(Debug)]
pub struct Feed {
    region: Region,
    positions: Vec<u64>,
}

const ON: u64 = 1;
const WAKE_ALWAYS: u64 = 2;
/// Words of a record before its key: revision, then kind and key length.
const HEAD_WORDS: u64 = 2;
/// How long a read-only reader sleeps when nobody was told to wake it.
const POLL: Duration = Duration::from_millis(1);
/// Longest sleep before looking again: a writer may die between its change and the wake.
const SLEEP_MAX: Duration = Duration::from_millis(50);

impl Region {
    /// Opens the change feed, and turns it on for all writers if it is not. A read-only handle can
    /// follow a feed that is on.
    pub fn feed(&self) -> Result<Feed, WriteError> {
        let inner = &*self.inner;
        let flags = inner.memory.header(header::FEED_FLAGS);
        if !is_on(inner) {
            inner.owner()?;
            let rings = inner.geometry.feed_offset..inner.geometry.pages_offset;
            inner
                .memory
                .backing()
                .commit(rings)
                .map_err(WriteError::NoMemory)?;
            flags.fetch_or(ON, Ordering::SeqCst);
        }
        let mut positions = Vec::new();
        for index in 0..inner.geometry.shard_count {
            let words = shard_words(inner, index);
            if inner.is_writable() {
                // After this, every write of the shard was either done before (and can be read), or
                // will be told.
                drop(Locked::lock(inner, index)?);
            }
            positions.push(words.at(shard::FEED_HEAD).load(Ordering::Acquire));
        }
        Ok(Feed {
            region: self.clone(),
            positions,
        })
    }

    /// Lets every write wake read-only waiters at once, which can't announce that they wait.
    /// Without it they look once a millisecond; with it a write costs a system call more while the
    /// feed is on.
    pub fn wake_read_only_waiters(&self, wake: bool) -> Result<(), WriteError> {
        self.inner.owner()?;
        let flags = self.inner.memory.header(header::FEED_FLAGS);
        if wake {
            flags.fetch_or(WAKE_ALWAYS, Ordering::Relaxed);
        } else {
            flags.fetch_and(!WAKE_ALWAYS, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Has all who sleep in [`Feed::sleep`] ask whether to give up.
    pub fn wake_feeds(&self) -> Result<(), WriteError> {
        self.inner.owner()?;
        let event = self.inner.memory.header(header::FEED_EVENT);
        event.fetch_add(1, Ordering::Release);
        futex::wake(&self.inner.memory, header::FEED_EVENT * WORD, i32::MAX);
        Ok(())
    }

    /// The shard a key belongs to.
    pub fn shard_of_key(&self, key: &[u8]) -> u64 {
        self.inner.geometry.shard_of(self.inner.hash(key))
    }
}

impl Feed {
    /// Calls `each` with everything that happened since the last call, and returns how much that
    /// was.
    pub fn poll(&mut self, mut each: impl FnMut(FeedItem)) -> usize {
        let inner = &*self.region.inner;
        let mut items = 0;
        for (index, position) in (0..).zip(&mut self.positions) {
            // A bound on how long one busy shard can keep this call.
            for _ in 0..FEED_WORDS {
                let Some(item) = next(inner, index, position) else {
                    break;
                };
                each(item);
                items += 1;
            }
        }
        items
    }

    /// Waits until something happened, for `timeout` at most; `false` if nothing did.
    pub fn wait(&self, timeout: Duration) -> bool {
        self.wait_looking(timeout, SLEEP_MAX, || false)
    }

    /// As [`Feed::wait`], but in one sleep, and until `gives_up`, which is asked before it and again
    /// when [`Region::wake_feeds`] was called. A writer may be killed between its change and the wake,
    /// so the change is then seen at the end of `timeout` only.
    pub fn sleep(&self, timeout: Duration, gives_up: impl Fn() -> bool) -> bool {
        self.wait_looking(timeout, Duration::MAX, gives_up)
    }

    fn wait_looking(
        &self,
        timeout: Duration,
        sleep_max: Duration,
        gives_up: impl Fn() -> bool,
    ) -> bool {
        let inner = &*self.region.inner;
        let event = inner.memory.header(header::FEED_EVENT);
        let flags = inner.memory.header(header::FEED_FLAGS);
        let started = wait_begins();
        loop {
            let seen = event.load(Ordering::Acquire);
            if inner.is_writable() {
                inner
                    .memory
                    .header(header::FEED_WAITING)
                    .store(1, Ordering::Relaxed);
            }
            // Pairs with the fence in `wake`: either the writer sees the mark, or this sees its
            // change.
            fence(Ordering::SeqCst);
            if self.has_news() {
                return true;
            }
            let left = timeout.saturating_sub(started.elapsed());
            if left.is_zero() || gives_up() {
                return false;
            }
            let woken = inner.is_writable() || flags.load(Ordering::Relaxed) & WAKE_ALWAYS != 0;
            let sleep = if woken { sleep_max } else { POLL };
            futex::wait(
                &inner.memory,
                header::FEED_EVENT * WORD,
                seen,
                left.min(sleep),
            );
        }
    }

    fn has_news(&self) -> bool {
        let inner = &*self.region.inner;
        (0..).zip(&self.positions).any(|(index, position)| {
            shard_words(inner, index)
                .at(shard::FEED_HEAD)
                .load(Ordering::Relaxed)
                != *position
        })
    }
}

/// Whether writes are told in the rings, which so have memory.
#[inline(always)]
pub(crate) fn is_on(region: &Inner) -> bool {
    region
        .memory
        .header(header::FEED_FLAGS)
        .load(Ordering::Relaxed)
        & ON
        != 0
}

impl Locked<'_> {
    /// Tells the feed, if it is on, of a change that is already committed.
    #[inline(always)]
    pub(crate) fn publish(&self, change: Change, revision: u64, key: &[u8]) {
        if is_on(self.region) {
            self.aside().append_record(change, revision, key);
            wake(self.region);
        }
    }

    #[cold]
    fn append_record(&self, change: Change, revision: u64, key: &[u8]) {
        let ring = ring(self.region, self.index);
        let len = HEAD_WORDS + (key.len() as u64).div_ceil(WORD);
        let head = self.get(shard::FEED_HEAD);
        let at = head % FEED_WORDS;
        // Records do not wrap: what is left at the end is skipped.
        let skipped = if at + len > FEED_WORDS {
            FEED_WORDS - at
        } else {
            0
        };
        let end = head.wrapping_add(skipped + len);
        self.set(shard::FEED_RESERVED, end);
        // Pairs with the second fence in `next`: who reads any word stored below sees the
        // reservation.
        fence(Ordering::Release);
        if skipped != 0 {
            ring.at(at).store(0, Ordering::Relaxed);
        }
        let start = (at + skipped) % FEED_WORDS;
        ring.at(start).store(revision, Ordering::Relaxed);
        let kind = change as u64 | (key.len() as u64) << 8;
        ring.at(start + 1).store(kind, Ordering::Relaxed);
        if let Some(words) = ring.from(start + HEAD_WORDS) {
            words.fill(key);
        }
        // Release pairs with the Acquire in `next`.
        self.words
            .at(shard::FEED_HEAD)
            .store(end, Ordering::Release);
    }

    /// Makes all readers of this shard's feed see a gap: a record may be missing.
    pub(crate) fn break_feed(&self) {
        let end = self
            .get(shard::FEED_HEAD)
            .max(self.get(shard::FEED_RESERVED));
        let end = end.wrapping_add(FEED_WORDS + 1);
        self.set(shard::FEED_RESERVED, end);
        self.words
            .at(shard::FEED_HEAD)
            .store(end, Ordering::Release);
        if is_on(self.region) {
            wake(self.region);
        }
    }
}

fn wake(region: &Inner) {
    let waiting = region.memory.header(header::FEED_WAITING);
    let flags = region.memory.header(header::FEED_FLAGS);
    // Pairs with the fence in `Feed::wait`.
    fence(Ordering::SeqCst);
    if waiting.load(Ordering::Relaxed) != 0 || flags.load(Ordering::Relaxed) & WAKE_ALWAYS != 0 {
        waiting.store(0, Ordering::Relaxed);
        region
            .memory
            .header(header::FEED_EVENT)
            .fetch_add(1, Ordering::Release);
        futex::wake(&region.memory, header::FEED_EVENT * WORD, i32::MAX);
    }
}

/// The record at `position`, which moves behind it.
fn next(region: &Inner, index: u64, position: &mut u64) -> Option<FeedItem> {
    let words = shard_words(region, index);
    loop {
        let head = words.at(shard::FEED_HEAD).load(Ordering::Relaxed);
        fence(Ordering::Acquire); // pairs with the Release store of the head
        if head == *position {
            return None;
        }
        let record = read_record(ring(region, index), *position);
        fence(Ordering::Acquire); // pairs with the fence in `append_record`
        let reserved = words.at(shard::FEED_RESERVED).load(Ordering::Relaxed);
        let lost = reserved.wrapping_sub(*position) > FEED_WORDS;
        match record {
            Some((len, item)) if !lost => {
                *position = position.wrapping_add(len);
                if item.is_some() {
                    return item;
                }
            }
            // Overwritten, or damaged: which is told apart by nothing that matters to the reader.
            _ => {
                *position = words.at(shard::FEED_HEAD).load(Ordering::Relaxed);
                return Some(FeedItem::Gap { shard: index });
            }
        }
    }
}

/// Length in words and contents of a record; no contents for the skipped end of the ring.
fn read_record(ring: Words<'_>, position: u64) -> Option<(u64, Option<FeedItem>)> {
    let at = position % FEED_WORDS;
    let revision = ring.at(at).load(Ordering::Relaxed);
    if revision == 0 {
        return Some((FEED_WORDS - at, None));
    }
    let kind = ring
        .from(at + 1)
        .filter(|rest| rest.len() > 0)?
        .at(0)
        .load(Ordering::Relaxed);
    let key_len = kind >> 8;
    if !(1..=KEY_LEN_MAX as u64).contains(&key_len) {
        return None;
    }
    let key_words = key_len.div_ceil(WORD);
    let words = ring.from(at + HEAD_WORDS)?.first(key_words)?;
    let change = match kind & 0xff {
        0 => Change::Set,
        1 => Change::Delete,
        2 => Change::Expire,
        3 => Change::Evict,
        _ => return None,
    };
    let mut key = Vec::new();
    // At most 1024.
    #[allow(clippy::cast_possible_truncation)]
    words.append_to(&mut key, key_len as usize);
    Some((
        HEAD_WORDS + key_words,
        Some(FeedItem::Change {
            change,
            key,
            revision,
        }),
    ))
}

fn ring(region: &Inner, index: u64) -> Words<'_> {
    let offset = region.geometry.feed_offset + index * FEED_WORDS * WORD;
    region.memory.trusted_words(offset, FEED_WORDS)
}

//! A locked shard: what every write works on.

use crate::error::WriteError;
use crate::layout::{bucket_of, shard, INLINE_BUCKETS};
use crate::lock::{self, Acquired};
use crate::memory::Words;
use crate::region::Inner;
use crate::session::OwnerId;
use crate::sync::{AtomicU64, Ordering};
use std::mem::ManuallyDrop;
use std::ops::Deref;

/// A shard whose lock this thread holds. The methods are spread over the modules that own the
/// subject: `index`, `alloc`, `pool`, `evict`, `ephemeral`, `sweep`, `repair`, `feed`.
pub(crate) struct Locked<'r> {
    pub(crate) region: &'r Inner,
    pub(crate) index: u64,
    pub(crate) words: Words<'r>,
    pub(crate) owner: OwnerId,
}

impl<'r> Locked<'r> {
    /// Locks a shard, and repairs it first if its last holder died.
    #[inline(always)]
    pub(crate) fn lock(region: &'r Inner, index: u64) -> Result<Self, WriteError> {
        let owner = region.owner()?;
        let words = shard_words(region, index);
        let acquired = lock::acquire(region, index, words, owner)?;
        let locked = Self {
            region,
            index,
            words,
            owner,
        };
        if acquired == Acquired::TakenOver {
            locked.repair();
        }
        Ok(locked)
    }

    /// A copy to lend to what is rarely called. Only what is lent needs a place in memory: without
    /// it, a locked shard stays in registers.
    #[inline(always)]
    pub(crate) fn aside(&self) -> ManuallyDrop<Self> {
        ManuallyDrop::new(Self { ..*self })
    }

    #[inline(always)]
    pub(crate) fn get(&self, word: u64) -> u64 {
        self.words.at(word).load(Ordering::Relaxed)
    }

    #[inline(always)]
    pub(crate) fn set(&self, word: u64, value: u64) {
        self.words.at(word).store(value, Ordering::Relaxed);
    }

    #[inline(always)]
    pub(crate) fn add(&self, word: u64, more: u64) {
        self.set(word, self.get(word).wrapping_add(more));
    }

    #[inline(always)]
    pub(crate) fn sub(&self, word: u64, less: u64) {
        self.set(word, self.get(word).wrapping_sub(less));
    }

    /// The revision of the next write. It is stored before the write commits, so a revision is
    /// never used twice.
    #[inline(always)]
    pub(crate) fn next_revision(&self) -> u64 {
        let revision = self.get(shard::REVISION).wrapping_add(2);
        self.set(shard::REVISION, revision);
        revision
    }

    pub(crate) fn root(&self) -> Root {
        Root::load(self.words)
    }
}

impl Drop for Locked<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        lock::release(self.region, self.index, self.words);
    }
}

/// A locked shard for a few straight steps, which end with [`Brief::done`]. Unlike [`Locked`] it
/// has no destructor that would need it in memory, so all of it stays in registers.
pub(crate) struct Brief<'r> {
    locked: ManuallyDrop<Locked<'r>>,
    abandon: Abandon<'r>,
}

impl<'r> Brief<'r> {
    /// Of a shard whose lock was just got, from a holder that released it.
    #[inline(always)]
    pub(crate) fn of(region: &'r Inner, index: u64, words: Words<'r>, owner: OwnerId) -> Self {
        Self {
            locked: ManuallyDrop::new(Locked {
                region,
                index,
                words,
                owner,
            }),
            abandon: Abandon(words.at(shard::LOCK)),
        }
    }

    /// Unlocks the shard.
    #[inline(always)]
    pub(crate) fn done(self) {
        std::mem::forget(self.abandon);
        lock::unlock(self.locked.region, self.locked.index, self.locked.words);
    }
}

impl<'r> Deref for Brief<'r> {
    type Target = Locked<'r>;

    #[inline(always)]
    fn deref(&self) -> &Locked<'r> {
        &self.locked
    }
}

/// Gives the lock up for repair when dropped, which only a panic does.
struct Abandon<'r>(&'r AtomicU64);

impl Drop for Abandon<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.0.store(OwnerId::ABANDONED.0, Ordering::Release);
    }
}

/// The words of a shard, locked or not.
#[inline(always)]
pub(crate) fn shard_words(region: &Inner, index: u64) -> Words<'_> {
    region.memory.shard(index)
}

/// How many buckets a shard has, and how often that changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Root(u64);

impl Root {
    #[inline(always)]
    pub(crate) fn load(words: Words<'_>) -> Self {
        Self(words.at(shard::ROOT).load(Ordering::Relaxed))
    }

    /// Never fewer than a shard begins with, whatever the word says.
    #[inline(always)]
    pub(crate) fn buckets(self) -> u64 {
        (self.0 & 0xffff_ffff).max(INLINE_BUCKETS)
    }

    /// The number of the bucket that a hash belongs to.
    #[inline(always)]
    pub(crate) fn bucket_of(self, hash: u64) -> u64 {
        bucket_of(hash, self.0 & 0xffff_ffff)
    }

    /// The word for another number of buckets.
    pub(crate) fn next(self, buckets: u64) -> u64 {
        (self.0 >> 32).wrapping_add(1) << 32 | buckets
    }
}

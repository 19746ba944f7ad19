//! The lock of a shard: one word that names its holder, taken over only on proof of the holder's
//! death.
//!
//! 0 is free. A writer swaps its [`OwnerId`] in; who fails spins for a moment, then sleeps on the
//! word for bounded times and each time tests whether the holder still lives. The sleep is bounded
//! for two more reasons: a holder may be killed between its unlocking store and the wake, and
//! unlocking has no full fence between that store and its look at `WAITERS`, so a wake can be
//! missed.
//!
//! There is no fairness: a writer holds the lock for tens of nanoseconds.

use crate::clock::wait_begins;
use crate::error::WriteError;
use crate::futex;
use crate::layout::{shard, WORD};
use crate::limits::{LOCK_SPINS, LOCK_WAIT_MAX, LOCK_WAIT_MIN};
use crate::memory::Words;
use crate::region::Inner;
use crate::session::{self, OwnerId};
use crate::sync::{spin_loop, Ordering};

/// How the lock was got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Acquired {
    /// From a holder that released it: the shard is whole.
    Free,
    /// From a dead holder: the shard needs a repair before anything else.
    TakenOver,
}

/// Locks a shard for `owner`; every call that succeeds needs one of [`release`].
#[inline(always)]
pub(crate) fn acquire(
    region: &Inner,
    shard_index: u64,
    words: Words<'_>,
    owner: OwnerId,
) -> Result<Acquired, WriteError> {
    if try_acquire(words, owner) {
        Ok(Acquired::Free)
    } else {
        acquire_contended(region, shard_index, words, owner)
    }
}

/// Locks a shard if it is free.
#[inline(always)]
pub(crate) fn try_acquire(words: Words<'_>, owner: OwnerId) -> bool {
    // Acquire pairs with the Release store of the last holder's `release`.
    words
        .at(shard::LOCK)
        .compare_exchange(0, owner.0, Ordering::Acquire, Ordering::Relaxed)
        .is_ok()
}

/// Unlocks a shard that this thread locked.
#[inline(always)]
pub(crate) fn release(region: &Inner, shard_index: u64, words: Words<'_>) {
    if std::thread::panicking() {
        // Whatever was half done is for the next writer to repair.
        words
            .at(shard::LOCK)
            .store(OwnerId::ABANDONED.0, Ordering::Release);
        return;
    }
    unlock(region, shard_index, words);
}

/// Unlocks a shard that this thread locked, and whose work is done.
#[inline(always)]
pub(crate) fn unlock(region: &Inner, shard_index: u64, words: Words<'_>) {
    // Release pairs with the Acquire of the next holder's `acquire`.
    words.at(shard::LOCK).store(0, Ordering::Release);
    if words.at(shard::WAITERS).load(Ordering::Relaxed) != 0 {
        wake_one(region, shard_index, words);
    }
}

#[cold]
#[inline(never)]
fn wake_one(region: &Inner, shard_index: u64, words: Words<'_>) {
    words.at(shard::WAITERS).store(0, Ordering::Relaxed);
    futex::wake(
        &region.memory,
        region.geometry.shard_offset(shard_index) + shard::LOCK * WORD,
        1,
    );
}

#[cold]
fn acquire_contended(
    region: &Inner,
    shard_index: u64,
    words: Words<'_>,
    owner: OwnerId,
) -> Result<Acquired, WriteError> {
    let offset = region.geometry.shard_offset(shard_index);
    let lock = words.at(shard::LOCK);
    let take = |from: u64| {
        lock.compare_exchange(from, owner.0, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    };
    for _ in 0..LOCK_SPINS {
        if lock.load(Ordering::Relaxed) == 0 && take(0) {
            return Ok(Acquired::Free);
        }
        spin_loop();
    }
    let started = wait_begins();
    let mut sleep = LOCK_WAIT_MIN;
    loop {
        let holder = lock.load(Ordering::Relaxed);
        let is_free = holder == 0;
        // Of a dead holder, the kernel dropped the liveness lock or gave its session to another
        // process: all its stores were made before. Exactly one waiter wins the swap.
        let is_left = is_free || !session::is_alive(region, OwnerId(holder));
        if is_left && take(holder) {
            // Others may still sleep, and the holder that woke us cleared the mark.
            words.at(shard::WAITERS).store(1, Ordering::Relaxed);
            return Ok(if is_free {
                Acquired::Free
            } else {
                Acquired::TakenOver
            });
        }
        let waited = started.elapsed();
        if waited > region.lock_timeout {
            return Err(WriteError::Stalled {
                pid: session::pid_of(region, OwnerId(holder)),
                waited,
            });
        }
        if !is_left {
            // SeqCst orders the mark before the kernel's look at the lock word.
            words.at(shard::WAITERS).store(1, Ordering::SeqCst);
            futex::wait(&region.memory, offset + shard::LOCK * WORD, holder, sleep);
            sleep = (sleep * 2).min(LOCK_WAIT_MAX);
        }
    }
}

//! Counters: values of 8 bytes that are written in place.

use crate::build::{NewEntry, Value};
use crate::error::WriteError;
use crate::feed::Change;
use crate::glance::{look_further, Glance, Then, View};
use crate::key::Key;
use crate::layout::entry;
use crate::limits::COUNTER_ATTEMPTS;
use crate::memory::Words;
use crate::read::checked_key;
use crate::region::{Inner, Region};
use crate::shard::Locked;
use crate::sync::{fence, Ordering};

impl Region {
    /// Adds to a counter and returns the sum. A key that is not there counts from 0 and never
    /// expires.
    #[inline(always)]
    pub fn incr(&self, key: &[u8], by: i64) -> Result<i64, WriteError> {
        self.incr_with(key, by, None)
    }

    /// Adds to a counter; one that begins here expires after `ttl_ms`, one that was there keeps its
    /// expiry.
    #[inline(always)]
    pub fn incr_with(&self, key: &[u8], by: i64, ttl_ms: Option<u64>) -> Result<i64, WriteError> {
        let expires_at = self.expiry(ttl_ms)?;
        let inner = &*self.inner;
        let sum = match inner.short_key(key) {
            Some((short, hash)) => glance_and_add(inner, hash, short, by),
            None => add_to_any(inner, key, by),
        };
        match sum {
            Some(Ok(sum)) => Ok(sum),
            Some(Err(value)) => Err(WriteError::Overflow { value }),
            None => self.incr_patiently(key, by, expires_at),
        }
    }

    #[inline(never)]
    fn incr_patiently(&self, key: &[u8], by: i64, expires_at: u64) -> Result<i64, WriteError> {
        self.write(key, |locked, hash| {
            let (bucket, found) = locked.find_live(hash, key)?;
            let Some(found) = found else {
                let new = NewEntry {
                    hash,
                    key,
                    value: Value::Counter(by),
                    expires_at,
                    owner: None,
                };
                locked.put(bucket, None, &new)?;
                return Ok(by);
            };
            let counter = found.entry.counter().ok_or(WriteError::NotACounter)?;
            locked
                .add_to_counter(found.entry.words, counter, key, by)
                .map_err(|value| WriteError::Overflow { value })
        })
    }
}

/// The sum, or the value if that would overflow; `None` if it takes more than a glance. As in
/// `set_with`, the counter is looked up before the lock is taken. `Add::then`, spelled out here, keeps
/// everything in registers.
#[inline(always)]
fn glance_and_add<K: Key>(inner: &Inner, hash: u64, key: K, by: i64) -> Option<Result<i64, i64>> {
    let view = View::new(inner, inner.geometry.shard_of(hash), hash)?;
    match view.glance_at_counter(inner, hash, key) {
        Glance::Entry(hit) if !hit.is_expired(inner) => {
            let locked = view.lock_unchanged(inner)?;
            let sum = locked.add_to_counter(hit.head, hit.value, key.bytes(), by);
            locked.done();
            Some(sum)
        }
        Glance::Link(_) => {
            let key = key.bytes();
            let add = Add { inner, key, by };
            look_further(inner, hash, key, add)
        }
        _ => None,
    }
}

/// The same for a key of any length.
#[inline(never)]
fn add_to_any(inner: &Inner, key: &[u8], by: i64) -> Option<Result<i64, i64>> {
    let hash = inner.hash(checked_key(key).ok()?);
    glance_and_add(inner, hash, key, by)
}

/// Adding to a counter that is there. It is looked up without the lock, as `set` does.
struct Add<'r, 'k> {
    inner: &'r Inner,
    key: &'k [u8],
    by: i64,
}

impl<'r> Then<'r> for Add<'r, '_> {
    /// The sum, or the value if that would overflow.
    type Output = Result<i64, i64>;

    #[inline(always)]
    fn then(self, view: &View<'r>, glance: Glance<'r>) -> Option<Self::Output> {
        let Glance::Entry(hit) = glance else {
            return None;
        };
        if !hit.meta.has(entry::COUNTER) || hit.is_expired(self.inner) {
            return None;
        }
        let locked = view.lock_unchanged(self.inner)?;
        let sum = locked.add_to_counter(hit.head, hit.value, self.key, self.by);
        locked.done();
        Some(sum)
    }
}

impl Locked<'_> {
    /// Adds to a counter in place, whose entry begins with `head`, and returns the sum, or the value
    /// if that would overflow. The revision is odd meanwhile: a compare-and-set against it fails, so
    /// none can succeed with a value from before.
    #[inline(always)]
    fn add_to_counter(
        &self,
        head: Words<'_>,
        counter: Words<'_>,
        key: &[u8],
        by: i64,
    ) -> Result<i64, i64> {
        let counter = counter.at(0);
        let value = counter.load(Ordering::Relaxed).cast_signed();
        let Some(sum) = value.checked_add(by) else {
            return Err(value);
        };
        let revision = self.next_revision();
        let word = head.at(entry::REVISION);
        word.store(revision | 1, Ordering::Relaxed);
        fence(Ordering::Release); // pairs with the second fence in `copy_counter`
        counter.store(sum.cast_unsigned(), Ordering::Release);
        word.store(revision, Ordering::Release); // pairs with the first one
        self.publish(Change::Set, revision, key);
        self.sweep_a_little();
        Ok(sum)
    }
}

/// Appends the value of a counter whose entry begins with `head`, and returns its revision: an odd
/// one, against which no compare-and-set succeeds, if others never let it stand still.
pub(crate) fn copy_counter(head: Words<'_>, counter: Words<'_>, out: &mut Vec<u8>) -> u64 {
    let revision = head.at(entry::REVISION);
    let mut attempts_left = COUNTER_ATTEMPTS;
    loop {
        let before = revision.load(Ordering::Relaxed);
        fence(Ordering::Acquire); // pairs with the Release stores of `Locked::add_to_counter`
        let value = counter.at(0).load(Ordering::Relaxed);
        fence(Ordering::Acquire); // likewise: a new value comes with a new revision
        let is_of_revision = revision.load(Ordering::Relaxed) == before;
        attempts_left -= 1;
        if is_of_revision || attempts_left == 0 {
            out.extend_from_slice(&value.to_le_bytes());
            return before | u64::from(!is_of_revision);
        }
    }
}

//! `set` without options, as it nearly always goes. A key that is there has a plain entry, and the new
//! one fits the spare block: the same steps as in [`Locked::put`], with nothing between them.

use crate::build::{NewEntry, Value};
use crate::entry::{words_for, Meta};
use crate::feed::Change;
use crate::glance::{is_expired, Glance, Hit, Then, View, LONG};
use crate::index::slot_word;
use crate::key::Key;
use crate::layout::{class_of, entry, shard, slot, WORD};
use crate::pool::PageState;
use crate::region::Inner;
use crate::shard::Locked;
use crate::sync::{build_fence, Ordering};

/// What is to be set.
pub(crate) struct Plain<'r, 's, K> {
    pub(crate) inner: &'r Inner,
    pub(crate) hash: u64,
    pub(crate) key: K,
    pub(crate) value: &'s [u8],
    pub(crate) expires_at: u64,
}

impl<'r, 's, K: Key> Plain<'r, 's, K> {
    /// The same with the key as bytes.
    #[inline(always)]
    pub(crate) fn of_bytes<'k>(&'k self) -> Plain<'r, 's, &'k [u8]> {
        Plain {
            inner: self.inner,
            hash: self.hash,
            key: self.key.bytes(),
            value: self.value,
            expires_at: self.expires_at,
        }
    }
}

impl<'r, K: Key> Then<'r> for Plain<'r, '_, K> {
    /// The new revision. Whoever has an error to tell goes the long way too.
    type Output = u64;

    #[inline(always)]
    fn then(self, view: &View<'r>, glance: Glance<'r>) -> Option<Self::Output> {
        match glance {
            Glance::Entry(hit) => {
                let locked = view.lock_unchanged(self.inner)?;
                let revision = locked.replace(view, &hit, &self);
                locked.sweep_a_little();
                locked.done();
                revision
            }
            Glance::Nothing if self.value.len() as u64 <= self.inner.geometry.value_len_max => {
                let locked = view.lock_unchanged(self.inner)?;
                let new = NewEntry {
                    hash: self.hash,
                    key: self.key.bytes(),
                    value: Value::Bytes(self.value),
                    expires_at: self.expires_at,
                    owner: None,
                };
                let set = locked.aside().insert(view.bucket, &new);
                locked.sweep_a_little();
                locked.done();
                set.ok()
            }
            _ => None,
        }
    }
}

impl Locked<'_> {
    /// Replaces the entry that `hit` found through `view`, which still holds, and returns the new
    /// revision. `None`, with nothing done, if that takes more than a glance.
    #[inline(always)]
    fn replace<K: Key>(
        &self,
        view: &View<'_>,
        hit: &Hit<'_>,
        set: &Plain<'_, '_, K>,
    ) -> Option<u64> {
        let Plain {
            hash,
            key,
            value,
            expires_at,
            ..
        } = *set;
        let region = self.region;
        let geometry = &region.geometry;
        let (key_len, value_len) = (key.bytes().len() as u64, value.len() as u64);
        let evicts = K::MAY_EVICT && geometry.evicts();
        let old_expiry = hit.expires_at();
        if value_len > LONG || !hit.meta.is_plain() || evicts || is_expired(region, old_expiry) {
            return None;
        }
        let meta = Meta::new(key_len, value_len, 0);
        let (head_words, key_words) = (key.head_words(geometry), key.words());
        let len = head_words + key_words + words_for(value_len);
        let class = class_of(len * WORD)? as u64;
        let spare = self.get(shard::SPARE);
        let offset = spare & slot::OFFSET_MASK;
        // A block of the class holds the entry; that it lies in one page is checked all the same.
        let words = region.memory.entry_words(offset, len)?;
        if spare >> slot::TAG_SHIFT != class {
            return None;
        }
        let old_offset = hit.word & slot::OFFSET_MASK;
        // A block is of the smallest class that holds its entry.
        let old_class = if meta == hit.meta {
            class
        } else {
            let page = geometry.page_of(old_offset)?;
            PageState::class_of_blocks(region, page, self.index)? as u64
        };
        let (head, rest) = words.split(head_words)?;
        let (key_words, value_words) = rest.split(key_words)?;
        // As in `build_entry`: a reader that meets any store below sees the version that was raised
        // before this block became the spare one.
        build_fence();
        let revision = self.next_revision();
        head.at(entry::REVISION).store(revision, Ordering::Relaxed);
        head.at(entry::HASH).store(hash, Ordering::Relaxed);
        head.at(entry::META).store(meta.0, Ordering::Relaxed);
        head.at(entry::EXPIRES_AT)
            .store(expires_at, Ordering::Relaxed);
        key.fill(key_words);
        value_words.fill(value);
        // The commit. Release pairs with the fence in `glance`: who sees the slot sees the whole
        // entry.
        hit.slot.store(slot_word(hash, offset), Ordering::Release);
        view.bucket.raise_version();
        // From here on the replaced entry is the spare block.
        self.set(shard::SPARE, old_class << slot::TAG_SHIFT | old_offset);
        if meta != hit.meta {
            self.add(shard::BYTES, value_len.wrapping_sub(hit.meta.value_len()));
        }
        if expires_at != old_expiry {
            self.count_expiry(old_expiry, expires_at);
        }
        self.publish(Change::Set, revision, key.bytes());
        Some(revision)
    }
}

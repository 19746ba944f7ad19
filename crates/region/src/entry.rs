//! Entries: how one key and its value lie in a block. Readers meet blocks that are being reused
//! under them, so everything read here is checked against the block's page before it is followed.

use crate::error::Damaged;
use crate::layout::{entry, Geometry, BLOCK_LEN_MAX, KEY_LEN_MAX, PAGE_LEN, PAGE_WORDS, WORD};
use crate::memory::Words;
use crate::region::Inner;
use crate::session::OwnerId;
use crate::sync::Ordering;

/// Lengths and flags of an entry, as they stand in its word: value length (40 bits), key length
/// (16 bits), flags (8 bits).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Meta(pub(crate) u64);

impl Meta {
    #[inline(always)]
    pub(crate) fn new(key_len: u64, value_len: u64, flags: u8) -> Self {
        Self(value_len | key_len << 40 | u64::from(flags) << 56)
    }

    #[inline(always)]
    pub(crate) fn value_len(self) -> u64 {
        self.0 & ((1 << 40) - 1)
    }

    #[inline(always)]
    pub(crate) fn key_len(self) -> u64 {
        self.0 >> 40 & 0xffff
    }

    #[inline(always)]
    pub(crate) fn has(self, flags: u8) -> bool {
        self.0 >> 56 & u64::from(flags) != 0
    }

    /// Whether the entry is none of the special kinds.
    #[inline(always)]
    pub(crate) fn is_plain(self) -> bool {
        self.0 >> 56 == 0
    }

    /// Whether the entry has a key of this length and is plain, or a counter.
    #[inline(always)]
    pub(crate) fn is_ordinary(self, key_len: u64) -> bool {
        self.0 >> 40 == key_len || self == Self::new(key_len, WORD, entry::COUNTER)
    }

    /// Whether an entry of a special kind can have this value length.
    fn is_possible(self, geometry: &Geometry) -> bool {
        let is_counter = self.has(entry::COUNTER);
        let fits_kind = !is_counter || self.value_len() == WORD && !self.has(entry::LARGE);
        fits_kind && self.value_len() <= geometry.value_len_max
    }

    /// Words before the key.
    #[inline(always)]
    pub(crate) fn head_words(self, geometry: &Geometry) -> u64 {
        geometry.head_words
            + if self.has(entry::EPHEMERAL) {
                entry::EPHEMERAL_WORDS
            } else {
                0
            }
    }

    #[inline(always)]
    pub(crate) fn key_words(self) -> u64 {
        words_for(self.key_len())
    }

    /// Words the value takes in the block itself: its bytes, or the list of its pages.
    #[inline(always)]
    pub(crate) fn payload_words(self) -> u64 {
        if !self.has(entry::LARGE) {
            return words_for(self.value_len());
        }
        self.list_words()
    }

    #[cold]
    fn list_words(self) -> u64 {
        let pages = self.value_len().div_ceil(PAGE_LEN);
        if self.has(entry::NESTED) {
            pages.div_ceil(PAGE_WORDS)
        } else {
            pages
        }
    }

    #[inline(always)]
    pub(crate) fn block_len(self, geometry: &Geometry) -> u64 {
        (self.head_words(geometry) + self.key_words() + self.payload_words()) * WORD
    }

    /// The flags a value of this length needs, besides those that are given: large if it does not
    /// fit a block.
    #[inline(always)]
    pub(crate) fn for_value(key_len: u64, value_len: u64, flags: u8, geometry: &Geometry) -> Self {
        let small = Self::new(key_len, value_len, flags);
        if small.block_len(geometry) <= BLOCK_LEN_MAX {
            return small;
        }
        let nested = value_len.div_ceil(PAGE_LEN) > entry::LIST_WORDS_MAX;
        let more = entry::LARGE | if nested { entry::NESTED } else { 0 };
        Self::new(key_len, value_len, flags | more)
    }
}

/// An entry whose lengths fit its page. Its contents may still change or be gone: readers validate
/// after they copied.
#[derive(Clone, Copy)]
pub(crate) struct EntryRef<'r> {
    region: &'r Inner,
    pub(crate) offset: u64,
    pub(crate) words: Words<'r>,
    pub(crate) meta: Meta,
    key_start: u64,
}

impl<'r> EntryRef<'r> {
    /// The block at `offset`, if an entry of its lengths can lie there.
    #[inline(always)]
    pub(crate) fn at(region: &'r Inner, offset: u64) -> Result<Self, Damaged> {
        let damaged = |what| Err(Damaged { what, offset });
        let Some(words) = Self::room(region, offset) else {
            return damaged("an entry outside the pages");
        };
        match Self::parse(region, offset, words) {
            Some(entry) => Ok(entry),
            None => damaged("an entry with impossible lengths"),
        }
    }

    /// The words from `offset` to where its block can end at the latest; `None` if no entry can
    /// begin there.
    #[inline(always)]
    pub(crate) fn room(region: &'r Inner, offset: u64) -> Option<Words<'r>> {
        let in_page = offset % PAGE_LEN;
        let fits = region.geometry.in_pages(offset)
            && in_page <= PAGE_LEN - entry::HEAD_WORDS * WORD
            && offset.is_multiple_of(WORD);
        let len = (PAGE_LEN - in_page).min(BLOCK_LEN_MAX);
        fits.then(|| region.memory.trusted_words(offset, len / WORD))
    }

    /// The entry in a block, if its lengths are possible.
    #[inline(always)]
    pub(crate) fn parse(region: &'r Inner, offset: u64, room: Words<'r>) -> Option<Self> {
        let meta = Meta(room.at(entry::META).load(Ordering::Relaxed));
        let geometry = &region.geometry;
        let (key_start, payload_words) = if meta.is_plain() {
            (geometry.head_words, words_for(meta.value_len()))
        } else if meta.is_possible(geometry) {
            (meta.head_words(geometry), meta.payload_words())
        } else {
            return None;
        };
        let words = room.first(key_start + meta.key_words() + payload_words)?;
        let valid = meta.key_len().wrapping_sub(1) < KEY_LEN_MAX as u64;
        valid.then_some(Self {
            region,
            offset,
            words,
            meta,
            key_start,
        })
    }

    /// An entry that is known to lie in exactly these words.
    #[inline(always)]
    pub(crate) fn made(region: &'r Inner, offset: u64, words: Words<'r>, meta: Meta) -> Self {
        let key_start = meta.head_words(&region.geometry);
        Self {
            region,
            offset,
            words,
            meta,
            key_start,
        }
    }

    #[inline(always)]
    pub(crate) fn revision(&self) -> u64 {
        self.words.at(entry::REVISION).load(Ordering::Relaxed)
    }

    #[inline(always)]
    pub(crate) fn hash(&self) -> u64 {
        self.words.at(entry::HASH).load(Ordering::Relaxed)
    }

    /// Milliseconds, or 0 for never.
    #[inline(always)]
    pub(crate) fn expires_at(&self) -> u64 {
        self.words.at(entry::EXPIRES_AT).load(Ordering::Relaxed)
    }

    #[inline(always)]
    pub(crate) fn is_expired(&self) -> bool {
        let at = self.expires_at();
        at != 0 && at <= self.region.clock.now_ms()
    }

    #[inline(always)]
    pub(crate) fn key_is(&self, key: &[u8]) -> bool {
        self.meta.key_len() == key.len() as u64
            && self
                .words
                .from(self.key_start)
                .is_some_and(|words| words.bytes_are(key))
    }

    pub(crate) fn key(&self) -> Vec<u8> {
        // At most 1024 (checked in `at`).
        #[allow(clippy::cast_possible_truncation)]
        let mut key = vec![0; self.meta.key_len() as usize];
        if let Some(words) = self.words.from(self.key_start) {
            words.copy_to(&mut key);
        }
        key
    }

    /// The owner and the list links of an ephemeral entry.
    pub(crate) fn ephemeral(&self) -> Option<Words<'r>> {
        let start = self.key_start.checked_sub(entry::EPHEMERAL_WORDS)?;
        self.meta
            .has(entry::EPHEMERAL)
            .then(|| self.words.from(start))
            .flatten()
    }

    pub(crate) fn owner(&self) -> Option<OwnerId> {
        Some(OwnerId(self.ephemeral()?.at(0).load(Ordering::Relaxed)))
    }

    #[inline(always)]
    fn payload(&self) -> Words<'r> {
        // `at` checked that key and payload lie inside `words`.
        self.words
            .from(self.key_start + self.meta.key_words())
            .unwrap_or(self.words)
    }

    /// The value of a counter.
    #[inline(always)]
    pub(crate) fn counter(&self) -> Option<Words<'r>> {
        self.meta.has(entry::COUNTER).then(|| self.payload())
    }

    /// Appends the value to `out` and returns the revision it belongs to.
    #[inline(always)]
    pub(crate) fn copy_value(&self, out: &mut Vec<u8>) -> Result<u64, Damaged> {
        if self.meta.has(entry::COUNTER | entry::LARGE) {
            return self.copy_special(out);
        }
        // Less than a page (checked in `at`).
        #[allow(clippy::cast_possible_truncation)]
        let len = self.meta.value_len() as usize;
        self.payload().append_to(out, len);
        Ok(self.revision())
    }

    fn copy_special(&self, out: &mut Vec<u8>) -> Result<u64, Damaged> {
        let Some(counter) = self.counter() else {
            let mut left = self.meta.value_len();
            // Bounded by a quarter of the region (checked in `at`), which may be more than there is
            // memory: a damaged entry may claim it, and the pages that follow decide.
            let _ = out.try_reserve(usize::try_from(left).unwrap_or(0));
            self.for_each_page(|page| {
                let offset = self.region.geometry.page_offset(page);
                let words = self.region.memory.words(offset, PAGE_WORDS);
                let words = words.ok_or(Damaged {
                    what: "a value page beyond the region",
                    offset,
                })?;
                // At most a page.
                #[allow(clippy::cast_possible_truncation)]
                words.append_to(out, left.min(PAGE_LEN) as usize);
                left = left.saturating_sub(PAGE_LEN);
                Ok(())
            })?;
            return Ok(self.revision());
        };
        Ok(crate::counter::copy_counter(self.words, counter, out))
    }

    /// Calls `visit` with the value's pages in order, list pages left out.
    pub(crate) fn for_each_page(
        &self,
        mut visit: impl FnMut(u64) -> Result<(), Damaged>,
    ) -> Result<(), Damaged> {
        if !self.meta.has(entry::LARGE) {
            return Ok(());
        }
        let pages = self.meta.value_len().div_ceil(PAGE_LEN);
        let list = self.payload();
        for index in 0..pages {
            let page = if self.meta.has(entry::NESTED) {
                let inner = self.page(list.at(index / PAGE_WORDS).load(Ordering::Relaxed))?;
                let words = self
                    .region
                    .memory
                    .words(self.region.geometry.page_offset(inner), PAGE_WORDS);
                words.map_or(u64::MAX, |words| {
                    words.at(index % PAGE_WORDS).load(Ordering::Relaxed)
                })
            } else {
                list.at(index).load(Ordering::Relaxed)
            };
            visit(self.page(page)?)?;
        }
        Ok(())
    }

    /// The pages that list a nested value's pages.
    pub(crate) fn list_pages(&self) -> impl Iterator<Item = Result<u64, Damaged>> + use<'r> {
        let entry = *self;
        let count = if self.meta.has(entry::NESTED) {
            self.meta.payload_words()
        } else {
            0
        };
        let list = self.payload();
        (0..count).map(move |index| entry.page(list.at(index).load(Ordering::Relaxed)))
    }

    fn page(&self, page: u64) -> Result<u64, Damaged> {
        let known = page < self.region.geometry.page_count;
        known.then_some(page).ok_or(Damaged {
            what: "a value page that is none",
            offset: self.offset,
        })
    }
}

/// Words that hold so many bytes; lengths are far from overflowing.
#[inline(always)]
pub(crate) fn words_for(bytes: u64) -> u64 {
    (bytes + (WORD - 1)) >> WORD.trailing_zeros()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meta_survives_its_word() {
        for value_len in [0, 1, 65_535, (1 << 40) - 1] {
            for key_len in [1, 1024] {
                for flags in [0, entry::LARGE, entry::COUNTER | entry::EPHEMERAL] {
                    let meta = Meta::new(key_len, value_len, flags);
                    assert_eq!((meta.key_len(), meta.value_len()), (key_len, value_len));
                    assert_eq!(meta.has(flags), flags != 0);
                    assert!(!meta.has(!flags));
                }
            }
        }
    }

    #[test]
    fn a_value_is_large_when_its_block_would_be_too_long() {
        for features in [0, crate::layout::FEATURE_EVICT] {
            let geometry = &Geometry::new(1 << 20, None, 1, features).unwrap();
            let head = Meta::new(8, 0, 0).block_len(geometry);
            let fits = Meta::for_value(8, BLOCK_LEN_MAX - head, 0, geometry);
            assert!(!fits.has(entry::LARGE));
            let over = Meta::for_value(8, BLOCK_LEN_MAX - head + 1, 0, geometry);
            assert!(over.has(entry::LARGE) && !over.has(entry::NESTED));
            let listed = Meta::for_value(1024, entry::LIST_WORDS_MAX * PAGE_LEN, 0, geometry);
            assert!(!listed.has(entry::NESTED) && listed.block_len(geometry) <= BLOCK_LEN_MAX);
            let nested = Meta::for_value(1024, entry::LIST_WORDS_MAX * PAGE_LEN + 1, 0, geometry);
            assert!(nested.has(entry::NESTED) && nested.payload_words() == 1);
        }
    }
}

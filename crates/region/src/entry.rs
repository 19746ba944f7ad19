//! Entries: how one key and its value lie in a block. Readers meet blocks that are being reused under
//! them, so everything read here is checked against the block's page before it is followed.

use crate::error::Damaged;
use crate::layout::{entry, BLOCK_LEN_MAX, KEY_LEN_MAX, PAGE_LEN, PAGE_WORDS, WORD};
use crate::memory::Words;
use crate::region::Inner;
use crate::session::OwnerId;
use crate::sync::{fence, Ordering};

/// The second word group of an entry, decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) value_len: u64,
    pub(crate) key_len: u64,
    pub(crate) flags: u8,
}

impl Meta {
    pub(crate) fn encode(self) -> u64 {
        self.value_len | self.key_len << 40 | u64::from(self.flags) << 56
    }

    #[inline(always)]
    pub(crate) fn decode(word: u64) -> Self {
        Self {
            value_len: word & ((1 << 40) - 1),
            key_len: word >> 40 & 0xffff,
            // What is left after the shift fits in a byte.
            #[allow(clippy::cast_possible_truncation)]
            flags: (word >> 56) as u8,
        }
    }

    #[inline(always)]
    pub(crate) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Words before the key.
    #[inline(always)]
    pub(crate) fn head_words(self, evicts: bool) -> u64 {
        entry::HEAD_WORDS
            + if evicts { entry::SIEVE_WORDS } else { 0 }
            + if self.has(entry::EPHEMERAL) {
                entry::EPHEMERAL_WORDS
            } else {
                0
            }
    }

    /// Words the value takes in the block itself: its bytes, or the list of its pages.
    #[inline(always)]
    pub(crate) fn payload_words(self) -> u64 {
        if !self.has(entry::LARGE) {
            return self.value_len.div_ceil(WORD);
        }
        let pages = self.value_len.div_ceil(PAGE_LEN);
        if self.has(entry::NESTED) {
            pages.div_ceil(PAGE_WORDS)
        } else {
            pages
        }
    }

    pub(crate) fn key_words(self) -> u64 {
        self.key_len.div_ceil(WORD)
    }

    pub(crate) fn block_len(self, evicts: bool) -> u64 {
        (self.head_words(evicts) + self.key_words() + self.payload_words()) * WORD
    }

    /// The flags a value of this length needs, besides those that are given: large if it does not fit a block.
    pub(crate) fn for_value(key_len: u64, value_len: u64, flags: u8, evicts: bool) -> Self {
        let small = Self {
            value_len,
            key_len,
            flags,
        };
        if small.block_len(evicts) <= BLOCK_LEN_MAX {
            return small;
        }
        let nested = value_len.div_ceil(PAGE_LEN) > entry::LIST_WORDS_MAX;
        let more = entry::LARGE | if nested { entry::NESTED } else { 0 };
        Self {
            flags: flags | more,
            ..small
        }
    }
}

/// An entry whose lengths fit its page. Its contents may still change or be gone: readers validate after they
/// copied.
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
        let damaged = |what| Damaged { what, offset };
        if region.geometry.page_of(offset).is_none() {
            return Err(damaged("an entry outside the pages"));
        }
        let room = PAGE_LEN - (offset % PAGE_LEN);
        let words = region.memory.words(offset, room / WORD);
        let words = words.ok_or(damaged("an entry beyond the region"))?;
        if words.len() < entry::HEAD_WORDS {
            return Err(damaged("an entry across a page"));
        }
        let meta = Meta::decode(words.at(entry::META).load(Ordering::Relaxed));
        let key_start = meta.head_words(region.geometry.evicts());
        let total = key_start + meta.key_words() + meta.payload_words();
        let valid = (1..=KEY_LEN_MAX as u64).contains(&meta.key_len)
            && meta.value_len <= region.geometry.value_len_max()
            && (!meta.has(entry::COUNTER) || meta.value_len == WORD && !meta.has(entry::LARGE))
            && total * WORD <= BLOCK_LEN_MAX;
        let words = words.first(total).filter(|_| valid);
        let words = words.ok_or(damaged("an entry with impossible lengths"))?;
        Ok(Self {
            region,
            offset,
            words,
            meta,
            key_start,
        })
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
        self.meta.key_len == key.len() as u64
            && self
                .words
                .from(self.key_start)
                .is_some_and(|words| words.bytes_are(key))
    }

    pub(crate) fn key(&self) -> Vec<u8> {
        // At most 1024 (checked in `at`).
        #[allow(clippy::cast_possible_truncation)]
        let mut key = vec![0; self.meta.key_len as usize];
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
    pub(crate) fn counter(&self) -> Option<&'r crate::sync::AtomicU64> {
        self.meta.has(entry::COUNTER).then(|| self.payload().at(0))
    }

    /// Appends the value to `out` and returns the revision it belongs to.
    #[inline(always)]
    pub(crate) fn copy_value(&self, out: &mut Vec<u8>) -> Result<u64, Damaged> {
        if self.meta.has(entry::COUNTER | entry::LARGE) {
            return self.copy_special(out);
        }
        // Less than a page (checked in `at`).
        #[allow(clippy::cast_possible_truncation)]
        let len = self.meta.value_len as usize;
        self.payload().append_to(out, len);
        Ok(self.revision())
    }

    fn copy_special(&self, out: &mut Vec<u8>) -> Result<u64, Damaged> {
        let Some(counter) = self.counter() else {
            let mut left = self.meta.value_len;
            // What `value_len` claims is bounded by a quarter of the region (checked in `at`).
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
        loop {
            let before = self.revision();
            fence(Ordering::Acquire); // pairs with the Release stores of `Locked::write_counter`
            let value = counter.load(Ordering::Relaxed);
            fence(Ordering::Acquire); // likewise: a new value comes with a new revision
            if self.revision() == before {
                out.extend_from_slice(&value.to_le_bytes());
                return Ok(before);
            }
        }
    }

    /// Calls `visit` with the value's pages in order, list pages left out.
    pub(crate) fn for_each_page(
        &self,
        mut visit: impl FnMut(u64) -> Result<(), Damaged>,
    ) -> Result<(), Damaged> {
        if !self.meta.has(entry::LARGE) {
            return Ok(());
        }
        let pages = self.meta.value_len.div_ceil(PAGE_LEN);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meta_survives_its_word() {
        for value_len in [0, 1, 65_535, (1 << 40) - 1] {
            for key_len in [1, 1024] {
                for flags in [0, entry::LARGE, entry::COUNTER | entry::EPHEMERAL] {
                    let meta = Meta {
                        value_len,
                        key_len,
                        flags,
                    };
                    assert_eq!(Meta::decode(meta.encode()), meta);
                }
            }
        }
    }

    #[test]
    fn a_value_is_large_when_its_block_would_be_too_long() {
        for evicts in [false, true] {
            let head = Meta {
                value_len: 0,
                key_len: 8,
                flags: 0,
            }
            .block_len(evicts);
            let fits = Meta::for_value(8, BLOCK_LEN_MAX - head, 0, evicts);
            assert!(!fits.has(entry::LARGE));
            let over = Meta::for_value(8, BLOCK_LEN_MAX - head + 1, 0, evicts);
            assert!(over.has(entry::LARGE) && !over.has(entry::NESTED));
            let listed = Meta::for_value(1024, entry::LIST_WORDS_MAX * PAGE_LEN, 0, evicts);
            assert!(!listed.has(entry::NESTED) && listed.block_len(evicts) <= BLOCK_LEN_MAX);
            let nested = Meta::for_value(1024, entry::LIST_WORDS_MAX * PAGE_LEN + 1, 0, evicts);
            assert!(nested.has(entry::NESTED) && nested.payload_words() == 1);
        }
    }
}

//! A region's memory with its areas, which are known to lie inside: what an operation goes to is
//! found without another look at the region's length.
//!
//! Nothing here is read from the region. The areas follow from the geometry, which a handle computes
//! once, and what damaged bytes can give (the number of a page, the offset of an entry) is checked
//! against them.

use crate::layout::{
    entry, header, shard, Geometry, BUCKET_WORDS, INLINE_BUCKETS, PAGE_LEN, PAGE_WORDS, WORD,
};
use crate::memory::{Memory, Words};
use crate::sync::AtomicU64;
use std::ops::Deref;

/// The memory of a region, and where in it the areas lie.
pub(crate) struct Areas {
    memory: Memory,
    /// First word of the shard table.
    shards: u64,
    /// First word of the inline buckets.
    buckets: u64,
    /// The number of shards, a power of two, less one.
    shard_mask: u64,
    /// First byte of the pages, a multiple of their length.
    pages: u64,
    page_count: u64,
    /// Bytes of the pages in which the head of an entry can begin.
    heads_len: u64,
}

impl Areas {
    /// # Panics
    /// If the areas do not lie inside the memory: a geometry was checked against its region before.
    pub(crate) fn new(memory: Memory, geometry: &Geometry) -> Self {
        let shard_words = geometry.shard_count * shard::WORDS;
        let bucket_words = geometry.shard_count * INLINE_BUCKETS * BUCKET_WORDS;
        let areas = Self {
            shards: geometry.shards_offset / WORD,
            buckets: geometry.buckets_offset / WORD,
            shard_mask: geometry.shard_count - 1,
            pages: geometry.pages_offset,
            page_count: geometry.page_count,
            heads_len: geometry.page_count * PAGE_LEN - (entry::HEAD_WORDS * WORD - 1),
            memory,
        };
        let len = areas.memory.len_words();
        assert!(header::LEN <= len * WORD);
        assert!(geometry.shard_count.is_power_of_two());
        assert!(areas.shards + shard_words <= len);
        assert!(areas.buckets + bucket_words <= len);
        assert!(areas.pages.is_multiple_of(PAGE_LEN));
        assert!(areas.pages / WORD + areas.page_count * PAGE_WORDS <= len);
        areas
    }

    /// A word of the header.
    #[inline(always)]
    pub(crate) fn header(&self, word: u64) -> &AtomicU64 {
        // SAFETY: the header lies inside the region (asserted in `new`), and the remainder makes
        // `word` one of its words.
        unsafe { self.memory.at(word % (header::LEN / WORD)) }
    }

    /// The words of a shard.
    #[inline(always)]
    pub(crate) fn shard(&self, index: u64) -> Words<'_> {
        let first = self.shards + (index & self.shard_mask) * shard::WORDS;
        // SAFETY: the words of as many shards as there are lie inside the region from `shards` on
        // (asserted in `new`), and the mask makes `index` the number of one of them.
        unsafe { self.memory.run(first, shard::WORDS) }
    }

    /// Offset and words of one of the buckets that a shard begins with.
    #[inline(always)]
    pub(crate) fn inline_bucket(&self, shard: u64, bucket: u64) -> (u64, Words<'_>) {
        let place = (shard & self.shard_mask) * INLINE_BUCKETS + bucket % INLINE_BUCKETS;
        let first = self.buckets + place * BUCKET_WORDS;
        // SAFETY: `INLINE_BUCKETS` buckets for each shard lie inside the region from `buckets` on
        // (asserted in `new`), and mask and remainder make `place` the number of one of them.
        let words = unsafe { self.memory.run(first, BUCKET_WORDS) };
        (first * WORD, words)
    }

    /// Offset and words of a bucket of an index page, or `None` if there is no such page.
    #[inline(always)]
    pub(crate) fn page_bucket(&self, page: u64, place: u64) -> Option<(u64, Words<'_>)> {
        if page >= self.page_count {
            return None;
        }
        let in_page = place * BUCKET_WORDS % PAGE_WORDS;
        let first = self.pages / WORD + page * PAGE_WORDS + in_page;
        // SAFETY: the page is one of those (checked) that lie inside the region from `pages` on
        // (asserted in `new`). `in_page` is less than the words of a page and, as those are, a
        // multiple of the words of a bucket: so the bucket ends where the page does at the latest.
        let words = unsafe { self.memory.run(first, BUCKET_WORDS) };
        Some((first * WORD, words))
    }

    /// The words of the head of an entry, from an offset that may be anything; `None` if they are
    /// not all in the pages.
    #[inline(always)]
    pub(crate) fn entry_head(&self, offset: u64) -> Option<Words<'_>> {
        if offset.wrapping_sub(self.pages) >= self.heads_len {
            return None;
        }
        // SAFETY: `offset` lies in the pages, and at least the bytes of a head before their end
        // (checked). They are inside the region (asserted in `new`), and rounding down to a word
        // does not leave them, because they begin with one.
        Some(unsafe { self.memory.run(offset / WORD, entry::HEAD_WORDS) })
    }

    /// So many words from an offset that may be anything; `None` if they are not all in the page
    /// that the first one is in.
    #[inline(always)]
    pub(crate) fn entry_words(&self, offset: u64, count: u64) -> Option<Words<'_>> {
        let in_pages = offset.wrapping_sub(self.pages) < self.heads_len;
        if !in_pages || count > PAGE_WORDS || offset % PAGE_LEN + count * WORD > PAGE_LEN {
            return None;
        }
        // SAFETY: `offset` lies in a page (checked), whose first byte is a multiple of the length of
        // pages, as `pages` is (asserted in `new`): so the words end where the page does at the
        // latest (checked), and all pages are inside the region (asserted in `new`).
        Some(unsafe { self.memory.run(offset / WORD, count) })
    }
}

impl Deref for Areas {
    type Target = Memory;

    #[inline(always)]
    fn deref(&self) -> &Memory {
        &self.memory
    }
}

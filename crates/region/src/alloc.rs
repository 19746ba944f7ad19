//! Blocks of a size class, allocated from pages that the shard owns.
//!
//! Each page has a descriptor of two words: how its blocks are used, and its neighbours among the
//! shard's pages of that class that have a free block. Free blocks of a page form a list through
//! their first words; blocks that were never used are handed out in order, so a new page needs no
//! preparing. A page without a used block goes back to the pool, where any class may take it.
//!
//! None of this has to survive a crash: repair makes it anew from what the index reaches.

use crate::error::{Damaged, WriteError};
use crate::layout::{entry, shard, slot, BUCKET_LEN, CLASSES, PAGE_LEN, WORD};
use crate::memory::Words;
use crate::pool::{Kind, PageState};
use crate::region::Inner;
use crate::shard::Locked;
use crate::sync::Ordering;

const UNIT: u64 = 16;

/// How a page's blocks are used: first word of its descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Usage {
    /// Offset of the first free block in units of 16 bytes, plus 1; 0 for none.
    pub(crate) free: u64,
    /// Offset of the first block that was never used, in units.
    pub(crate) fresh: u64,
    /// Blocks in use.
    pub(crate) live: u64,
}

impl Usage {
    #[inline(always)]
    pub(crate) fn load(region: &Inner, page: u64) -> Self {
        let word = descriptor(region, page).at(0).load(Ordering::Relaxed);
        Self {
            free: word & 0xffff,
            fresh: word >> 16 & 0xffff,
            live: word >> 32 & 0xffff,
        }
    }

    #[inline(always)]
    pub(crate) fn store(self, region: &Inner, page: u64) {
        let word = self.free | self.fresh << 16 | self.live << 32;
        descriptor(region, page)
            .at(0)
            .store(word, Ordering::Relaxed);
    }

    /// Whether a page of this class still has a block to give.
    #[inline(always)]
    pub(crate) fn has_room(self, class: usize) -> bool {
        self.free != 0 || self.fresh + units(class) <= PAGE_LEN / UNIT
    }
}

/// Neighbours of a page in the list of its class: second word of its descriptor. Page index + 1, or
/// 0.
#[derive(Clone, Copy, Default)]
struct Links {
    next: u64,
    previous: u64,
}

impl Links {
    fn load(region: &Inner, page: u64) -> Self {
        let word = descriptor(region, page).at(1).load(Ordering::Relaxed);
        Self {
            next: word & 0xffff_ffff,
            previous: word >> 32,
        }
    }

    fn store(self, region: &Inner, page: u64) {
        let word = self.next | self.previous << 32;
        descriptor(region, page)
            .at(1)
            .store(word, Ordering::Relaxed);
    }
}

/// Bytes of the page's free block list, walked by `check`.
pub(crate) fn free_blocks(region: &Inner, page: u64) -> impl Iterator<Item = u64> + '_ {
    let mut next = Usage::load(region, page).free;
    let mut left = PAGE_LEN / UNIT;
    std::iter::from_fn(move || {
        let unit = next.checked_sub(1)?;
        left = left.checked_sub(1)?;
        let offset = region.geometry.page_offset(page) + unit * UNIT;
        let word = region
            .memory
            .words(offset, 1)?
            .at(0)
            .load(Ordering::Relaxed);
        next = if word & entry::FREE_LINK != 0 {
            word & 0xffff
        } else {
            0
        };
        Some(offset)
    })
}

impl Locked<'_> {
    /// The spare block, if it is of this class, or another. Most writes replace an entry by one of
    /// the same size, and find the block here that the last of them left.
    #[inline(always)]
    pub(crate) fn alloc_block_again(&self, class: usize) -> Result<u64, WriteError> {
        let spare = self.get(shard::SPARE);
        let offset = spare & slot::OFFSET_MASK;
        let fits = self.region.geometry.in_pages(offset)
            && offset % PAGE_LEN + u64::from(CLASSES[class]) <= PAGE_LEN;
        if spare >> slot::TAG_SHIFT == class as u64 && fits {
            self.set(shard::SPARE, 0);
            return Ok(offset);
        }
        self.alloc_block(class)
    }

    /// Keeps a block for the next write; the one that was kept so far is put back.
    #[inline(always)]
    pub(crate) fn spare_block(&self, offset: u64) -> Result<(), Damaged> {
        let page = self.region.geometry.page_of(offset);
        let class = page.and_then(|page| PageState::class_of_blocks(self.region, page, self.index));
        let Some(class) = class else {
            return self.free_block(offset);
        };
        let kept = self.get(shard::SPARE);
        self.set(shard::SPARE, (class as u64) << slot::TAG_SHIFT | offset);
        if kept == 0 {
            return Ok(());
        }
        self.free_block(kept & slot::OFFSET_MASK)
    }

    /// Puts the spare block back.
    #[inline(always)]
    pub(crate) fn free_spare(&self) -> Result<(), Damaged> {
        match self.get(shard::SPARE) {
            0 => Ok(()),
            spare => {
                self.set(shard::SPARE, 0);
                self.free_block(spare & slot::OFFSET_MASK)
            }
        }
    }

    /// A block of the class. Its contents are whatever its last user left.
    #[inline(always)]
    pub(crate) fn alloc_block(&self, class: usize) -> Result<u64, WriteError> {
        let page = match self.get(partial(class)).checked_sub(1) {
            Some(page) => page,
            None => self.start_page(class)?,
        };
        let damaged = |what| Damaged {
            what,
            offset: self.region.geometry.shard_offset(self.index),
        };
        if page >= self.region.geometry.page_count {
            return Err(damaged("a list of pages that leads nowhere").into());
        }
        let mut usage = Usage::load(self.region, page);
        let unit = match usage.free.checked_sub(1) {
            Some(unit) => unit,
            None => usage.fresh,
        };
        if (unit + units(class)) * UNIT > PAGE_LEN {
            return Err(damaged("a free block outside its page").into());
        }
        let offset = self.region.geometry.page_offset(page) + unit * UNIT;
        if usage.free == 0 {
            usage.fresh += units(class);
        } else {
            usage.free = self.region.memory.word(offset).load(Ordering::Relaxed) & 0xffff;
        }
        usage.live += 1;
        usage.store(self.region, page);
        // The next block is written soon: its first lines are asked for now.
        let next = usage.free.checked_sub(1).unwrap_or(usage.fresh) * UNIT;
        let next = self.region.geometry.page_offset(page) + next;
        self.region.memory.prefetch(next);
        self.region.memory.prefetch(next + BUCKET_LEN);
        if !usage.has_room(class) {
            self.unlink_page(page, class);
        }
        Ok(offset)
    }

    /// Puts a block back. Readers that still copy from it notice: the bucket's version was raised
    /// before.
    #[inline(always)]
    pub(crate) fn free_block(&self, offset: u64) -> Result<(), Damaged> {
        let damaged = |what| Damaged { what, offset };
        let page = self
            .region
            .geometry
            .page_of(offset)
            .ok_or(damaged("a block outside the pages"))?;
        let class = PageState::class_of_blocks(self.region, page, self.index)
            .ok_or(damaged("a block in a page of another shard or kind"))?;
        let mut usage = Usage::load(self.region, page);
        let had_room = usage.has_room(class);
        // Release: a reader that meets the link also sees the raised version.
        self.region
            .memory
            .word(offset)
            .store(entry::FREE_LINK | usage.free, Ordering::Release);
        usage.free = offset % PAGE_LEN / UNIT + 1;
        usage.live = usage.live.saturating_sub(1);
        usage.store(self.region, page);
        if usage.live == 0 {
            if had_room {
                self.unlink_page(page, class);
            }
            self.release_page(page);
        } else if !had_room {
            self.link_page(page, class);
        }
        Ok(())
    }

    /// Puts a page at the head of the list of its class.
    pub(crate) fn link_page(&self, page: u64, class: usize) {
        let next = self.get(partial(class));
        Links { next, previous: 0 }.store(self.region, page);
        if let Some(next) = self.page_named(next) {
            let links = Links {
                previous: page + 1,
                ..Links::load(self.region, next)
            };
            links.store(self.region, next);
        }
        self.set(partial(class), page + 1);
    }

    /// Empties the lists of all classes; the pages in them keep their blocks.
    pub(crate) fn forget_pages(&self) {
        (0..CLASSES.len()).for_each(|class| self.set(partial(class), 0));
    }

    #[cold]
    fn start_page(&self, class: usize) -> Result<u64, WriteError> {
        let page = self.claim_page(Kind::Blocks, class)?;
        Usage::default().store(self.region, page);
        self.link_page(page, class);
        Ok(page)
    }

    fn unlink_page(&self, page: u64, class: usize) {
        let links = Links::load(self.region, page);
        match self.page_named(links.previous) {
            Some(previous) => {
                Links {
                    next: links.next,
                    ..Links::load(self.region, previous)
                }
                .store(self.region, previous);
            }
            None => self.set(partial(class), links.next),
        }
        if let Some(next) = self.page_named(links.next) {
            Links {
                previous: links.previous,
                ..Links::load(self.region, next)
            }
            .store(self.region, next);
        }
    }

    fn page_named(&self, link: u64) -> Option<u64> {
        link.checked_sub(1)
            .filter(|page| *page < self.region.geometry.page_count)
    }
}

/// The pages in the list of a class, walked by `check`.
pub(crate) fn listed_pages<'r>(
    region: &'r Inner,
    words: Words<'r>,
    class: usize,
) -> impl Iterator<Item = u64> + 'r {
    let mut next = words.at(partial(class)).load(Ordering::Relaxed);
    let mut left = region.geometry.page_count;
    std::iter::from_fn(move || {
        let page = next
            .checked_sub(1)
            .filter(|page| *page < region.geometry.page_count)?;
        left = left.checked_sub(1)?;
        next = Links::load(region, page).next;
        Some(page)
    })
}

/// Offsets in the page at which blocks of the class begin.
pub(crate) fn block_starts(class: usize) -> impl Iterator<Item = u64> {
    let len = u64::from(CLASSES[class]);
    (0..PAGE_LEN / len).map(move |block| block * len)
}

/// The size class of the block at an offset, if there can be one of the shard.
pub(crate) fn block_class(region: &Inner, offset: u64, shard: u64) -> Option<usize> {
    let page = region.geometry.page_of(offset)?;
    let class = PageState::class_of_blocks(region, page, shard)?;
    let len = u64::from(CLASSES[class]);
    let aligned = (offset % PAGE_LEN).is_multiple_of(len) && offset % PAGE_LEN + len <= PAGE_LEN;
    aligned.then_some(class)
}

#[inline(always)]
fn units(class: usize) -> u64 {
    u64::from(CLASSES[class]) / UNIT
}

#[inline(always)]
fn partial(class: usize) -> u64 {
    shard::PARTIAL + class as u64
}

#[inline(always)]
fn descriptor(region: &Inner, page: u64) -> Words<'_> {
    region
        .memory
        .trusted_words(region.geometry.page_descriptors_offset + page * 2 * WORD, 2)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use crate::region::test_support::Heap;
    use crate::{Config, Options};

    #[test]
    fn a_replaced_block_is_kept_for_the_next_write_and_given_back_with_the_last_entry() {
        let config = Config::new(1 << 20).shards(1);
        let (_heap, region) = Heap::create(&config, Options::new()).unwrap();
        let clean = || assert_eq!(region.check().unwrap().problems, [""; 0]);
        for len in [64, 64, 64, 500, 64, 64, 20_000, 64, 200_000, 64] {
            region.set(b"key", &vec![1; len]).unwrap();
            clean();
            region.set(b"other", &vec![2; len]).unwrap();
            clean();
        }
        assert!(region.delete(b"key").unwrap());
        clean();
        assert!(region.delete(b"other").unwrap());
        clean();
        assert_eq!(region.stats().pages_used, 0);
    }

    #[test]
    fn the_spare_block_makes_room_when_nothing_else_does() {
        let config = Config::new(1 << 20).shards(1);
        let (_heap, region) = Heap::create(&config, Options::new()).unwrap();
        // The block of 20,000 bytes that is left spare has a page of its own.
        region.set(b"key", &[1; 20_000]).unwrap();
        region.set(b"key", &[1; 64]).unwrap();
        let used = region.stats().pages_used;
        let mut number = 0_u32;
        while region.set(&number.to_le_bytes(), &[2; 8_100]).is_ok() {
            number += 1;
        }
        assert_eq!(region.check().unwrap().problems, [""; 0]);
        assert!(region.stats().pages_used > used);
        for freed in 0..number {
            assert!(region.delete(&freed.to_le_bytes()).unwrap());
        }
        assert_eq!((region.stats().pages_used, region.len()), (1, 1));
    }
}

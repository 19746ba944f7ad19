//! The page pool: one state word per page says who owns it, and is all that counts. The cache and
//! the cursor in the header are hints: a process killed between two stores leaves at worst a page
//! that the next full search finds.
//!
//! Pages change hands by compare-and-swap on their state, while the owner's shard is locked. A page
//! in the middle of being committed or given back names its shard too, so that shard's repair
//! settles it.
//!
//! Pages that have memory are used again before more is asked for: no free page before the cursor
//! is missing in the cache. Where memory is never given back, absent pages follow all others, so a
//! search meets the free ones first.

use crate::error::WriteError;
use crate::layout::{header, PAGE_LEN, WORD};
use crate::limits::{COMMIT_PAGES, SEARCH_PAGES};
use crate::region::Inner;
use crate::shard::Locked;
use crate::sync::{AtomicU64, Ordering};
use std::io;

/// What a page is, as its state word says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No memory behind it.
    Absent,
    /// Memory, but no owner.
    Free,
    /// Its shard is just getting memory for it.
    Committing,
    /// Its shard is just giving its memory back.
    Releasing,
    /// Blocks of one size class.
    Blocks,
    /// Buckets.
    Index,
    /// Part of a large value.
    Value,
    /// A list of the pages of a nested value.
    List,
}

/// A page's state word, decoded: kind (8 bits), size class (8 bits), shard (16 bits).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PageState {
    pub(crate) kind: Kind,
    pub(crate) class: usize,
    pub(crate) shard: u64,
}

impl PageState {
    pub(crate) fn encode(self) -> u64 {
        self.kind as u64 | (self.class as u64) << 8 | self.shard << 16
    }

    /// `None` if no page can have this state.
    #[inline(always)]
    pub(crate) fn decode(word: u64) -> Option<Self> {
        const KINDS: [Kind; 8] = [
            Kind::Absent,
            Kind::Free,
            Kind::Committing,
            Kind::Releasing,
            Kind::Blocks,
            Kind::Index,
            Kind::Value,
            Kind::List,
        ];
        let byte = |shift: u32| usize::try_from(word >> shift & 0xff).ok();
        let kind = *KINDS.get(byte(0)?)?;
        let class = byte(8)?;
        (class < crate::layout::CLASSES.len() && word >> 32 == 0).then_some(Self {
            kind,
            class,
            shard: word >> 16 & 0xffff,
        })
    }

    /// The size class of a page of blocks of this shard; `None` if it is something else.
    #[inline(always)]
    pub(crate) fn class_of_blocks(region: &Inner, page: u64, shard: u64) -> Option<usize> {
        let word = page_state(region, page).load(Ordering::Relaxed);
        let class = usize::try_from(word >> 8 & 0xff).ok()?;
        let is_ours = word & !0xff00 == Kind::Blocks as u64 | shard << 16;
        (is_ours && class < crate::layout::CLASSES.len()).then_some(class)
    }

    #[inline(always)]
    pub(crate) fn load(region: &Inner, page: u64) -> Option<Self> {
        Self::decode(page_state(region, page).load(Ordering::Relaxed))
    }
}

const ABSENT: u64 = Kind::Absent as u64;
const FREE: u64 = Kind::Free as u64;

/// The state word of a page.
#[inline(always)]
pub(crate) fn page_state(region: &Inner, page: u64) -> &AtomicU64 {
    region
        .memory
        .word(region.geometry.page_states_offset + page * WORD)
}

impl Locked<'_> {
    /// Takes a page for this shard. Its contents are whatever its last owner left.
    pub(crate) fn claim_page(&self, kind: Kind, class: usize) -> Result<u64, WriteError> {
        let wanted = self.state(kind, class);
        if let Some(page) = self.claim_cached(wanted) {
            return Ok(page);
        }
        let pages = self.region.geometry.page_count;
        let cursor = self.region.memory.header(header::POOL_CURSOR);
        let begun_at = cursor.load(Ordering::Relaxed);
        let start = begun_at % pages;
        let mut refused = None;
        let mut left = u64::MAX;
        for page in (start..pages).chain(0..start) {
            let claimed = match page_state(self.region, page).load(Ordering::Relaxed) {
                FREE => swap(self.region, page, FREE, wanted),
                ABSENT if refused.is_none() => match self.commit_from(page, wanted) {
                    Ok(claimed) => claimed,
                    Err(error) => {
                        // After a death an absent page may have come before free ones.
                        refused = Some(error);
                        left = SEARCH_PAGES;
                        false
                    }
                },
                _ => false,
            };
            if claimed {
                // Not if somebody freed a page before it meanwhile.
                let _ = cursor.compare_exchange(
                    begun_at,
                    page + 1,
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                );
                return Ok(page);
            }
            left -= 1;
            if left == 0 {
                break;
            }
        }
        Err(refused.map_or(WriteError::Full, WriteError::NoMemory))
    }

    /// Gives a page of this shard to whoever needs one next, or its memory to the system if enough
    /// are kept.
    pub(crate) fn release_page(&self, page: u64) {
        // Release: whoever swaps it out of the cache or finds it sees this shard's last stores to
        // the page.
        page_state(self.region, page).store(FREE, Ordering::Release);
        if !self.cache_page(page) {
            self.decommit(page);
        }
    }

    /// Ends what a dead process left half done with a page of this shard.
    pub(crate) fn settle_page(&self, page: u64, state: PageState) {
        match state.kind {
            Kind::Committing => page_state(self.region, page).store(ABSENT, Ordering::Release),
            Kind::Releasing => self.finish_decommit(page),
            _ => {}
        }
    }

    fn state(&self, kind: Kind, class: usize) -> u64 {
        PageState {
            kind,
            class,
            shard: self.index,
        }
        .encode()
    }

    fn claim_cached(&self, wanted: u64) -> Option<u64> {
        cache(self.region).find_map(|place| {
            if place.load(Ordering::Relaxed) == 0 {
                return None;
            }
            let page = place.swap(0, Ordering::Relaxed).checked_sub(1)?;
            let known = page < self.region.geometry.page_count;
            (known && swap(self.region, page, FREE, wanted)).then_some(page)
        })
    }

    fn cache_page(&self, page: u64) -> bool {
        cache(self.region).any(|place| {
            place.load(Ordering::Relaxed) == 0
                && place
                    .compare_exchange(0, page + 1, Ordering::Relaxed, Ordering::Relaxed)
                    .is_ok()
        })
    }

    /// Gets memory for a run of absent pages from `page` on: the first becomes ours, the others
    /// free.
    fn commit_from(&self, page: u64, wanted: u64) -> io::Result<bool> {
        let committing = self.state(Kind::Committing, 0);
        let end = (page + COMMIT_PAGES).min(self.region.geometry.page_count);
        let run = (page..end)
            .take_while(|&page| swap(self.region, page, ABSENT, committing))
            .count();
        let mut run = run as u64;
        if run == 0 {
            return Ok(false);
        }
        let commit = |count: u64| {
            let start = self.region.geometry.page_offset(page);
            self.region
                .memory
                .backing()
                .commit(start..start + count * PAGE_LEN)
        };
        let mut result = commit(run);
        if result.is_err() && run > 1 {
            // There may be memory for the one page that is needed.
            (page + 1..page + run).for_each(|page| self.set_state(page, ABSENT));
            run = 1;
            result = commit(run);
        }
        if let Err(error) = result {
            self.set_state(page, ABSENT);
            return Err(error);
        }
        self.set_state(page, wanted);
        for page in page + 1..page + run {
            self.set_state(page, FREE);
            // A full cache only means that the page is found by searching.
            self.cache_page(page);
        }
        Ok(true)
    }

    fn decommit(&self, page: u64) {
        let releasing = self.state(Kind::Releasing, 0);
        if swap(self.region, page, FREE, releasing) {
            self.finish_decommit(page);
        }
    }

    fn finish_decommit(&self, page: u64) {
        let start = self.region.geometry.page_offset(page);
        let given_back = self
            .region
            .memory
            .backing()
            .decommit(start..start + PAGE_LEN);
        self.set_state(page, if given_back { ABSENT } else { FREE });
        if !given_back {
            self.search_from(page);
        }
    }

    /// Lets the next search begin at this page, or before.
    pub(crate) fn search_from(&self, page: u64) {
        let cursor = self.region.memory.header(header::POOL_CURSOR);
        cursor.fetch_min(page, Ordering::Relaxed);
    }

    fn set_state(&self, page: u64, state: u64) {
        page_state(self.region, page).store(state, Ordering::Release);
    }
}

fn cache(region: &Inner) -> impl Iterator<Item = &AtomicU64> {
    let places = header::POOL_CACHE..header::POOL_CACHE + header::POOL_CACHE_WORDS;
    places.map(|place| region.memory.header(place))
}

fn swap(region: &Inner, page: u64, from: u64, to: u64) -> bool {
    // AcqRel: pairs with the Release stores of the page's last owner, and of the process that
    // committed it.
    page_state(region, page)
        .compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed)
        .is_ok()
}

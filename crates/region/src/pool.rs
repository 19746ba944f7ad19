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
use crate::limits::{COMMIT_PAGES, PAGE_SEARCHES, SEARCH_PAGES};
use crate::region::Inner;
use crate::shard::Locked;
use crate::sync::{spin_loop, AtomicU64, Ordering};
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
/// In the place of the class of a page that is being committed: its shard needs this very page.
const NEEDED: usize = 1;
/// A page that is being committed, and that another shard may take over: all but the shard.
const COMMITTING_SPARE: u64 = Kind::Committing as u64;
const COMMITTING_MASK: u64 = 0xffff;

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
        for _ in 0..PAGE_SEARCHES {
            let found = match self.claim_cached(wanted) {
                Some(page) => Some(page),
                None => self.search_page(wanted)?,
            };
            if let Some(page) = found {
                return Ok(page);
            }
            // Another shard did something to a page meanwhile that may be of use.
            spin_loop();
        }
        Err(WriteError::Full)
    }

    /// Takes the next page that is free, or gets memory for one; `None` if there is none just now.
    fn search_page(&self, wanted: u64) -> Result<Option<u64>, WriteError> {
        let pages = self.region.geometry.page_count;
        let cursor = self.region.memory.header(header::POOL_CURSOR);
        let begun_at = cursor.load(Ordering::Relaxed);
        let start = begun_at % pages;
        let (mut refused, mut left) = (None, u64::MAX);
        let (mut spare, mut is_busy) = (None, false);
        for page in (start..pages).chain(0..start) {
            let state = page_state(self.region, page).load(Ordering::Relaxed);
            let claimed = match state {
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
                let (from, to) = (begun_at, page + 1);
                let _ = cursor.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed);
                return Ok(Some(page));
            }
            if state & COMMITTING_MASK == COMMITTING_SPARE {
                spare = Some((page, state));
            }
            is_busy |= state & 0xff == Kind::Releasing as u64;
            left -= 1;
            if left == 0 {
                break;
            }
        }
        match (refused, spare) {
            (Some(error), _) => Err(WriteError::NoMemory(error)),
            (None, Some((page, state))) => self.take_over_commit(page, state, wanted),
            (None, None) if is_busy => Ok(None),
            (None, None) => Err(WriteError::Full),
        }
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

    /// Ends what a dead process left half done with a page of this shard, some of whose memory may be
    /// there.
    pub(crate) fn settle_page(&self, page: u64, state: PageState) {
        let releasing = self.state(Kind::Releasing, 0);
        // A page that was being committed may be taken over meanwhile.
        if swap(self.region, page, state.encode(), releasing) {
            if self.give_back(page) || self.commit(page, 1).is_err() {
                self.set_state(page, ABSENT);
            } else {
                self.set_state(page, FREE);
            }
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

    /// Takes one of the pages that another shard is getting memory for beside the one it needs: where
    /// none is left but these, nobody is to wait for it, nor to be told that all is full.
    #[cold]
    fn take_over_commit(
        &self,
        page: u64,
        state: u64,
        wanted: u64,
    ) -> Result<Option<u64>, WriteError> {
        let needed = self.state(Kind::Committing, NEEDED);
        if !swap(self.region, page, state, needed) {
            return Ok(None);
        }
        if let Err(error) = self.commit(page, 1) {
            self.set_state(page, ABSENT);
            return Err(WriteError::NoMemory(error));
        }
        self.set_state(page, wanted);
        Ok(Some(page))
    }

    /// Gets memory for a run of absent pages from `page` on: the first becomes ours; the others, unless
    /// another shard takes them over, become free.
    fn commit_from(&self, page: u64, wanted: u64) -> io::Result<bool> {
        let needed = self.state(Kind::Committing, NEEDED);
        if !swap(self.region, page, ABSENT, needed) {
            return Ok(false);
        }
        let spare = self.state(Kind::Committing, 0);
        let end = (page + COMMIT_PAGES).min(self.region.geometry.page_count);
        let spares = (page + 1..end)
            .take_while(|&page| swap(self.region, page, ABSENT, spare))
            .count();
        let spares = page + 1..page + 1 + spares as u64;
        let mut result = self.commit(page, spares.end - page);
        let all = result.is_ok();
        if !all && !spares.is_empty() {
            // There may be memory for the one page that is needed.
            result = self.commit(page, 1);
        }
        self.set_state(page, if result.is_ok() { wanted } else { ABSENT });
        for page in spares {
            // A full cache only means that the page is found by searching.
            if swap(self.region, page, spare, if all { FREE } else { ABSENT }) && all {
                self.cache_page(page);
            }
        }
        result.map(|()| true)
    }

    fn commit(&self, page: u64, count: u64) -> io::Result<()> {
        let start = self.region.geometry.page_offset(page);
        let backing = self.region.memory.backing();
        backing.commit(start..start + count * PAGE_LEN)
    }

    fn decommit(&self, page: u64) {
        let releasing = self.state(Kind::Releasing, 0);
        if !swap(self.region, page, FREE, releasing) {
            return;
        }
        if self.give_back(page) {
            self.set_state(page, ABSENT);
        } else {
            self.set_state(page, FREE);
            self.search_from(page);
        }
    }

    fn give_back(&self, page: u64) -> bool {
        let start = self.region.geometry.page_offset(page);
        let backing = self.region.memory.backing();
        backing.decommit(start..start + PAGE_LEN)
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

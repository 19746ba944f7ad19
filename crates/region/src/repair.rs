//! Repair of a shard whose lock holder died: everything but the index is made anew from what the
//! index reaches.
//!
//! 1. The slots of all buckets are looked at. One that names no valid entry, an entry of another
//!    bucket, or one that was met before, goes; the rest is what the shard holds.
//! 2. All buckets' versions are raised: readers that began before look again.
//! 3. Every page of the shard gets the usage and the free list that follow from 1, or goes back to
//!    the pool.
//! 4. Counts, the eviction queue and the list of ephemeral entries are written anew.
//! 5. Chains of buckets give up the overflow buckets that their slots do not need.
//!
//! Nothing here depends on how far the dead writer got, so nothing has to be logged while writing;
//! and a repair that is killed is simply run again by the next one to take the lock over. Until
//! step 3 nothing is freed, and what is freed there is reached by no slot.

use crate::alloc::{block_class, block_starts, Usage};
use crate::entry::EntryRef;
use crate::error::Damaged;
use crate::index::{directory_word, names_entry, Bucket};
use crate::layout::{
    bucket_of, entry, shard, slot, tag_of, Geometry, BUCKET_CLASS, CLASSES, INLINE_BUCKETS,
    PAGE_BUCKETS, PAGE_LEN, WORD,
};
use crate::pool::{Kind, PageState};
use crate::shard::Locked;
use crate::sync::{fence, Ordering};
use std::collections::HashMap;

/// What the index of a shard reaches.
#[derive(Default)]
struct Reached {
    /// Per page: one bit per block that is in use.
    blocks: HashMap<u64, Vec<u64>>,
    /// Pages of large values and index pages.
    pages: HashMap<u64, Kind>,
    /// Offset and revision of each entry.
    entries: Vec<(u64, u64)>,
    /// The same of those that go with their session.
    ephemeral: Vec<(u64, u64)>,
    bytes: u64,
    ttl_entries: u64,
    next_expiry: u64,
    highest_revision: u64,
}

impl<'r> Locked<'r> {
    /// Makes the shard whole again after a takeover.
    #[cold]
    pub(crate) fn repair(&self) {
        let mut reached = Reached {
            next_expiry: u64::MAX,
            ..Reached::default()
        };
        let buckets = self.settle_buckets();
        for bucket in 0..buckets {
            self.look_ahead_of(bucket, buckets);
            self.reach_bucket(bucket, buckets, &mut reached);
        }
        for chunk in 0..Geometry::chunks_for(buckets) {
            let page = directory_word(self.region, self.index, chunk).load(Ordering::Relaxed);
            reached
                .pages
                .extend(page.checked_sub(1).map(|page| (page, Kind::Index)));
        }
        // Whatever is freed or written below, readers that could meet it see the versions raised
        // above.
        fence(Ordering::Release);
        self.rebuild_pages(&reached);
        self.rebuild_counts(&mut reached);
        self.shorten_chains(buckets);
        self.break_feed();
        self.add(shard::REPAIRS, 1);
    }

    /// The number of buckets that are really there, and no index pages beyond them.
    fn settle_buckets(&self) -> u64 {
        let root = self.root();
        let mut buckets = root.buckets().min(self.region.geometry.buckets_max());
        let is_present = |chunk: &u64| {
            let page = directory_word(self.region, self.index, *chunk).load(Ordering::Relaxed);
            let page = page
                .checked_sub(1)
                .filter(|page| *page < self.region.geometry.page_count);
            page.and_then(|page| PageState::load(self.region, page))
                .is_some_and(|state| state.kind == Kind::Index && state.shard == self.index)
        };
        let chunks = Geometry::chunks_for(buckets);
        let present = (0..chunks).take_while(is_present).count() as u64;
        if present < chunks {
            // Only damage leads here: buckets without a page lose their entries.
            buckets = (present * PAGE_BUCKETS).max(INLINE_BUCKETS);
            self.words
                .at(shard::ROOT)
                .store(root.next(buckets), Ordering::Release);
        }
        for chunk in Geometry::chunks_for(buckets)..self.region.geometry.chunks_max() {
            directory_word(self.region, self.index, chunk).store(0, Ordering::Relaxed);
        }
        buckets
    }

    /// Asks the memory for the entries of a bucket whose turn comes soon, and for a bucket after it.
    fn look_ahead_of(&self, number: u64, buckets: u64) {
        let bucket = |ahead: u64| {
            let ahead = Some(number + ahead).filter(|ahead| *ahead < buckets)?;
            Bucket::of_shard(self.region, self.index, ahead).ok()
        };
        if let Some(bucket) = bucket(ENTRIES_AHEAD) {
            bucket.prefetch_entries(self.region);
        }
        if let Some(bucket) = bucket(2 * ENTRIES_AHEAD) {
            self.region.memory.prefetch(bucket.offset);
        }
    }

    /// Notes what a bucket reaches, drops what does not belong there, raises its version.
    fn reach_bucket(&self, number: u64, buckets: u64, reached: &mut Reached) {
        let Ok(first) = Bucket::of_shard(self.region, self.index, number) else {
            return;
        };
        let mut bucket = first;
        let mut left = crate::limits::CHAIN_MAX;
        loop {
            for place in bucket.slots() {
                let word = place.load(Ordering::Relaxed);
                if names_entry(word) && !self.reach_entry(word, number, buckets, reached) {
                    place.store(0, Ordering::Release);
                }
            }
            left -= 1;
            let next = bucket.next(self.region).and_then(|next| {
                let Some(next) = next else { return Ok(None) };
                let fits = block_class(self.region, next.offset, self.index) == Some(BUCKET_CLASS);
                let new = fits && left > 0 && reached.mark(self, next.offset);
                new.then_some(Some(next)).ok_or(Damaged {
                    what: "",
                    offset: next.offset,
                })
            });
            match next {
                Ok(Some(next)) => bucket = next,
                Ok(None) => break,
                Err(_) => {
                    bucket.last_slot().store(0, Ordering::Release);
                    self.add(shard::DAMAGED, 1);
                    break;
                }
            }
        }
        first.raise_version();
    }

    /// Notes an entry and all it holds; `false` if the slot must go.
    fn reach_entry(&self, word: u64, number: u64, buckets: u64, reached: &mut Reached) -> bool {
        let offset = word & slot::OFFSET_MASK;
        let Some(entry) = self.valid_entry(offset) else {
            self.add(shard::DAMAGED, 1);
            return false;
        };
        let hash = entry.hash();
        let belongs = bucket_of(hash, buckets) == number && tag_of(hash) == word >> slot::TAG_SHIFT;
        // A copy that a move left behind, or (second) the original that its move did not clear yet.
        if !belongs || !reached.mark(self, offset) {
            return false;
        }
        let listed = entry.for_each_page(|page| {
            reached.pages.insert(page, Kind::Value);
            Ok(())
        });
        let lists: Result<Vec<u64>, Damaged> = entry.list_pages().collect();
        if listed.is_err() || lists.is_err() {
            self.add(shard::DAMAGED, 1);
            return false;
        }
        reached.pages.extend(
            lists
                .unwrap_or_default()
                .into_iter()
                .map(|page| (page, Kind::List)),
        );
        let mut revision = entry.revision();
        if revision & 1 == 1 {
            // The writer died inside a counter: old or new value, either is whole. A revision
            // nobody has seen.
            revision = self.get(shard::REVISION).max(revision).wrapping_add(3) & !1;
            self.set(shard::REVISION, revision);
            entry
                .words
                .at(entry::REVISION)
                .store(revision, Ordering::Release);
        }
        reached.entries.push((offset, revision));
        if entry.meta.has(entry::EPHEMERAL) {
            reached.ephemeral.push((offset, revision));
        }
        reached.bytes += entry.meta.key_len() + entry.meta.value_len();
        reached.highest_revision = reached.highest_revision.max(revision);
        if entry.expires_at() != 0 {
            reached.ttl_entries += 1;
            reached.next_expiry = reached.next_expiry.min(entry.expires_at());
        }
        true
    }

    /// The entry at an offset, if its block is one of this shard that fits it and its pages are the
    /// shard's.
    fn valid_entry(&self, offset: u64) -> Option<EntryRef<'r>> {
        let class = block_class(self.region, offset, self.index)?;
        let entry = EntryRef::at(self.region, offset).ok()?;
        let fits = entry.words.len() * WORD <= u64::from(CLASSES[class]);
        let of_shard = self.region.geometry.shard_of(entry.hash()) == self.index;
        let owned = |kind: Kind| {
            move |page: u64| {
                PageState::load(self.region, page)
                    .is_some_and(|state| state.kind == kind && state.shard == self.index)
            }
        };
        let mut pages_fit = entry
            .list_pages()
            .all(|page| page.is_ok_and(owned(Kind::List)));
        let walked = entry.for_each_page(|page| {
            pages_fit &= owned(Kind::Value)(page);
            Ok(())
        });
        (fits && of_shard && pages_fit && walked.is_ok()).then_some(entry)
    }

    /// Gives every page of the shard the usage that follows from what is reached, or gives it back.
    fn rebuild_pages(&self, reached: &Reached) {
        self.forget_pages();
        self.set(shard::SPARE, 0);
        // The dead one may have had a free page in its hands.
        self.search_from(0);
        for page in 0..self.region.geometry.page_count {
            let Some(state) = PageState::load(self.region, page) else {
                continue;
            };
            let owned = !matches!(state.kind, Kind::Absent | Kind::Free);
            if !owned || state.shard != self.index {
                continue;
            }
            match state.kind {
                Kind::Committing | Kind::Releasing => self.settle_page(page, state),
                Kind::Blocks => match reached.blocks.get(&page) {
                    Some(used) => self.rebuild_page(page, state.class, used),
                    None => self.release_page(page),
                },
                kind if reached.pages.get(&page) != Some(&kind) => self.release_page(page),
                _ => {}
            }
        }
    }

    fn rebuild_page(&self, page: u64, class: usize, used: &[u64]) {
        let start = self.region.geometry.page_offset(page);
        let unit = |offset: u64| offset / 16;
        let is_used = |offset: u64| bit(used, unit(offset));
        let starts: Vec<u64> = block_starts(class).collect();
        let end = starts
            .iter()
            .rposition(|&offset| is_used(offset))
            .map_or(0, |last| last + 1);
        let mut usage = Usage {
            fresh: end as u64 * unit(u64::from(CLASSES[class])),
            ..Usage::default()
        };
        // From the back, so that the list begins at the front.
        for &offset in starts[..end].iter().rev() {
            if is_used(offset) {
                usage.live += 1;
            } else {
                let link = self.region.memory.word(start + offset);
                link.store(entry::FREE_LINK | usage.free, Ordering::Release);
                usage.free = unit(offset) + 1;
            }
        }
        usage.store(self.region, page);
        if usage.has_room(class) {
            self.link_page(page, class);
        }
    }

    fn rebuild_counts(&self, reached: &mut Reached) {
        self.set(shard::ENTRIES, reached.entries.len() as u64);
        self.set(shard::BYTES, reached.bytes);
        self.set(shard::TTL_ENTRIES, reached.ttl_entries);
        self.set(shard::NEXT_EXPIRY, reached.next_expiry);
        let revision = self.get(shard::REVISION).max(reached.highest_revision);
        self.set(shard::REVISION, revision.wrapping_add(1) & !1);
        let by_revision = |entries: &mut Vec<(u64, u64)>| {
            entries.sort_unstable_by_key(|(_, revision)| *revision);
            std::mem::take(entries)
                .into_iter()
                .map(|(offset, _)| offset)
        };
        if self.region.geometry.evicts() {
            self.sieve_rebuild(by_revision(&mut reached.entries));
        }
        self.set(shard::EPHEMERAL_HEAD, 0);
        for offset in by_revision(&mut reached.ephemeral) {
            if let Ok(entry) = EntryRef::at(self.region, offset) {
                self.ephemeral_attach(&entry);
            }
        }
    }
}

impl Locked<'_> {
    /// Frees overflow buckets that hold nothing: a split cut short, or a slot dropped above, leaves
    /// them behind, and a bucket without entries sees no delete that would free them.
    fn shorten_chains(&self, buckets: u64) {
        for number in 0..buckets {
            if let Ok(first) = Bucket::of_shard(self.region, self.index, number) {
                // Damage in one chain is no reason to leave the others as they are.
                let _ = self.drop_empty_overflow(first);
            }
        }
    }
}

impl Reached {
    /// Marks a block as used; `false` if it was already.
    fn mark(&mut self, locked: &Locked<'_>, offset: u64) -> bool {
        let Some(page) = locked.region.geometry.page_of(offset) else {
            return false;
        };
        let bits = self
            .blocks
            .entry(page)
            .or_insert_with(|| vec![0; BITMAP_WORDS]);
        let unit = offset % PAGE_LEN / 16;
        let new = !bit(bits, unit);
        if let Some(word) = usize::try_from(unit / 64)
            .ok()
            .and_then(|index| bits.get_mut(index))
        {
            *word |= 1 << (unit % 64);
        }
        new
    }
}

/// So many buckets ahead of what is looked at, entries are asked for.
const ENTRIES_AHEAD: u64 = 4;
/// One bit for each 16 bytes of a page.
const BITMAP_WORDS: usize = 64;

fn bit(bits: &[u64], unit: u64) -> bool {
    let word = usize::try_from(unit / 64)
        .ok()
        .and_then(|index| bits.get(index));
    word.is_some_and(|word| word >> (unit % 64) & 1 == 1)
}

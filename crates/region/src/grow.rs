//! Growing and shrinking a shard's index by one bucket at a time, while readers go on.
//!
//! Both move slots between two buckets: first copies, then the root store that commits, then the
//! originals are cleared. A writer killed in between leaves slots in a bucket their hash does not
//! belong to, which lookups pass over and repair removes.

use crate::entry::EntryRef;
use crate::error::{Damaged, WriteError};
use crate::index::{directory_word, names_entry, Bucket};
use crate::layout::{
    bucket_of, entry, hash_bit_in, shard, slot, Geometry, BUCKET_CLASS, BUCKET_SLOTS,
    INLINE_BUCKETS, PAGE_BUCKETS,
};
use crate::limits::CHAIN_MAX;
use crate::pool::{Kind, PageState};
use crate::shard::{Locked, Root};
use crate::sync::{fence, AtomicU64, Ordering};
use smallvec::SmallVec;

/// Entries per bucket above which a shard gets another one. Those whose turn to be split is yet to come
/// have up to twice as many: at 3 of 7 slots, few of them overflow.
const CROWDED: u64 = 3;
/// The slots of a chain. Usually they are few, and the allocator is not asked while a lock is held;
/// longer chains take a region that had no page left for buckets.
type Slots<'r> = SmallVec<[&'r AtomicU64; 32]>;

/// Most entries of a bucket made by a merge. Deleting in the order of the hash leaves what is left
/// in few buckets, which then would grow with every merge.
const MERGED_MAX: usize = 32;

impl<'r> Locked<'r> {
    /// A free slot in the chain, for an entry with this tag. The chain grows by an overflow bucket if
    /// there is none.
    #[inline(always)]
    pub(crate) fn free_slot(
        &self,
        bucket: Bucket<'r>,
        tag: u64,
    ) -> Result<&'r AtomicU64, WriteError> {
        match bucket.free_slot(tag) {
            Some(slot) => Ok(slot),
            None => self.free_slot_in_chain(bucket, tag),
        }
    }

    #[cold]
    fn free_slot_in_chain(&self, first: Bucket<'r>, tag: u64) -> Result<&'r AtomicU64, WriteError> {
        let mut last = first;
        let mut len = 0;
        for bucket in first.chain(self.region) {
            last = bucket?;
            len += 1;
            if let Some(slot) = last.free_slot(tag) {
                return Ok(slot);
            }
        }
        // One bucket more would look like a chain without end.
        if len + 1 >= CHAIN_MAX {
            return Err(WriteError::Full);
        }
        let word = last.last_slot();
        let overflow = self.new_bucket(&[word.load(Ordering::Relaxed)])?;
        // The entry that was here is in the new bucket already. Release: who follows the link finds
        // it.
        word.store(slot::LINK | overflow.offset, Ordering::Release);
        first.raise_version();
        overflow.slots().nth(1).ok_or(
            Damaged {
                what: "a bucket without slots",
                offset: overflow.offset,
            }
            .into(),
        )
    }

    /// Splits one bucket if the shard has too many entries for its buckets, and prepares that with the
    /// insert before. Without room for that, chains grow.
    #[inline(always)]
    pub(crate) fn grow_if_crowded(&self) {
        let buckets = self.root().buckets();
        let (entries, room) = (self.get(shard::ENTRIES), buckets * CROWDED);
        if entries < room || buckets >= self.region.geometry.buckets_max() {
            return;
        }
        if entries == room {
            self.look_ahead(buckets);
        } else {
            // Damage or a full region: the write that led here is done, and the next one tries
            // again.
            let _ = self.split();
        }
    }

    /// Merges one bucket into its buddy if the shard has fewer entries than buckets.
    #[inline(always)]
    pub(crate) fn shrink_if_sparse(&self) {
        let buckets = self.root().buckets();
        if buckets > INLINE_BUCKETS && self.get(shard::ENTRIES) < buckets {
            let _ = self.merge();
        }
    }

    #[cold]
    fn split(&self) -> Result<(), WriteError> {
        let root = self.root();
        let split = self.split_by_one(root);
        if split.is_err() && self.root() == root {
            // Its index page may have been claimed already.
            self.drop_chunk(Geometry::chunks_for(root.buckets()));
        }
        split
    }

    /// Asks the memory for what the split into bucket number `next` reads: the entries, if their hashes
    /// are needed, whose bucket was asked for the last time; and the buckets of the split after it. The
    /// insert before calls this, and waits for an overflow bucket if there is one, so that the split does
    /// not wait for its entries: asked for three inserts of the shard before, a split took twice as long.
    #[cold]
    fn look_ahead(&self, next: u64) {
        let bucket = |number: u64| Bucket::of_shard(self.region, self.index, number);
        let reads_entries = hash_bit_in(0, next.ilog2()).is_none();
        if let Ok(bucket) = bucket(origin(next)) {
            for bucket in bucket.chain(self.region).flatten() {
                if reads_entries {
                    bucket.prefetch_entries(self.region);
                }
            }
        }
        for bucket in [bucket(origin(next + 1)), bucket(next + 1)]
            .into_iter()
            .flatten()
        {
            self.region.memory.prefetch(bucket.offset);
        }
    }

    fn split_by_one(&self, root: Root) -> Result<(), WriteError> {
        let new = root.buckets();
        let old = Bucket::of_shard(self.region, self.index, origin(new))?;
        self.ensure_chunk(new)?;
        let into = Bucket::of_shard(self.region, self.index, new)?;
        let words = old.load();
        if words[BUCKET_SLOTS - 1] & slot::LINK == 0 {
            self.split_bucket(root, old, &words, into)
        } else {
            self.split_chain(root, old, into)
        }
    }

    /// Splits a bucket that has no overflow, as nearly all do. No branch decides what moves, as none
    /// could be foretold.
    fn split_bucket(
        &self,
        root: Root,
        old: Bucket<'r>,
        words: &[u64; BUCKET_SLOTS],
        into: Bucket<'r>,
    ) -> Result<(), WriteError> {
        let new = root.buckets();
        let mut stay = *words;
        let mut moved = [0; BUCKET_SLOTS];
        let mut count = 0;
        for place in stay.iter_mut().filter(|word| **word != 0) {
            let word = *place;
            let moves = self.moves_into(word, new)?;
            moved[count] = word;
            count += usize::from(moves);
            *place = if moves { 0 } else { word };
        }
        into.fill_unread(&moved[..count], 0);
        self.commit_buckets(root, new + 1);
        // Release: who misses one of them here sees the new root and looks again.
        for (place, word) in old.slots().zip(stay) {
            place.store(word, Ordering::Release);
        }
        old.raise_version();
        Ok(())
    }

    fn split_chain(&self, root: Root, old: Bucket<'r>, into: Bucket<'r>) -> Result<(), WriteError> {
        let new = root.buckets();
        let mut moved = Slots::default();
        let mut stay = 0;
        for place in self.occupied(old)? {
            let word = place.load(Ordering::Relaxed);
            if self.moves_into(word, new)? {
                moved.push(place);
            } else {
                stay += 1;
            }
        }
        self.fill_chain(into, &moved)?;
        self.commit_buckets(root, new + 1);
        // As in `split_bucket`.
        moved
            .iter()
            .for_each(|place| place.store(0, Ordering::Release));
        old.raise_version();
        self.compact(old, stay)?;
        Ok(())
    }

    #[cold]
    fn merge(&self) -> Result<(), WriteError> {
        if self.get(shard::ENTRIES) == 0 {
            self.forget_buckets();
            return Ok(());
        }
        let root = self.root();
        let last = root.buckets() - 1;
        let from = Bucket::of_shard(self.region, self.index, last)?;
        let into = Bucket::of_shard(self.region, self.index, origin(last))?;
        let moving = self.occupied(from)?;
        if moving.len() + self.occupied(into)?.len() > MERGED_MAX {
            return Ok(());
        }
        let words: SmallVec<[u64; MERGED_MAX]> = moving
            .iter()
            .map(|place| place.load(Ordering::Relaxed))
            .collect();
        for &word in &words {
            match self.free_slot(into, word >> slot::TAG_SHIFT) {
                Ok(copy) => copy.store(word, Ordering::Release),
                Err(error) => {
                    // Nothing looks for these keys here yet. They are looked for anew, because a
                    // chain that grew meanwhile moved some of them.
                    for place in self.occupied(into)? {
                        if words.contains(&place.load(Ordering::Relaxed)) {
                            place.store(0, Ordering::Relaxed);
                        }
                    }
                    self.drop_empty_overflow(into)?;
                    return Err(error);
                }
            }
        }
        self.commit_buckets(root, last);
        into.raise_version();
        self.free_overflow(from)?;
        self.drop_chunk(Geometry::chunks_for(last));
        Ok(())
    }

    /// Commits a split or a merge. Release: who sees the new root sees the copies that were made for it.
    fn commit_buckets(&self, root: Root, buckets: u64) {
        self.words
            .at(shard::ROOT)
            .store(root.next(buckets), Ordering::Release);
    }

    /// Goes back to the buckets a shard begins with, when none holds anything: also those that were
    /// too crowded to merge while there was still something in them.
    fn forget_buckets(&self) {
        let root = self.root();
        self.commit_buckets(root, INLINE_BUCKETS);
        (0..Geometry::chunks_for(root.buckets()))
            .rev()
            .for_each(|chunk| self.drop_chunk(chunk));
    }

    /// Frees the overflow buckets at the end of a chain that hold nothing.
    pub(crate) fn drop_empty_overflow(&self, first: Bucket<'r>) -> Result<(), Damaged> {
        if first.last_slot().load(Ordering::Relaxed) & slot::LINK == 0 {
            return Ok(());
        }
        let occupied = self.occupied(first)?.len();
        self.compact(first, occupied)
    }

    /// Moves the slots of a chain forward until its overflow buckets are as few as `occupied` slots
    /// need.
    fn compact(&self, first: Bucket<'r>, occupied: usize) -> Result<(), Damaged> {
        if first.last_slot().load(Ordering::Relaxed) & slot::LINK == 0 {
            return Ok(());
        }
        // What a chain of so many buckets holds besides its links.
        let needed = 1 + occupied
            .saturating_sub(BUCKET_SLOTS)
            .div_ceil(BUCKET_SLOTS - 1);
        let chain: SmallVec<[Bucket<'r>; 4]> =
            first.chain(self.region).collect::<Result<_, Damaged>>()?;
        let mut len = chain.len();
        while len > needed {
            let (last, parent) = (chain[len - 1], chain[len - 2]);
            for from in last
                .slots()
                .filter(|slot| slot.load(Ordering::Relaxed) != 0)
            {
                let free = chain[..len - 1]
                    .iter()
                    .flat_map(Bucket::slots)
                    .find(|slot| slot.load(Ordering::Relaxed) == 0);
                // The parent's link is about to become a free slot itself: the last one may go
                // there.
                let Some(free) = free else { break };
                free.store(from.load(Ordering::Relaxed), Ordering::Release);
                // Before the original goes: who misses it there has seen a lower version.
                first.raise_version();
                from.store(0, Ordering::Release);
            }
            let mut left = last
                .slots()
                .map(|slot| slot.load(Ordering::Relaxed))
                .filter(|word| *word != 0);
            let (link, more) = (left.next().unwrap_or(0), left.next());
            if more.is_some() {
                return Ok(());
            }
            parent.last_slot().store(link, Ordering::Release);
            first.raise_version();
            self.free_block(last.offset)?;
            len -= 1;
        }
        Ok(())
    }

    /// The slots of a chain that name entries.
    fn occupied(&self, first: Bucket<'r>) -> Result<Slots<'r>, Damaged> {
        let mut slots = Slots::default();
        for bucket in first.chain(self.region) {
            for place in bucket?.slots() {
                let word = place.load(Ordering::Relaxed);
                if names_entry(word) {
                    slots.push(place);
                }
            }
        }
        Ok(slots)
    }

    /// Whether the entry that a slot of the bucket's origin names belongs into bucket number `new` once
    /// that is the last.
    #[inline(always)]
    fn moves_into(&self, word: u64, new: u64) -> Result<bool, Damaged> {
        if let Some(moves) = hash_bit_in(word, new.ilog2()) {
            return Ok(moves);
        }
        let offset = word & slot::OFFSET_MASK;
        let room = EntryRef::room(self.region, offset).ok_or(Damaged {
            what: "a slot that names no block",
            offset,
        })?;
        let hash = room.at(entry::HASH).load(Ordering::Relaxed);
        Ok(bucket_of(hash, new + 1) == new)
    }

    /// Makes a bucket that no reader looks at yet hold these slots, with as many overflow buckets as that
    /// takes.
    fn fill_chain(&self, bucket: Bucket<'r>, slots: &Slots<'r>) -> Result<(), WriteError> {
        let words: SmallVec<[u64; 32]> = slots
            .iter()
            .map(|slot| slot.load(Ordering::Relaxed))
            .collect();
        let direct = if words.len() <= BUCKET_SLOTS {
            words.len()
        } else {
            BUCKET_SLOTS - 1
        };
        let link = match words.get(direct..) {
            Some(rest) if !rest.is_empty() => slot::LINK | self.new_chain(rest)?,
            _ => 0,
        };
        bucket.fill_unread(&words[..direct], link);
        Ok(())
    }

    /// Overflow buckets for these slots; returns the offset of the first.
    fn new_chain(&self, words: &[u64]) -> Result<u64, WriteError> {
        let direct = if words.len() <= BUCKET_SLOTS {
            words.len()
        } else {
            BUCKET_SLOTS - 1
        };
        let bucket = self.new_bucket(&words[..direct])?;
        if direct < words.len() {
            match self.new_chain(&words[direct..]) {
                Ok(next) => bucket
                    .last_slot()
                    .store(slot::LINK | next, Ordering::Relaxed),
                Err(error) => {
                    self.free_block(bucket.offset)?;
                    return Err(error);
                }
            }
        }
        Ok(bucket.offset)
    }

    fn new_bucket(&self, words: &[u64]) -> Result<Bucket<'r>, WriteError> {
        let bucket = Bucket::at(self.region, self.alloc_block(BUCKET_CLASS)?)?;
        // As in `build_entry`.
        fence(Ordering::Release);
        bucket.raise_version();
        for (index, place) in bucket.slots().enumerate() {
            place.store(words.get(index).copied().unwrap_or(0), Ordering::Relaxed);
        }
        Ok(bucket)
    }

    /// Frees the overflow buckets of a bucket that the root no longer covers.
    fn free_overflow(&self, first: Bucket<'r>) -> Result<(), Damaged> {
        let mut overflow = first.next(self.region)?;
        for _ in 0..CHAIN_MAX {
            let Some(bucket) = overflow else { break };
            overflow = bucket.next(self.region)?;
            self.free_block(bucket.offset)?;
        }
        Ok(())
    }

    /// Makes sure that the page of bucket number `bucket` is there.
    fn ensure_chunk(&self, bucket: u64) -> Result<(), WriteError> {
        let word = directory_word(self.region, self.index, bucket / PAGE_BUCKETS);
        if word.load(Ordering::Relaxed) == 0 {
            let page = self.claim_page(Kind::Index, 0)?;
            word.store(page + 1, Ordering::Release);
        }
        Ok(())
    }

    /// Gives back an index page that no bucket needs any more, if there is one of this number.
    fn drop_chunk(&self, chunk: u64) {
        if chunk >= self.region.geometry.chunks_max() {
            return;
        }
        let word = directory_word(self.region, self.index, chunk);
        let page = word.load(Ordering::Relaxed).checked_sub(1);
        if let Some(page) = page.filter(|page| *page < self.region.geometry.page_count) {
            word.store(0, Ordering::Release);
            let state = PageState::load(self.region, page);
            if state.is_some_and(|now| now.kind == Kind::Index && now.shard == self.index) {
                self.release_page(page);
            }
        }
    }
}

/// The bucket that bucket number `new` is split from, and merged into.
fn origin(new: u64) -> u64 {
    new - (1 << new.ilog2())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::region::test_support::Heap;
    use crate::shard::shard_words;
    use crate::{Config, Cursor, Options, Region};

    #[test]
    fn deleting_in_the_order_of_a_scan_works_and_gives_all_pages_back() {
        let config = Config::new(16 << 20).shards(1);
        let region = Region::create(&config, Options::new()).unwrap();
        for count in [1000_u64, 20_000] {
            for number in 0..count {
                region.set(&number.to_le_bytes(), b"value").unwrap();
            }
            let page = region.scan(b"", Cursor::START, usize::MAX).unwrap();
            for (index, (key, _)) in page.entries.iter().enumerate() {
                assert!(region.delete(key).unwrap(), "number {index} of {count}");
                if index % 2000 == 0 {
                    assert_eq!(region.check().unwrap().problems, [""; 0]);
                }
            }
            assert_eq!((region.len(), region.stats().pages_used), (0, 0));
        }
    }

    /// 70 of 100, where the slots are chosen so; else it would be one in seven.
    #[test]
    fn most_entries_are_where_they_are_looked_for_first() {
        let config = Config::new(16 << 20).shards(1);
        let region = Region::create(&config, Options::new()).unwrap();
        for number in 0..20_000_u64 {
            region.set(&number.to_le_bytes(), b"value").unwrap();
        }
        let inner = &*region.inner;
        let at_home = |bucket: Bucket<'_>| {
            let is_home = |place: &&AtomicU64| {
                let word = place.load(Ordering::Relaxed);
                names_entry(word) && std::ptr::eq(*place, bucket.home(word >> slot::TAG_SHIFT))
            };
            bucket.slots().filter(is_home).count()
        };
        let count: usize = (0..Root::load(shard_words(inner, 0)).buckets())
            .map(|number| at_home(Bucket::of_shard(inner, 0, number).unwrap()))
            .sum();
        assert!(count > 13_000, "{count}");
    }

    fn fill(region: &Region, keys: impl Iterator<Item = u32>, value: &[u8]) -> Vec<[u8; 4]> {
        let keys = keys.map(u32::to_le_bytes);
        keys.take_while(|key| region.set(key, value).is_ok())
            .collect()
    }

    /// Pages with room for entries but no page for buckets: the chains grow as long as they may,
    /// then the region is full, and all that was written can be read and removed.
    #[test]
    fn chains_without_room_for_buckets_end_in_full_not_in_damage() {
        let config = Config::new(4 << 20).shards(1);
        let (heap, region) = Heap::create(&config, Options::new()).unwrap();
        // Keys that leave one block used in each of their pages, so that the pages stay.
        let small = fill(&region, 0..8192, b"");
        let medium = fill(&region, 10_000..12_048, &[1; 20]);
        for (keys, kept) in [(small, 1365), (medium, 1024)] {
            for (number, key) in keys.iter().enumerate() {
                if number % kept != 0 {
                    assert!(region.delete(key).unwrap());
                }
            }
        }
        heap.limit_commits(0);
        let mut len = usize::try_from(region.value_len_max()).unwrap();
        for key in 20_000_u32.. {
            while region.set(&key.to_le_bytes(), &vec![2; len]).is_err() {
                len /= 2;
            }
            if len < 40_000 {
                break;
            }
        }
        assert_eq!(region.stats().buckets, 16);
        let keys = fill(&region, 30_000..50_000, b"");
        assert!(keys.len() > 5000, "{}", keys.len());
        let next = 30_000 + u32::try_from(keys.len()).unwrap();
        let refused = region.set(&next.to_le_bytes(), b"");
        assert!(matches!(refused, Err(WriteError::Full)), "{refused:?}");
        // As long as a chain may be, and no bucket longer.
        let lengths = (0..16).map(|number| {
            let first = Bucket::of_shard(&region.inner, 0, number).unwrap();
            first.chain(&region.inner).map(Result::unwrap).count()
        });
        assert_eq!(lengths.max(), Some(CHAIN_MAX - 1));
        assert_eq!(region.check().unwrap().problems, Vec::<String>::new());
        // As soon as there is a page again, the chains are split.
        assert!(region.delete(&20_000_u32.to_le_bytes()).unwrap());
        // A bucket whose turn has not come may still be full for a few writes.
        let more = (50_000..52_000_u32).map(u32::to_le_bytes);
        let more: Vec<[u8; 4]> = more.filter(|key| region.set(key, b"").is_ok()).collect();
        assert!(more.len() > 1900, "{}", more.len());
        assert!(region.stats().buckets > 1024);
        assert_eq!(region.check().unwrap().problems, Vec::<String>::new());
        for key in keys.iter().chain(&more) {
            assert!(region.exists(key).unwrap());
            assert!(region.delete(key).unwrap());
        }
        assert_eq!(region.check().unwrap().problems, Vec::<String>::new());
    }
}

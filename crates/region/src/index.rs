//! The index of a shard: linear hashing (Litwin 1980) over buckets of one cache line, overflow
//! buckets chained from the last slot.
//!
//! # What a lookup can rely on
//! - Insert, replace and delete are one slot store.
//! - The version in the first bucket of a chain is raised after a slot was stored and before the
//!   block it named is reused, and before the old copy of a slot that moved within the chain is
//!   cleared.
//! - The root is stored before a slot that moved to another bucket is cleared in the old one.
//!
//! So a lookup whose version and root are the same before and after saw the chain as it was at one
//! moment.

use crate::entry::EntryRef;
use crate::error::Damaged;
use crate::layout::{
    entry, place_in_page, shard, slot, tag_of, BUCKET_LEN, BUCKET_SLOTS, BUCKET_WORDS,
    INLINE_BUCKETS, PAGE_BUCKETS, TAG_BITS, WORD,
};
use crate::limits::CHAIN_MAX;
use crate::memory::Words;
use crate::region::Inner;
use crate::shard::Root;
use crate::sync::{fence, version_ordering, AtomicU64, Ordering};

/// Word of the slot that may hold a link.
const LAST: u64 = BUCKET_SLOTS as u64;
/// Slots that may be homes: all but the last, which would have to be looked at twice.
const HOMES: u64 = BUCKET_SLOTS as u64 - 1;

/// A bucket: one cache line.
#[derive(Clone, Copy)]
pub(crate) struct Bucket<'r> {
    pub(crate) offset: u64,
    words: Words<'r>,
}

/// The slot that names a key's entry.
#[derive(Clone, Copy)]
pub(crate) struct Found<'r> {
    pub(crate) slot: &'r AtomicU64,
    pub(crate) word: u64,
    pub(crate) entry: EntryRef<'r>,
}

impl<'r> Bucket<'r> {
    /// Bucket number `bucket` of a shard.
    #[inline(always)]
    pub(crate) fn of_shard(region: &'r Inner, shard: u64, bucket: u64) -> Result<Self, Damaged> {
        if bucket < INLINE_BUCKETS {
            return Ok(Self::made(region.memory.inline_bucket(shard, bucket)));
        }
        let damaged = |what| Damaged {
            what,
            offset: region.geometry.shard_offset(shard),
        };
        let chunk = bucket / PAGE_BUCKETS;
        if chunk >= region.geometry.chunks_max() {
            return Err(damaged("more buckets than the directory has room for"));
        }
        let page = directory_word(region, shard, chunk).load(Ordering::Relaxed);
        region
            .memory
            .page_bucket(page.wrapping_sub(1), place_in_page(shard, bucket))
            .map(Self::made)
            .ok_or(damaged("a directory entry that names no page"))
    }

    /// The bucket, if it is among the first or its index page is named beside the root, in `words`.
    #[inline(always)]
    pub(crate) fn near(
        region: &'r Inner,
        shard: u64,
        words: Words<'r>,
        bucket: u64,
    ) -> Option<Self> {
        if bucket < INLINE_BUCKETS {
            return Some(Self::made(region.memory.inline_bucket(shard, bucket)));
        }
        let chunk = bucket / PAGE_BUCKETS;
        if chunk >= shard::CHUNKS_HERE {
            return Self::of_shard(region, shard, bucket).ok();
        }
        let page = words.at(shard::CHUNKS + chunk).load(Ordering::Relaxed);
        let place = place_in_page(shard, bucket);
        region
            .memory
            .page_bucket(page.wrapping_sub(1), place)
            .map(Self::made)
    }

    #[inline(always)]
    fn made((offset, words): (u64, Words<'r>)) -> Self {
        Self { offset, words }
    }

    /// The bucket a hash belongs to.
    #[inline(always)]
    pub(crate) fn of_hash(
        region: &'r Inner,
        shard: u64,
        root: Root,
        hash: u64,
    ) -> Result<Self, Damaged> {
        Self::of_shard(region, shard, root.bucket_of(hash))
    }

    /// An overflow bucket.
    pub(crate) fn at(region: &'r Inner, offset: u64) -> Result<Self, Damaged> {
        let inside = region.geometry.page_of(offset).is_some() && offset.is_multiple_of(BUCKET_LEN);
        let words = region.memory.words(offset, BUCKET_WORDS).filter(|_| inside);
        let words = words.ok_or(Damaged {
            what: "a link to no bucket",
            offset,
        })?;
        Ok(Self { offset, words })
    }

    #[inline(always)]
    pub(crate) fn version(&self) -> u64 {
        self.words.at(0).load(Ordering::Relaxed)
    }

    /// Tells readers of this chain to start over. Release: who reads the new version also sees the
    /// slots stored before it.
    #[inline(always)]
    pub(crate) fn raise_version(&self) {
        let version = self.version().wrapping_add(1);
        self.words.at(0).store(version, version_ordering());
    }

    #[inline(always)]
    pub(crate) fn slots(&self) -> impl Iterator<Item = &'r AtomicU64> + use<'r> {
        let words = self.words;
        (1..=LAST).map(move |index| words.at(index))
    }

    /// Asks the memory for the first line of what the slots name.
    #[inline(always)]
    pub(crate) fn prefetch_entries(&self, region: &Inner) {
        for slot in self.slots() {
            let word = slot.load(Ordering::Relaxed);
            region.memory.prefetch(word & slot::OFFSET_MASK);
        }
    }

    /// The slot where an entry with this tag is if it can be: a lookup that begins there mostly needs
    /// no other, so it is right about where to look before it has seen the bucket. Never the last.
    #[inline(always)]
    pub(crate) fn home(&self, tag: u64) -> &'r AtomicU64 {
        self.words.at(1 + home_of(tag))
    }

    /// A free slot for an entry with this tag: its home, or one that is nobody's or somebody else's.
    #[inline(always)]
    pub(crate) fn free_slot(&self, tag: u64) -> Option<&'r AtomicU64> {
        let is_free = |slot: &&AtomicU64| slot.load(Ordering::Relaxed) == 0;
        let words = self.words;
        Some(self.home(tag))
            .filter(is_free)
            .or_else(|| (1..=LAST).rev().map(|index| words.at(index)).find(is_free))
    }

    /// What all slots hold.
    #[inline(always)]
    pub(crate) fn load(&self) -> [u64; BUCKET_SLOTS] {
        let mut words = [0; BUCKET_SLOTS];
        for (word, slot) in words.iter_mut().zip(self.slots()) {
            *word = slot.load(Ordering::Relaxed);
        }
        words
    }

    /// Makes a bucket that no reader looks at yet hold these words, which fit, and a link or 0.
    #[inline(always)]
    pub(crate) fn fill_unread(&self, words: &[u64], link: u64) {
        // The page may have been read as something else until a moment ago.
        fence(Ordering::Release);
        for (slot, word) in self.slots().zip(arranged(words, link)) {
            slot.store(word, Ordering::Relaxed);
        }
        self.raise_version();
    }

    /// The slot that may hold a link.
    pub(crate) fn last_slot(&self) -> &'r AtomicU64 {
        self.words.at(LAST)
    }

    /// The bucket this one overflows into.
    #[inline(always)]
    pub(crate) fn next(&self, region: &'r Inner) -> Result<Option<Self>, Damaged> {
        Self::linked(region, self.last_slot().load(Ordering::Relaxed))
    }

    /// The bucket that the word of a last slot links to.
    pub(crate) fn linked(region: &'r Inner, word: u64) -> Result<Option<Self>, Damaged> {
        if word & slot::LINK == 0 {
            return Ok(None);
        }
        // Pairs with the Release store of the link: who follows it sees what is in the new bucket.
        fence(Ordering::Acquire);
        Self::at(region, word & slot::OFFSET_MASK).map(Some)
    }

    /// This bucket and those it overflows into.
    pub(crate) fn chain(
        self,
        region: &'r Inner,
    ) -> impl Iterator<Item = Result<Self, Damaged>> + use<'r> {
        let mut next = Ok(Some(self));
        let mut left = CHAIN_MAX - 1;
        std::iter::from_fn(move || {
            let bucket = match std::mem::replace(&mut next, Ok(None)) {
                Ok(Some(bucket)) => bucket,
                Ok(None) => return None,
                Err(damaged) => return Some(Err(damaged)),
            };
            next = match left.checked_sub(1) {
                Some(fewer) => {
                    left = fewer;
                    bucket.next(region)
                }
                None => Err(endless(bucket.offset)),
            };
            Some(Ok(bucket))
        })
    }

    /// Looks for a key in this chain.
    ///
    /// Each slot is looked at once: between two looks at the last one a link may turn into an
    /// entry, which neither look would find, and the version is raised only after that.
    #[inline(never)]
    pub(crate) fn find(
        self,
        region: &'r Inner,
        hash: u64,
        key: &[u8],
    ) -> Result<Option<Found<'r>>, Damaged> {
        let tag = tag_of(hash);
        let mut bucket = self;
        for _ in 0..CHAIN_MAX {
            let mut word = 0;
            for slot in bucket.slots() {
                word = slot.load(Ordering::Relaxed);
                if word >> slot::TAG_SHIFT == tag && names_entry(word) {
                    if let Some(entry) = entry_of(region, word, hash, key)? {
                        return Ok(Some(Found { slot, word, entry }));
                    }
                }
            }
            match Self::linked(region, word)? {
                Some(next) => bucket = next,
                None => return Ok(None),
            }
        }
        Err(endless(self.offset))
    }
}

/// The entry that a slot names, if it is the key's.
#[inline(always)]
fn entry_of<'r>(
    region: &'r Inner,
    word: u64,
    hash: u64,
    key: &[u8],
) -> Result<Option<EntryRef<'r>>, Damaged> {
    // Pairs with the Release store that committed the slot: who sees it sees the whole entry.
    fence(Ordering::Acquire);
    let offset = word & slot::OFFSET_MASK;
    region.memory.prefetch(offset + BUCKET_LEN);
    let Some(room) = EntryRef::room(region, offset) else {
        return Err(Damaged {
            what: "a slot that names no block",
            offset,
        });
    };
    if room.at(entry::HASH).load(Ordering::Relaxed) != hash {
        return Ok(None);
    }
    let Some(entry) = EntryRef::parse(region, offset, room) else {
        return Err(Damaged {
            what: "an entry with impossible lengths",
            offset,
        });
    };
    Ok(entry.key_is(key).then_some(entry))
}

/// The word that names an index page of a shard: page index + 1, or 0. The first few stand beside
/// the root, so that a lookup in a shard of ordinary size finds both in one cache line.
#[inline(always)]
pub(crate) fn directory_word(region: &Inner, shard: u64, chunk: u64) -> &AtomicU64 {
    let geometry = &region.geometry;
    region.memory.word(if chunk < shard::CHUNKS_HERE {
        geometry.shard_offset(shard) + (shard::CHUNKS + chunk) * WORD
    } else {
        let place = shard * geometry.directory_words + chunk - shard::CHUNKS_HERE;
        geometry.directory_offset + place * WORD
    })
}

/// Number of the slot that is the home of a tag.
#[inline(always)]
fn home_of(tag: u64) -> u64 {
    (tag * HOMES) >> TAG_BITS
}

/// What the slots of a bucket hold that is made of these words, which fit, and a link or 0. Whether a
/// home is taken decides no branch, as none could be foretold.
fn arranged(words: &[u64], link: u64) -> [u64; BUCKET_SLOTS] {
    let mut slots = [0; BUCKET_SLOTS];
    slots[BUCKET_SLOTS - 1] = link;
    let mut displaced = [0; BUCKET_SLOTS];
    let mut count = 0;
    for &word in words {
        // Less than `HOMES`.
        #[allow(clippy::cast_possible_truncation)]
        let home = &mut slots[home_of(word >> slot::TAG_SHIFT) as usize];
        let is_taken = *home != 0;
        displaced[count] = word;
        count += usize::from(is_taken);
        *home = if is_taken { *home } else { word };
    }
    let mut free = slots.iter_mut().rev().filter(|slot| **slot == 0);
    for &word in &displaced[..count] {
        if let Some(slot) = free.next() {
            *slot = word;
        }
    }
    slots
}

/// Whether a slot names an entry.
#[inline(always)]
pub(crate) fn names_entry(word: u64) -> bool {
    word != 0 && word & slot::LINK == 0
}

/// The slot word for an entry.
#[inline(always)]
pub(crate) fn slot_word(hash: u64, offset: u64) -> u64 {
    tag_of(hash) << slot::TAG_SHIFT | offset
}

pub(crate) fn endless(link: u64) -> Damaged {
    Damaged {
        what: "a chain of buckets without end",
        offset: link & slot::OFFSET_MASK,
    }
}

//! Eviction by SIEVE (Zhang, Yang, Yue, Vigfusson, Rashmi: NSDI 2024): a queue in order of
//! insertion and a hand that moves from the oldest entry to the newest. An entry that was read
//! since the hand last passed keeps its place and loses its mark; the first one without a mark
//! goes. Reads set the mark in the slot word; nothing else moves.
//!
//! The queue is a list through the entries that only lock holders touch. Repair makes it anew, in
//! the order of revisions.

use crate::build::NewEntry;
use crate::entry::EntryRef;
use crate::error::{lacks_room, Damaged, WriteError};
use crate::feed::Change;
use crate::index::{names_entry, Bucket, Found};
use crate::layout::{entry, shard, slot, CLASSES, PAGE_LEN};
use crate::limits::EVICT_STEPS;
use crate::pool::{Kind, PageState};
use crate::shard::Locked;
use crate::sync::Ordering;

impl<'r> Locked<'r> {
    /// Builds an entry in a shard that has no room, by evicting until it fits. Expired entries go
    /// first, as far as a short look finds any.
    #[cold]
    pub(crate) fn build_entry_evicting(
        &self,
        new: &NewEntry<'_>,
    ) -> Result<EntryRef<'r>, WriteError> {
        let mut result = Err(WriteError::Full);
        while self.sweep_for_room()? {
            result = self.build_entry(new);
            if !lacks_room(&result) {
                return result;
            }
        }
        for _ in 0..EVICT_STEPS {
            if !self.evict_one()? {
                return result;
            }
            result = self.build_entry(new);
            if !lacks_room(&result) {
                return result;
            }
        }
        // The victims' blocks were of other classes: a whole page serves any class.
        while self.evict_page()? {
            result = self.build_entry(new);
            if !lacks_room(&result) {
                break;
            }
        }
        result
    }

    /// Offset of the entry that the hand points at; 0 if the shard is empty.
    fn hand(&self) -> u64 {
        match self.get(shard::SIEVE_HAND) {
            0 => self.get(shard::SIEVE_OLDEST),
            hand => hand,
        }
    }

    /// Evicts the entry that the hand chooses; `false` if the shard is empty.
    fn evict_one(&self) -> Result<bool, Damaged> {
        // Each step either evicts or clears a mark, so two rounds over the queue are enough.
        for _ in 0..self.get(shard::ENTRIES).saturating_mul(2).saturating_add(2) {
            let hand = self.hand();
            if hand == 0 {
                return Ok(false);
            }
            let entry = EntryRef::at(self.region, hand)?;
            self.set(shard::SIEVE_HAND, load(&entry, entry::SIEVE_NEWER));
            let (bucket, found) = self.find_entry(&entry)?;
            if found.word & slot::VISITED == 0 {
                self.evict(bucket, &found)?;
                return Ok(true);
            }
            found
                .slot
                .store(found.word & !slot::VISITED, Ordering::Relaxed);
        }
        Ok(false)
    }

    /// Empties one of this shard's pages, so that it can serve another class or shard; `false`
    /// without one.
    pub(crate) fn evict_page(&self) -> Result<bool, WriteError> {
        let hand = self.hand();
        if hand == 0 {
            return Ok(false);
        }
        let entry = EntryRef::at(self.region, hand)?;
        let damaged = Damaged {
            what: "an evictable entry outside the pages",
            offset: hand,
        };
        let page = self.region.geometry.page_of(hand).ok_or(damaged)?;
        let state = PageState::load(self.region, page).filter(|state| state.kind == Kind::Blocks);
        let class = state.ok_or(damaged)?.class;
        let (bucket, found) = self.find_entry(&entry)?;
        self.evict(bucket, &found)?;
        let start = self.region.geometry.page_offset(page);
        let is_ours = |page| {
            PageState::load(self.region, page)
                .is_some_and(|now| now.kind == Kind::Blocks && now.shard == self.index)
        };
        for block in 0..PAGE_LEN / u64::from(CLASSES[class]) {
            if !is_ours(page) {
                break;
            }
            // A block that is free, or holds an overflow bucket, is found under no key.
            let offset = start + block * u64::from(CLASSES[class]);
            if let Ok(entry) = EntryRef::at(self.region, offset) {
                if let Ok((bucket, found)) = self.find_entry(&entry) {
                    self.evict(bucket, &found)?;
                }
            }
        }
        Ok(true)
    }

    fn evict(&self, bucket: Bucket<'r>, found: &Found<'r>) -> Result<(), Damaged> {
        self.next_revision();
        self.remove(bucket, found, Change::Evict)?;
        self.add(shard::EVICTED, 1);
        Ok(())
    }

    /// The slot that names an entry.
    fn find_entry(&self, entry: &EntryRef<'r>) -> Result<(Bucket<'r>, Found<'r>), Damaged> {
        let first = Bucket::of_hash(self.region, self.index, self.root(), entry.hash())?;
        for bucket in first.chain(self.region) {
            for slot in bucket?.slots() {
                let word = slot.load(Ordering::Relaxed);
                if names_entry(word) && word & slot::OFFSET_MASK == entry.offset {
                    return Ok((
                        first,
                        Found {
                            slot,
                            word,
                            entry: *entry,
                        },
                    ));
                }
            }
        }
        Err(Damaged {
            what: "a queued entry that no slot names",
            offset: entry.offset,
        })
    }

    /// Puts an entry into the queue: in the place of the one it replaces, else at the new end.
    pub(crate) fn sieve_attach(&self, entry: &EntryRef<'r>, old: Option<&EntryRef<'r>>) {
        let (newer, older) = match old {
            Some(old) => (old.offset, load(old, entry::SIEVE_OLDER)),
            None => (0, self.get(shard::SIEVE_NEWEST)),
        };
        store(entry, entry::SIEVE_NEWER, newer);
        store(entry, entry::SIEVE_OLDER, older);
        self.sieve_join(older, newer, entry.offset, entry.offset);
    }

    pub(crate) fn sieve_detach(&self, entry: &EntryRef<'r>) {
        let newer = load(entry, entry::SIEVE_NEWER);
        let older = load(entry, entry::SIEVE_OLDER);
        if self.get(shard::SIEVE_HAND) == entry.offset {
            self.set(shard::SIEVE_HAND, newer);
        }
        self.sieve_join(older, newer, newer, older);
    }

    /// Lets `older` point up to `to_newer`, and `newer` down to `to_older`; the ends of the queue
    /// where there is none.
    fn sieve_join(&self, older: u64, newer: u64, to_newer: u64, to_older: u64) {
        match EntryRef::at(self.region, older) {
            Ok(older) if older.offset != 0 => store(&older, entry::SIEVE_NEWER, to_newer),
            _ => self.set(shard::SIEVE_OLDEST, to_newer),
        }
        match EntryRef::at(self.region, newer) {
            Ok(newer) if newer.offset != 0 => store(&newer, entry::SIEVE_OLDER, to_older),
            _ => self.set(shard::SIEVE_NEWEST, to_older),
        }
    }

    /// Makes the queue anew from entries in order of their revision, oldest first.
    pub(crate) fn sieve_rebuild(&self, offsets: impl Iterator<Item = u64>) {
        self.set(shard::SIEVE_HAND, 0);
        self.set(shard::SIEVE_NEWEST, 0);
        self.set(shard::SIEVE_OLDEST, 0);
        for offset in offsets {
            if let Ok(entry) = EntryRef::at(self.region, offset) {
                self.sieve_attach(&entry, None);
            }
        }
    }
}

fn load(entry: &EntryRef<'_>, word: u64) -> u64 {
    entry.words.at(word).load(Ordering::Relaxed)
}

fn store(entry: &EntryRef<'_>, word: u64, offset: u64) {
    entry.words.at(word).store(offset, Ordering::Relaxed);
}

//! The audit of a whole region: every invariant of `docs/region.md`, checked shard by shard under
//! its lock.

use crate::alloc::{block_class, block_starts, free_blocks, listed_pages, Usage};
use crate::entry::EntryRef;
use crate::error::WriteError;
use crate::index::{directory_word, names_entry, Bucket};
use crate::layout::{
    bucket_of, class_of, entry, shard, slot, tag_of, Geometry, BUCKET_CLASS, CLASSES,
    INLINE_BUCKETS, PAGE_LEN, WORD,
};
use crate::pool::{Kind, PageState};
use crate::region::Region;
use crate::shard::Locked;
use crate::sync::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// What an audit found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Audit {
    /// Entries reached through the index.
    pub entries: u64,
    /// Their key and value bytes.
    pub bytes: u64,
    /// Pages in use.
    pub pages_used: u64,
    /// Pages that have memory but no owner.
    pub pages_free: u64,
    /// One sentence per broken invariant, the first 100.
    pub problems: Vec<String>,
}

const PROBLEMS_MAX: usize = 100;

impl Audit {
    /// Whether every invariant holds.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    fn expect(&mut self, holds: bool, problem: impl FnOnce() -> String) {
        if !holds && self.problems.len() < PROBLEMS_MAX {
            self.problems.push(problem());
        }
    }
}

impl Region {
    /// Checks every invariant of the region. Each shard is locked (and repaired, if its last writer
    /// died) while it is checked, so writers wait for milliseconds per million keys; readers don't.
    pub fn check(&self) -> Result<Audit, WriteError> {
        self.check_with(|_, _| {})
    }

    /// As [`Region::check`]; `progress` is called between shards, when none is locked, with the
    /// entries that were looked at and about how many there are.
    pub fn check_with(&self, mut progress: impl FnMut(u64, u64)) -> Result<Audit, WriteError> {
        let inner = &*self.inner;
        let mut audit = Audit::default();
        for index in 0..inner.geometry.shard_count {
            Shard::new(Locked::lock(inner, index)?).check(&mut audit);
            progress(audit.entries, self.len().max(audit.entries));
        }
        for page in 0..inner.geometry.page_count {
            let state = PageState::load(inner, page);
            audit.expect(state.is_some(), || {
                format!("page {page} has an impossible state")
            });
            match state.map(|state| state.kind) {
                Some(Kind::Free) => audit.pages_free += 1,
                Some(Kind::Absent) | None => {}
                Some(_) => audit.pages_used += 1,
            }
            let shard = state.map_or(0, |state| state.shard);
            audit.expect(shard < inner.geometry.shard_count, || {
                format!("page {page} belongs to shard {shard}, which is none")
            });
        }
        Ok(audit)
    }
}

/// A shard under audit, with what was met so far.
struct Shard<'r> {
    locked: Locked<'r>,
    /// Offsets of used blocks, by page.
    used: BTreeMap<u64, BTreeSet<u64>>,
    /// Pages of large values, lists and buckets.
    pages: HashMap<u64, Kind>,
    entries: Vec<EntryRef<'r>>,
}

impl<'r> Shard<'r> {
    fn new(locked: Locked<'r>) -> Self {
        Self {
            locked,
            used: BTreeMap::new(),
            pages: HashMap::new(),
            entries: Vec::new(),
        }
    }

    fn check(mut self, audit: &mut Audit) {
        self.check_directory(audit);
        for number in 0..self
            .locked
            .root()
            .buckets()
            .min(self.locked.region.geometry.buckets_max())
        {
            self.check_bucket(number, audit);
        }
        self.check_counts(audit);
        self.check_spare(audit);
        self.check_pages(audit);
        self.check_lists(audit);
        audit.entries += self.entries.len() as u64;
        audit.bytes += self
            .entries
            .iter()
            .map(|entry| entry.meta.key_len() + entry.meta.value_len())
            .sum::<u64>();
    }

    fn name(&self) -> String {
        format!("shard {}", self.locked.index)
    }

    fn check_directory(&mut self, audit: &mut Audit) {
        let region = self.locked.region;
        let buckets = self.locked.root().buckets();
        audit.expect(
            (INLINE_BUCKETS..=region.geometry.buckets_max()).contains(&buckets),
            || format!("{} says it has {buckets} buckets", self.name()),
        );
        let chunks = Geometry::chunks_for(buckets);
        for chunk in 0..region.geometry.chunks_max() {
            let page = directory_word(region, self.locked.index, chunk)
                .load(Ordering::Relaxed)
                .checked_sub(1);
            audit.expect(page.is_some() == (chunk < chunks), || {
                format!(
                    "{} has {buckets} buckets, but directory word {chunk} is {page:?}",
                    self.name()
                )
            });
            if let Some(page) = page {
                self.take_page(page, Kind::Index, audit);
            }
        }
    }

    /// Notes a page that something names; it must be this shard's, of that kind, and named once.
    fn take_page(&mut self, page: u64, kind: Kind, audit: &mut Audit) {
        let region = self.locked.region;
        let state = (page < region.geometry.page_count)
            .then(|| PageState::load(region, page))
            .flatten();
        let fits =
            state.is_some_and(|state| state.kind == kind && state.shard == self.locked.index);
        audit.expect(fits, || {
            format!(
                "{} uses page {page} as {kind:?}, but it is {state:?}",
                self.name()
            )
        });
        let first = self.pages.insert(page, kind).is_none();
        audit.expect(first, || format!("{} names page {page} twice", self.name()));
    }

    /// Notes a block that something names; it must be this shard's and named once.
    fn take_block(&mut self, offset: u64, audit: &mut Audit) -> Option<usize> {
        let class = block_class(self.locked.region, offset, self.locked.index);
        audit.expect(class.is_some(), || {
            format!(
                "{} names a block at {offset} that is not one of its own",
                self.name()
            )
        });
        let page = self.locked.region.geometry.page_of(offset)?;
        let first = self.used.entry(page).or_default().insert(offset);
        audit.expect(first, || {
            format!("{} names the block at {offset} twice", self.name())
        });
        class.filter(|_| first)
    }

    fn check_bucket(&mut self, number: u64, audit: &mut Audit) {
        let region = self.locked.region;
        let Ok(first) = Bucket::of_shard(region, self.locked.index, number) else {
            audit.expect(false, || format!("{} has no bucket {number}", self.name()));
            return;
        };
        let mut keys = HashSet::new();
        for bucket in first.chain(region) {
            let Ok(bucket) = bucket else {
                audit.expect(false, || {
                    format!("{}: the chain of bucket {number} is broken", self.name())
                });
                return;
            };
            if bucket.offset != first.offset {
                let class = self.take_block(bucket.offset, audit);
                audit.expect(class == Some(BUCKET_CLASS), || {
                    format!(
                        "{}: the overflow bucket at {} is in class {class:?}",
                        self.name(),
                        bucket.offset
                    )
                });
                let empty = bucket.slots().all(|slot| slot.load(Ordering::Relaxed) == 0);
                audit.expect(!empty, || {
                    format!("{}: bucket {number} keeps an empty overflow", self.name())
                });
            }
            for word in bucket.slots().map(|slot| slot.load(Ordering::Relaxed)) {
                if names_entry(word) {
                    self.check_entry(number, word, &mut keys, audit);
                }
            }
        }
    }

    fn check_entry(
        &mut self,
        number: u64,
        word: u64,
        keys: &mut HashSet<Vec<u8>>,
        audit: &mut Audit,
    ) {
        let region = self.locked.region;
        let offset = word & slot::OFFSET_MASK;
        let class = self.take_block(offset, audit);
        let entry = match EntryRef::at(region, offset) {
            Ok(entry) => entry,
            Err(damaged) => return audit.expect(false, || format!("{}: {damaged}", self.name())),
        };
        let key = entry.key();
        let hash = region.hash(&key);
        audit.expect(entry.hash() == hash, || {
            format!("the entry at {offset} has another key's hash")
        });
        let buckets = self.locked.root().buckets();
        let here = region.geometry.shard_of(hash) == self.locked.index
            && bucket_of(hash, buckets) == number
            && tag_of(hash) == word >> slot::TAG_SHIFT;
        audit.expect(here, || {
            format!("the entry at {offset} is in a bucket it does not belong to")
        });
        let fits = class.is_some() && class == class_of(entry.words.len() * WORD);
        audit.expect(fits, || {
            format!("the entry at {offset} is in a block of the wrong class")
        });
        audit.expect(keys.insert(key), || {
            format!("the key of the entry at {offset} is there twice")
        });
        let revision = entry.revision();
        let in_order = revision & 1 == 0 && revision <= self.locked.get(shard::REVISION);
        audit.expect(in_order, || {
            format!("the entry at {offset} has revision {revision:#x}")
        });
        let mut pages = Vec::new();
        let listed = entry.for_each_page(|page| {
            pages.push((page, Kind::Value));
            Ok(())
        });
        audit.expect(listed.is_ok(), || {
            format!("the entry at {offset} lists a page that is none")
        });
        pages.extend(entry.list_pages().flatten().map(|page| (page, Kind::List)));
        for (page, kind) in pages {
            self.take_page(page, kind, audit);
        }
        self.entries.push(entry);
    }

    fn check_counts(&self, audit: &mut Audit) {
        let with_ttl = || self.entries.iter().filter(|entry| entry.expires_at() != 0);
        let counts = [
            ("entries", shard::ENTRIES, self.entries.len() as u64),
            (
                "bytes",
                shard::BYTES,
                self.entries
                    .iter()
                    .map(|entry| entry.meta.key_len() + entry.meta.value_len())
                    .sum(),
            ),
            (
                "entries with an expiry",
                shard::TTL_ENTRIES,
                with_ttl().count() as u64,
            ),
        ];
        for (what, word, counted) in counts {
            let told = self.locked.get(word);
            audit.expect(told == counted, || {
                format!("{} counts {told} {what}, there are {counted}", self.name())
            });
        }
        let first = with_ttl()
            .map(EntryRef::expires_at)
            .min()
            .unwrap_or(u64::MAX);
        audit.expect(
            first == u64::MAX || self.locked.get(shard::NEXT_EXPIRY) <= first,
            || format!("{} would miss the expiry at {first}", self.name()),
        );
        let revision = self.locked.get(shard::REVISION);
        audit.expect(revision & 1 == 0, || {
            format!("{} has the odd revision {revision}", self.name())
        });
    }

    fn check_spare(&mut self, audit: &mut Audit) {
        let spare = self.locked.get(shard::SPARE);
        if spare == 0 {
            return;
        }
        let class = self.take_block(spare & slot::OFFSET_MASK, audit);
        audit.expect(
            class.map(|class| class as u64) == Some(spare >> slot::TAG_SHIFT),
            || format!("{} keeps a block of another class", self.name()),
        );
    }

    fn check_pages(&self, audit: &mut Audit) {
        let region = self.locked.region;
        for page in 0..region.geometry.page_count {
            let Some(state) = PageState::load(region, page) else {
                continue;
            };
            if matches!(state.kind, Kind::Absent | Kind::Free) || state.shard != self.locked.index {
                continue;
            }
            if state.kind == Kind::Blocks {
                self.check_blocks(page, state.class, audit);
            } else {
                audit.expect(self.pages.get(&page) == Some(&state.kind), || {
                    format!(
                        "{} owns page {page} as {:?}, but nothing names it",
                        self.name(),
                        state.kind
                    )
                });
            }
        }
    }

    fn check_blocks(&self, page: u64, class: usize, audit: &mut Audit) {
        let region = self.locked.region;
        let used = self.used.get(&page).map_or(0, BTreeSet::len) as u64;
        let usage = Usage::load(region, page);
        audit.expect(usage.live == used && used > 0, || {
            format!(
                "page {page} counts {} used blocks, there are {used}",
                usage.live
            )
        });
        let mut free = HashSet::new();
        for offset in free_blocks(region, page) {
            let is_used = self
                .used
                .get(&page)
                .is_some_and(|used| used.contains(&offset));
            let starts = (offset % PAGE_LEN).is_multiple_of(u64::from(CLASSES[class]));
            audit.expect(!is_used && starts && free.insert(offset), || {
                format!("page {page} lists {offset} as free, which it is not")
            });
        }
        let handed_out = block_starts(class)
            .filter(|start| start / 16 < usage.fresh)
            .count() as u64;
        audit.expect(handed_out == used + free.len() as u64, || {
            format!(
                "page {page} handed out {handed_out} blocks, of which {used} are used and {} free",
                free.len()
            )
        });
    }

    fn check_lists(&self, audit: &mut Audit) {
        let region = self.locked.region;
        let mut listed = HashSet::new();
        for class in 0..CLASSES.len() {
            for page in listed_pages(region, self.locked.words, class) {
                let fits = PageState::load(region, page).is_some_and(|state| {
                    state
                        == PageState {
                            kind: Kind::Blocks,
                            class,
                            shard: self.locked.index,
                        }
                });
                audit.expect(fits && listed.insert(page), || {
                    format!(
                        "{} lists page {page} for class {class}, where it does not belong",
                        self.name()
                    )
                });
            }
        }
        for &page in self.used.keys() {
            let class = PageState::load(region, page).map_or(0, |state| state.class);
            let room = Usage::load(region, page).has_room(class);
            audit.expect(room == listed.contains(&page), || {
                format!("page {page} has room: {room}, but is listed: {}", !room)
            });
        }
        let ephemeral: HashSet<u64> = self
            .entries
            .iter()
            .filter(|entry| entry.meta.has(entry::EPHEMERAL))
            .map(|entry| entry.offset)
            .collect();
        let listed: HashSet<u64> = crate::ephemeral::listed(region, self.locked.index).collect();
        audit.expect(listed == ephemeral, || {
            format!(
                "{} lists {} ephemeral entries, there are {}",
                self.name(),
                listed.len(),
                ephemeral.len()
            )
        });
        if region.geometry.evicts() {
            self.check_queue(audit);
        }
    }

    fn check_queue(&self, audit: &mut Audit) {
        let offsets: HashSet<u64> = self.entries.iter().map(|entry| entry.offset).collect();
        let mut met = HashSet::new();
        let mut newer = 0;
        let mut offset = self.locked.get(shard::SIEVE_NEWEST);
        while offset != 0 {
            let fits = offsets.contains(&offset) && met.insert(offset);
            audit.expect(fits, || {
                format!(
                    "{} queues {offset}, which is no entry or queued twice",
                    self.name()
                )
            });
            let Ok(entry) = EntryRef::at(self.locked.region, offset) else {
                return;
            };
            if !fits {
                return;
            }
            let back = entry.words.at(entry::SIEVE_NEWER).load(Ordering::Relaxed);
            audit.expect(back == newer, || {
                format!("the queue at {offset} does not lead back")
            });
            newer = offset;
            offset = entry.words.at(entry::SIEVE_OLDER).load(Ordering::Relaxed);
        }
        audit.expect(
            met.len() == offsets.len() && self.locked.get(shard::SIEVE_OLDEST) == newer,
            || {
                format!(
                    "{} queues {} of {} entries",
                    self.name(),
                    met.len(),
                    offsets.len()
                )
            },
        );
        let hand = self.locked.get(shard::SIEVE_HAND);
        audit.expect(hand == 0 || offsets.contains(&hand), || {
            format!("{}: the hand is off", self.name())
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Meta;
    use crate::{Config, Options};

    #[test]
    fn a_block_of_a_larger_class_than_its_entry_needs_is_found() {
        let region = Region::create(&Config::new(4 << 20).shards(1), Options::new()).unwrap();
        region.set(b"key", &[7; 100]).unwrap();
        assert!(region.check().unwrap().is_clean());
        let locked = Locked::lock(&region.inner, 0).unwrap();
        let (_, found) = locked.find_live(region.inner.hash(b"key"), b"key").unwrap();
        let meta = found.unwrap().entry.words.at(entry::META);
        meta.store(Meta::new(3, 1, 0).0, Ordering::Relaxed);
        drop(locked);
        let problems = region.check().unwrap().problems;
        let is_told = |problem: &String| problem.contains("in a block of the wrong class");
        assert!(problems.iter().any(is_told), "{problems:?}");
    }
}

//! How full a region is and what happened in it.

use crate::layout::{shard, PAGE_LEN};
use crate::pool::{Kind, PageState};
use crate::region::Region;
use crate::session;
use crate::shard::{shard_words, Root};
use crate::sync::Ordering;

/// Numbers of a region, each exact by itself; writers go on while they are read.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
#[non_exhaustive]
pub struct Stats {
    /// Entries, expired ones that were not swept yet included.
    pub entries: u64,
    /// Key and value bytes.
    pub bytes: u64,
    /// Bytes the region was declared with.
    pub declared_bytes: u64,
    /// Bytes of memory it has: bookkeeping and pages, used or free.
    pub committed_bytes: u64,
    /// Pages of 64 KiB there can be.
    pub pages: u64,
    /// Pages with entries or buckets.
    pub pages_used: u64,
    /// Pages that have memory and no use.
    pub pages_free: u64,
    /// Independently locked parts.
    pub shards: u64,
    /// Buckets of all shards.
    pub buckets: u64,
    /// Writes since the region was made.
    pub writes: u64,
    /// Entries removed because they expired.
    pub expired: u64,
    /// Entries evicted.
    pub evicted: u64,
    /// Repairs after the death of a lock holder.
    pub repairs: u64,
    /// Slots that repairs dropped because they were damaged.
    pub damaged: u64,
    /// Sessions that can be taken, and that are.
    pub sessions: u64,
    /// Sessions that are taken, dead ones that were not reaped yet included.
    pub sessions_attached: u64,
}

impl Region {
    /// Entries, expired ones that were not swept yet included.
    pub fn len(&self) -> u64 {
        self.sum(shard::ENTRIES)
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All the numbers.
    pub fn stats(&self) -> Stats {
        let inner = &*self.inner;
        let geometry = &inner.geometry;
        let buckets = (0..geometry.shard_count)
            .map(|index| Root::load(shard_words(inner, index)).buckets())
            .sum();
        let mut stats = Stats {
            entries: self.len(),
            bytes: self.sum(shard::BYTES),
            declared_bytes: geometry.region_len,
            pages: geometry.page_count,
            shards: geometry.shard_count,
            buckets,
            writes: self.sum(shard::REVISION) / 2,
            expired: self.sum(shard::EXPIRED),
            evicted: self.sum(shard::EVICTED),
            repairs: self.sum(shard::REPAIRS),
            damaged: self.sum(shard::DAMAGED),
            sessions: geometry.session_count,
            sessions_attached: session::attached(inner).count() as u64,
            ..Stats::default()
        };
        for page in 0..geometry.page_count {
            match PageState::load(inner, page).map(|state| state.kind) {
                None | Some(Kind::Absent | Kind::Committing | Kind::Releasing) => {}
                Some(Kind::Free) => stats.pages_free += 1,
                Some(_) => stats.pages_used += 1,
            }
        }
        let feed = if crate::feed::is_on(inner) {
            geometry.pages_offset - geometry.feed_offset
        } else {
            0
        };
        stats.committed_bytes =
            geometry.fixed_len() + feed + (stats.pages_used + stats.pages_free) * PAGE_LEN;
        stats
    }

    fn sum(&self, word: u64) -> u64 {
        let inner = &*self.inner;
        (0..inner.geometry.shard_count)
            .map(|index| shard_words(inner, index).at(word).load(Ordering::Relaxed))
            .fold(0, u64::wrapping_add)
    }
}

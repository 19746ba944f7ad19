//! The byte layout: where everything lives and what each word means. `docs/region.md` says the same
//! in prose.
//!
//! All offsets are bytes from the start of the region, all words little-endian `u64`, all areas
//! aligned to a cache line. Nothing in here reads or writes the region; see [`Geometry`].

/// First word of a finished region. It is the last word written at creation.
pub const MAGIC: u64 = u64::from_le_bytes(*b"GANGERRG");
/// Version of this layout. Another version is refused at attach.
pub const LAYOUT_VERSION: u32 = 3;
/// Feature bit: the region evicts (SIEVE) when it is full, and its entries carry two more words.
pub const FEATURE_EVICT: u32 = 1;
/// All feature bits this build knows.
pub const FEATURES_KNOWN: u32 = FEATURE_EVICT;

/// Bytes of a word.
pub const WORD: u64 = 8;
/// Bytes of a page, the unit of growth and of changing a size class.
pub const PAGE_LEN: u64 = 64 * 1024;
/// Words of a page.
pub const PAGE_WORDS: u64 = PAGE_LEN / WORD;
/// Bytes of a bucket, one cache line.
pub const BUCKET_LEN: u64 = 64;
/// The same in words: the version and the slots.
pub const BUCKET_WORDS: u64 = BUCKET_LEN / WORD;
/// Slots of a bucket; its first word is the version.
#[cfg(not(loom))]
pub const BUCKET_SLOTS: usize = 7;
/// Few, so that a model with a handful of keys has overflow buckets.
#[cfg(loom)]
pub const BUCKET_SLOTS: usize = 2;
/// Buckets of an index page.
pub const PAGE_BUCKETS: u64 = PAGE_LEN / BUCKET_LEN;
/// Buckets every shard has from the start, outside the pages.
#[cfg(not(loom))]
pub const INLINE_BUCKETS: u64 = 16;
/// Few, so that a model with a handful of keys splits and merges buckets.
#[cfg(loom)]
pub const INLINE_BUCKETS: u64 = 1;

/// Longest key in bytes; the shortest is 1.
pub const KEY_LEN_MAX: usize = 1024;
/// Longest value in bytes that any region takes; a region's own limit is a quarter of its pages.
pub const VALUE_LEN_MAX: u64 = (1 << 40) - 1;
/// Smallest and largest number of shards.
pub const SHARDS_MAX: u64 = 256;
/// Most sessions a region can be made for. The lock word has 16 bits for them.
pub const SESSIONS_MAX: u64 = 16 * 1024;
/// Largest region in bytes.
pub const REGION_LEN_MAX: u64 = 1 << 44;
/// Fewest pages a region is made with.
pub const PAGES_MIN: u64 = 8;

/// Word indices of the header.
pub mod header {
    pub const MAGIC: u64 = 0;
    /// Layout version in the low, feature bits in the high 32 bits.
    pub const VERSION: u64 = 1;
    pub const REGION_LEN: u64 = 2;
    pub const REGION_ID: u64 = 3;
    pub const SHARD_COUNT: u64 = 4;
    pub const SESSION_COUNT: u64 = 5;
    pub const PAGE_COUNT: u64 = 6;
    pub const DIRECTORY_WORDS: u64 = 7;
    pub const SESSIONS_OFFSET: u64 = 8;
    pub const SHARDS_OFFSET: u64 = 9;
    pub const BUCKETS_OFFSET: u64 = 10;
    pub const DIRECTORY_OFFSET: u64 = 11;
    pub const PAGE_STATES_OFFSET: u64 = 12;
    pub const PAGE_DESCRIPTORS_OFFSET: u64 = 13;
    pub const FEED_OFFSET: u64 = 14;
    pub const FEED_WORDS: u64 = 15;
    pub const PAGES_OFFSET: u64 = 16;
    pub const EVENTS_OFFSET: u64 = 17;
    /// Proof of all that a region is read by; see [`check`].
    pub const CHECK: u64 = 18;
    /// Seed of the key hash, followed by its seven secrets.
    pub const HASH_SEED: u64 = 24;
    /// Bit 0: the change feed is on. Bit 1: wake its waiters on every write, even unannounced ones.
    pub const FEED_FLAGS: u64 = 32;
    /// Not zero: somebody waits for a change.
    pub const FEED_WAITING: u64 = 40;
    /// Futex word of those waiters; grows by one per wake.
    pub const FEED_EVENT: u64 = 41;
    /// Where the next search for a page begins.
    pub const POOL_CURSOR: u64 = 48;
    /// Pages known to be free: page index + 1, or 0.
    pub const POOL_CACHE: u64 = 64;
    pub const POOL_CACHE_WORDS: u64 = 64;
    /// Bytes of the header.
    pub const LEN: u64 = 4096;

    /// What [`CHECK`] must be: words 1 to 17 and 24 to 31, folded in this order.
    pub fn check(word: impl Fn(u64) -> u64) -> u64 {
        (VERSION..=EVENTS_OFFSET)
            .chain(HASH_SEED..HASH_SEED + 8)
            .fold(0, |check: u64, index| check.rotate_left(5) ^ word(index))
    }
}

/// Word indices of a session, one cache line each.
pub mod session {
    /// Grows by one with each process that takes this slot.
    pub const INCARNATION: u64 = 0;
    /// 1 from attach to detach; a process that died leaves it at 1.
    pub const ATTACHED: u64 = 1;
    /// Process id, for people; nothing is decided by it.
    pub const PID: u64 = 2;
    pub const WORDS: u64 = 8;
}

/// Word indices of a shard.
pub mod shard {
    /// Buckets in the low, epoch (grows with every split and merge) in the high 32 bits.
    pub const ROOT: u64 = 0;
    /// The first of the index pages: page index + 1, or 0. The others stand in the directory.
    pub const CHUNKS: u64 = 1;
    pub const CHUNKS_HERE: u64 = 7;
    /// 0, or the owner of the lock.
    pub const LOCK: u64 = 8;
    /// Not zero: somebody sleeps on the lock word.
    pub const WAITERS: u64 = 9;
    /// Even, grows by two with each write.
    pub const REVISION: u64 = 10;
    pub const ENTRIES: u64 = 11;
    /// Key and value bytes of all entries.
    pub const BYTES: u64 = 12;
    /// Feed words published so far.
    pub const FEED_HEAD: u64 = 13;
    /// Feed words published or being written.
    pub const FEED_RESERVED: u64 = 14;
    /// The block that was last replaced, for the next write to use again while it is in the
    /// processor's cache: size class in the high 16 bits, offset; or 0. It counts as used.
    pub const SPARE: u64 = 15;
    /// Entries that have an expiry.
    pub const TTL_ENTRIES: u64 = 16;
    /// No entry of the shard expires before this time in milliseconds.
    pub const NEXT_EXPIRY: u64 = 17;
    /// Bucket the next sweep looks at.
    pub const SWEEP_HAND: u64 = 18;
    /// Offset of the first ephemeral entry.
    pub const EPHEMERAL_HEAD: u64 = 19;
    /// Offsets of the ends of the eviction queue, and of the entry the hand points at.
    pub const SIEVE_NEWEST: u64 = 20;
    pub const SIEVE_OLDEST: u64 = 21;
    pub const SIEVE_HAND: u64 = 22;
    pub const EVICTED: u64 = 23;
    pub const REPAIRS: u64 = 24;
    pub const EXPIRED: u64 = 25;
    /// Slots that a repair dropped because they named no valid entry.
    pub const DAMAGED: u64 = 26;
    /// First page with a free block, per size class: page index + 1, or 0.
    pub const PARTIAL: u64 = 32;
    /// Seventeen cache lines: an odd number spreads the shards over all sets of a cache.
    pub const WORDS: u64 = 136;
}

/// Word indices of an entry, relative to its block.
pub mod entry {
    /// Even; odd while a counter is written in place. In a free block: the link, with bit 63 set.
    pub const REVISION: u64 = 0;
    pub const HASH: u64 = 1;
    /// Value length (40 bits), key length (16 bits), flags (8 bits).
    pub const META: u64 = 2;
    /// Milliseconds on the region's clock, or 0.
    pub const EXPIRES_AT: u64 = 3;
    /// In regions that evict: neighbours in the eviction queue.
    pub const SIEVE_NEWER: u64 = 4;
    pub const SIEVE_OLDER: u64 = 5;
    pub const HEAD_WORDS: u64 = 4;
    pub const SIEVE_WORDS: u64 = 2;
    /// Owner, next and previous of an ephemeral entry.
    pub const EPHEMERAL_WORDS: u64 = 3;

    /// The value lies in pages that the entry lists.
    pub const LARGE: u8 = 1;
    /// The entry lists pages that list the value's pages.
    pub const NESTED: u8 = 2;
    /// The value is an `i64` that is written in place.
    pub const COUNTER: u8 = 4;
    /// The entry goes when the session of its owner ends.
    pub const EPHEMERAL: u8 = 8;

    /// Most value pages an entry lists itself; beyond that it is nested.
    pub const LIST_WORDS_MAX: u64 = 1024;
    /// Bit 63 of the first word of a free block.
    pub const FREE_LINK: u64 = 1 << 63;
}

/// Slot words: tag in the high 20 bits, offset in the low 44, two flags in the offset's spare bits.
pub mod slot {
    /// The slot names an overflow bucket; only the last slot of a bucket may.
    pub const LINK: u64 = 1;
    /// The entry was read since the eviction hand passed it.
    pub const VISITED: u64 = 2;
    pub const OFFSET_MASK: u64 = ((1 << TAG_SHIFT) - 1) & !15;
    pub const TAG_SHIFT: u32 = 44;
}

/// Events: a futex word and a flag each.
pub mod events {
    pub const COUNT: u64 = 64;
    pub const LEN: u64 = 128;
}

/// Words of a shard's feed ring.
#[cfg(not(loom))]
pub const FEED_WORDS: u64 = 2048;
/// Room for two records and a skipped end, so that a model writes round the ring.
#[cfg(loom)]
pub const FEED_WORDS: u64 = 8;

/// Block lengths in bytes. A page holds as many blocks as fit.
pub const CLASSES: [u32; 36] = [
    48, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768, 896, 1024, 1280,
    1536, 1792, 2048, 2560, 3072, 3584, 4096, 5120, 6144, 7168, 8192, 9360, 10912, 13104, 16384,
    21840, 32768,
];
/// Class of overflow buckets.
pub const BUCKET_CLASS: usize = 1;
/// Largest block in bytes.
pub const BLOCK_LEN_MAX: u64 = 32768;

/// The smallest class whose blocks hold `len` bytes.
#[inline(always)]
pub fn class_of(len: u64) -> Option<usize> {
    const SMALL: [u8; 65] = {
        let mut table = [0; 65];
        let mut units = 0;
        while units < 65 {
            let mut class = 0;
            while (CLASSES[class] as usize) < units * 16 {
                class += 1;
            }
            // 36 classes fit in a byte.
            #[allow(clippy::cast_possible_truncation)]
            let class = class as u8;
            table[units] = class;
            units += 1;
        }
        table
    };
    if len > 1024 {
        return class_of_many(len);
    }
    // At most 64.
    #[allow(clippy::cast_possible_truncation)]
    let units = (len + 15) as usize / 16;
    Some(usize::from(SMALL[units]))
}

#[inline(never)]
fn class_of_many(len: u64) -> Option<usize> {
    CLASSES.iter().position(|&block| u64::from(block) >= len)
}

/// Where the areas of one region lie. A handle computes it once at attach and never reads it from
/// the region again, so later damage to the header can't lead it outside the mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    pub features: u32,
    pub region_len: u64,
    pub shard_count: u64,
    pub session_count: u64,
    pub page_count: u64,
    pub directory_words: u64,
    pub sessions_offset: u64,
    pub shards_offset: u64,
    pub buckets_offset: u64,
    pub directory_offset: u64,
    pub page_states_offset: u64,
    pub page_descriptors_offset: u64,
    pub feed_offset: u64,
    pub events_offset: u64,
    pub pages_offset: u64,
    /// Longest value in bytes.
    pub value_len_max: u64,
    /// Bytes of all pages.
    pub pages_len: u64,
    /// Words before the key of an entry that is not ephemeral.
    pub head_words: u64,
    /// Bits of the hash below those that choose the shard, less one.
    shard_shift: u32,
}

impl Geometry {
    /// Lays out a region of `region_len` bytes (a multiple of the page length), or `None` if
    /// nothing fits.
    pub fn new(
        region_len: u64,
        shard_count: Option<u64>,
        session_count: u64,
        features: u32,
    ) -> Option<Self> {
        if region_len > REGION_LEN_MAX || !region_len.is_multiple_of(PAGE_LEN) {
            return None;
        }
        let pages_at_most = region_len / PAGE_LEN;
        let shards = shard_count.unwrap_or_else(|| default_shards(pages_at_most));
        let mut geometry =
            Self::with_pages(region_len, shards, session_count, features, pages_at_most);
        let over = (geometry.pages_offset + pages_at_most * PAGE_LEN).checked_sub(region_len)?;
        let page_count = pages_at_most.checked_sub(over.div_ceil(PAGE_LEN))?;
        geometry = Self::with_pages(region_len, shards, session_count, features, page_count);
        let valid = page_count >= PAGES_MIN
            && shards.is_power_of_two()
            && shards <= SHARDS_MAX
            && (1..=SESSIONS_MAX).contains(&session_count);
        valid.then_some(geometry)
    }

    fn with_pages(
        region_len: u64,
        shard_count: u64,
        session_count: u64,
        features: u32,
        page_count: u64,
    ) -> Self {
        let chunks = page_count / shard_count / 2 + 2;
        let directory_words = chunks
            .saturating_sub(shard::CHUNKS_HERE)
            .next_multiple_of(8);
        let sessions_offset = header::LEN;
        let shards_offset = sessions_offset + session_count * session::WORDS * WORD;
        let buckets_offset = shards_offset + shard_count * shard::WORDS * WORD;
        let directory_offset = buckets_offset + shard_count * INLINE_BUCKETS * BUCKET_LEN;
        let page_states_offset = directory_offset + shard_count * directory_words * WORD;
        let page_descriptors_offset = page_states_offset + (page_count * WORD).next_multiple_of(64);
        let events_offset = page_descriptors_offset + (page_count * 2 * WORD).next_multiple_of(64);
        let feed_offset = (events_offset + events::COUNT * events::LEN).next_multiple_of(4096);
        let pages_offset =
            (feed_offset + shard_count * FEED_WORDS * WORD).next_multiple_of(PAGE_LEN);
        Self {
            features,
            region_len,
            shard_count,
            session_count,
            page_count,
            directory_words,
            sessions_offset,
            shards_offset,
            buckets_offset,
            directory_offset,
            page_states_offset,
            page_descriptors_offset,
            feed_offset,
            events_offset,
            pages_offset,
            pages_len: page_count * PAGE_LEN,
            head_words: entry::HEAD_WORDS
                + if features & FEATURE_EVICT != 0 {
                    entry::SIEVE_WORDS
                } else {
                    0
                },
            value_len_max: (page_count * PAGE_LEN / 4).min(VALUE_LEN_MAX),
            shard_shift: 63u32.saturating_sub(shard_count.trailing_zeros()),
        }
    }

    /// Whether entries carry the eviction queue's links.
    #[inline]
    pub fn evicts(&self) -> bool {
        self.features & FEATURE_EVICT != 0
    }

    /// Bytes before the pages that every region needs from the start (all but the feed rings).
    pub fn fixed_len(&self) -> u64 {
        self.feed_offset
    }

    /// The shard a hash belongs to: its topmost bits.
    #[inline]
    pub fn shard_of(&self, hash: u64) -> u64 {
        // Two shifts, because a shift by 64 (one shard) is not defined.
        (hash >> 1) >> self.shard_shift
    }

    #[inline]
    pub fn shard_offset(&self, shard: u64) -> u64 {
        self.shards_offset + shard * shard::WORDS * WORD
    }

    #[inline]
    pub fn page_offset(&self, page: u64) -> u64 {
        self.pages_offset + page * PAGE_LEN
    }

    /// Whether a byte lies in the pages.
    #[inline(always)]
    pub fn in_pages(&self, offset: u64) -> bool {
        offset.wrapping_sub(self.pages_offset) < self.pages_len
    }

    /// The page that holds a byte, or `None` outside of the pages.
    #[inline(always)]
    pub fn page_of(&self, offset: u64) -> Option<u64> {
        self.in_pages(offset)
            .then(|| (offset - self.pages_offset) / PAGE_LEN)
    }

    /// Index pages a shard with this many buckets has.
    pub fn chunks_for(buckets: u64) -> u64 {
        if buckets <= INLINE_BUCKETS {
            0
        } else {
            buckets.div_ceil(PAGE_BUCKETS)
        }
    }

    /// Most index pages a shard can have.
    #[inline(always)]
    pub fn chunks_max(&self) -> u64 {
        shard::CHUNKS_HERE + self.directory_words
    }

    /// Most buckets a shard can have.
    pub fn buckets_max(&self) -> u64 {
        (self.chunks_max() * PAGE_BUCKETS).min(u64::from(u32::MAX))
    }
}

fn default_shards(pages: u64) -> u64 {
    let wanted = (pages / 64).clamp(1, SHARDS_MAX);
    1 << wanted.ilog2()
}

/// The lowest bit of the hash that is in the tag. A shard of 256 buckets or more is split without a look
/// at the entries; the bits by which it chooses the bucket no longer tell its entries apart, but the
/// others do: eleven of them are left among a hundred million.
const TAG_FIRST: u32 = 8;
pub const TAG_BITS: u32 = u64::BITS - slot::TAG_SHIFT;
// Every offset fits beside a tag.
const _: () = assert!(REGION_LEN_MAX <= 1 << slot::TAG_SHIFT);

/// The tag of a hash: 20 bits, of those that choose the bucket once there are many.
#[inline]
pub fn tag_of(hash: u64) -> u64 {
    (hash >> TAG_FIRST) & ((1 << TAG_BITS) - 1)
}

/// Bit number `bit` of an entry's hash, if it is in the tag of the slot that names the entry.
#[inline]
pub fn hash_bit_in(slot: u64, bit: u32) -> Option<bool> {
    let place = bit.checked_sub(TAG_FIRST)?;
    (place < TAG_BITS).then(|| slot >> (slot::TAG_SHIFT + place) & 1 == 1)
}

/// The bucket of a hash in a shard of `buckets` buckets (linear hashing, Litwin 1980).
#[inline]
pub fn bucket_of(hash: u64, buckets: u64) -> u64 {
    let wide = u64::MAX >> (buckets | 1).leading_zeros() & hash;
    if wide < buckets {
        wide
    } else {
        u64::MAX >> (buckets | 1).leading_zeros() >> 1 & hash
    }
}

/// Where in its index page a bucket lies. Each shard begins elsewhere: all shards fill their pages
/// from bucket 16 on, and pages are as far apart as lines that share a cache set.
#[inline(always)]
pub fn place_in_page(shard: u64, bucket: u64) -> u64 {
    (bucket + shard * 37) % PAGE_BUCKETS
}

/// How many low bits of the hash all entries of a bucket share.
pub fn bucket_bits(bucket: u64, buckets: u64) -> u32 {
    let level = 63 - (buckets | 1).leading_zeros();
    let split = buckets - (1 << level);
    if bucket < split || bucket >= (1 << level) {
        level + 1
    } else {
        level
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_gets_the_smallest_class_that_holds_it() {
        for len in 1..=BLOCK_LEN_MAX {
            let class = class_of(len).unwrap();
            assert!(u64::from(CLASSES[class]) >= len, "{len}");
            assert!(class == 0 || u64::from(CLASSES[class - 1]) < len, "{len}");
        }
        assert_eq!(class_of(BLOCK_LEN_MAX + 1), None);
    }

    #[test]
    fn classes_are_aligned_and_waste_less_than_a_block_of_a_page() {
        for len in CLASSES.map(u64::from) {
            assert_eq!(len % 16, 0);
            assert!(PAGE_LEN % len < len);
        }
        assert_eq!(CLASSES[BUCKET_CLASS], 64);
    }

    #[test]
    fn a_slot_has_the_bits_of_the_hash_that_most_splits_ask_for() {
        for hash in [0x5eed_0bad_cafe_f00d, 0x8123_4567_89ab_cdef, u64::MAX, 0] {
            let slot = tag_of(hash) << slot::TAG_SHIFT | slot::OFFSET_MASK;
            for bit in 0..64 {
                let known = (8..28).contains(&bit).then_some(hash >> bit & 1 == 1);
                assert_eq!(hash_bit_in(slot, bit), known, "bit {bit} of {hash:x}");
            }
        }
    }

    #[test]
    fn areas_follow_each_other_and_fit() {
        for megabytes in [1_u64, 2, 3, 16, 64, 1024, 16 * 1024, 1024 * 1024] {
            let geometry = Geometry::new(megabytes << 20, None, 256, 0).unwrap();
            let offsets = [
                header::LEN,
                geometry.shards_offset,
                geometry.buckets_offset,
                geometry.directory_offset,
                geometry.page_states_offset,
                geometry.page_descriptors_offset,
                geometry.events_offset,
                geometry.feed_offset,
                geometry.pages_offset,
            ];
            assert!(offsets
                .windows(2)
                .all(|pair| pair[0] < pair[1] && pair[0] % 64 == 0));
            assert!(geometry.page_offset(geometry.page_count) <= geometry.region_len);
            assert!(
                geometry.page_count * PAGE_LEN * 10 >= geometry.region_len * 7,
                "{megabytes} MiB: {geometry:?}"
            );
        }
    }

    #[test]
    fn a_region_too_small_or_too_large_has_no_geometry() {
        assert_eq!(Geometry::new(PAGE_LEN * 4, None, 16, 0), None);
        // What is said of the smallest one: by default it has 256 sessions.
        assert_eq!(Geometry::new(512 << 10, None, 256, 0), None);
        assert!(Geometry::new(576 << 10, None, 256, 0).is_some());
        assert_eq!(Geometry::new(REGION_LEN_MAX + PAGE_LEN, None, 16, 0), None);
        assert_eq!(Geometry::new((1 << 20) + 1, None, 16, 0), None);
        assert_eq!(Geometry::new(1 << 20, Some(3), 16, 0), None);
        assert_eq!(Geometry::new(1 << 20, None, SESSIONS_MAX + 1, 0), None);
    }

    #[test]
    fn a_split_divides_one_bucket_and_leaves_the_others() {
        for buckets in 16..600_u64 {
            for hash in 0..4096_u64 {
                let before = bucket_of(hash, buckets);
                let after = bucket_of(hash, buckets + 1);
                assert!(before < buckets);
                assert!(after == before || after == buckets);
                let bits = bucket_bits(before, buckets);
                assert_eq!(hash & ((1 << bits) - 1), before & ((1 << bits) - 1));
            }
        }
    }
}

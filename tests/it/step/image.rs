//! The bytes of a region at one moment, taken from outside of all handles: exactly what a SIGKILL
//! of the only writer would leave.

use ganger_region::layout::{
    entry, header, shard, slot, Geometry, BUCKET_LEN, BUCKET_SLOTS, INLINE_BUCKETS, PAGE_BUCKETS,
    PAGE_LEN, WORD,
};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Kinds of pages, as their state words tell. Up to this one, what is in a page means nothing.
const RELEASING: u64 = 3;
const ABSENT: u64 = 0;
const INDEX: u64 = 5;
/// Owner in a lock word that nobody can be: a holder that is dead for everybody.
const ABANDONED: u64 = 0xffff;

/// A view of a region's file. Nobody else may run while its bytes are looked at.
pub(crate) struct Mapping {
    base: *mut u8,
    len: usize,
}

impl Mapping {
    pub(crate) fn new(fd: impl AsFd, len: u64) -> Self {
        let len = usize::try_from(len).unwrap();
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice touches no memory of ours.
        let base = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                len,
                protection,
                MapFlags::SHARED,
                fd,
                0,
            )
        };
        Self {
            base: base.unwrap().cast(),
            len,
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: mapped until drop; every process that writes to it stands still meanwhile.
        unsafe { std::slice::from_raw_parts(self.base, self.len) }
    }

    pub(crate) fn set_word(&self, offset: u64, value: u64) {
        let offset = usize::try_from(offset).unwrap();
        assert!(offset + 8 <= self.len && offset.is_multiple_of(8));
        // SAFETY: inside the mapping (asserted).
        let word = unsafe { self.base.add(offset) }.cast::<u64>();
        // SAFETY: aligned (asserted), writable, and no slice of the mapping is alive.
        unsafe { word.write_volatile(value.to_le()) };
    }

    /// Makes the file hold other bytes.
    fn load(&mut self, bytes: &[u8]) {
        assert_eq!(bytes.len(), self.len);
        // SAFETY: both are `len` bytes; `bytes` is other memory, or it could not be borrowed beside
        // `self`.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.base, self.len) };
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`, and no slice outlives `self`.
        let _ = unsafe { rustix::mm::munmap(self.base.cast(), self.len) };
    }
}

/// A copy of a region's bytes, with what is needed to find one's way in it.
#[derive(Clone)]
pub(crate) struct Image {
    geometry: Geometry,
    bytes: Vec<u8>,
}

/// How a region differs from an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    None,
    /// Only inside pages.
    Pages,
    /// In header, tables, inline buckets or rings too.
    Tables,
}

impl Image {
    /// The bytes of a finished region.
    pub(crate) fn take(mapping: &Mapping) -> Self {
        Self {
            geometry: geometry_of(mapping.bytes()),
            bytes: mapping.bytes().to_vec(),
        }
    }

    /// Makes this the image of what the region is now, and tells what changed.
    ///
    /// Pages without an owner do not count: what is in them means nothing to anybody, and without
    /// looking at them a step costs microseconds.
    pub(crate) fn follow(&mut self, mapping: &Mapping) -> Change {
        let now = mapping.bytes();
        let mut change = Change::None;
        for range in self.meaningful(now) {
            if self.bytes[range.clone()] != now[range.clone()] {
                change = if range.start == 0 {
                    Change::Tables
                } else if change == Change::None {
                    Change::Pages
                } else {
                    change
                };
                self.bytes[range.clone()].copy_from_slice(&now[range]);
            }
        }
        if change == Change::Tables {
            self.forget_absent_pages();
        }
        change
    }

    /// Memory that was given back to the system reads as zeros.
    fn forget_absent_pages(&mut self) {
        for page in 0..self.geometry.page_count {
            if word(&self.bytes, self.page_state_offset(page)) & 0xff == ABSENT {
                let start = usize::try_from(self.geometry.page_offset(page)).unwrap();
                self.bytes[start..][..usize::try_from(PAGE_LEN).unwrap()].fill(0);
            }
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The word that says who holds a shard's lock.
    pub(crate) fn lock(&self, index: u64) -> u64 {
        word(&self.bytes, self.shard_word(index, shard::LOCK))
    }

    /// The word that says how many buckets a shard has.
    pub(crate) fn root(&self, index: u64) -> u64 {
        word(&self.bytes, self.shard_word(index, shard::ROOT))
    }

    /// The last revision that a shard gave away.
    pub(crate) fn revision(&self, index: u64) -> u64 {
        word(&self.bytes, self.shard_word(index, shard::REVISION))
    }

    pub(crate) fn evicts(&self) -> bool {
        self.geometry.evicts()
    }

    pub(crate) fn feed_is_on(&self) -> bool {
        word(&self.bytes, header::FEED_FLAGS * WORD) != 0
    }

    pub(crate) fn shard_word(&self, index: u64, word: u64) -> u64 {
        self.geometry.shard_offset(index) + word * WORD
    }

    pub(crate) fn shards(&self) -> Range<u64> {
        0..self.geometry.shard_count
    }

    pub(crate) fn page_state_offset(&self, page: u64) -> u64 {
        self.geometry.page_states_offset + page * WORD
    }

    pub(crate) fn pages(&self) -> Range<u64> {
        0..self.geometry.page_count
    }

    /// Where the entry of a key lies, and in which inline bucket its slot is; `None` if it is in no
    /// such bucket.
    pub(crate) fn find(&self, key: &[u8]) -> Option<(u64, u64)> {
        let slot = self.slot_of(key)?;
        let bucket = (slot - self.geometry.buckets_offset) / BUCKET_LEN;
        Some((word(&self.bytes, slot) & slot::OFFSET_MASK, bucket))
    }

    /// The hash of a key that [`Image::find`] finds.
    pub(crate) fn hash(&self, key: &[u8]) -> Option<u64> {
        let (block, _) = self.find(key)?;
        Some(word(&self.bytes, block + entry::HASH * WORD))
    }

    /// Where the slot of a key is, if in an inline bucket.
    pub(crate) fn slot_of(&self, key: &[u8]) -> Option<u64> {
        let buckets = 0..self.geometry.shard_count * INLINE_BUCKETS;
        let mut slots = buckets.flat_map(|bucket| {
            let start = self.geometry.buckets_offset + bucket * BUCKET_LEN;
            (1..=BUCKET_SLOTS as u64).map(move |index| start + index * WORD)
        });
        slots.find(|&slot| {
            let word = word(&self.bytes, slot);
            let names_entry = word != 0 && word & slot::LINK == 0;
            names_entry && self.key_at(word & slot::OFFSET_MASK) == key
        })
    }

    /// The key of the entry in a block.
    fn key_at(&self, block: u64) -> &[u8] {
        let meta = word(&self.bytes, block + entry::META * WORD);
        let is_ephemeral = meta >> 56 & u64::from(entry::EPHEMERAL) != 0;
        let head = entry::HEAD_WORDS
            + if self.geometry.evicts() {
                entry::SIEVE_WORDS
            } else {
                0
            }
            + if is_ephemeral {
                entry::EPHEMERAL_WORDS
            } else {
                0
            };
        let start = usize::try_from(block + head * WORD).unwrap();
        &self.bytes[start..][..usize::try_from(meta >> 40 & 0xffff).unwrap()]
    }

    /// Byte ranges that mean something, in this image or in `now`: all before the pages, and pages
    /// with an owner.
    fn meaningful(&self, now: &[u8]) -> Vec<Range<usize>> {
        let usize = |offset: u64| usize::try_from(offset).unwrap();
        let tables = if word(now, header::FEED_FLAGS * WORD) == 0 {
            self.geometry.feed_offset
        } else {
            self.geometry.pages_offset
        };
        let owned = self.pages().filter(|&page| {
            let state = word(now, self.page_state_offset(page));
            state & 0xff > RELEASING
        });
        let pages = owned.map(|page| {
            let start = self.geometry.page_offset(page);
            usize(start)..usize(start + PAGE_LEN)
        });
        std::iter::once(0..usize(tables)).chain(pages).collect()
    }

    /// Offsets of the words that differ from a second repair of this image, apart from those that
    /// count repairs.
    pub(crate) fn unlike_after_repair(&self, repaired: &[u8]) -> Vec<u64> {
        let mut unlike = Vec::new();
        for range in self.meaningful(repaired) {
            if self.bytes[range.clone()] == repaired[range.clone()] {
                continue;
            }
            let words = (range.start as u64..range.end as u64).step_by(8);
            let differing = words.filter(|&offset| {
                word(&self.bytes, offset) != word(repaired, offset)
                    && !self.grows_with_repairs(offset)
            });
            unlike.extend(differing);
        }
        unlike
    }

    fn grows_with_repairs(&self, offset: u64) -> bool {
        let of_shard = self.shards().any(|index| {
            let counting = [shard::REPAIRS, shard::FEED_HEAD, shard::FEED_RESERVED];
            counting
                .map(|word| self.shard_word(index, word))
                .contains(&offset)
        });
        let inline = self.geometry.buckets_offset
            ..self.geometry.buckets_offset
                + self.geometry.shard_count * INLINE_BUCKETS * BUCKET_LEN;
        let in_index_page = self.geometry.page_of(offset).is_some_and(|page| {
            word(&self.bytes, self.page_state_offset(page)) & 0xff == INDEX
                && offset % PAGE_LEN < PAGE_BUCKETS * BUCKET_LEN
        });
        let is_version =
            (inline.contains(&offset) || in_index_page) && offset.is_multiple_of(BUCKET_LEN);
        of_shard || is_version || offset == header::FEED_EVENT * WORD
    }
}

/// A region's file of its own to try images in. All sessions in it are dead but those of handles
/// made on it.
pub(crate) struct Scratch {
    fd: OwnedFd,
    pub(crate) mapping: Mapping,
}

impl Scratch {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = rustix::fs::memfd_create("ganger-image", flags).unwrap();
        rustix::fs::ftruncate(&fd, bytes.len() as u64).unwrap();
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW).unwrap();
        let mut mapping = Mapping::new(&fd, bytes.len() as u64);
        mapping.load(bytes);
        Self { fd, mapping }
    }

    pub(crate) fn load(&mut self, bytes: &[u8]) {
        self.mapping.load(bytes);
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Makes all locks look as if their holders died.
    pub(crate) fn abandon_locks(&self, image: &Image) {
        for index in image.shards() {
            self.mapping
                .set_word(image.shard_word(index, shard::LOCK), ABANDONED);
        }
    }
}

fn geometry_of(bytes: &[u8]) -> Geometry {
    let word = |index: u64| word(bytes, index * WORD);
    Geometry::new(
        word(header::REGION_LEN),
        Some(word(header::SHARD_COUNT)),
        word(header::SESSION_COUNT),
        u32::try_from(word(header::VERSION) >> 32).unwrap(),
    )
    .unwrap()
}

fn word(bytes: &[u8], offset: u64) -> u64 {
    let offset = usize::try_from(offset).unwrap();
    u64::from_le_bytes(bytes[offset..offset + 8].try_into().unwrap())
}

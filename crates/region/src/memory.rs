//! The region's bytes as bounds-checked atomic words. All `unsafe` of this crate stands here, in
//! `areas`, `backing/`, `futex` and `event`; and in `model`, for loom.

use crate::backing::Backing;
use crate::layout::WORD;
use crate::sync::{AtomicU64, Ordering};
use std::mem::MaybeUninit;
#[cfg(not(loom))]
use std::ptr::NonNull;
use std::sync::Arc;

/// A view of the whole region. Cloning it shares the mapping.
#[derive(Clone)]
pub(crate) struct Memory {
    #[cfg(not(loom))]
    base: NonNull<AtomicU64>,
    #[cfg(loom)]
    model: Arc<crate::model::Words>,
    len_words: u64,
    backing: Arc<dyn Backing>,
}

// SAFETY: `base` points at memory that `backing` keeps mapped and that is only ever accessed as
// atomics.
#[cfg(not(loom))]
unsafe impl Send for Memory {}
// SAFETY: as above; atomics may be shared between threads.
#[cfg(not(loom))]
unsafe impl Sync for Memory {}

impl Memory {
    pub(crate) fn new(backing: Arc<dyn Backing>) -> Self {
        Self {
            #[cfg(not(loom))]
            // SAFETY: `Backing` promises that `base` points at bytes, so it is not null.
            base: unsafe { NonNull::new_unchecked(backing.base().cast::<AtomicU64>()) },
            #[cfg(loom)]
            model: backing.words(),
            len_words: backing.len() / WORD,
            backing,
        }
    }

    pub(crate) fn len_words(&self) -> u64 {
        self.len_words
    }

    pub(crate) fn backing(&self) -> &Arc<dyn Backing> {
        &self.backing
    }

    /// The word at a byte offset of the geometry.
    ///
    /// # Panics
    /// If the offset is outside the region: offsets of the geometry never are, and every other
    /// offset goes through [`Memory::words`].
    #[inline(always)]
    pub(crate) fn word(&self, offset: u64) -> &AtomicU64 {
        let index = offset / WORD;
        assert!(index < self.len_words);
        // SAFETY: `index` is inside the region (asserted).
        unsafe { self.at(index) }
    }

    /// `count` words from an untrusted byte offset, or `None` if they are not all inside the
    /// region.
    #[inline(always)]
    pub(crate) fn words(&self, offset: u64, count: u64) -> Option<Words<'_>> {
        let first = offset / WORD;
        let inside = offset.is_multiple_of(WORD)
            && first <= self.len_words
            && count <= self.len_words - first;
        if !inside {
            return None;
        }
        // SAFETY: `first + count` is at most `len_words` (checked).
        Some(unsafe { self.run(first, count) })
    }

    /// `count` words at a byte offset of the geometry.
    ///
    /// # Panics
    /// Like [`Memory::word`].
    #[inline(always)]
    pub(crate) fn trusted_words(&self, offset: u64, count: u64) -> Words<'_> {
        let first = offset / WORD;
        assert!(first + count <= self.len_words);
        // SAFETY: `first + count` is at most `len_words` (asserted).
        unsafe { self.run(first, count) }
    }

    /// Asks the processor to bring the cache line of `offset` closer. Never faults, whatever the
    /// offset.
    #[inline(always)]
    pub(crate) fn prefetch(&self, offset: u64) {
        #[cfg(not(loom))]
        {
            let address = self
                .base
                .as_ptr()
                .cast_const()
                .cast::<u8>()
                .wrapping_add(usize::try_from(offset).unwrap_or(0));
            prefetch(address);
        }
        #[cfg(loom)]
        let _ = offset;
    }

    /// # Safety
    /// `index` must be less than `self.len_words`.
    #[cfg(not(loom))]
    #[inline(always)]
    pub(crate) unsafe fn at(&self, index: u64) -> &AtomicU64 {
        // SAFETY: passed on to the caller.
        let words = unsafe { self.run(index, 1) };
        &words.0[0]
    }

    /// # Safety
    /// `first + count` must be at most `self.len_words`.
    #[cfg(not(loom))]
    #[inline(always)]
    pub(crate) unsafe fn run(&self, first: u64, count: u64) -> Words<'_> {
        // Word indices of a mapped region fit in usize.
        #[allow(clippy::cast_possible_truncation)]
        let (first, count) = (first as usize, count as usize);
        // SAFETY: `Backing` promises `len` bytes at `base`; the caller keeps the run inside them.
        let start = unsafe { self.base.add(first) };
        // SAFETY: the words are mapped as long as `self.backing` lives, aligned to a word
        // (`Backing`), initialised (zero pages), and accessed as atomics by everyone, so no data
        // race can arise and sharing them is sound.
        Words(unsafe { std::slice::from_raw_parts(start.as_ptr(), count) })
    }

    /// # Safety
    /// None needed; unsafe to match the other build.
    #[cfg(loom)]
    pub(crate) unsafe fn at(&self, index: u64) -> &AtomicU64 {
        self.model.at(index)
    }

    /// # Safety
    /// None needed; unsafe to match the other build.
    #[cfg(loom)]
    pub(crate) unsafe fn run(&self, first: u64, count: u64) -> Words<'_> {
        Words {
            memory: self,
            first,
            count,
        }
    }
}

/// A run of words that is known to be inside the region.
#[cfg(not(loom))]
#[derive(Clone, Copy)]
pub(crate) struct Words<'m>(&'m [AtomicU64]);

/// The same, one word at a time.
#[cfg(loom)]
#[derive(Clone, Copy)]
pub(crate) struct Words<'m> {
    memory: &'m Memory,
    first: u64,
    count: u64,
}

// Indices and lengths of a mapped region fit in usize.
#[allow(clippy::cast_possible_truncation)]
#[cfg(not(loom))]
impl<'m> Words<'m> {
    #[inline(always)]
    pub(crate) fn len(&self) -> u64 {
        self.0.len() as u64
    }

    /// # Panics
    /// If `index` is not below [`Words::len`].
    #[inline(always)]
    pub(crate) fn at(&self, index: u64) -> &'m AtomicU64 {
        &self.0[index as usize]
    }

    /// The words from `start` on.
    #[inline(always)]
    pub(crate) fn from(&self, start: u64) -> Option<Self> {
        self.0.get(start as usize..).map(Self)
    }

    /// The first `count` words.
    #[inline(always)]
    pub(crate) fn first(&self, count: u64) -> Option<Self> {
        self.0.get(..count as usize).map(Self)
    }

    /// The first `count` words, and the others.
    #[inline(always)]
    pub(crate) fn split(&self, count: u64) -> Option<(Self, Self)> {
        let (first, rest) = self.0.split_at_checked(count as usize)?;
        Some((Self(first), Self(rest)))
    }

    #[inline(always)]
    fn iter(&self) -> std::slice::Iter<'m, AtomicU64> {
        self.0.iter()
    }
}

#[cfg(loom)]
impl<'m> Words<'m> {
    pub(crate) fn len(&self) -> u64 {
        self.count
    }

    pub(crate) fn at(&self, index: u64) -> &'m AtomicU64 {
        assert!(index < self.count);
        // SAFETY: nothing is required in this build.
        unsafe { self.memory.at(self.first + index) }
    }

    pub(crate) fn from(&self, start: u64) -> Option<Self> {
        let count = self.count.checked_sub(start)?;
        Some(Self {
            memory: self.memory,
            first: self.first + start,
            count,
        })
    }

    pub(crate) fn first(&self, count: u64) -> Option<Self> {
        (count <= self.count).then_some(Self { count, ..*self })
    }

    pub(crate) fn split(&self, count: u64) -> Option<(Self, Self)> {
        Some((self.first(count)?, self.from(count)?))
    }

    fn iter(&self) -> impl Iterator<Item = &'m AtomicU64> + use<'m> {
        let words = *self;
        (0..self.count).map(move |index| words.at(index))
    }
}

impl Words<'_> {
    /// Whether the first bytes of these words are `bytes`, and the rest of the last word is zeros.
    #[inline(always)]
    pub(crate) fn bytes_are(&self, bytes: &[u8]) -> bool {
        if let (9..=16, Some(first), Some(last)) =
            (bytes.len(), bytes.first_chunk(), bytes.last_chunk())
        {
            let first = u64::from_le_bytes(*first);
            let second = second_word(*last, bytes.len());
            return self.first(2).is_some_and(|words| {
                words.at(0).load(Ordering::Relaxed) == first
                    && words.at(1).load(Ordering::Relaxed) == second
            });
        }
        self.any_bytes_are(bytes)
    }

    /// The same for any number of bytes.
    #[inline(never)]
    fn any_bytes_are(self, bytes: &[u8]) -> bool {
        let (whole, rest) = bytes.as_chunks::<8>();
        let Some((words, tail)) = self.split(whole.len() as u64) else {
            return false;
        };
        for (word, chunk) in words.iter().zip(whole) {
            if word.load(Ordering::Relaxed) != u64::from_le_bytes(*chunk) {
                return false;
            }
        }
        let is_rest = |word: &AtomicU64| word.load(Ordering::Relaxed) == word_of(rest);
        rest.is_empty() || tail.iter().next().is_some_and(is_rest)
    }

    /// Fills `out` with the first bytes of these words; what `out` has beyond them stays as it is.
    pub(crate) fn copy_to(&self, out: &mut [u8]) {
        for (chunk, word) in out.chunks_mut(8).zip(self.iter()) {
            let bytes = word.load(Ordering::Relaxed).to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }

    /// Fills as many places as there are words; the caller has as many of both.
    #[inline(always)]
    fn load_into(&self, places: &mut [[MaybeUninit<u8>; 8]]) {
        let load = |place: &mut [MaybeUninit<u8>; 8], word: &AtomicU64| {
            *place = word
                .load(Ordering::Relaxed)
                .to_le_bytes()
                .map(MaybeUninit::new);
        };
        #[cfg(not(loom))]
        {
            let (eights, rest) = places.as_chunks_mut::<8>();
            let (eight_words, rest_words) = self.0.as_chunks::<8>();
            for (places, words) in eights.iter_mut().zip(eight_words) {
                for (place, word) in places.iter_mut().zip(words) {
                    load(place, word);
                }
            }
            for (place, word) in rest.iter_mut().zip(rest_words) {
                load(place, word);
            }
        }
        #[cfg(loom)]
        for (place, word) in places.iter_mut().zip(self.iter()) {
            load(place, word);
        }
    }

    /// The same for many words: their memory is asked for ahead of them.
    #[inline(never)]
    fn load_many_into(self, places: &mut [[MaybeUninit<u8>; 8]]) {
        let (lines, last) = places.as_chunks_mut::<LINE_WORDS>();
        let rest = self.from((lines.len() * LINE_WORDS) as u64);
        for (line, words) in lines.iter_mut().zip(self.lines_ahead()) {
            words.load_into(line);
        }
        if let Some(rest) = rest {
            rest.load_into(last);
        }
    }

    /// Appends the first `len` bytes of these words to `out`, or as many as there are.
    // What is mapped fits in usize.
    #[allow(clippy::cast_possible_truncation)]
    #[inline(always)]
    pub(crate) fn append_to(&self, out: &mut Vec<u8>, len: usize) {
        let words = self.first(((len + 7) >> 3) as u64).unwrap_or(*self);
        let count = words.len() as usize;
        let start = out.len();
        out.reserve(count * 8);
        let places = &mut out.spare_capacity_mut().as_chunks_mut::<8>().0[..count];
        if count < MANY_WORDS {
            words.load_into(places);
        } else {
            words.load_many_into(places);
        }
        // SAFETY: the capacity was reserved, and all places initialised: `words` has as many.
        unsafe { out.set_len(start + len.min(count * 8)) };
    }

    /// Makes `out` hold all these words, less what is beyond `len` bytes, and nothing else.
    // What is mapped fits in usize.
    #[allow(clippy::cast_possible_truncation)]
    #[inline(always)]
    pub(crate) fn copy_in_place_of(&self, out: &mut Vec<u8>, len: usize) {
        let count = self.len() as usize;
        if out.capacity() < count * 8 {
            make_room(out, count * 8);
        }
        let places = out.as_mut_ptr().cast::<[MaybeUninit<u8>; 8]>();
        // SAFETY: the vector has room for `count` words (checked, or made), they may be uninitialised,
        // arrays of bytes need no alignment, and nobody else has the vector meanwhile.
        let places = unsafe { std::slice::from_raw_parts_mut(places, count) };
        self.load_into(places);
        // SAFETY: `load_into` initialised `count` words.
        unsafe { out.set_len(len.min(count * 8)) };
    }

    /// Writes `bytes` from the first word on and pads the last word with zeros. What does not fit
    /// is not written at all.
    #[inline(always)]
    pub(crate) fn fill(&self, bytes: &[u8]) {
        let (whole, rest) = bytes.as_chunks::<8>();
        let Some((words, tail)) = self.split(whole.len() as u64) else {
            return;
        };
        words.store_all(whole);
        if let (false, Some(word)) = (rest.is_empty(), tail.iter().next()) {
            word.store(word_of(rest), Ordering::Relaxed);
        }
    }

    /// Stores as many words as there are; the caller has as many of both.
    #[inline(always)]
    fn store_all(&self, whole: &[[u8; 8]]) {
        let store = |word: &AtomicU64, bytes: &[u8; 8]| {
            word.store(u64::from_le_bytes(*bytes), Ordering::Relaxed);
        };
        #[cfg(not(loom))]
        {
            let (eights, rest) = whole.as_chunks::<8>();
            let (eight_words, rest_words) = self.0.as_chunks::<8>();
            for (words, eight) in eight_words.iter().zip(eights) {
                for (word, bytes) in words.iter().zip(eight) {
                    store(word, bytes);
                }
            }
            for (word, bytes) in rest_words.iter().zip(rest) {
                store(word, bytes);
            }
        }
        #[cfg(loom)]
        for (word, bytes) in self.iter().zip(whole) {
            store(word, bytes);
        }
    }

    /// The same for bytes that may be many: then the memory is asked for ahead of them.
    pub(crate) fn fill_with_any(&self, bytes: &[u8]) {
        if bytes.len() < MANY_WORDS * 8 {
            return self.fill(bytes);
        }
        let (lines, last) = bytes.as_chunks::<LINE_LEN>();
        for (line, words) in lines.iter().zip(self.lines_ahead()) {
            words.fill(line);
        }
        if let Some(rest) = self.from((lines.len() * LINE_WORDS) as u64) {
            rest.fill(last);
        }
    }

    /// As many words at a time as a cache line has, each time asking the processor for the line that
    /// lies [`AHEAD`] of them; that never faults.
    #[inline(always)]
    fn lines_ahead(self) -> impl Iterator<Item = Self> {
        let mut rest = self;
        std::iter::from_fn(move || {
            let (line, more) = rest.split(LINE_WORDS as u64)?;
            rest = more;
            #[cfg(not(loom))]
            prefetch(line.0.as_ptr().cast::<u8>().wrapping_add(AHEAD));
            Some(line)
        })
    }
}

/// Bytes of a cache line.
pub(crate) const LINE_LEN: usize = 64;
const LINE_WORDS: usize = LINE_LEN / 8;
/// From so many words on a copy asks for memory ahead of itself: word by word, the processor has too
/// little of it under way at a time, and its own prefetching ends with each 4 KiB.
const MANY_WORDS: usize = 1024;
/// By so many bytes.
#[cfg(not(loom))]
const AHEAD: usize = 4096;

#[cold]
#[inline(never)]
fn make_room(out: &mut Vec<u8>, len: usize) {
    out.clear();
    out.reserve(len);
}

/// The second word of 9 to 16 bytes, from the last eight of them, padded with zeros.
#[inline(always)]
pub(crate) fn second_word(last: [u8; 8], len: usize) -> u64 {
    u64::from_le_bytes(last) >> (8 * (16 - len))
}

/// Fewer than eight bytes as a little-endian word, padded with zeros.
fn word_of(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |word, &byte| word << 8 | u64::from(byte))
}

#[cfg(not(loom))]
#[inline(always)]
fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::{_mm_prefetch, _MM_HINT_T0};
        // SAFETY: PREFETCHT0 is a hint; it never faults, so any address will do.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: PRFM is a hint; it never faults and changes neither memory, stack nor flags.
    unsafe {
        core::arch::asm!(
            "prfm pldl1keep, [{}]",
            in(reg) address,
            options(nostack, preserves_flags, readonly)
        );
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = address;
}

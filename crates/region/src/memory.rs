//! The region's bytes as bounds-checked atomic words; with `backing/`, all the `unsafe` of this crate.

use crate::backing::Backing;
use crate::layout::WORD;
use crate::sync::{AtomicU64, Ordering};
use std::sync::Arc;

/// A view of the whole region. Cloning it shares the mapping.
#[derive(Clone)]
pub(crate) struct Memory {
    #[cfg(not(loom))]
    base: *const AtomicU64,
    #[cfg(loom)]
    model: Arc<model::Words>,
    len_words: u64,
    backing: Arc<dyn Backing>,
}

// SAFETY: `base` points at memory that `backing` keeps mapped and that is only ever accessed as atomics.
#[cfg(not(loom))]
unsafe impl Send for Memory {}
// SAFETY: as above; atomics may be shared between threads.
#[cfg(not(loom))]
unsafe impl Sync for Memory {}

impl Memory {
    pub(crate) fn new(backing: Arc<dyn Backing>) -> Self {
        Self {
            #[cfg(not(loom))]
            base: backing.base().cast::<AtomicU64>().cast_const(),
            #[cfg(loom)]
            model: Arc::default(),
            len_words: backing.len() / WORD,
            backing,
        }
    }

    pub(crate) fn backing(&self) -> &Arc<dyn Backing> {
        &self.backing
    }

    /// The word at a byte offset of the geometry.
    ///
    /// # Panics
    /// If the offset is outside the region: offsets of the geometry never are, and every other offset
    /// goes through [`Memory::words`].
    #[inline(always)]
    pub(crate) fn word(&self, offset: u64) -> &AtomicU64 {
        let index = offset / WORD;
        assert!(index < self.len_words);
        // SAFETY: `index` is inside the region (asserted).
        unsafe { self.at(index) }
    }

    /// `count` words from an untrusted byte offset, or `None` if they are not all inside the region.
    #[inline(always)]
    pub(crate) fn words(&self, offset: u64, count: u64) -> Option<Words<'_>> {
        let first = offset / WORD;
        let inside = offset.is_multiple_of(WORD)
            && first <= self.len_words
            && count <= self.len_words - first;
        inside.then_some(Words {
            memory: self,
            first,
            count,
        })
    }

    /// `count` words at a byte offset of the geometry.
    ///
    /// # Panics
    /// Like [`Memory::word`].
    #[inline(always)]
    pub(crate) fn trusted_words(&self, offset: u64, count: u64) -> Words<'_> {
        let first = offset / WORD;
        assert!(first + count <= self.len_words);
        Words {
            memory: self,
            first,
            count,
        }
    }

    /// Asks the processor to bring the cache line of `offset` closer. Never faults, whatever the offset.
    #[inline(always)]
    pub(crate) fn prefetch(&self, offset: u64) {
        #[cfg(not(loom))]
        {
            let address = self
                .base
                .cast::<u8>()
                .wrapping_add(usize::try_from(offset).unwrap_or(0));
            prefetch(address);
        }
        #[cfg(loom)]
        let _ = offset;
    }

    /// The address of a word, for the futex system calls.
    #[cfg(not(loom))]
    pub(crate) fn address(&self, offset: u64) -> *const u32 {
        let word: *const AtomicU64 = self.word(offset);
        word.cast()
    }

    /// # Safety
    /// `index` must be less than `self.len_words`.
    #[cfg(not(loom))]
    #[inline(always)]
    unsafe fn at(&self, index: u64) -> &AtomicU64 {
        // A word index of a mapped region fits in usize.
        #[allow(clippy::cast_possible_truncation)]
        let index = index as usize;
        // SAFETY: `Backing` promises `len` bytes at `base`, aligned to a page; the caller keeps `index` inside.
        let word = unsafe { self.base.add(index) };
        // SAFETY: the word is mapped as long as `self.backing` lives, aligned, initialised (zero pages), and
        // accessed as an AtomicU64 by everyone, so no data race can arise.
        unsafe { &*word }
    }

    /// # Safety
    /// None needed; unsafe to match the other build.
    #[cfg(loom)]
    unsafe fn at(&self, index: u64) -> &AtomicU64 {
        self.model.at(index)
    }
}

/// A run of words that is known to be inside the region.
#[derive(Clone, Copy)]
pub(crate) struct Words<'m> {
    memory: &'m Memory,
    first: u64,
    count: u64,
}

impl<'m> Words<'m> {
    #[inline(always)]
    pub(crate) fn len(&self) -> u64 {
        self.count
    }

    /// # Panics
    /// If `index` is not below [`Words::len`].
    #[inline(always)]
    pub(crate) fn at(&self, index: u64) -> &'m AtomicU64 {
        assert!(index < self.count);
        // SAFETY: `first + count` was checked against the region's length when this was made.
        unsafe { self.memory.at(self.first + index) }
    }

    /// Whether the first bytes of these words are `bytes`, and the rest of the last word is zeros.
    #[inline(always)]
    pub(crate) fn bytes_are(&self, bytes: &[u8]) -> bool {
        if bytes.len().div_ceil(8) as u64 > self.count {
            return false;
        }
        let chunks = bytes.chunks_exact(8);
        let rest = chunks.remainder();
        let mut index = 0;
        for chunk in chunks {
            if self.at(index).load(Ordering::Relaxed) != word_of(chunk) {
                return false;
            }
            index += 1;
        }
        rest.is_empty() || self.at(index).load(Ordering::Relaxed) == word_of(rest)
    }

    /// Fills `out` with the first bytes of these words; what `out` has beyond them stays as it is.
    #[inline(always)]
    pub(crate) fn copy_to(&self, out: &mut [u8]) {
        let mut chunks = out.chunks_exact_mut(8);
        let mut index = 0;
        for chunk in chunks.by_ref() {
            if index == self.count {
                return;
            }
            chunk.copy_from_slice(&self.at(index).load(Ordering::Relaxed).to_le_bytes());
            index += 1;
        }
        let rest = chunks.into_remainder();
        if !rest.is_empty() && index < self.count {
            let word = self.at(index).load(Ordering::Relaxed).to_le_bytes();
            rest.copy_from_slice(&word[..rest.len()]);
        }
    }

    /// Appends the first `len` bytes of these words to `out`.
    #[inline(always)]
    pub(crate) fn append_to(&self, out: &mut Vec<u8>, len: usize) {
        let start = out.len();
        out.resize(start + len, 0);
        self.copy_to(&mut out[start..]);
    }

    /// Writes `bytes` from the first word on and pads the last word with zeros. What does not fit is left out.
    #[inline(always)]
    pub(crate) fn fill(&self, bytes: &[u8]) {
        let last = self.count;
        for (index, chunk) in (0..last).zip(bytes.chunks(8)) {
            self.at(index).store(word_of(chunk), Ordering::Relaxed);
        }
    }

    /// The words from `start` on.
    #[inline(always)]
    pub(crate) fn from(&self, start: u64) -> Option<Self> {
        let count = self.count.checked_sub(start)?;
        Some(Self {
            memory: self.memory,
            first: self.first + start,
            count,
        })
    }

    /// The first `count` words.
    #[inline(always)]
    pub(crate) fn first(&self, count: u64) -> Option<Self> {
        (count <= self.count).then_some(Self { count, ..*self })
    }
}

/// Up to eight bytes as a little-endian word.
#[inline(always)]
fn word_of(bytes: &[u8]) -> u64 {
    if let Ok(whole) = <[u8; 8]>::try_from(bytes) {
        return u64::from_le_bytes(whole);
    }
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
        core::arch::asm!("prfm pldl1keep, [{}]", in(reg) address, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = address;
}

/// Words that come into being when they are first touched: a whole region is far more than a model checker
/// can track, and an operation touches a few dozen words of it.
#[cfg(loom)]
mod model {
    use super::AtomicU64;
    use std::collections::HashMap;
    use std::sync::Mutex;

    #[derive(Default)]
    pub(super) struct Words(Mutex<HashMap<u64, Box<AtomicU64>>>);

    impl Words {
        pub(super) fn at(&self, index: u64) -> &AtomicU64 {
            let mut words = self
                .0
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner());
            let word: *const AtomicU64 = &**words
                .entry(index)
                .or_insert_with(|| Box::new(AtomicU64::new(0)));
            // SAFETY: boxes are never removed while the map lives, so the address stays valid for `&self`.
            unsafe { &*word }
        }
    }
}

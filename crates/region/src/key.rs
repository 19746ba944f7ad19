//! Keys: their hash, and how they are compared with entries and written into them.
//!
//! Most keys have 9 to 16 bytes, which are two words. In regions that do not evict they have a way
//! of their own ([`ShortKey`]): nothing on it is a call, so what it has at hand stays in registers.

use crate::entry::words_for;
use crate::layout::{entry, Geometry};
use crate::memory::{second_word, Words};
use crate::sync::Ordering;
use rapidhash::v3::{rapidhash_v3_nano_inline, RapidSecrets};

/// The hash of a key.
#[inline(always)]
pub(crate) fn hash(secrets: &RapidSecrets, key: &[u8]) -> u64 {
    if let (8..=16, Some(first), Some(last)) = (key.len(), key.first_chunk(), key.last_chunk()) {
        return short_hash(secrets, *first, *last, key.len() as u64);
    }
    any_hash(secrets, key)
}

/// A key, in whatever form an operation has it.
pub(crate) trait Key: Copy {
    /// Whether the region may be one that evicts.
    const MAY_EVICT: bool;

    fn bytes(&self) -> &[u8];

    /// Words that it takes.
    fn words(self) -> u64;

    /// Words before the key of an entry.
    fn head_words(self, geometry: &Geometry) -> u64;

    /// Whether these words, as many as it takes, hold it.
    fn is_in(self, words: Words<'_>) -> bool;

    /// Puts it into these words, as many as it takes.
    fn fill(self, words: Words<'_>);
}

impl Key for &[u8] {
    const MAY_EVICT: bool = true;

    #[inline(always)]
    fn bytes(&self) -> &[u8] {
        self
    }

    #[inline(always)]
    fn words(self) -> u64 {
        words_for(self.len() as u64)
    }

    #[inline(always)]
    fn head_words(self, geometry: &Geometry) -> u64 {
        geometry.head_words
    }

    #[inline(always)]
    fn is_in(self, words: Words<'_>) -> bool {
        words.bytes_are(self)
    }

    #[inline(always)]
    fn fill(self, words: Words<'_>) {
        words.fill(self);
    }
}

/// A key of two words in a region that does not evict.
#[derive(Clone, Copy)]
pub(crate) struct ShortKey<'k> {
    bytes: &'k [u8],
    words: [u64; 2],
}

impl<'k> ShortKey<'k> {
    /// How many lengths, from [`Self::LEN_MIN`] on, make short keys in a region.
    pub(crate) fn lengths(geometry: &Geometry) -> usize {
        if geometry.evicts() {
            0
        } else {
            8
        }
    }

    const LEN_MIN: usize = 9;

    /// The key and its hash, or `None` if it is not short; `lengths` are those of the region.
    #[inline(always)]
    pub(crate) fn new(
        secrets: &RapidSecrets,
        lengths: usize,
        bytes: &'k [u8],
    ) -> Option<(Self, u64)> {
        if bytes.len().wrapping_sub(Self::LEN_MIN) >= lengths {
            return None;
        }
        let (first, last) = (*bytes.first_chunk()?, *bytes.last_chunk()?);
        let hash = short_hash(secrets, first, last, bytes.len() as u64);
        let words = [u64::from_le_bytes(first), second_word(last, bytes.len())];
        Some((Self { bytes, words }, hash))
    }
}

impl Key for ShortKey<'_> {
    const MAY_EVICT: bool = false;

    #[inline(always)]
    fn bytes(&self) -> &[u8] {
        self.bytes
    }

    #[inline(always)]
    fn words(self) -> u64 {
        2
    }

    #[inline(always)]
    fn head_words(self, _: &Geometry) -> u64 {
        entry::HEAD_WORDS
    }

    #[inline(always)]
    fn is_in(self, words: Words<'_>) -> bool {
        words.at(0).load(Ordering::Relaxed) == self.words[0]
            && words.at(1).load(Ordering::Relaxed) == self.words[1]
    }

    #[inline(always)]
    fn fill(self, words: Words<'_>) {
        words.at(0).store(self.words[0], Ordering::Relaxed);
        words.at(1).store(self.words[1], Ordering::Relaxed);
    }
}

/// The hash of a key of any length.
#[inline(never)]
fn any_hash(secrets: &RapidSecrets, key: &[u8]) -> u64 {
    rapidhash_v3_nano_inline::<true, false>(key, secrets)
}

/// The same of a key of 8 to 16 bytes, its first and last eight: most keys are that short, and in
/// line it is a few instructions.
#[inline(always)]
fn short_hash(secrets: &RapidSecrets, first: [u8; 8], last: [u8; 8], len: u64) -> u64 {
    let multiply = |a: u64, b: u64| {
        let product = u128::from(a) * u128::from(b);
        // The halves of the product.
        #[allow(clippy::cast_possible_truncation)]
        (product as u64, (product >> 64) as u64)
    };
    let secret = secrets.secrets[1];
    let (a, b) = multiply(
        u64::from_le_bytes(first) ^ secret,
        u64::from_le_bytes(last) ^ secrets.seed ^ len,
    );
    let (low, high) = multiply(a ^ 0xaaaa_aaaa_aaaa_aaaa, b ^ secret ^ len);
    low ^ high
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_keys_hash_as_all_others_do() {
        let secrets = RapidSecrets::seed(0x9e37_79b9_7f4a_7c15);
        let bytes: Vec<u8> = (0..16).map(|byte| byte * 13 + 11).collect();
        for len in 8..=bytes.len() {
            let key = &bytes[..len];
            let (first, last) = (key.first_chunk().unwrap(), key.last_chunk().unwrap());
            let short = short_hash(&secrets, *first, *last, len as u64);
            assert_eq!(short, any_hash(&secrets, key), "{len}");
        }
    }
}

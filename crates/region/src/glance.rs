//! A lookup as it nearly always goes: the key's entry is in the first or second bucket of its chain,
//! small, and whole. In straight lines, without a call, and without anything that has to be stored on the
//! stack; whatever is out of the ordinary is left to [`Bucket::find`].

use crate::counter::copy_counter;
use crate::entry::{words_for, EntryRef, Meta};
use crate::index::{Bucket, Found};
use crate::key::Key;
use crate::layout::{entry, slot, tag_of, WORD};
use crate::lock;
use crate::memory::Words;
use crate::region::Inner;
use crate::shard::{shard_words, Brief, Root};
use crate::sync::{fence, AtomicU64, Ordering};

/// What a lookup started from: as long as it holds, all that was read since belongs together.
#[derive(Clone, Copy)]
pub(crate) struct View<'r> {
    shard: Words<'r>,
    index: u64,
    root: Root,
    pub(crate) bucket: Bucket<'r>,
    version: u64,
}

/// What one look at the first buckets of a chain showed.
pub(crate) enum Glance<'r> {
    /// The key's entry: plain or a counter, and not long.
    Entry(Hit<'r>),
    /// No slot names an entry with the key's tag, and there is no other bucket to look into.
    Nothing,
    /// No slot names one; this word links to another bucket.
    Link(u64),
    /// Something that takes more than a glance.
    Unclear,
}

/// An entry as a glance shows it.
#[derive(Clone, Copy)]
pub(crate) struct Hit<'r> {
    pub(crate) slot: &'r AtomicU64,
    pub(crate) word: u64,
    pub(crate) meta: Meta,
    pub(crate) head: Words<'r>,
    pub(crate) value: Words<'r>,
}

/// Bytes of a value from which on a copy is worth keeping when only other keys changed meanwhile.
pub(crate) const LONG: u64 = 4096;

impl<'r> View<'r> {
    /// `None` if the key's bucket can't be reached without a longer look.
    #[inline(always)]
    pub(crate) fn new(inner: &'r Inner, shard: u64, hash: u64) -> Option<Self> {
        let words = shard_words(inner, shard);
        let root = Root::load(words);
        // Pairs with the Release store of the root: who sees new buckets sees what is in them.
        fence(Ordering::Acquire);
        let bucket = Bucket::near(inner, shard, words, root.bucket_of(hash))?;
        Some(Self::of_bucket(shard, words, root, bucket))
    }

    #[inline(always)]
    pub(crate) fn of_bucket(index: u64, shard: Words<'r>, root: Root, bucket: Bucket<'r>) -> Self {
        let version = bucket.version();
        // Pairs with the Release of `raise_version`: who sees the version sees the slots stored
        // before it.
        fence(Ordering::Acquire);
        Self {
            shard,
            index,
            root,
            bucket,
            version,
        }
    }

    /// Whether all that was read since [`View::new`] belonged together.
    #[inline(always)]
    pub(crate) fn is_unchanged(&self) -> bool {
        // Pairs with the fence before a block is filled again, and with the Release store of a free
        // block's link: who read any of that sees the version raised before it.
        fence(Ordering::Acquire);
        self.bucket.version() == self.version && Root::load(self.shard) == self.root
    }

    /// Looks for the key in the first bucket of its chain.
    #[inline(always)]
    pub(crate) fn glance(&self, inner: &'r Inner, hash: u64, key: impl Key) -> Glance<'r> {
        scan::<_, false>(inner, self.bucket, hash, key)
    }

    /// The same, but any entry that is no counter is unclear.
    #[inline(always)]
    pub(crate) fn glance_at_counter(
        &self,
        inner: &'r Inner,
        hash: u64,
        key: impl Key,
    ) -> Glance<'r> {
        scan::<_, true>(inner, self.bucket, hash, key)
    }

    /// Locks the shard that the view is of, if it is free and the view is what a lookup under the
    /// lock would find.
    #[inline(always)]
    pub(crate) fn lock_unchanged(&self, inner: &'r Inner) -> Option<Brief<'r>> {
        let owner = inner.session.current()?;
        if !lock::try_acquire(self.shard, owner) {
            return None;
        }
        let locked = Brief::of(inner, self.index, self.shard, owner);
        if !self.is_unchanged() {
            locked.done();
            return None;
        }
        Some(locked)
    }
}

/// Goes on with what a look at the first two buckets of the key's chain shows. One key in fifty
/// is in the second, and more of those that are new.
#[inline(never)]
pub(crate) fn look_further<'r, T: Then<'r>>(
    inner: &'r Inner,
    hash: u64,
    key: &[u8],
    then: T,
) -> Option<T::Output> {
    let view = View::new(inner, inner.geometry.shard_of(hash), hash)?;
    let glance = match scan::<_, false>(inner, view.bucket, hash, key) {
        Glance::Link(link) => {
            let next = Bucket::linked(inner, link).ok()??;
            scan::<_, false>(inner, next, hash, key)
        }
        glance => glance,
    };
    then.then(&view, glance)
}

/// What an operation makes of a glance. It is inlined where the glance is, so that nothing of what
/// that showed has to go through memory.
pub(crate) trait Then<'r> {
    type Output;

    /// `None` if the operation takes more than a glance. Implementations are inlined.
    fn then(self, view: &View<'r>, glance: Glance<'r>) -> Option<Self::Output>;
}

/// Looks for the key in one bucket, first where it is most likely to be. The last slot is looked at
/// once: between two looks a link may turn into an entry, which neither would find, and the version
/// is raised only after that. With `COUNTER`, an entry that is no counter is unclear.
#[inline(always)]
fn scan<'r, K: Key, const COUNTER: bool>(
    inner: &'r Inner,
    bucket: Bucket<'r>,
    hash: u64,
    key: K,
) -> Glance<'r> {
    let tag = tag_of(hash);
    let home = bucket.home(tag);
    let word = home.load(Ordering::Relaxed);
    if word >> slot::TAG_SHIFT == tag {
        return hit::<K, COUNTER>(inner, home, word, key).map_or(Glance::Unclear, Glance::Entry);
    }
    let mut last = 0;
    for slot in bucket.slots() {
        let word = slot.load(Ordering::Relaxed);
        // What is free or a link has the tag 0, and is no hit.
        if word >> slot::TAG_SHIFT == tag {
            return hit::<K, COUNTER>(inner, slot, word, key)
                .map_or(Glance::Unclear, Glance::Entry);
        }
        last = word;
    }
    if last & slot::LINK == 0 {
        Glance::Nothing
    } else {
        Glance::Link(last)
    }
}

/// The key's entry, if it is the one that a slot names and of an ordinary kind.
#[inline(always)]
fn hit<'r, K: Key, const COUNTER: bool>(
    inner: &'r Inner,
    slot: &'r AtomicU64,
    word: u64,
    key: K,
) -> Option<Hit<'r>> {
    // Pairs with the Release store that committed the slot: who sees it sees the whole entry.
    fence(Ordering::Acquire);
    // What is free or a link has the tag 0 too.
    if word & slot::LINK != 0 {
        return None;
    }
    let offset = word & slot::OFFSET_MASK;
    let head = inner.memory.entry_head(offset)?;
    let key_len = key.bytes().len() as u64;
    let mut meta = Meta(head.at(entry::META).load(Ordering::Relaxed));
    if COUNTER {
        let counter = Meta::new(key_len, WORD, entry::COUNTER);
        if meta != counter {
            return None;
        }
        // The compiler knows more about this one.
        meta = counter;
    } else if !meta.is_ordinary(key_len) || meta.value_len() > LONG {
        return None;
    }
    let head_words = key.head_words(&inner.geometry);
    let before_value = head_words + key.words();
    let len = before_value + words_for(meta.value_len());
    let (before, value) = inner.memory.entry_words(offset, len)?.split(before_value)?;
    if !key.is_in(before.from(head_words)?) {
        return None;
    }
    Some(Hit {
        slot,
        word,
        meta,
        head,
        value,
    })
}

impl<'r> Hit<'r> {
    /// Milliseconds, or 0 for never.
    #[inline(always)]
    pub(crate) fn expires_at(&self) -> u64 {
        self.head.at(entry::EXPIRES_AT).load(Ordering::Relaxed)
    }

    #[inline(always)]
    pub(crate) fn is_expired(&self, inner: &Inner) -> bool {
        is_expired(inner, self.expires_at())
    }

    /// Puts the value into `out` in place of what is in there.
    #[inline(always)]
    pub(crate) fn copy_value(&self, out: &mut Vec<u8>) {
        if self.meta.has(entry::COUNTER) {
            out.clear();
            copy_counter(self.head, self.value, out);
        } else {
            // At most `LONG`.
            #[allow(clippy::cast_possible_truncation)]
            let len = self.meta.value_len() as usize;
            self.value.copy_in_place_of(out, len);
        }
    }

    /// The same, as everything else knows it.
    #[inline(always)]
    pub(crate) fn found(&self, inner: &'r Inner) -> Found<'r> {
        let offset = self.word & slot::OFFSET_MASK;
        let len = self.meta.block_len(&inner.geometry);
        let words = inner.memory.entry_words(offset, len / WORD);
        Found {
            slot: self.slot,
            word: self.word,
            entry: EntryRef::made(inner, offset, words.unwrap_or(self.head), self.meta),
        }
    }
}

/// Whether what expires at `at`, or never if that is 0, is to be seen no more.
#[inline(always)]
pub(crate) fn is_expired(inner: &Inner, at: u64) -> bool {
    at != 0 && is_past(inner, at)
}

/// Out of line, so that what every read needs stays in registers.
#[cold]
#[inline(never)]
fn is_past(inner: &Inner, at: u64) -> bool {
    at <= inner.clock.now_ms()
}

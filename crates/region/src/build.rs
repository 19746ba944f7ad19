//! Entries that are being made, and what becomes of them when nothing names them any more.

use crate::entry::{EntryRef, Meta};
use crate::error::{Damaged, WriteError};
use crate::layout::{class_of, entry, PAGE_LEN, PAGE_WORDS, WORD};
use crate::pool::Kind;
use crate::session::OwnerId;
use crate::shard::Locked;
use crate::sync::{build_fence, fence, Ordering};

/// A value to be stored.
#[derive(Clone, Copy)]
pub(crate) enum Value<'v> {
    Bytes(&'v [u8]),
    Counter(i64),
}

/// Everything a new entry is made of.
pub(crate) struct NewEntry<'e> {
    pub(crate) hash: u64,
    pub(crate) key: &'e [u8],
    pub(crate) value: Value<'e>,
    pub(crate) expires_at: u64,
    pub(crate) owner: Option<OwnerId>,
}

impl<'r> Locked<'r> {
    /// A block with the new entry in it, which nothing names yet.
    #[inline(always)]
    pub(crate) fn build_entry(&self, new: &NewEntry<'_>) -> Result<EntryRef<'r>, WriteError> {
        let geometry = &self.region.geometry;
        let (len, flags) = match new.value {
            Value::Bytes(bytes) => (bytes.len() as u64, 0),
            Value::Counter(_) => (WORD, entry::COUNTER),
        };
        let flags = flags
            | if new.owner.is_some() {
                entry::EPHEMERAL
            } else {
                0
            };
        let meta = Meta::for_value(new.key.len() as u64, len, flags, geometry);
        let block_len = meta.block_len(geometry);
        let Some(class) = class_of(block_len) else {
            return Err(WriteError::Full);
        };
        let offset = self.alloc_block_again(class)?;
        let words = self.region.memory.trusted_words(offset, block_len / WORD);
        // Pairs with the fence in `View::is_unchanged`: a reader that meets any store below sees
        // the version that was raised before this block was freed.
        build_fence();
        words.at(entry::HASH).store(new.hash, Ordering::Relaxed);
        words.at(entry::META).store(meta.0, Ordering::Relaxed);
        words
            .at(entry::EXPIRES_AT)
            .store(new.expires_at, Ordering::Relaxed);
        let mut rest = meta.head_words(geometry);
        if let Some(owner) = new.owner {
            words
                .at(rest - entry::EPHEMERAL_WORDS)
                .store(owner.0, Ordering::Relaxed);
        }
        if let Some(key) = words.from(rest) {
            key.fill(new.key);
        }
        rest += meta.key_words();
        let payload = words.from(rest);
        match (new.value, payload) {
            (Value::Bytes(bytes), Some(_)) if meta.has(entry::LARGE) => {
                if let Err(error) = self.write_pages(offset, rest, meta, bytes) {
                    self.free_block(offset)?;
                    return Err(error);
                }
            }
            (Value::Bytes(bytes), Some(payload)) => payload.fill_with_any(bytes),
            (Value::Counter(value), Some(payload)) => {
                payload
                    .at(0)
                    .store(value.cast_unsigned(), Ordering::Relaxed);
            }
            (_, None) => {}
        }
        Ok(EntryRef::made(self.region, offset, words, meta))
    }

    /// Writes a large value into pages of its own and lists them in the block. On failure nothing
    /// stays claimed.
    #[cold]
    fn write_pages(
        &self,
        offset: u64,
        list_start: u64,
        meta: Meta,
        bytes: &[u8],
    ) -> Result<(), WriteError> {
        let list_words = meta.payload_words();
        let list = self
            .region
            .memory
            .trusted_words(offset + list_start * WORD, list_words);
        let mut claimed = Vec::new();
        let mut claim = |kind| {
            let page = self.claim_page(kind, 0)?;
            claimed.push(page);
            // As in `build_entry`: the page may have been read as something else until a moment
            // ago.
            fence(Ordering::Release);
            let start = self.region.geometry.page_offset(page);
            Ok::<_, WriteError>((page, self.region.memory.trusted_words(start, PAGE_WORDS)))
        };
        let mut write_all = || {
            let mut inner_list = list;
            // A page is 65,536 bytes.
            #[allow(clippy::cast_possible_truncation)]
            for (index, part) in (0_u64..).zip(bytes.chunks(PAGE_LEN as usize)) {
                if meta.has(entry::NESTED) && index % PAGE_WORDS == 0 {
                    let (page, words) = claim(Kind::List)?;
                    list.at(index / PAGE_WORDS).store(page, Ordering::Relaxed);
                    inner_list = words;
                }
                let (page, words) = claim(Kind::Value)?;
                words.fill_with_any(part);
                let place = if meta.has(entry::NESTED) {
                    index % PAGE_WORDS
                } else {
                    index
                };
                inner_list.at(place).store(page, Ordering::Relaxed);
            }
            Ok(())
        };
        let written = write_all();
        if written.is_err() {
            claimed.into_iter().for_each(|page| self.release_page(page));
        }
        written
    }

    /// Frees the block and the pages of an entry that nothing names any more.
    #[inline(always)]
    pub(crate) fn free_entry(&self, entry: &EntryRef<'_>) -> Result<(), Damaged> {
        if entry.meta.has(entry::LARGE) {
            self.free_pages(entry)?;
        }
        self.free_block(entry.offset)
    }

    /// The same for an entry that was replaced: a block that held its value is kept for the next
    /// write.
    #[inline(always)]
    pub(crate) fn retire_entry(&self, entry: &EntryRef<'_>) -> Result<(), Damaged> {
        if entry.meta.has(entry::LARGE) {
            return self.free_entry(entry);
        }
        self.spare_block(entry.offset)
    }

    fn free_pages(&self, entry: &EntryRef<'_>) -> Result<(), Damaged> {
        let is_ours = |page: u64, kind: Kind| {
            crate::pool::PageState::load(self.region, page)
                .is_some_and(|state| state.kind == kind && state.shard == self.index)
        };
        entry.for_each_page(|page| {
            if !is_ours(page, Kind::Value) {
                return Err(Damaged {
                    what: "a value page of another shard",
                    offset: entry.offset,
                });
            }
            self.release_page(page);
            Ok(())
        })?;
        for page in entry.list_pages() {
            let page = page?;
            if is_ours(page, Kind::List) {
                self.release_page(page);
            }
        }
        Ok(())
    }
}

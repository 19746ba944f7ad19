//! Writing one key: set, delete, incr, append, expiries, compare-and-set loops.
//!
//! Every write locks the key's shard, prepares a new block beside the live one, and commits with
//! one store to the key's slot. Whatever else it changes (counts, lists, free blocks) is rebuilt by
//! repair if the writer dies.

use crate::build::{NewEntry, Value};
use crate::entry::EntryRef;
use crate::error::{lacks_room, Damaged, WriteError};
use crate::glance::{look_further, Glance, Then, View};
use crate::index::{slot_word, Bucket, Found};
use crate::key::Key;
use crate::layout::{entry, shard, slot, tag_of};
use crate::limits::ROOM_ATTEMPTS;
use crate::read::checked_key;
use crate::region::{Inner, Region};
use crate::replace::Plain;
use crate::session;
use crate::shard::Locked;
use crate::sync::Ordering;

/// What a write requires of the key, and what it gives it. Of several conditions the last one
/// counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SetOptions {
    ttl_ms: Option<u64>,
    condition: Condition,
    ephemeral: bool,
    keep_expiry: bool,
    keep_owner: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Condition {
    #[default]
    None,
    Absent,
    Present,
    Revision(u64),
}

impl SetOptions {
    /// No condition, no expiry.
    pub fn new() -> Self {
        Self::default()
    }

    /// The key expires after so many milliseconds. Without it, a `set` makes a key that never
    /// expires.
    #[must_use]
    pub fn ttl_ms(mut self, ttl_ms: u64) -> Self {
        self.ttl_ms = Some(ttl_ms);
        self
    }

    /// Only if the key is not there.
    #[must_use]
    pub fn if_absent(mut self) -> Self {
        self.condition = Condition::Absent;
        self
    }

    /// Only if the key is there.
    #[must_use]
    pub fn if_present(mut self) -> Self {
        self.condition = Condition::Present;
        self
    }

    /// Only if the key is there and nobody wrote it since its [`Entry`](crate::Entry) had this
    /// revision.
    #[must_use]
    pub fn if_revision(mut self, revision: u64) -> Self {
        self.condition = Condition::Revision(revision);
        self
    }

    /// A key that is there keeps the expiry it has.
    #[must_use]
    pub fn keep_expiry(mut self) -> Self {
        self.keep_expiry = true;
        self
    }

    /// An ephemeral key goes with the session that it goes with already.
    #[must_use]
    pub(crate) fn keep_owner(mut self) -> Self {
        self.keep_owner = true;
        self
    }

    /// The key goes when this handle's session ends, by detaching or by the death of the process.
    /// After a death, reads still return it until it is written or reaped ([`Region::reap`]).
    #[must_use]
    pub fn ephemeral(mut self) -> Self {
        self.ephemeral = true;
        self
    }
}

impl Region {
    /// Stores a value under a key and returns its revision. The key loses an expiry it had.
    // A call, and a result that goes through memory, are a tenth of it.
    #[inline(always)]
    pub fn set(&self, key: &[u8], value: &[u8]) -> Result<u64, WriteError> {
        if let Some(revision) = self.set_at_a_glance(key, value, 0) {
            return Ok(revision);
        }
        self.check_value_len(value)?;
        let revision = self.set_patiently(key, value, 0, SetOptions::new())?;
        // Without a condition there is nothing that can fail to be met.
        Ok(revision.unwrap_or_default())
    }

    /// Stores a value if the options' condition is met, and returns its revision; `None` if it is
    /// not met.
    #[inline]
    pub fn set_with(
        &self,
        key: &[u8],
        value: &[u8],
        options: SetOptions,
    ) -> Result<Option<u64>, WriteError> {
        self.check_value_len(value)?;
        let expires_at = self.expiry(options.ttl_ms)?;
        if options.condition == Condition::None && !options.ephemeral && !options.keep_expiry {
            if let Some(revision) = self.set_at_a_glance(key, value, expires_at) {
                return Ok(Some(revision));
            }
        }
        self.set_patiently(key, value, expires_at, options)
    }

    #[inline(always)]
    fn check_value_len(&self, value: &[u8]) -> Result<(), WriteError> {
        let (len, limit) = (value.len() as u64, self.inner.geometry.value_len_max);
        if len > limit {
            return Err(WriteError::ValueLen { len, limit });
        }
        Ok(())
    }

    /// Looks the key up before the lock is taken: it is held only for the change, and the lookup does
    /// not wait until the lock's exchange is done. `None` if it takes more than a glance.
    #[inline(always)]
    fn set_at_a_glance(&self, key: &[u8], value: &[u8], expires_at: u64) -> Option<u64> {
        let inner = &*self.inner;
        match inner.short_key(key) {
            Some((short, hash)) => glance_and_set(inner, hash, short, value, expires_at),
            None => set_any(inner, key, value, expires_at),
        }
    }

    #[inline(never)]
    fn set_patiently(
        &self,
        key: &[u8],
        value: &[u8],
        expires_at: u64,
        options: SetOptions,
    ) -> Result<Option<u64>, WriteError> {
        self.write(key, |locked, hash| {
            let (bucket, found) = locked.find_live(hash, key)?;
            let met = match (options.condition, &found) {
                (Condition::None, _)
                | (Condition::Absent, None)
                | (Condition::Present, Some(_)) => true,
                (Condition::Revision(revision), Some(found)) => found.entry.revision() == revision,
                _ => false,
            };
            if !met {
                return Ok(None);
            }
            let kept = found.as_ref().map(|found| &found.entry);
            let kept_expiry = kept.filter(|_| options.keep_expiry);
            let kept_owner = kept.filter(|_| options.keep_owner);
            let own = options.ephemeral.then_some(locked.owner);
            let new = NewEntry {
                hash,
                key,
                value: Value::Bytes(value),
                expires_at: kept_expiry.map_or(expires_at, EntryRef::expires_at),
                owner: kept_owner.and_then(EntryRef::owner).or(own),
            };
            locked.put(bucket, found, &new).map(Some)
        })
    }

    /// Removes a key; `false` if it was not there.
    pub fn delete(&self, key: &[u8]) -> Result<bool, WriteError> {
        self.delete_where(key, |_| true)
    }

    /// Removes a key if nobody wrote it since its entry had this revision.
    pub fn delete_if(&self, key: &[u8], revision: u64) -> Result<bool, WriteError> {
        self.delete_where(key, |entry| entry.revision() == revision)
    }

    /// Adds bytes to the end of a value and returns its new length. A key that is not there begins
    /// empty; one that is keeps its expiry, and an ephemeral one its owner.
    pub fn append(&self, key: &[u8], more: &[u8]) -> Result<u64, WriteError> {
        let limit = self.inner.geometry.value_len_max;
        self.write(key, |locked, hash| {
            let (bucket, found) = locked.find_live(hash, key)?;
            let mut value = Vec::new();
            let (mut expires_at, mut owner) = (0, None);
            if let Some(found) = &found {
                if found.entry.counter().is_some() {
                    return Err(WriteError::IsCounter);
                }
                found.entry.copy_value(&mut value)?;
                (expires_at, owner) = (found.entry.expires_at(), found.entry.owner());
            }
            value.extend_from_slice(more);
            let len = value.len() as u64;
            if len > limit {
                return Err(WriteError::ValueLen { len, limit });
            }
            let new = NewEntry {
                hash,
                key,
                value: Value::Bytes(&value),
                expires_at,
                owner,
            };
            locked.put(bucket, found, &new)?;
            Ok(len)
        })
    }

    /// Lets a key expire after so many milliseconds from now; `false` if it is not there.
    pub fn expire(&self, key: &[u8], ttl_ms: u64) -> Result<bool, WriteError> {
        let at = self.expiry(Some(ttl_ms))?;
        self.change_expiry(key, |_| at)
    }

    /// Makes sure a key lives at least so many milliseconds more; an expiry that is later, or none,
    /// stays.
    pub fn touch(&self, key: &[u8], ttl_ms: u64) -> Result<bool, WriteError> {
        let at = self.expiry(Some(ttl_ms))?;
        self.change_expiry(key, |now| if now == 0 { 0 } else { now.max(at) })
    }

    /// Lets a key live for ever; `false` if it is not there.
    pub fn persist(&self, key: &[u8]) -> Result<bool, WriteError> {
        self.change_expiry(key, |_| 0)
    }

    /// When a key written now with this time to live expires, on the region's clock.
    pub(crate) fn expiry(&self, ttl_ms: Option<u64>) -> Result<u64, WriteError> {
        let Some(ttl_ms) = ttl_ms else { return Ok(0) };
        let at = self
            .inner
            .clock
            .now_ms()
            .checked_add(ttl_ms)
            .filter(|at| *at < 1 << 62);
        // 0 stands for never.
        at.map(|at| at.max(1)).ok_or(WriteError::Ttl { ttl_ms })
    }

    /// Locks the key's shard for one write; where there is no room, makes some and tries
    /// again as long as that helps.
    #[inline(always)]
    pub(crate) fn write<T>(
        &self,
        key: &[u8],
        mut body: impl FnMut(&Locked<'_>, u64) -> Result<T, WriteError>,
    ) -> Result<T, WriteError> {
        let inner = &*self.inner;
        let hash = inner.hash(checked_key(key)?);
        let shard = inner.geometry.shard_of(hash);
        let mut room = MakeRoom {
            has_swept: false,
            idle: 0,
            next: shard,
            attempts_left: inner.geometry.page_count + ROOM_ATTEMPTS,
        };
        loop {
            let result = {
                let locked = Locked::lock(inner, shard)?;
                let result = body(&locked, hash);
                locked.sweep_a_little();
                result
            };
            if !lacks_room(&result) || !room.make(inner)? {
                return result;
            }
        }
    }

    fn delete_where(
        &self,
        key: &[u8],
        condition: impl Fn(&EntryRef<'_>) -> bool,
    ) -> Result<bool, WriteError> {
        self.write(key, |locked, hash| {
            let (bucket, found) = locked.find_live(hash, key)?;
            match found {
                Some(found) if condition(&found.entry) => {
                    locked.next_revision();
                    locked.remove(bucket, &found, crate::feed::Change::Delete)?;
                    Ok(true)
                }
                _ => Ok(false),
            }
        })
    }

    fn change_expiry(&self, key: &[u8], at: impl Fn(u64) -> u64) -> Result<bool, WriteError> {
        self.write(key, |locked, hash| {
            let (_, found) = locked.find_live(hash, key)?;
            let Some(found) = found else { return Ok(false) };
            let old = found.entry.expires_at();
            let new = at(old);
            // The entry keeps its revision; a sweep under way sees by the shard's that expiries
            // changed.
            locked.next_revision();
            locked.count_expiry(old, new);
            // One store, so it needs no new block; the value and its revision stay.
            found
                .entry
                .words
                .at(entry::EXPIRES_AT)
                .store(new, Ordering::Relaxed);
            Ok(true)
        })
    }
}

/// The new revision; `None` if it takes more than a glance.
#[inline(always)]
fn glance_and_set<K: Key>(
    inner: &Inner,
    hash: u64,
    key: K,
    value: &[u8],
    expires_at: u64,
) -> Option<u64> {
    let set = Plain {
        inner,
        hash,
        key,
        value,
        expires_at,
    };
    let view = View::new(inner, inner.geometry.shard_of(hash), hash)?;
    match view.glance(inner, hash, key) {
        Glance::Link(_) => look_further(inner, hash, key.bytes(), set.of_bytes()),
        glance => set.then(&view, glance),
    }
}

/// The same for a key of any length.
#[inline(never)]
fn set_any(inner: &Inner, key: &[u8], value: &[u8], expires_at: u64) -> Option<u64> {
    let hash = inner.hash(checked_key(key).ok()?);
    glance_and_set(inner, hash, key, value, expires_at)
}

/// Makes room for a write that found none, little by little, without a lock of its own shard.
struct MakeRoom {
    has_swept: bool,
    /// Shards in a row that had nothing to give.
    idle: u64,
    next: u64,
    /// Enough to empty every page; more are only needed where others take what this write makes.
    attempts_left: u64,
}

impl MakeRoom {
    /// Whether it is worth trying again.
    #[cold]
    fn make(&mut self, region: &Inner) -> Result<bool, WriteError> {
        let Some(left) = self.attempts_left.checked_sub(1) else {
            return Ok(false);
        };
        self.attempts_left = left;
        // Expired entries of all shards go first: they are no reason to be full. That none is left
        // tells nothing of an attempt made before, since whoever writes sweeps a little, this write too.
        let has_swept = std::mem::replace(&mut self.has_swept, true);
        if crate::sweep::sweep_all(region)? || !has_swept {
            return Ok(true);
        }
        // A page of the write's own shard first, then of the others, round by round.
        while region.geometry.evicts() && self.idle < region.geometry.shard_count {
            let shard = self.next;
            self.next = (shard + 1) % region.geometry.shard_count;
            if Locked::lock(region, shard)?.evict_page()? {
                self.idle = 0;
                return Ok(true);
            }
            self.idle += 1;
        }
        Ok(false)
    }
}

impl<'r> Locked<'r> {
    /// The bucket of a key and its entry, as a reader would see it: what is expired, or ephemeral
    /// of a dead session, is removed on the way.
    #[inline(always)]
    pub(crate) fn find_live(
        &self,
        hash: u64,
        key: &[u8],
    ) -> Result<(Bucket<'r>, Option<Found<'r>>), Damaged> {
        let bucket = Bucket::of_hash(self.region, self.index, self.root(), hash)?;
        let found = bucket.find(self.region, hash, key)?;
        match found {
            Some(found) if self.is_gone(&found.entry) => {
                self.add(shard::EXPIRED, u64::from(found.entry.is_expired()));
                self.next_revision();
                self.remove(bucket, &found, crate::feed::Change::Expire)?;
                // The removal may have merged buckets.
                Ok((
                    Bucket::of_hash(self.region, self.index, self.root(), hash)?,
                    None,
                ))
            }
            found => Ok((bucket, found)),
        }
    }

    /// [`Locked::put`] of a key that is not there, out of line.
    #[inline(never)]
    pub(crate) fn insert(&self, bucket: Bucket<'r>, new: &NewEntry<'_>) -> Result<u64, WriteError> {
        self.put(bucket, None, new)
    }

    /// Writes a new entry and lets the key's slot name it: insert or replace.
    #[inline(always)]
    pub(crate) fn put(
        &self,
        bucket: Bucket<'r>,
        found: Option<Found<'r>>,
        new: &NewEntry<'_>,
    ) -> Result<u64, WriteError> {
        // Evicting may remove the entry to be replaced, or move it: so room is made before slots
        // are looked at.
        let (entry, evicted) = self.alloc_entry(new)?;
        let (bucket, found) = if evicted {
            let bucket = Bucket::of_hash(self.region, self.index, self.root(), new.hash)?;
            (bucket, bucket.find(self.region, new.hash, new.key)?)
        } else {
            (bucket, found)
        };
        let slot = match &found {
            Some(found) => Ok(found.slot),
            None => self.free_slot(bucket, tag_of(new.hash)),
        };
        let slot = match slot {
            Ok(slot) => slot,
            Err(error) => {
                self.free_entry(&entry)?;
                // If a chain is as long as it may be, its turn to be split comes also by writes
                // that fail.
                self.grow_if_crowded();
                return Err(error);
            }
        };
        let revision = self.next_revision();
        entry
            .words
            .at(entry::REVISION)
            .store(revision, Ordering::Relaxed);
        let visited = found.as_ref().map_or(0, |_| slot::VISITED);
        let visited = if self.region.geometry.evicts() {
            visited
        } else {
            0
        };
        // The commit. Release pairs with the fence in `Bucket::find`: who sees the slot sees the
        // whole entry.
        slot.store(
            slot_word(new.hash, entry.offset) | visited,
            Ordering::Release,
        );
        bucket.raise_version();
        match &found {
            Some(found) => {
                self.swap_accounts(&entry, &found.entry);
                self.retire_entry(&found.entry)?;
            }
            None => self.attach(&entry, None),
        }
        self.publish(crate::feed::Change::Set, revision, new.key);
        if found.is_none() {
            self.grow_if_crowded();
        }
        Ok(revision)
    }

    /// Clears the slot of an entry and frees what it held. The caller drew the change's revision.
    pub(crate) fn remove(
        &self,
        bucket: Bucket<'r>,
        found: &Found<'r>,
        change: crate::feed::Change,
    ) -> Result<(), Damaged> {
        // The commit.
        found.slot.store(0, Ordering::Release);
        bucket.raise_version();
        if crate::feed::is_on(self.region) {
            self.publish(change, self.get(shard::REVISION), &found.entry.key());
        }
        self.detach(&found.entry);
        self.free_entry(&found.entry)?;
        self.free_spare()?;
        self.drop_empty_overflow(bucket)?;
        self.shrink_if_sparse();
        Ok(())
    }

    /// A block with the new entry in it, and whether something was evicted for it. Not linked yet.
    #[inline(always)]
    fn alloc_entry(&self, new: &NewEntry<'_>) -> Result<(EntryRef<'r>, bool), WriteError> {
        let mut built = self.build_entry(new);
        if lacks_room(&built) && self.get(shard::SPARE) != 0 {
            self.free_spare()?;
            built = self.build_entry(new);
        }
        match built {
            Ok(entry) => Ok((entry, false)),
            Err(WriteError::Full | WriteError::NoMemory(_)) if self.region.geometry.evicts() => {
                self.build_entry_evicting(new).map(|entry| (entry, true))
            }
            Err(error) => Err(error),
        }
    }

    /// Counts an entry in the place of another, which changes nothing if they are alike.
    #[inline(always)]
    fn swap_accounts(&self, entry: &EntryRef<'_>, old: &EntryRef<'_>) {
        let alike = entry.meta == old.meta && entry.expires_at() == old.expires_at();
        if !alike || entry.meta.has(entry::EPHEMERAL) || self.region.geometry.evicts() {
            self.attach(entry, Some(old));
            self.detach(old);
        }
    }

    /// Counts an entry that was just linked, and puts it into the lists it belongs to: in the place
    /// of `old`, where it replaces that.
    #[inline(always)]
    fn attach(&self, entry: &EntryRef<'_>, old: Option<&EntryRef<'_>>) {
        self.add(shard::ENTRIES, 1);
        self.add(shard::BYTES, entry.meta.key_len() + entry.meta.value_len());
        self.count_expiry(0, entry.expires_at());
        if self.region.geometry.evicts() {
            self.sieve_attach(entry, old);
        }
        if entry.meta.has(entry::EPHEMERAL) {
            self.ephemeral_attach(entry);
        }
    }

    #[inline(always)]
    fn detach(&self, entry: &EntryRef<'_>) {
        self.sub(shard::ENTRIES, 1);
        self.sub(shard::BYTES, entry.meta.key_len() + entry.meta.value_len());
        self.count_expiry(entry.expires_at(), 0);
        if self.region.geometry.evicts() {
            self.sieve_detach(entry);
        }
        if entry.meta.has(entry::EPHEMERAL) {
            self.ephemeral_detach(entry);
        }
    }

    /// Whether an entry is there for nobody any more.
    #[inline(always)]
    pub(crate) fn is_gone(&self, entry: &EntryRef<'_>) -> bool {
        entry.is_expired()
            || entry
                .owner()
                .is_some_and(|owner| !session::is_alive(self.region, owner))
    }
}

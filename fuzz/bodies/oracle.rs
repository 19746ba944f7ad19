//! A region and a plain map that must always agree: every operation is predicted on the map, run
//! on the region, and the results compared. Used by the tests of `ganger-region` and by the fuzzer.

use super::program::{key_of, How, If, Op, Val};
use ganger_region::test_support::Heap;
use ganger_region::{Config, Cursor, Options, Region, SetOptions, WhenFull, WriteError};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

/// What an operation returned.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Done(bool),
    Sum(i64),
    Value(Option<Vec<u8>>),
    Failed(&'static str),
    Full,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Item {
    value: Vec<u8>,
    /// 0 for never.
    expires_at: u64,
    is_counter: bool,
    owner: Option<usize>,
    revision: u64,
}

enum Store {
    Heap(Heap),
    Memfd(OwnedFd),
}

/// A region, its handles, and the map.
pub struct World {
    store: Store,
    clock: Arc<AtomicU64>,
    handles: Vec<Region>,
    current: usize,
    /// Handles of killed processes. They end after everything else: a dead process does nothing.
    dead: Vec<Region>,
    model: BTreeMap<u16, Item>,
    evicts: bool,
    evicted: u64,
    /// Writes that were refused because the region was full.
    pub refused: u64,
}

/// Where a world's region lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Heap,
    Memfd,
}

impl World {
    pub fn new(place: Place, len: u64, shards: u64, when_full: WhenFull, handles: usize) -> Self {
        let clock = Arc::new(AtomicU64::new(1_000_000));
        let config = Config::new(len)
            .shards(shards)
            .sessions(8)
            .when_full(when_full);
        let (store, first) = match place {
            Place::Heap => {
                let (heap, region) = Heap::create(&config, options(&clock)).unwrap();
                (Store::Heap(heap), region)
            }
            Place::Memfd => {
                let region = Region::create(&config, options(&clock)).unwrap();
                let fd = region.fd().unwrap().try_clone_to_owned().unwrap();
                (Store::Memfd(fd), region)
            }
        };
        let mut world = Self {
            store,
            clock,
            handles: vec![first],
            current: 0,
            dead: Vec::new(),
            model: BTreeMap::new(),
            evicts: when_full == WhenFull::Evict,
            evicted: 0,
            refused: 0,
        };
        while world.handles.len() < handles {
            let handle = world.attach();
            world.handles.push(handle);
        }
        world
    }

    pub fn region(&self) -> &Region {
        &self.handles[self.current]
    }

    /// Runs one step on both and compares.
    pub fn apply(&mut self, op: Op) {
        match op {
            Op::Fill(first, count, value, ttl) => {
                let how = How { ttl, ..How::PLAIN };
                (0..count).for_each(|more| {
                    self.apply_to_key(first.wrapping_add(more), Op::SetWith(0, value, how));
                });
            }
            Op::Drain(first, count) => (0..count).for_each(|more| {
                self.apply_to_key(first.wrapping_add(more), Op::Delete(0));
            }),
            Op::Clear => {
                self.region().clear().unwrap();
                self.model.clear();
                assert!(self.region().is_empty(), "entries stay after clear");
            }
            Op::Sweep => self.sweep(),
            Op::Advance(ms) => {
                self.clock.fetch_add(ms, Ordering::Relaxed);
            }
            Op::Use(handle) => self.current = usize::from(handle) % self.handles.len(),
            Op::Reattach => self.reattach(),
            Op::Crash => self.crash(),
            Op::Verify => self.verify(),
            _ => self.apply_to_key(op.key(), op),
        }
    }

    /// Everything that can be read agrees with the map, and the audit is clean.
    pub fn verify(&mut self) {
        let region = self.region();
        let live = self.live();
        self.verify_scan(b"", &live);
        self.verify_scan(b"odd:", &live);
        let keys: Vec<Vec<u8>> = live.keys().cloned().chain([b"nobody".to_vec()]).collect();
        let values: Vec<_> = live
            .values()
            .map(|item| Some(item.value.clone()))
            .chain([None])
            .collect();
        assert!(region.get_many(&keys).unwrap() == values, "get_many");
        for &number in self.model.keys() {
            self.verify_key(number);
        }
        self.check();
        self.sweep();
    }

    /// The audit alone.
    pub fn check(&self) {
        let audit = self.region().check().unwrap();
        assert!(audit.is_clean(), "{:?}", audit.problems);
    }

    fn sweep(&mut self) {
        self.region().sweep().unwrap();
        let live = self.live();
        let stats = self.region().stats();
        let bytes: usize = live
            .iter()
            .map(|(key, item)| key.len() + item.value.len())
            .sum();
        assert_eq!(stats.entries, live.len() as u64, "entries after a sweep");
        assert_eq!(stats.bytes, bytes as u64, "bytes after a sweep");
        assert_eq!(self.region().len(), live.len() as u64);
        assert_eq!(self.region().is_empty(), live.is_empty());
        self.check();
    }

    fn now(&self) -> u64 {
        self.clock.load(Ordering::Relaxed)
    }

    fn live(&self) -> BTreeMap<Vec<u8>, &Item> {
        let now = self.now();
        let live = |item: &Item| item.expires_at == 0 || item.expires_at > now;
        self.model
            .iter()
            .filter(|(_, item)| live(item))
            .map(|(&number, item)| (key_of(number), item))
            .collect()
    }

    fn attach(&self) -> Region {
        match &self.store {
            Store::Heap(heap) => heap.attach(options(&self.clock)).unwrap(),
            Store::Memfd(fd) => {
                Region::from_fd(fd.try_clone().unwrap(), options(&self.clock)).unwrap()
            }
        }
    }

    fn reattach(&mut self) {
        let current = self.current;
        self.model.retain(|_, item| item.owner != Some(current));
        drop(self.handles.remove(current));
        let handle = self.attach();
        self.handles.insert(current, handle);
    }

    fn crash(&mut self) {
        let Store::Heap(heap) = &self.store else {
            return self.reattach();
        };
        heap.kill_all_sessions();
        let count = self.handles.len();
        self.dead.append(&mut self.handles);
        while self.handles.len() < count {
            let handle = self.attach();
            self.handles.push(handle);
        }
        self.model.retain(|_, item| item.owner.is_none());
        self.region().reap().unwrap();
    }

    fn apply_to_key(&mut self, number: u16, op: Op) {
        let key = key_of(number);
        let now = self.now();
        let old = self
            .model
            .get(&number)
            .filter(|item| item.expires_at == 0 || item.expires_at > now);
        let old = old.cloned();
        let actual = self.run(&key, op, old.as_ref());
        let evicted = self.region().stats().evicted;
        let has_evicted = std::mem::replace(&mut self.evicted, evicted) != evicted;
        assert!(self.evicts || !has_evicted, "a region that rejects evicts");
        let limit = self.region().value_len_max();
        let mut new = old.clone();
        let mut expected = predict(&mut new, op, now, self.current, limit);
        if has_evicted && (expected != actual || !self.shows(&key, new.as_ref())) {
            // The key itself made room, before the operation looked at it.
            new = None;
            expected = predict(&mut new, op, now, self.current, limit);
        }
        if actual == Outcome::Full {
            self.expect_full(op);
            new = old;
        } else {
            assert!(
                expected == actual,
                "{op:?} on key {number}: {expected:?} expected, got {actual:?}"
            );
        }
        match new {
            Some(item) => self.model.insert(number, item),
            None => self.model.remove(&number),
        };
        if has_evicted {
            let region = &self.handles[self.current];
            self.model
                .retain(|&other, _| region.exists(&key_of(other)).unwrap());
        }
        self.verify_key(number);
        let revision = self
            .region()
            .entry(&key)
            .unwrap()
            .map(|entry| entry.revision);
        if let (Some(revision), Some(item)) = (revision, self.model.get_mut(&number)) {
            assert!(
                revision >= item.revision,
                "the revision of key {number} went back"
            );
            item.revision = revision;
        }
    }

    /// Only what needs room may be refused, and small values only when hardly a page is left.
    fn expect_full(&mut self, op: Op) {
        self.refused += 1;
        let needs_room = !matches!(
            op,
            Op::Delete(_)
                | Op::DeleteIf(..)
                | Op::UpdateAway(_)
                | Op::Expire(..)
                | Op::Touch(..)
                | Op::Persist(_)
        );
        assert!(
            needs_room && !self.evicts,
            "{op:?} is refused as if the region were full"
        );
        if let Op::Set(_, value) | Op::SetWith(_, value, _) = op {
            let stats = self.region().stats();
            // An entry and an overflow bucket for its slot may need a page each.
            let is_full = value.len > 16_384 || stats.pages_used + 1 >= stats.pages;
            assert!(is_full, "{op:?} is refused, but there is room: {stats:?}");
        }
    }

    fn run(&self, key: &[u8], op: Op, old: Option<&Item>) -> Outcome {
        let region = self.region();
        let current = old.map_or(2, |item| item.revision);
        let result = match op {
            Op::Set(_, value) => region.set(key, &value.bytes()).map(|_| Outcome::Done(true)),
            Op::SetWith(_, value, how) => region
                .set_with(key, &value.bytes(), set_options(how, current))
                .map(|revision| Outcome::Done(revision.is_some())),
            Op::Delete(_) => region.delete(key).map(Outcome::Done),
            Op::DeleteIf(_, stale) => {
                let revision = if stale { current + 1 } else { current };
                region.delete_if(key, revision).map(Outcome::Done)
            }
            Op::Incr(_, by, ttl) => region.incr_with(key, by, ttl).map(Outcome::Sum),
            Op::Append(_, value) => {
                let len = region.append(key, &value.bytes());
                len.map(|len| Outcome::Sum(len.cast_signed()))
            }
            Op::GetOrInsert(_, value) => {
                let value = region.get_or_insert_with(key, || value.bytes());
                value.map(|value| Outcome::Value(Some(value)))
            }
            Op::Lengthen(_) => region
                .update(key, |old| Some(lengthened(old)))
                .map(Outcome::Value),
            Op::UpdateAway(_) => region.update(key, |_| None).map(Outcome::Value),
            Op::Expire(_, ttl) => region.expire(key, ttl).map(Outcome::Done),
            Op::Touch(_, ttl) => region.touch(key, ttl).map(Outcome::Done),
            Op::Persist(_) => region.persist(key).map(Outcome::Done),
            _ => unreachable!("not an operation on a key"),
        };
        result.unwrap_or_else(|error| match error {
            WriteError::Full => Outcome::Full,
            WriteError::NotACounter | WriteError::IsCounter => Outcome::Failed("not a counter"),
            WriteError::Overflow { .. } => Outcome::Failed("overflow"),
            WriteError::ValueLen { .. } => Outcome::Failed("value length"),
            WriteError::Ttl { .. } => Outcome::Failed("ttl"),
            error => panic!("{op:?}: {error}"),
        })
    }

    /// Whether the region has a key as the map says.
    fn shows(&self, key: &[u8], item: Option<&Item>) -> bool {
        let entry = self.region().entry(key).unwrap();
        let expires_at = |ttl: Option<u64>| ttl.map_or(0, |ttl| self.now() + ttl);
        entry.map(|entry| (entry.value, expires_at(entry.ttl_ms), entry.is_counter))
            == item.map(|item| (item.value.clone(), item.expires_at, item.is_counter))
    }

    /// Every way to read one key.
    fn verify_key(&self, number: u16) {
        let key = key_of(number);
        let now = self.now();
        let item = self
            .model
            .get(&number)
            .filter(|item| item.expires_at == 0 || item.expires_at > now);
        let mut value = b"left over".to_vec();
        let found = self.region().get_into(&key, &mut value).unwrap();
        assert_eq!(found, item.is_some(), "whether key {number} is there");
        assert!(
            value == item.map_or(&[][..], |item| &item.value),
            "the value of key {number}"
        );
        assert_eq!(self.region().exists(&key).unwrap(), item.is_some());
        let ttl = item.map(|item| (item.expires_at != 0).then(|| item.expires_at - now));
        assert_eq!(
            self.region().ttl(&key).unwrap(),
            ttl,
            "the time to live of key {number}"
        );
        let entry = self.region().entry(&key).unwrap();
        assert_eq!(entry.is_some(), item.is_some());
        if let (Some(entry), Some(item)) = (entry, item) {
            assert!(entry.value == item.value);
            let told = (entry.ttl_ms, entry.is_counter, entry.is_ephemeral);
            assert_eq!(told, (ttl.flatten(), item.is_counter, item.owner.is_some()));
        }
    }

    fn verify_scan(&self, prefix: &[u8], live: &BTreeMap<Vec<u8>, &Item>) {
        let mut met = BTreeMap::new();
        let mut next = Some(Cursor::START);
        let mut limit = 1;
        while let Some(cursor) = next {
            let page = self.region().scan(prefix, cursor, limit).unwrap();
            for (key, entry) in page.entries {
                assert!(
                    met.insert(key, entry.value).is_none(),
                    "a scan meets a key twice"
                );
            }
            next = page.next.map(|cursor| Cursor::from_u64(cursor.to_u64()));
            limit = limit * 2 % 61 + 1;
        }
        let expected = live.iter().filter(|(key, _)| key.starts_with(prefix));
        assert!(
            met.iter()
                .eq(expected.map(|(key, item)| (key, &item.value))),
            "a scan of {prefix:?} meets other keys than there are"
        );
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.handles.clear();
    }
}

/// What the operation does to the item, and returns.
fn predict(item: &mut Option<Item>, op: Op, now: u64, handle: usize, limit: u64) -> Outcome {
    let at = |ttl: u64| now.checked_add(ttl).filter(|at| *at < 1 << 62);
    match op {
        Op::Set(key, value) => predict(
            item,
            Op::SetWith(key, value, How::PLAIN),
            now,
            handle,
            limit,
        ),
        Op::SetWith(_, value, how) => predict_set(item, value, how, now, handle, limit),
        Op::Delete(_) => Outcome::Done(item.take().is_some()),
        Op::DeleteIf(_, stale) => Outcome::Done(!stale && item.take().is_some()),
        Op::Incr(_, by, ttl) => {
            let Some(expires_at) = ttl.map_or(Some(0), at) else {
                return Outcome::Failed("ttl");
            };
            let new = item
                .get_or_insert_with(|| new_item(0_i64.to_le_bytes().to_vec(), expires_at, None));
            if new.revision == 0 {
                new.is_counter = true;
            }
            let value = <[u8; 8]>::try_from(new.value.as_slice())
                .ok()
                .filter(|_| new.is_counter);
            let Some(value) = value else {
                return Outcome::Failed("not a counter");
            };
            match i64::from_le_bytes(value).checked_add(by) {
                Some(sum) => {
                    new.value = sum.to_le_bytes().to_vec();
                    expire_at_once(item, now);
                    Outcome::Sum(sum)
                }
                None => Outcome::Failed("overflow"),
            }
        }
        Op::Append(_, value) => {
            let old = item
                .clone()
                .unwrap_or_else(|| new_item(Vec::new(), 0, None));
            if old.is_counter {
                return Outcome::Failed("not a counter");
            }
            let value = [old.value.clone(), value.bytes()].concat();
            let len = value.len() as u64;
            if len > limit {
                return Outcome::Failed("value length");
            }
            *item = Some(Item { value, ..old });
            Outcome::Sum(len.cast_signed())
        }
        Op::GetOrInsert(_, value) => match item {
            Some(item) => Outcome::Value(Some(item.value.clone())),
            None if u64::from(value.len) > limit => Outcome::Failed("value length"),
            None => {
                *item = Some(new_item(value.bytes(), 0, None));
                Outcome::Value(Some(value.bytes()))
            }
        },
        Op::Lengthen(_) => {
            let value = lengthened(item.as_ref().map(|item| item.value.as_slice()));
            if value.len() as u64 > limit {
                return Outcome::Failed("value length");
            }
            let expires_at = item.as_ref().map_or(0, |item| item.expires_at);
            let owner = item.as_ref().and_then(|item| item.owner.map(|_| handle));
            let revision = item.as_ref().map_or(0, |item| item.revision);
            *item = Some(Item {
                revision,
                ..new_item(value.clone(), expires_at, owner)
            });
            Outcome::Value(Some(value))
        }
        Op::UpdateAway(_) => {
            *item = None;
            Outcome::Value(None)
        }
        Op::Expire(_, ttl) => change_expiry(item, at(ttl), now, |at, _| at),
        Op::Touch(_, ttl) => {
            change_expiry(
                item,
                at(ttl),
                now,
                |at, old| if old == 0 { 0 } else { old.max(at) },
            )
        }
        Op::Persist(_) => change_expiry(item, Some(0), now, |at, _| at),
        _ => unreachable!("not an operation on a key"),
    }
}

fn predict_set(
    item: &mut Option<Item>,
    value: Val,
    how: How,
    now: u64,
    handle: usize,
    limit: u64,
) -> Outcome {
    if u64::from(value.len) > limit {
        return Outcome::Failed("value length");
    }
    let expires_at = match how.ttl {
        Some(ttl) => now.checked_add(ttl).filter(|at| *at < 1 << 62),
        None => Some(0),
    };
    let Some(expires_at) = expires_at else {
        return Outcome::Failed("ttl");
    };
    let met = match how.condition {
        If::Always => true,
        If::Absent => item.is_none(),
        If::Present | If::Current => item.is_some(),
        If::Stale => false,
    };
    if met {
        let kept = item
            .as_ref()
            .filter(|_| how.keep_expiry)
            .map(|item| item.expires_at);
        let revision = item.as_ref().map_or(0, |item| item.revision);
        let owner = how.ephemeral.then_some(handle);
        let new = new_item(value.bytes(), kept.unwrap_or(expires_at), owner);
        *item = Some(Item { revision, ..new });
        expire_at_once(item, now);
    }
    Outcome::Done(met)
}

fn change_expiry(
    item: &mut Option<Item>,
    at: Option<u64>,
    now: u64,
    change: impl Fn(u64, u64) -> u64,
) -> Outcome {
    let Some(at) = at else {
        return Outcome::Failed("ttl");
    };
    let is_there = item.is_some();
    if let Some(item) = item {
        item.expires_at = change(at, item.expires_at);
    }
    expire_at_once(item, now);
    Outcome::Done(is_there)
}

fn expire_at_once(item: &mut Option<Item>, now: u64) {
    item.take_if(|item| item.expires_at != 0 && item.expires_at <= now);
}

fn new_item(value: Vec<u8>, expires_at: u64, owner: Option<usize>) -> Item {
    Item {
        value,
        expires_at,
        is_counter: false,
        owner,
        revision: 0,
    }
}

fn lengthened(old: Option<&[u8]>) -> Vec<u8> {
    let mut value = old.unwrap_or_default().to_vec();
    value.push(value.len() as u8);
    value
}

fn set_options(how: How, current: u64) -> SetOptions {
    let options = match how.condition {
        If::Always => SetOptions::new(),
        If::Absent => SetOptions::new().if_absent(),
        If::Present => SetOptions::new().if_present(),
        If::Current => SetOptions::new().if_revision(current),
        If::Stale => SetOptions::new().if_revision(current + 1),
    };
    let options = how.ttl.map_or(options, |ttl| options.ttl_ms(ttl));
    let options = if how.keep_expiry {
        options.keep_expiry()
    } else {
        options
    };
    if how.ephemeral {
        options.ephemeral()
    } else {
        options
    }
}

fn options(clock: &Arc<AtomicU64>) -> Options {
    let clock = Arc::clone(clock);
    Options::new().clock(move || clock.load(Ordering::Relaxed))
}

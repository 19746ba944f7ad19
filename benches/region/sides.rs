//! Who is compared: ganger and its peers behind one trait, each doing an operation the way its
//! users would.

use crate::shared::Mapping;
use crate::workload::{key, shuffled, Draws, Key, Value, KEYS, VALUE, VALUE_LEN};
use dashmap::DashMap;
use ganger_region::{Config, Options, Region};
use heed::types::Bytes;
use heed::{
    CommitOrAbort, Database, DatabaseOpener, Env, EnvFlags, EnvOpenOptions, RwTxn, WithTls,
};
use raw_sync::locks::{LockImpl, LockInit, Mutex};
use std::hash::{DefaultHasher, Hasher};
use std::hint::black_box;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// What a store is filled with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contents {
    Values,
    Counters,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Get,
    Set,
    Incr,
}

impl Operation {
    pub(crate) const ALL: [Self; 3] = [Self::Get, Self::Set, Self::Incr];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Set => "set",
            Self::Incr => "incr",
        }
    }

    pub(crate) fn contents(self) -> Contents {
        match self {
            Self::Get | Self::Set => Contents::Values,
            Self::Incr => Contents::Counters,
        }
    }
}

/// A store as one process or thread uses it.
pub(crate) trait Store {
    /// Operations between two looks at the clock.
    const BATCH: u64 = 256;

    /// Copies a value to where the caller can use it; whether it was there.
    fn get(&mut self, key: &Key) -> bool;
    fn set(&mut self, key: &Key, value: &Value);
    fn incr(&mut self, key: &Key);

    /// Does a batch of one operation.
    #[inline(always)]
    fn batch(&mut self, operation: Operation, draws: &mut Draws) -> u64 {
        match operation {
            Operation::Get => draws.take(Self::BATCH, |key| assert!(self.get(black_box(key)))),
            Operation::Set => draws.take(Self::BATCH, |key| self.set(black_box(key), &VALUE)),
            Operation::Incr => draws.take(Self::BATCH, |key| self.incr(black_box(key))),
        }
        Self::BATCH
    }
}

/// ganger: a region in anonymous shared memory, read with `get_into`.
pub(crate) struct Ganger {
    region: Region,
    value: Vec<u8>,
}

impl Ganger {
    /// A new region with the keys in it.
    pub(crate) fn filled(contents: Contents) -> Region {
        let region = Region::create(&Config::new(64 << 20), Options::new()).unwrap();
        for index in shuffled(KEYS) {
            match contents {
                Contents::Values => region.set(&key(index), &VALUE).map(|_| ()).unwrap(),
                Contents::Counters => region.incr(&key(index), 1).map(|_| ()).unwrap(),
            }
        }
        region
    }

    /// Attaches to a region through its descriptor, as a process would that it was handed to.
    pub(crate) fn attach(region: &Region) -> Self {
        let fd = region.fd().unwrap().as_fd().try_clone_to_owned().unwrap();
        Self {
            region: Region::from_fd(fd, Options::new()).unwrap(),
            value: Vec::with_capacity(VALUE_LEN),
        }
    }
}

impl Store for Ganger {
    #[inline(always)]
    fn get(&mut self, key: &Key) -> bool {
        let found = self.region.get_into(key, &mut self.value).unwrap();
        black_box(&self.value);
        found
    }

    #[inline(always)]
    fn set(&mut self, key: &Key, value: &Value) {
        black_box(self.region.set(key, value).unwrap());
    }

    #[inline(always)]
    fn incr(&mut self, key: &Key) {
        black_box(self.region.incr(key, 1).unwrap());
    }
}

/// `DashMap` with its default hasher (SipHash 1-3) and shards, arrays inline, the value copied out.
pub(crate) struct Dash<'m> {
    pub(crate) values: &'m DashMap<Key, Value>,
    pub(crate) counters: &'m DashMap<Key, i64>,
}

impl Dash<'_> {
    pub(crate) fn filled(contents: Contents) -> (DashMap<Key, Value>, DashMap<Key, i64>) {
        let (values, counters) = (DashMap::new(), DashMap::new());
        for index in shuffled(KEYS) {
            match contents {
                Contents::Values => values.insert(key(index), VALUE).map_or((), |_| ()),
                Contents::Counters => counters.insert(key(index), 1).map_or((), |_| ()),
            }
        }
        (values, counters)
    }
}

impl Store for Dash<'_> {
    #[inline(always)]
    fn get(&mut self, key: &Key) -> bool {
        let value: Option<Value> = self.values.get(key).map(|value| *value);
        black_box(&value).is_some()
    }

    #[inline(always)]
    fn set(&mut self, key: &Key, value: &Value) {
        black_box(self.values.insert(*key, *value));
    }

    #[inline(always)]
    fn incr(&mut self, key: &Key) {
        *self.counters.entry(*key).or_insert(0) += 1;
    }
}

/// LMDB through heed on /dev/shm without any syncing: one transaction per operation.
pub(crate) struct Lmdb {
    env: &'static Env,
    database: Database<'static, Bytes, Bytes>,
    value: Value,
}

impl Lmdb {
    /// Fills a new environment in an empty directory.
    pub(crate) fn fill(dir: &Path, contents: Contents) {
        let lmdb = Self::open(dir);
        let mut txn = lmdb.env.write_txn().unwrap();
        for index in shuffled(KEYS) {
            let value: &[u8] = match contents {
                Contents::Values => &VALUE,
                Contents::Counters => &[0; 8],
            };
            lmdb.database.put(&mut txn, &key(index), value).unwrap();
        }
        txn.commit().unwrap();
    }

    pub(crate) fn open(dir: &Path) -> Self {
        let mut options = EnvOpenOptions::new();
        options.map_size(256 << 20);
        let flags =
            EnvFlags::NO_SYNC | EnvFlags::WRITE_MAP | EnvFlags::MAP_ASYNC | EnvFlags::NO_META_SYNC;
        // SAFETY: the flags give durability away, which a directory on /dev/shm has none of anyway.
        unsafe { options.flags(flags) };
        // SAFETY: nobody but the processes of this benchmark, all through LMDB, touches the files.
        let env = unsafe { options.open(dir) }.unwrap();
        // The process that opened it ends with it.
        let env: &'static Env = Box::leak(Box::new(env));
        let create = |opener: &DatabaseOpener<'static, WithTls>, txn: &mut RwTxn<'static>| {
            opener
                .create_database(txn, None)
                .map(CommitOrAbort::<_, ()>::Commit)
        };
        let txn = env.write_txn().unwrap();
        let created = env.create_databases_and_commit(txn, create);
        let database = created.unwrap().unwrap_commit();
        Self {
            env,
            database,
            value: VALUE,
        }
    }
}

impl Store for Lmdb {
    const BATCH: u64 = 16;

    #[inline(always)]
    fn get(&mut self, key: &Key) -> bool {
        let txn = self.env.read_txn().unwrap();
        let found = self.database.get(&txn, key).unwrap();
        copy_out(&mut self.value, found)
    }

    #[inline(always)]
    fn set(&mut self, key: &Key, value: &Value) {
        let mut txn = self.env.write_txn().unwrap();
        self.database.put(&mut txn, key, value).unwrap();
        txn.commit().unwrap();
    }

    #[inline(always)]
    fn incr(&mut self, key: &Key) {
        let mut txn = self.env.write_txn().unwrap();
        let old = self.database.get(&txn, key).unwrap().unwrap();
        let sum = i64::from_le_bytes(old.try_into().unwrap()) + 1;
        self.database
            .put(&mut txn, key, &sum.to_le_bytes())
            .unwrap();
        txn.commit().unwrap();
    }
}

/// LMDB with 1000 gets in each read transaction, which see the state of its beginning.
pub(crate) struct LmdbHeld(pub(crate) Lmdb);

impl Store for LmdbHeld {
    const BATCH: u64 = 1000;

    fn get(&mut self, key: &Key) -> bool {
        self.0.get(key)
    }

    fn set(&mut self, key: &Key, value: &Value) {
        self.0.set(key, value);
    }

    fn incr(&mut self, key: &Key) {
        self.0.incr(key);
    }

    fn batch(&mut self, operation: Operation, draws: &mut Draws) -> u64 {
        assert_eq!(operation, Operation::Get, "only reads hold a transaction");
        let Lmdb {
            env,
            database,
            value,
        } = &mut self.0;
        let txn = env.read_txn().unwrap();
        draws.take(Self::BATCH, |key| {
            let found = database.get(&txn, black_box(key)).unwrap();
            assert!(copy_out(value, found));
        });
        Self::BATCH
    }
}

fn copy_out(to: &mut Value, found: Option<&[u8]>) -> bool {
    let Some(found) = found else { return false };
    to.copy_from_slice(found);
    black_box(to);
    true
}

/// What people write first: a fixed hash table in shared memory under `raw_sync`'s mutex, one lock
/// for all. A process killed in there leaves it locked for ever.
pub(crate) struct Naive<'m> {
    lock: Box<dyn LockImpl>,
    table: *mut Slot,
    value: Value,
    // The lock and the table lie in there.
    _memory: &'m Mapping,
}

#[repr(C)]
struct Slot {
    used: bool,
    key: Key,
    value: Value,
}

/// Slots: a power of two, so that 100,000 keys leave it less than half full.
const SLOTS: usize = 1 << 18;
/// Where the table begins, behind the lock.
const TABLE: usize = 4096;

impl<'m> Naive<'m> {
    pub(crate) fn filled(contents: Contents) -> Mapping {
        let memory = Mapping::new(TABLE + SLOTS * size_of::<Slot>());
        let (lock, table) = (memory.at(0), memory.at(TABLE));
        // SAFETY: the first page of the mapping is for the lock alone, and nobody uses it yet.
        unsafe { Mutex::new(lock, table) }.unwrap();
        let mut naive = Naive::attach(&memory);
        for index in shuffled(KEYS) {
            let value = match contents {
                Contents::Values => VALUE,
                Contents::Counters => [0; VALUE_LEN],
            };
            naive.set(&key(index), &value);
        }
        drop(naive);
        memory
    }

    pub(crate) fn attach(memory: &'m Mapping) -> Self {
        let table = memory.at(TABLE);
        // SAFETY: `filled` initialised the lock there, in memory that all processes share.
        let (lock, _) = unsafe { Mutex::from_existing(memory.at(0), table) }.unwrap();
        Self {
            lock,
            table: table.cast(),
            value: VALUE,
            _memory: memory,
        }
    }

    /// Calls `body` on the key's slot, or on the free one where it belongs, with the lock held.
    #[inline(always)]
    fn locked<T>(&mut self, key: &Key, body: impl FnOnce(&mut Slot, &mut Value) -> T) -> T {
        let mut hasher = DefaultHasher::new();
        hasher.write(key);
        let mut place = hasher.finish() as usize % SLOTS;
        let _guard = self.lock.lock().unwrap();
        loop {
            // SAFETY: inside the table, which the mapping holds whole.
            let slot = unsafe { self.table.add(place) };
            // SAFETY: initialised (zeros are a free slot), aligned to a byte, and ours alone while
            // we hold the lock.
            let slot = unsafe { &mut *slot };
            if !slot.used || slot.key == *key {
                return body(slot, &mut self.value);
            }
            place = (place + 1) % SLOTS;
        }
    }
}

impl Store for Naive<'_> {
    #[inline(always)]
    fn get(&mut self, key: &Key) -> bool {
        self.locked(key, |slot, out| {
            *out = slot.value;
            black_box(out);
            slot.used
        })
    }

    #[inline(always)]
    fn set(&mut self, key: &Key, value: &Value) {
        self.locked(key, |slot, _| {
            slot.used = true;
            slot.key = *key;
            slot.value = *value;
        });
    }

    #[inline(always)]
    fn incr(&mut self, key: &Key) {
        self.locked(key, |slot, _| {
            let (number, _) = slot.value.split_first_chunk_mut::<8>().unwrap();
            *number = (i64::from_le_bytes(*number) + 1).to_le_bytes();
        });
    }
}

/// The least that counting in shared memory can cost: one atomic addition to one word.
pub(crate) struct FetchAdd<'m>(pub(crate) &'m AtomicU64);

impl Store for FetchAdd<'_> {
    fn get(&mut self, _: &Key) -> bool {
        unreachable!("a bare counter is only incremented")
    }

    fn set(&mut self, _: &Key, _: &Value) {
        unreachable!("a bare counter is only incremented")
    }

    #[inline(always)]
    fn incr(&mut self, _: &Key) {
        black_box(self.0.fetch_add(1, Ordering::AcqRel));
    }
}

/// A new directory on /dev/shm that goes with this value.
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("ganger-bench-{}-{number}", std::process::id());
        let path = Path::new("/dev/shm").join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

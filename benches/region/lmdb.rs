//! LMDB, each operation a transaction of its own.

use crate::sides::{Filling, Operation, Store};
use crate::workload::{Draws, Key};
use heed::types::Bytes;
use heed::{
    CommitOrAbort, Database, DatabaseOpener, Env, EnvFlags, EnvOpenOptions, RwTxn, WithTls,
};
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// LMDB through heed on /dev/shm without any syncing: one transaction per operation.
pub(crate) struct Lmdb {
    env: &'static Env,
    database: Database<'static, Bytes, Bytes>,
    value: Vec<u8>,
}

impl Lmdb {
    /// Fills a new environment in an empty directory.
    pub(crate) fn fill(dir: &Path, filling: &Filling) {
        let lmdb = Self::open(dir);
        let mut txn = lmdb.env.write_txn().unwrap();
        let value = filling.first_value();
        for key in filling.all_keys() {
            lmdb.database.put(&mut txn, &key, &value).unwrap();
        }
        txn.commit().unwrap();
    }

    pub(crate) fn open(dir: &Path) -> Self {
        let mut options = EnvOpenOptions::new();
        options.map_size(1 << 30);
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
            value: Vec::new(),
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
    fn set(&mut self, key: &Key, value: &[u8]) {
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

    fn get_many(&mut self, keys: &[Key]) {
        let txn = self.env.read_txn().unwrap();
        for key in keys {
            let found = self.database.get(&txn, key).unwrap();
            assert!(copy_out(&mut self.value, found));
        }
    }
}

/// LMDB with 1000 gets in each read transaction, which see the state of its beginning.
pub(crate) struct LmdbHeld(pub(crate) Lmdb);

impl Store for LmdbHeld {
    const BATCH: u64 = 1000;

    fn get(&mut self, key: &Key) -> bool {
        self.0.get(key)
    }

    fn set(&mut self, key: &Key, value: &[u8]) {
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

fn copy_out(to: &mut Vec<u8>, found: Option<&[u8]>) -> bool {
    let Some(found) = found else { return false };
    to.clear();
    to.extend_from_slice(found);
    black_box(to);
    true
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

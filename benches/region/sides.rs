//! Who is compared: ganger and its peers behind one trait, each doing an operation the way its
//! users would.

use crate::workload::{key, shuffled, Draws, Key, Random, Value, KEYS, VALUE, VALUE_LEN};
use dashmap::DashMap;
use ganger_region::{Config, Options, Region};
use std::hint::black_box;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a store is filled with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Filling {
    pub(crate) contents: Contents,
    pub(crate) keys: u64,
    /// Bytes of a value; counters have eight.
    pub(crate) value_len: usize,
}

impl Filling {
    /// 100,000 keys with values of 64 bytes.
    pub(crate) fn usual(contents: Contents) -> Self {
        Self {
            contents,
            keys: KEYS,
            value_len: VALUE_LEN,
        }
    }

    /// What every key begins with.
    pub(crate) fn first_value(&self) -> Vec<u8> {
        match self.contents {
            Contents::Values => vec![VALUE[0]; self.value_len],
            Contents::Counters => vec![0; 8],
        }
    }

    /// Its keys, in an order of their own.
    pub(crate) fn all_keys(&self) -> impl Iterator<Item = Key> {
        shuffled(self.keys).into_iter().map(key)
    }
}

/// Of which kind the values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contents {
    Values,
    Counters,
}

/// Of the region that is compared.
pub(crate) const REGION_BYTES: u64 = 64 << 20;

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
    fn set(&mut self, key: &Key, value: &[u8]);
    fn incr(&mut self, key: &Key);

    /// Gets some keys that are there, as its users would.
    fn get_many(&mut self, keys: &[Key]) {
        for key in keys {
            assert!(self.get(key));
        }
    }

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
    /// A new region of so many bytes with the keys in it.
    pub(crate) fn filled(filling: &Filling, bytes: u64) -> Region {
        let region = Region::create(&Config::new(bytes), Options::new()).unwrap();
        let value = filling.first_value();
        for key in filling.all_keys() {
            match filling.contents {
                Contents::Values => region.set(&key, &value).map(|_| ()).unwrap(),
                Contents::Counters => region.incr(&key, 1).map(|_| ()).unwrap(),
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
    fn set(&mut self, key: &Key, value: &[u8]) {
        black_box(self.region.set(key, value).unwrap());
    }

    #[inline(always)]
    fn incr(&mut self, key: &Key) {
        black_box(self.region.incr(key, 1).unwrap());
    }

    fn get_many(&mut self, keys: &[Key]) {
        let values = black_box(self.region.get_many(keys).unwrap());
        assert!(values.iter().all(Option::is_some));
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
        for key in Filling::usual(contents).all_keys() {
            match contents {
                Contents::Values => values.insert(key, VALUE).map_or((), |_| ()),
                Contents::Counters => counters.insert(key, 1).map_or((), |_| ()),
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
    fn set(&mut self, key: &Key, value: &[u8]) {
        black_box(self.values.insert(*key, value.try_into().unwrap()));
    }

    #[inline(always)]
    fn incr(&mut self, key: &Key) {
        *self.counters.entry(*key).or_insert(0) += 1;
    }
}

/// The least that counting in shared memory can cost: one atomic addition to one word.
pub(crate) struct FetchAdd<'m>(pub(crate) &'m AtomicU64);

impl Store for FetchAdd<'_> {
    fn get(&mut self, _: &Key) -> bool {
        unreachable!("a bare counter is only incremented")
    }

    fn set(&mut self, _: &Key, _: &[u8]) {
        unreachable!("a bare counter is only incremented")
    }

    #[inline(always)]
    fn incr(&mut self, _: &Key) {
        black_box(self.0.fetch_add(1, Ordering::AcqRel));
    }
}

/// What two processors are worth together: a loop that shares nothing and touches no memory.
pub(crate) struct Bare(pub(crate) Random);

impl Store for Bare {
    #[inline(always)]
    fn get(&mut self, _: &Key) -> bool {
        (0..8).for_each(|_| {
            black_box(self.0.draw());
        });
        true
    }

    fn set(&mut self, _: &Key, _: &[u8]) {
        unreachable!("a bare loop only gets")
    }

    fn incr(&mut self, _: &Key) {
        unreachable!("a bare loop only gets")
    }
}

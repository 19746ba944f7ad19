//! A table under one lock.

use crate::shared::Mapping;
use crate::sides::{Filling, Store};
use crate::workload::{Key, KEY_LEN};
use raw_sync::locks::{LockImpl, LockInit, Mutex};
use std::hash::{DefaultHasher, Hasher};
use std::hint::black_box;

/// What people write first: a fixed hash table in shared memory under `raw_sync`'s mutex, one lock
/// for all. A process killed in there leaves it locked for ever.
pub(crate) struct Naive<'m> {
    lock: Box<dyn LockImpl>,
    table: *mut u8,
    slots: usize,
    value: Vec<u8>,
    // The lock and the table lie in there.
    _memory: &'m Mapping,
}

/// A slot: whether it is used, its key, its value.
struct Slot<'s> {
    used: &'s mut u8,
    key: &'s mut Key,
    value: &'s mut [u8],
}

/// Where the table begins, behind the lock.
const TABLE: usize = 4096;
/// Bytes of a slot before its value.
const HEAD: usize = 1 + KEY_LEN;

impl<'m> Naive<'m> {
    pub(crate) fn filled(filling: &Filling) -> Mapping {
        let value = filling.first_value();
        let memory = Mapping::new(TABLE + slots(filling) * (HEAD + value.len()));
        let (lock, table) = (memory.at(0), memory.at(TABLE));
        // SAFETY: the first page of the mapping is for the lock alone, and nobody uses it yet.
        unsafe { Mutex::new(lock, table) }.unwrap();
        let mut naive = Naive::attach(&memory, filling);
        for key in filling.all_keys() {
            naive.set(&key, &value);
        }
        drop(naive);
        memory
    }

    /// Attaches to a table that was made for the same filling.
    pub(crate) fn attach(memory: &'m Mapping, filling: &Filling) -> Self {
        let table = memory.at(TABLE);
        // SAFETY: `filled` initialised the lock there, in memory that all processes share.
        let (lock, _) = unsafe { Mutex::from_existing(memory.at(0), table) }.unwrap();
        Self {
            lock,
            table,
            slots: slots(filling),
            value: filling.first_value(),
            _memory: memory,
        }
    }

    /// Calls `body` on the key's slot, or on the free one where it belongs, with the lock held.
    #[inline(always)]
    fn locked<T>(&mut self, key: &Key, body: impl FnOnce(&mut Slot<'_>, &mut [u8]) -> T) -> T {
        let mut hasher = DefaultHasher::new();
        hasher.write(key);
        let mut place = hasher.finish() as usize & (self.slots - 1);
        let slot_len = HEAD + self.value.len();
        let _guard = self.lock.lock().unwrap();
        loop {
            // SAFETY: inside the table, which the mapping holds whole.
            let slot = unsafe { self.table.add(place * slot_len) };
            // SAFETY: initialised (zeros are a free slot), bytes, and ours alone while we hold the
            // lock.
            let slot = unsafe { std::slice::from_raw_parts_mut(slot, slot_len) };
            let (head, value) = slot.split_at_mut(HEAD);
            let (used, head) = head.split_first_mut().unwrap();
            let (found, _) = head.split_first_chunk_mut().unwrap();
            let mut slot = Slot {
                used,
                key: found,
                value,
            };
            if *slot.used == 0 || slot.key == key {
                return body(&mut slot, &mut self.value);
            }
            place = (place + 1) & (self.slots - 1);
        }
    }
}

/// A power of two, so that the table is less than half full.
fn slots(filling: &Filling) -> usize {
    (2 * filling.keys as usize).next_power_of_two()
}

impl Store for Naive<'_> {
    #[inline(always)]
    fn get(&mut self, key: &Key) -> bool {
        self.locked(key, |slot, out| {
            out.copy_from_slice(slot.value);
            black_box(out);
            *slot.used == 1
        })
    }

    #[inline(always)]
    fn set(&mut self, key: &Key, value: &[u8]) {
        self.locked(key, |slot, _| {
            *slot.used = 1;
            *slot.key = *key;
            slot.value.copy_from_slice(value);
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

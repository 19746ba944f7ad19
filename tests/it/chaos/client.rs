//! What a client does until it is killed: random operations, each logged.

mod leases;
mod numbers;
mod sequences;
mod walks;

pub(super) use numbers::number;

use super::keys::{name, HOT, REGISTERS, STABLE};
use super::log::{finished, Begun, Logs, Verb, TORN};
use super::random::Random;
use super::value;
use crate::harness;
use ganger_region::{Access, Options, Region, SetOptions};
use std::time::Duration;

/// For how long, in nanoseconds, the rare keys become more before they become fewer.
const TIDE: u64 = 400_000_000;

/// What the clients of a run work on.
pub(super) struct Task<'t> {
    pub(super) region: &'t str,
    pub(super) evicts: bool,
}

pub(super) struct Client<'l> {
    logs: &'l Logs,
    slot: usize,
    region: Region,
    random: Random,
    writes: bool,
    /// Whether any key but those that others write may be gone at any time.
    evicts: bool,
    value: Vec<u8>,
}

impl<'l> Client<'l> {
    pub(super) fn attach(logs: &'l Logs, slot: usize, task: &Task<'_>, seed: u64) -> Self {
        // Two of the slots only read, and one of these could not write if it wanted.
        let writes = slot >= 2;
        let access = if slot == 0 {
            Access::ReadOnly
        } else {
            Access::ReadWrite
        };
        let options = Options::new().access(access);
        let region = Region::from_fd(harness::open(task.region), options).unwrap();
        Self {
            logs,
            slot,
            region,
            random: Random::new(seed),
            writes,
            evicts: task.evicts,
            value: Vec::new(),
        }
    }

    /// Until the round is over.
    pub(super) fn run(&mut self) {
        while !self.logs.is_over() {
            if self.logs.is_full(self.slot) {
                std::thread::sleep(Duration::from_millis(1));
            } else {
                self.act();
                // On few processors, so that the others, and those that are to die, get theirs.
                if self.random.chance(3) {
                    std::thread::sleep(Duration::from_micros(self.random.below(300)));
                }
            }
        }
    }

    fn act(&mut self) {
        let draw = self.random.below(1000);
        if !self.writes {
            return match draw {
                0..=69 => self.look(),
                70..=119 => self.read_sequence(),
                120..=219 => self.look_at_lease(),
                220..=223 => self.walk(),
                224..=233 => self.count(),
                234..=239 => self.follow(),
                _ => self.touch_register(),
            };
        }
        match draw {
            0..=59 => self.incr(),
            60..=99 => self.update(),
            100..=119 => self.look(),
            120..=169 => self.lock(),
            170..=189 => self.append(),
            190..=199 => self.read_sequence(),
            200..=439 => self.change_lease(),
            440..=459 => self.look_at_lease(),
            460..=463 => self.walk(),
            464..=469 => self.count(),
            470..=473 => self.follow(),
            _ => self.touch_register(),
        }
    }

    fn touch_register(&mut self) {
        let draw = self.random.below(100);
        let key = match draw {
            0..=54 => self.random.below(HOT),
            55..=59 => self.pick(&STABLE),
            _ => self.random.below(REGISTERS),
        };
        let reads = if self.writes { 40 } else { 100 };
        if self.random.chance(reads) {
            return self.read(key);
        }
        let ebbs = super::log::now() / TIDE % 2 == 1;
        let deletes = match draw {
            0..=54 => 10,
            55..=59 => 0,
            _ if ebbs => 85,
            _ => 15,
        };
        if self.random.chance(deletes) {
            return self.delete(key);
        }
        match self.random.below(100) {
            // Of few keys, so that several meet.
            0..=14 => self.swap(key % 4),
            15..=24 => self.set_if_present(key),
            25..=34 => self.get_or_insert(key),
            _ => self.set(key),
        }
    }

    fn set(&mut self, key: u64) {
        let name = name(key);
        let id = self.make_value(key);
        let begun = self.logs.begin(self.slot, Verb::Set, key, id);
        let revision = self.region.set(&name, &self.value).unwrap();
        self.logs.end(&begun, 1, revision);
    }

    fn set_if_present(&mut self, key: u64) {
        let name = name(key);
        let id = self.make_value(key);
        let begun = self.logs.begin(self.slot, Verb::SetIfPresent, key, id);
        let options = SetOptions::new().if_present();
        let revision = self.region.set_with(&name, &self.value, options).unwrap();
        let was_there = u64::from(revision.is_some());
        self.logs.end(&begun, was_there, revision.unwrap_or(0));
    }

    /// Reads, and writes if nobody wrote meanwhile.
    fn swap(&mut self, key: u64) {
        let name = name(key);
        let begun = self.logs.begin(self.slot, Verb::Get, key, 0);
        let entry = self.region.entry(&name).unwrap();
        let end = finished();
        let from = seen(key, entry.as_ref().map(|entry| &entry.value[..]));
        let expected = entry.map_or(0, |entry| entry.revision);
        self.logs.end_at(&begun, end, from, expected);
        if from == 0 || from == TORN {
            return;
        }
        let id = self.make_value(key);
        let options = SetOptions::new().if_revision(expected);
        let begun = self.logs.begin_with(self.slot, Verb::Swap, key, id, from);
        let revision = self.region.set_with(&name, &self.value, options).unwrap();
        let was_there = u64::from(revision.is_some());
        self.logs.end(&begun, was_there, revision.unwrap_or(0));
    }

    fn get_or_insert(&mut self, key: u64) {
        let name = name(key);
        let id = self.logs.next_id(self.slot);
        let mut made = Vec::new();
        value::make(key, id, &mut made);
        let begun = self.logs.begin(self.slot, Verb::GetOrInsert, key, id);
        let value = self.region.get_or_insert_with(&name, || made).unwrap();
        let end = finished();
        self.logs.end_at(&begun, end, seen(key, Some(&value)), 0);
    }

    fn delete(&mut self, key: u64) {
        let name = name(key);
        let begun = self.logs.begin(self.slot, Verb::Delete, key, 0);
        let was_there = self.region.delete(&name).unwrap();
        self.logs.end(&begun, u64::from(was_there), 0);
    }

    fn read(&mut self, key: u64) {
        match self.random.below(100) {
            0..=9 => return self.read_many(key),
            10..=29 => return self.exists(key),
            _ => {}
        }
        let with_revision = self.random.chance(30);
        let name = name(key);
        let begun = self.logs.begin(self.slot, Verb::Get, key, 0);
        let (found, revision) = if with_revision {
            match self.region.entry(&name).unwrap() {
                Some(entry) => {
                    self.value = entry.value;
                    (true, entry.revision)
                }
                None => (false, 0),
            }
        } else {
            (self.region.get_into(&name, &mut self.value).unwrap(), 0)
        };
        // Before the proof, which takes longer than the read.
        let end = finished();
        let result = seen(key, found.then_some(&self.value[..]));
        self.logs.end_at(&begun, end, result, revision);
    }

    /// Several keys at once: each is a read of its own within the same time.
    fn read_many(&mut self, first: u64) {
        let keys: Vec<u64> = (0..4).map(|next| (first + next * 3) % REGISTERS).collect();
        let names: Vec<Vec<u8>> = keys.iter().map(|key| name(*key)).collect();
        let begun: Vec<Begun> = keys
            .iter()
            .map(|key| self.logs.begin(self.slot, Verb::Get, *key, 0))
            .collect();
        let values = self.region.get_many(&names).unwrap();
        let end = finished();
        for ((key, begun), value) in keys.into_iter().zip(&begun).zip(&values) {
            self.logs.end_at(begun, end, seen(key, value.as_deref()), 0);
        }
    }

    fn exists(&mut self, key: u64) {
        let name = name(key);
        let begun = self.logs.begin(self.slot, Verb::Exists, key, 0);
        let is_there = self.region.exists(&name).unwrap();
        self.logs.end(&begun, u64::from(is_there), 0);
    }

    /// Makes the value that the next record is about, and returns its id.
    fn make_value(&mut self, key: u64) -> u64 {
        let id = self.logs.next_id(self.slot);
        value::make(key, id, &mut self.value);
        id
    }

    fn pick(&mut self, keys: &std::ops::Range<u64>) -> u64 {
        keys.start + self.random.below(keys.end - keys.start)
    }
}

/// What a read of a register saw, as a log tells it.
pub(super) fn seen(key: u64, value: Option<&[u8]>) -> u64 {
    value.map_or(0, |bytes| value::id_of(key, bytes).unwrap_or(TORN))
}

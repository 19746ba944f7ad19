//! What a client does until it is killed: random operations, each logged.

use super::log::{finished, Begun, Logs, Verb, TORN};
use super::random::Random;
use super::value;
use crate::harness;
use ganger_region::{Access, Options, Region, SetOptions};
use std::time::Duration;

/// Registers that everybody fights for.
const HOT: u64 = 24;
/// Registers in all; enough that the index grows and shrinks.
pub(super) const REGISTERS: u64 = 1500;
// Numbers of the keys of other kinds.
pub(super) const COUNTERS: std::ops::Range<u64> = 10_000..10_004;
pub(super) const UPDATED: std::ops::Range<u64> = 11_000..11_003;
pub(super) const LOCKS: std::ops::Range<u64> = 12_000..12_003;
/// For how long, in nanoseconds, the rare keys become more before they become fewer.
const TIDE: u64 = 400_000_000;

/// The name of a key; names are of many lengths.
pub(super) fn name(key: u64) -> Vec<u8> {
    let mut name = format!("key-{key}-").into_bytes();
    name.resize(name.len() + usize::try_from(key * 37 % 120).unwrap(), b'x');
    name
}

pub(super) struct Client<'l> {
    logs: &'l Logs,
    slot: usize,
    region: Region,
    random: Random,
    writes: bool,
    value: Vec<u8>,
}

impl<'l> Client<'l> {
    pub(super) fn attach(logs: &'l Logs, slot: usize, path: &str, seed: u64) -> Self {
        // Two of the slots only read, and one of these could not write if it wanted.
        let writes = slot >= 2;
        let access = if slot == 0 {
            Access::ReadOnly
        } else {
            Access::ReadWrite
        };
        let options = Options::new().access(access);
        let region = Region::from_fd(harness::open(path), options).unwrap();
        Self {
            logs,
            slot,
            region,
            random: Random::new(seed),
            writes,
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
        let draw = self.random.below(100);
        if !self.writes {
            return match draw {
                0..=9 => self.look(),
                _ => self.touch_register(),
            };
        }
        match draw {
            0..=9 => self.add(),
            10..=14 => self.update(),
            15..=16 => self.look(),
            17..=18 => self.lock(),
            _ => self.touch_register(),
        }
    }

    fn touch_register(&mut self) {
        let hot = self.random.chance(60);
        let key = self.random.below(if hot { HOT } else { REGISTERS });
        let reads = if self.writes { 40 } else { 100 };
        if self.random.chance(reads) {
            return self.read(key);
        }
        let ebbs = super::log::now() / TIDE % 2 == 1;
        let deletes = if hot {
            10
        } else if ebbs {
            85
        } else {
            15
        };
        if self.random.chance(deletes) {
            self.delete(key);
        } else {
            self.set(key);
        }
    }

    fn set(&mut self, key: u64) {
        let name = name(key);
        let id = self.logs.next_id(self.slot);
        value::make(key, id, &mut self.value);
        let begun = self.logs.begin(self.slot, Verb::Set, key, id);
        let revision = self.region.set(&name, &self.value).unwrap();
        self.logs.end(&begun, 0, revision);
    }

    fn delete(&mut self, key: u64) {
        let name = name(key);
        let begun = self.logs.begin(self.slot, Verb::Delete, key, 0);
        let was_there = self.region.delete(&name).unwrap();
        self.logs.end(&begun, u64::from(was_there), 0);
    }

    fn read(&mut self, key: u64) {
        if self.random.chance(10) {
            return self.read_many(key);
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

    fn add(&mut self) {
        let key = self.pick(&COUNTERS);
        let by = 1 + self.random.below(9);
        let name = name(key);
        let begun = self.logs.begin(self.slot, Verb::Add, key, by);
        let sum = self.region.incr(&name, by.cast_signed()).unwrap();
        self.logs.end(&begun, sum.cast_unsigned(), 0);
    }

    /// A read-change-write loop on a MessagePack number.
    fn update(&mut self) {
        let key = self.pick(&UPDATED);
        let name = name(key);
        let begun = self.logs.begin(self.slot, Verb::Add, key, 1);
        let made = self
            .region
            .update_typed(&name, |old: Option<u64>| Some(old.unwrap_or(0) + 1))
            .unwrap();
        self.logs.end(&begun, made.unwrap(), 0);
    }

    fn look(&mut self) {
        let counter = self.random.chance(50);
        let key = self.pick(if counter { &COUNTERS } else { &UPDATED });
        let name = name(key);
        let begun = self.logs.begin(self.slot, Verb::Add, key, 0);
        let sum = number(&self.region, &name, counter);
        self.logs.end(&begun, sum, 0);
    }

    /// Takes a lock if it is free, works a little, and gives it back.
    fn lock(&mut self) {
        let key = self.pick(&LOCKS);
        let name = name(key);
        let options = SetOptions::new().if_absent().ephemeral();
        let begun = self.logs.begin(self.slot, Verb::Acquire, key, 0);
        let got = self.region.set_with(&name, b"held", options).unwrap();
        self.logs.end(&begun, u64::from(got.is_some()), 0);
        let Some(revision) = got else { return };
        for _ in 0..self.random.below(6) {
            self.touch_register();
        }
        let begun = self.logs.begin(self.slot, Verb::Release, key, 0);
        let was_ours = self.region.delete_if(&name, revision).unwrap();
        self.logs.end(&begun, u64::from(was_ours), 0);
    }

    fn pick(&mut self, keys: &std::ops::Range<u64>) -> u64 {
        keys.start + self.random.below(keys.end - keys.start)
    }
}

/// The value of a counter or of a MessagePack number; 0 if there is none yet.
pub(super) fn number(region: &Region, name: &[u8], counter: bool) -> u64 {
    if counter {
        let bytes = region.get(name).unwrap();
        bytes.map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().unwrap()))
    } else {
        region.get_typed(name).unwrap().unwrap_or(0)
    }
}

/// What a read of a register saw, as a log tells it.
pub(super) fn seen(key: u64, value: Option<&[u8]>) -> u64 {
    value.map_or(0, |bytes| value::id_of(key, bytes).unwrap_or(TORN))
}

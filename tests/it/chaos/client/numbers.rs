//! Counters, numbers that a loop changes, and locks.

use super::super::keys::{name, COUNTERS, LOCKS, UPDATED};
use super::super::log::Verb;
use super::Client;
use ganger_region::{Region, SetOptions};

impl Client<'_> {
    pub(super) fn incr(&mut self) {
        let key = self.pick(&COUNTERS);
        let by = 1 + self.random.below(9);
        let name = name(key);
        let begun = self.logs.begin(self.slot, Verb::Incr, key, by);
        let sum = self.region.incr(&name, by.cast_signed()).unwrap();
        self.logs.end(&begun, sum.cast_unsigned(), 0);
    }

    /// A read-change-write loop on a MessagePack number.
    pub(super) fn update(&mut self) {
        let key = self.pick(&UPDATED);
        let name = name(key);
        let begun = self.logs.begin(self.slot, Verb::Update, key, 1);
        let made = self
            .region
            .update_typed(&name, |old: Option<u64>| Some(old.unwrap_or(0) + 1))
            .unwrap();
        self.logs.end(&begun, made.unwrap(), 0);
    }

    pub(super) fn look(&mut self) {
        let counter = self.random.chance(50);
        let (verb, keys) = if counter {
            (Verb::Incr, COUNTERS)
        } else {
            (Verb::Update, UPDATED)
        };
        let key = self.pick(&keys);
        let name = name(key);
        let begun = self.logs.begin(self.slot, verb, key, 0);
        let sum = number(&self.region, &name, counter);
        self.logs.end(&begun, sum, 0);
    }

    /// Takes a lock if it is free, works a little, and gives it back.
    pub(super) fn lock(&mut self) {
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
}

/// The value of a counter or of a MessagePack number; 0 if there is none yet.
pub(in super::super) fn number(region: &Region, name: &[u8], counter: bool) -> u64 {
    if counter {
        let bytes = region.get(name).unwrap();
        bytes.map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().unwrap()))
    } else {
        region.get_typed(name).unwrap().unwrap_or(0)
    }
}

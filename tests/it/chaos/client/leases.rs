//! Keys that expire. Each slot has one that it alone writes, and looks at those of all.

use super::super::keys::{name, LEASES};
use super::super::lease::Expiry;
use super::super::log::{finished, Verb};
use super::{seen, Client};
use ganger_region::{Entry, SetOptions};

/// Times to live, in milliseconds, reach so far: some end while the client that gave them lives.
const TTL_MAX: u64 = 40;

impl Client<'_> {
    pub(super) fn change_lease(&mut self) {
        let key = LEASES.start + self.slot as u64;
        let name = name(key);
        let ttl = 1 + self.random.below(TTL_MAX);
        let (verb, options) = match self.random.below(100) {
            0..=19 => (Verb::SetFor, SetOptions::new().ttl_ms(ttl)),
            20..=24 => (Verb::Set, SetOptions::new()),
            25..=34 => (Verb::SetKeepingExpiry, SetOptions::new().keep_expiry()),
            draw => {
                let verb = match draw {
                    35..=54 => Verb::Expire,
                    55..=74 => Verb::Touch,
                    75..=94 => Verb::Persist,
                    _ => Verb::Delete,
                };
                let begun = self.logs.begin_with(self.slot, verb, key, 0, ttl);
                let done = match verb {
                    Verb::Expire => self.region.expire(&name, ttl),
                    Verb::Touch => self.region.touch(&name, ttl),
                    Verb::Persist => self.region.persist(&name),
                    _ => self.region.delete(&name),
                };
                return self.logs.end(&begun, u64::from(done.unwrap()), 0);
            }
        };
        let id = self.make_value(key);
        let begun = self.logs.begin_with(self.slot, verb, key, id, ttl);
        let revision = self.region.set_with(&name, &self.value, options).unwrap();
        self.logs.end(&begun, 1, revision.unwrap());
    }

    pub(super) fn look_at_lease(&mut self) {
        let key = self.pick(&LEASES);
        let name = name(key);
        let tells_expiry = self.random.chance(50);
        let begun = self.logs.begin(self.slot, Verb::Get, key, 0);
        let (value, expiry) = if tells_expiry {
            let entry = self.region.entry(&name).unwrap();
            let expiry = entry.as_ref().map_or(Expiry::Untold, expiry_of);
            (entry.map(|entry| entry.value), expiry)
        } else {
            (self.region.get(&name).unwrap(), Expiry::Untold)
        };
        let end = finished();
        let id = seen(key, value.as_deref());
        self.logs.end_at(&begun, end, id, expiry.to_word());
    }
}

fn expiry_of(entry: &Entry) -> Expiry {
    entry.ttl_ms.map_or(Expiry::Never, Expiry::In)
}

//! Leases: locks, semaphores and elections.
//!
//! A lease ends when its holder gives it back, when the holder's connection ends, or when its time
//! to live is over; then the one who has waited longest gets it. Each grant has a fencing token,
//! greater than all before it, which the holder shows to whatever it changes, so that a holder who
//! lost its lease without knowing can be told apart.
//!
//! Held leases are recorded in the region. A broker that starts anew restores them, without owners:
//! for a grace time they can be claimed again, by token and key, and are held as before meanwhile.

use crate::ids::{ConnectionId, RequestId};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, HashMap};

mod steps;
mod types;

pub use types::{
    Ask, Asker, LeaseError, LeaseEvent, LeaseLimits, LeaseRecord, LeaseTotals, NotGranted,
};

/// Gives the next fencing token; `None` if there is none to be had.
pub type Fence<'f> = &'f mut dyn FnMut() -> Option<u64>;

/// All leases and those who wait for them.
#[derive(Debug)]
pub struct Leases {
    limits: LeaseLimits,
    keys: HashMap<Bytes, Place>,
    held: BTreeMap<u64, Held>,
    waits: HashMap<Asker, u64>,
    deadlines: BTreeSet<(u64, Due)>,
    connections: HashMap<ConnectionId, Theirs>,
    last_token: u64,
    last_wait: u64,
    totals: LeaseTotals,
}

/// What is known about a key.
#[derive(Debug)]
struct Place {
    /// 0 while it is only observed.
    permits: u32,
    holders: BTreeSet<u64>,
    /// By number, so in the order they came.
    waiters: BTreeMap<u64, Waiter>,
    observers: BTreeSet<Asker>,
}

#[derive(Debug)]
struct Waiter {
    asker: Asker,
    value: Bytes,
    ttl_ms: Option<u64>,
    until_ms: u64,
}

#[derive(Debug)]
struct Held {
    record: LeaseRecord,
    /// `None` until somebody claims a restored lease.
    owner: Option<ConnectionId>,
    /// Its entry in `deadlines`.
    due_ms: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Lease(u64),
    Wait(Asker),
}

#[derive(Debug, Default)]
struct Theirs {
    leases: BTreeSet<u64>,
    waits: BTreeMap<RequestId, Bytes>,
    observed: BTreeMap<RequestId, Bytes>,
}

/// # For clients
impl Leases {
    /// Without leases.
    pub fn new(limits: LeaseLimits) -> Self {
        Self {
            limits,
            keys: HashMap::new(),
            held: BTreeMap::new(),
            waits: HashMap::new(),
            deadlines: BTreeSet::new(),
            connections: HashMap::new(),
            last_token: 0,
            last_wait: 0,
            totals: LeaseTotals::default(),
        }
    }

    /// Asks for a lease. The answer is among `events`, now or later; an error is the answer itself.
    pub fn acquire(
        &mut self,
        asker: Asker,
        ask: Ask,
        now_ms: u64,
        fence: Fence<'_>,
        events: &mut Vec<LeaseEvent>,
    ) -> Result<(), LeaseError> {
        self.expire(now_ms, fence, events);
        let has_room = self.check(asker, &ask).inspect_err(|error| {
            self.totals.refused += u64::from(*error != LeaseError::Held);
        })?;
        let key = own(&ask.key);
        let place = place(&mut self.keys, &key);
        place.permits = ask.permits;
        let waiter = Waiter {
            asker,
            value: own(&ask.value),
            ttl_ms: ask.ttl_ms,
            until_ms: ask.wait_until_ms.unwrap_or(u64::MAX),
        };
        self.last_wait += 1;
        if has_room {
            // Granted at once or refused, so it is never found by its deadline.
            place.waiters.insert(self.last_wait, waiter);
            return self.grant(&key, now_ms, fence, events);
        }
        if waiter.until_ms != u64::MAX {
            self.deadlines.insert((waiter.until_ms, Due::Wait(asker)));
        }
        place.waiters.insert(self.last_wait, waiter);
        self.waits.insert(asker, self.last_wait);
        let theirs = self.connections.entry(asker.connection).or_default();
        theirs.waits.insert(asker.request, key);
        Ok(())
    }

    /// Ends a wait whose asker no longer wants the lease; `false` if there is none.
    pub fn cancel(&mut self, asker: Asker) -> bool {
        let key = self.connections.get(&asker.connection).and_then(|theirs| {
            let key = theirs.waits.get(&asker.request)?;
            Some(key.clone())
        });
        key.is_some_and(|key| {
            let was_waiting = self.end_wait(asker, &key).is_some();
            self.forget_if_unused(&key);
            was_waiting
        })
    }

    /// Lets a lease live for its time (or another) again, from now on, and may give it another
    /// value; returns when that time ends.
    pub fn renew(
        &mut self,
        owner: ConnectionId,
        token: u64,
        (ttl_ms, value): (Option<u64>, Option<&[u8]>),
        now_ms: u64,
        fence: Fence<'_>,
        events: &mut Vec<LeaseEvent>,
    ) -> Result<Option<u64>, LeaseError> {
        self.expire(now_ms, fence, events);
        let record = &mut self.owned(owner, token)?.record;
        record.ttl_ms = ttl_ms.or(record.ttl_ms);
        let expires = record.ttl_ms.map(|ttl| now_ms.saturating_add(ttl));
        record.expires_at_ms = expires;
        if let Some(value) = value {
            record.value = own(value);
        }
        let record = record.clone();
        if let Some(place) = self.keys.get(&record.key).filter(|_| value.is_some()) {
            tell(place, &record.key, events);
        }
        if expires.is_some() || value.is_some() {
            events.push(LeaseEvent::Keep(record));
        }
        self.set_due(token, expires);
        Ok(expires)
    }

    /// Gives a lease back.
    pub fn release(
        &mut self,
        owner: ConnectionId,
        token: u64,
        now_ms: u64,
        fence: Fence<'_>,
        events: &mut Vec<LeaseEvent>,
    ) -> Result<(), LeaseError> {
        self.expire(now_ms, fence, events);
        self.owned(owner, token)?;
        self.totals.released += 1;
        self.end(token, now_ms, fence, events);
        Ok(())
    }

    /// Tells `observer` who holds a key, now and whenever that changes.
    pub fn observe(
        &mut self,
        observer: Asker,
        key: &[u8],
        events: &mut Vec<LeaseEvent>,
    ) -> Result<(), LeaseError> {
        self.check_key(observer, key)
            .inspect_err(|_| self.totals.refused += 1)?;
        let key = own(key);
        let place = place(&mut self.keys, &key);
        place.observers.insert(observer);
        events.push(LeaseEvent::Holders(observer, key.clone()));
        let theirs = self.connections.entry(observer.connection).or_default();
        theirs.observed.insert(observer.request, key);
        Ok(())
    }

    /// Ends an observation; `false` if there is none.
    pub fn unobserve(&mut self, observer: Asker) -> bool {
        let theirs = self.connections.get_mut(&observer.connection);
        let Some(key) = theirs.and_then(|theirs| theirs.observed.remove(&observer.request)) else {
            return false;
        };
        if let Some(place) = self.keys.get_mut(&key) {
            place.observers.remove(&observer);
        }
        self.forget_if_unused(&key);
        self.forget_connection_if_unused(observer.connection);
        true
    }
}

/// # For the server
impl Leases {
    /// Ends everything of a connection.
    pub fn connection_ended(
        &mut self,
        connection: ConnectionId,
        now_ms: u64,
        fence: Fence<'_>,
        events: &mut Vec<LeaseEvent>,
    ) {
        let Some(theirs) = self.connections.get(&connection) else {
            return;
        };
        let leases: Vec<u64> = theirs.leases.iter().copied().collect();
        let waits: Vec<RequestId> = theirs.waits.keys().copied().collect();
        let observed: Vec<RequestId> = theirs.observed.keys().copied().collect();
        let asker = |request| Asker {
            connection,
            request,
        };
        // Its waits first, so that it does not inherit from itself.
        for request in waits {
            self.cancel(asker(request));
        }
        for request in observed {
            self.unobserve(asker(request));
        }
        for token in leases {
            self.totals.holder_gone += 1;
            self.end(token, now_ms, fence, events);
        }
    }

    /// Ends what is due now or before.
    pub fn expire(&mut self, now_ms: u64, fence: Fence<'_>, events: &mut Vec<LeaseEvent>) {
        while let Some((_, due)) = self.deadlines.first().filter(|first| first.0 <= now_ms) {
            match *due {
                Due::Lease(token) => {
                    match self.held.get(&token).and_then(|held| held.owner) {
                        Some(owner) => {
                            self.totals.expired += 1;
                            events.push(LeaseEvent::Expired(owner, token));
                        }
                        None => self.totals.unclaimed += 1,
                    }
                    self.end(token, now_ms, fence, events);
                }
                Due::Wait(asker) => {
                    self.totals.timed_out += 1;
                    events.push(LeaseEvent::NotGranted(asker, NotGranted::TimedOut));
                    self.cancel(asker);
                }
            }
        }
    }

    /// When [`Leases::expire`] has something to do next.
    pub fn next_deadline(&self) -> Option<u64> {
        self.deadlines.first().map(|first| first.0)
    }

    /// Takes over a lease of an earlier broker, for its holder to claim until `grace_until_ms`.
    /// `false` if the record contradicts another; it is to be removed then.
    pub fn restore(&mut self, record: LeaseRecord, grace_until_ms: u64) -> bool {
        // Not below what was ever given out, whatever the records say.
        self.last_token = self.last_token.max(record.token);
        let place = place(&mut self.keys, &record.key);
        let fits = (place.holders.is_empty() || place.permits == record.permits)
            && place.holders.len() < record.permits as usize
            && !self.held.contains_key(&record.token);
        if !fits {
            self.forget_if_unused(&record.key);
            return false;
        }
        place.permits = record.permits;
        place.holders.insert(record.token);
        let expires = record.expires_at_ms.unwrap_or(u64::MAX);
        let token = record.token;
        let held = Held {
            record,
            owner: None,
            due_ms: None,
        };
        self.held.insert(token, held);
        self.set_due(token, Some(expires.min(grace_until_ms)));
        true
    }

    /// Gives a restored lease to the connection whose process held it. Returns when it ends unless
    /// renewed.
    pub fn reclaim(
        &mut self,
        owner: ConnectionId,
        token: u64,
        key: &[u8],
        now_ms: u64,
        fence: Fence<'_>,
        events: &mut Vec<LeaseEvent>,
    ) -> Result<Option<u64>, LeaseError> {
        self.expire(now_ms, fence, events);
        let held = self.held.get_mut(&token);
        let held = held.filter(|held| held.owner.is_none() && held.record.key == key);
        let held = held.ok_or(LeaseError::NotHeld { token })?;
        held.owner = Some(owner);
        let expires = held.record.expires_at_ms;
        self.totals.reclaimed += 1;
        let theirs = self.connections.entry(owner).or_default();
        theirs.leases.insert(token);
        self.set_due(token, expires);
        // Observers see the connection of each holder.
        if let Some((key, place)) = self.keys.get_key_value(key) {
            tell(place, key, events);
        }
        Ok(expires)
    }

    /// The leases that are held, each with its holder; `None` for those nobody claimed yet.
    pub fn held(&self) -> impl Iterator<Item = (&LeaseRecord, Option<ConnectionId>)> {
        self.held.values().map(|held| (&held.record, held.owner))
    }

    /// Those who hold a key, the first of them first.
    pub fn holders(
        &self,
        key: &[u8],
    ) -> impl Iterator<Item = (&LeaseRecord, Option<ConnectionId>)> {
        let tokens = self
            .keys
            .get(key)
            .into_iter()
            .flat_map(|place| &place.holders);
        tokens.filter_map(|token| {
            let held = self.held.get(token)?;
            Some((&held.record, held.owner))
        })
    }

    /// The lease of a token, if it is held.
    pub fn record(&self, token: u64) -> Option<&LeaseRecord> {
        self.held.get(&token).map(|held| &held.record)
    }

    /// Keys that are held, waited for or observed, each with its permits (0: only observed), in no
    /// particular order.
    pub fn names(&self) -> impl Iterator<Item = (&[u8], u32)> {
        let names = self.keys.iter();
        names.map(|(key, place)| (&key[..], place.permits))
    }

    /// Waits for a key.
    pub fn waiting(&self, key: &[u8]) -> usize {
        self.keys.get(key).map_or(0, |place| place.waiters.len())
    }

    /// Keys that are held, waited for or observed.
    pub fn keys(&self) -> usize {
        self.keys.len()
    }

    /// What happened so far.
    pub fn totals(&self) -> LeaseTotals {
        self.totals
    }
}

/// A copy, so that no connection's read buffer is kept for it.
fn own(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

fn place<'k>(keys: &'k mut HashMap<Bytes, Place>, key: &Bytes) -> &'k mut Place {
    keys.entry(key.clone()).or_insert_with(|| Place {
        permits: 0,
        holders: BTreeSet::new(),
        waiters: BTreeMap::new(),
        observers: BTreeSet::new(),
    })
}

fn tell(place: &Place, key: &Bytes, events: &mut Vec<LeaseEvent>) {
    for observer in &place.observers {
        events.push(LeaseEvent::Holders(*observer, key.clone()));
    }
}

#[cfg(test)]
mod tests;

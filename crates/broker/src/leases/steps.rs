//! The steps that all calls are made of: checks, granting, ending.

use super::types::{Ask, Asker, LeaseError, LeaseEvent, LeaseRecord, NotGranted};
use super::{tell, Due, Fence, Held, Leases, Place, Theirs, Waiter};
use crate::ids::ConnectionId;
use bytes::Bytes;

impl Leases {
    /// Whether there is a free permit, if the wish is a proper one.
    pub(super) fn check(&self, asker: Asker, ask: &Ask) -> Result<bool, LeaseError> {
        let limit = self.limits.permits;
        if !(1..=limit).contains(&ask.permits) {
            return Err(LeaseError::Permits { limit });
        }
        self.check_key(asker, &ask.key)?;
        let in_use = |place: &&Place| !place.holders.is_empty();
        let Some(place) = self.keys.get(&ask.key).filter(in_use) else {
            return Ok(true);
        };
        if place.permits != ask.permits {
            let permits = place.permits;
            return Err(LeaseError::Disagree { permits });
        }
        if place.holders.len() < place.permits as usize {
            return Ok(true);
        }
        let limit = self.limits.waiters;
        match ask.wait_until_ms {
            None => Err(LeaseError::Held),
            Some(_) if place.waiters.len() >= limit => Err(LeaseError::Waiters { limit }),
            Some(_) => Ok(false),
        }
    }

    pub(super) fn check_key(&self, asker: Asker, key: &[u8]) -> Result<(), LeaseError> {
        let limit = self.limits.keys;
        if !self.keys.contains_key(key) && self.keys.len() >= limit {
            return Err(LeaseError::Keys { limit });
        }
        let Some(theirs) = self.connections.get(&asker.connection) else {
            return Ok(());
        };
        let request = asker.request;
        if theirs.waits.contains_key(&request) || theirs.observed.contains_key(&request) {
            return Err(LeaseError::Duplicate { request });
        }
        let limit = self.limits.per_connection;
        if theirs.leases.len() + theirs.waits.len() + theirs.observed.len() >= limit {
            return Err(LeaseError::TooMany { limit });
        }
        Ok(())
    }

    /// Gives free permits to those who wait longest. Fails if one who does not wait gets none.
    pub(super) fn grant(
        &mut self,
        key: &Bytes,
        now_ms: u64,
        fence: Fence<'_>,
        events: &mut Vec<LeaseEvent>,
    ) -> Result<(), LeaseError> {
        let mut outcome = Ok(());
        while let Some(place) = self.keys.get_mut(key) {
            let is_free = place.holders.len() < place.permits as usize;
            let Some(first) = place.waiters.first_entry().filter(|_| is_free) else {
                break;
            };
            let asker = first.get().asker;
            let permits = place.permits;
            let has_waited = self.waits.contains_key(&asker);
            let waiter = if has_waited {
                self.end_wait(asker, key)
            } else {
                place.waiters.pop_first().map(|first| first.1)
            };
            let Some(waiter) = waiter else { break };
            if has_waited && waiter.until_ms <= now_ms {
                self.totals.timed_out += 1;
                events.push(LeaseEvent::NotGranted(asker, NotGranted::TimedOut));
                continue;
            }
            match fence().filter(|token| *token > self.last_token) {
                Some(token) => self.hold(token, key, permits, waiter, now_ms, events),
                None => {
                    self.totals.no_token += 1;
                    if has_waited {
                        events.push(LeaseEvent::NotGranted(asker, NotGranted::NoToken));
                    } else {
                        outcome = Err(LeaseError::NoToken);
                    }
                }
            }
        }
        self.forget_if_unused(key);
        outcome
    }

    fn hold(
        &mut self,
        token: u64,
        key: &Bytes,
        permits: u32,
        waiter: Waiter,
        now_ms: u64,
        events: &mut Vec<LeaseEvent>,
    ) {
        let asker = waiter.asker;
        let expires = waiter.ttl_ms.map(|ttl| now_ms.saturating_add(ttl));
        let record = LeaseRecord {
            token,
            key: key.clone(),
            permits,
            value: waiter.value,
            ttl_ms: waiter.ttl_ms,
            expires_at_ms: expires,
        };
        self.last_token = token;
        self.totals.granted += 1;
        events.push(LeaseEvent::Keep(record.clone()));
        events.push(LeaseEvent::Granted(asker, token));
        let held = Held {
            record,
            owner: Some(asker.connection),
            due_ms: None,
        };
        self.held.insert(token, held);
        self.set_due(token, expires);
        let theirs = self.connections.entry(asker.connection).or_default();
        theirs.leases.insert(token);
        if let Some(place) = self.keys.get_mut(key) {
            place.holders.insert(token);
            tell(place, key, events);
        }
    }

    /// Ends a lease, and grants what became free.
    pub(super) fn end(
        &mut self,
        token: u64,
        now_ms: u64,
        fence: Fence<'_>,
        events: &mut Vec<LeaseEvent>,
    ) {
        self.set_due(token, None);
        let Some(held) = self.held.remove(&token) else {
            return;
        };
        events.push(LeaseEvent::Forget(token));
        if let Some(owner) = held.owner {
            if let Some(theirs) = self.connections.get_mut(&owner) {
                theirs.leases.remove(&token);
            }
            self.forget_connection_if_unused(owner);
        }
        let key = held.record.key;
        if let Some(place) = self.keys.get_mut(&key) {
            place.holders.remove(&token);
        }
        let before = self.last_token;
        // Nobody here does not wait.
        let _ = self.grant(&key, now_ms, fence, events);
        // Where somebody follows, observers were told already.
        let is_alone = |_: &&Place| self.last_token == before;
        if let Some(place) = self.keys.get(&key).filter(is_alone) {
            tell(place, &key, events);
        }
    }

    pub(super) fn end_wait(&mut self, asker: Asker, key: &Bytes) -> Option<Waiter> {
        let number = self.waits.remove(&asker)?;
        if let Some(theirs) = self.connections.get_mut(&asker.connection) {
            theirs.waits.remove(&asker.request);
        }
        self.forget_connection_if_unused(asker.connection);
        let waiter = self.keys.get_mut(key)?.waiters.remove(&number)?;
        self.deadlines.remove(&(waiter.until_ms, Due::Wait(asker)));
        Some(waiter)
    }

    pub(super) fn owned(
        &mut self,
        owner: ConnectionId,
        token: u64,
    ) -> Result<&mut Held, LeaseError> {
        let held = self.held.get_mut(&token);
        held.filter(|held| held.owner == Some(owner))
            .ok_or(LeaseError::NotHeld { token })
    }

    pub(super) fn set_due(&mut self, token: u64, due_ms: Option<u64>) {
        let Some(held) = self.held.get_mut(&token) else {
            return;
        };
        if let Some(before) = std::mem::replace(&mut held.due_ms, due_ms) {
            self.deadlines.remove(&(before, Due::Lease(token)));
        }
        if let Some(due_ms) = due_ms {
            self.deadlines.insert((due_ms, Due::Lease(token)));
        }
    }

    pub(super) fn forget_if_unused(&mut self, key: &Bytes) {
        let is_unused = |place: &Place| {
            place.holders.is_empty() && place.waiters.is_empty() && place.observers.is_empty()
        };
        if self.keys.get(key).is_some_and(is_unused) {
            self.keys.remove(key);
        }
    }

    pub(super) fn forget_connection_if_unused(&mut self, connection: ConnectionId) {
        let is_unused = |theirs: &Theirs| {
            theirs.leases.is_empty() && theirs.waits.is_empty() && theirs.observed.is_empty()
        };
        if self.connections.get(&connection).is_some_and(is_unused) {
            self.connections.remove(&connection);
        }
    }
}

//! Leases on the wire: what clients ask, what they are told, and the records in the region.
//!
//! [`Leases`] decides. Here its decisions become frames and records: a record is in the region
//! before the holder is told of its lease, so a broker that is started anew knows every holder there
//! can be. It keeps their leases for a grace time, in which they come back with their tokens.
//!
//! Tokens come from a counter in the region. It is lifted to the time of day (in microseconds) at
//! every start, so tokens grow even where the region itself is a new one.

use crate::ids::{ConnectionId, RequestId};
use crate::leases::{
    Ask, Asker, LeaseError, LeaseEvent as Event, LeaseLimits, LeaseRecord, LeaseTotals, Leases,
    NotGranted,
};
use ganger_protocol::lease::{Acquire, Holder, LeaseEvent, LeaseRequest};
use ganger_protocol::{ErrorBody, ErrorCode, Group, Limits};
use ganger_region::Region;
use std::collections::{BTreeMap, HashMap, VecDeque};

mod records;

use records::Records;

/// Most permits of a semaphore.
const PERMITS_MAX: u32 = 65_536;

/// Who asks: a connection, and what listings show of its client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Its number.
    pub connection: ConnectionId,
    /// The client's name.
    pub name: String,
    /// Its process.
    pub pid: u32,
}

/// Something to tell a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tell {
    /// Whom, and under which id.
    pub to: Asker,
    /// What.
    pub what: Told,
    /// Whether that is the last under this id.
    pub ends: bool,
}

/// What a client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// What became of its request.
    Event(LeaseEvent),
    /// It failed.
    Error(ErrorBody),
}

/// What a cancelled id was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WasLease {
    /// A lease that was held, or an observation.
    Going,
    /// A wait.
    Waiting,
    /// Nothing.
    Nothing,
}

/// What happened to records so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RecordTotals {
    /// Records found at the start, and restored.
    pub restored: u64,
    /// Records found at the start that made no sense.
    pub broken: u64,
    /// Records that could not be written; their leases were not granted.
    pub unkept: u64,
    /// Records that could not be removed.
    pub left_over: u64,
}

/// All leases, their holders and their records. Times are of the region's clock, which goes on
/// over a restart.
#[derive(Debug)]
pub struct LeaseService {
    leases: Leases,
    records: Records,
    limits: Limits,
    callers: HashMap<ConnectionId, Caller>,
    askers: BTreeMap<u64, Asker>,
    tokens: HashMap<Asker, u64>,
}

/// # For clients
impl LeaseService {
    /// The leases of a region, those of an earlier broker included: their holders have until
    /// `lease_grace_ms` from now to come back. `wall_us` is the time of day.
    pub fn new(region: Region, limits: &Limits, now_ms: u64, wall_us: u64) -> Self {
        let mut leases = Leases::new(LeaseLimits {
            keys: limits.leases_total,
            per_connection: limits.leases,
            waiters: limits.lease_waiters,
            permits: PERMITS_MAX,
        });
        let mut records = Records::new(region, wall_us);
        let until_ms = now_ms.saturating_add(limits.lease_grace_ms);
        records.restore(|record| leases.restore(record, until_ms));
        Self {
            leases,
            records,
            limits: limits.clone(),
            callers: HashMap::new(),
            askers: BTreeMap::new(),
            tokens: HashMap::new(),
        }
    }

    /// Does what a client asks. Everything that is to be told, its own answer included, is in
    /// `out`, in order.
    pub fn request(
        &mut self,
        caller: &Caller,
        id: u32,
        request: LeaseRequest,
        now_ms: u64,
        out: &mut Vec<Tell>,
    ) {
        let asker = Asker {
            connection: caller.connection,
            request: RequestId(id),
        };
        let outcome = match request {
            LeaseRequest::Acquire(acquire) => self.acquire(caller, asker, &acquire, now_ms, out),
            LeaseRequest::Renew {
                name,
                token,
                ttl_ms,
                value,
            } => self.renew(asker, &name, token, (ttl_ms, value.as_deref()), now_ms, out),
            LeaseRequest::Release { name, token } => self.release(asker, &name, token, now_ms, out),
            LeaseRequest::Observe { name } => self.observe(asker, &name, now_ms, out),
            _ => Err(ErrorCode::UnknownOperation.into()),
        };
        if let Err(error) = outcome {
            out.push(Tell::error(asker, error));
        }
    }

    /// Ends whatever has an id: nothing more is told under it.
    pub fn cancel(&mut self, asker: Asker, now_ms: u64, out: &mut Vec<Tell>) -> WasLease {
        if let Some(token) = self.tokens.get(&asker).copied() {
            // It is this connection's, so giving it back can't fail.
            let _ = self.give_back(asker.connection, token, now_ms, out);
            return WasLease::Going;
        }
        if self.leases.unobserve(asker) {
            WasLease::Going
        } else if self.leases.cancel(asker) {
            WasLease::Waiting
        } else {
            WasLease::Nothing
        }
    }

    /// Ends everything of a connection, at once.
    pub fn connection_ended(&mut self, connection: ConnectionId, now_ms: u64, out: &mut Vec<Tell>) {
        self.act(now_ms, out, |leases, fence, events| {
            leases.connection_ended(connection, now_ms, fence, events);
            Ok(())
        })
        // Nothing in it fails.
        .unwrap_or_default();
        self.callers.remove(&connection);
    }

    /// Does what is due.
    pub fn expire(&mut self, now_ms: u64, out: &mut Vec<Tell>) {
        self.act(now_ms, out, |leases, fence, events| {
            leases.expire(now_ms, fence, events);
            Ok(())
        })
        // Nothing in it fails.
        .unwrap_or_default();
    }

    /// When something is due next.
    pub fn next_deadline(&self) -> Option<u64> {
        self.leases.next_deadline()
    }

    /// The leases themselves.
    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    /// What happened so far.
    pub fn totals(&self) -> (LeaseTotals, RecordTotals) {
        (self.leases.totals(), self.records.totals)
    }

    /// How many leases each connection holds.
    pub fn held_by(&self) -> HashMap<ConnectionId, u64> {
        let mut counts = HashMap::new();
        for asker in self.askers.values() {
            *counts.entry(asker.connection).or_default() += 1;
        }
        counts
    }

    /// Who holds a lease.
    pub fn holders(&self, name: &[u8]) -> Vec<Holder> {
        let holder = |(record, owner): (&LeaseRecord, Option<ConnectionId>)| {
            let caller = owner.and_then(|owner| self.callers.get(&owner));
            Holder {
                token: record.token,
                value: record.value.clone(),
                client: caller.map_or_else(String::new, |caller| caller.name.clone()),
                pid: caller.map_or(0, |caller| caller.pid),
                connection: owner.map_or(0, |owner| owner.0),
            }
        };
        self.leases.holders(name).map(holder).collect()
    }
}

/// # Each kind of request
impl LeaseService {
    fn acquire(
        &mut self,
        caller: &Caller,
        asker: Asker,
        acquire: &Acquire,
        now_ms: u64,
        out: &mut Vec<Tell>,
    ) -> Result<(), ErrorBody> {
        let name = checked(&acquire.name)?;
        self.check(acquire.ttl_ms, &acquire.value)?;
        if self.tokens.contains_key(&asker) {
            return Err(ErrorCode::IdInUse.into());
        }
        self.callers
            .entry(caller.connection)
            .or_insert_with(|| caller.clone());
        if let Some(token) = acquire.reclaim {
            let reclaimed = self.act(now_ms, out, |leases, fence, events| {
                leases.reclaim(asker.connection, token, name, now_ms, fence, events)
            });
            if reclaimed.is_ok() {
                self.note(asker, token);
                let reclaimed = true;
                out.push(Tell::going(asker, LeaseEvent::Granted { token, reclaimed }));
                return Ok(());
            }
        }
        if self.askers.len() >= self.limits.leases_total {
            let limit = self.limits.leases_total;
            return Err(ErrorBody::from(ErrorCode::TooManyLeases).limit(limit));
        }
        let ask = Ask {
            key: acquire.name.clone().into(),
            permits: acquire.permits.max(1),
            value: acquire.value.clone(),
            ttl_ms: acquire.ttl_ms,
            wait_until_ms: match acquire.wait_ms {
                None => Some(u64::MAX),
                Some(0) => None,
                Some(wait) => Some(now_ms.saturating_add(wait)),
            },
        };
        let before = out.len();
        self.act(now_ms, out, |leases, fence, events| {
            leases.acquire(asker, ask, now_ms, fence, events)
        })?;
        if !out[before..].iter().any(|tell| tell.to == asker) {
            let ahead = self.leases.waiting(name).saturating_sub(1) as u64;
            out.push(Tell::going(asker, LeaseEvent::Queued { ahead }));
        }
        Ok(())
    }

    fn renew(
        &mut self,
        asker: Asker,
        name: &str,
        token: u64,
        (ttl_ms, value): (Option<u64>, Option<&[u8]>),
        now_ms: u64,
        out: &mut Vec<Tell>,
    ) -> Result<(), ErrorBody> {
        self.check(ttl_ms, value.unwrap_or_default())?;
        self.check_name(name, token)?;
        let owner = asker.connection;
        self.act(now_ms, out, |leases, fence, events| {
            leases.renew(owner, token, (ttl_ms, value), now_ms, fence, events)
        })?;
        out.push(Tell::last(asker, LeaseEvent::Renewed {}));
        Ok(())
    }

    fn release(
        &mut self,
        asker: Asker,
        name: &str,
        token: u64,
        now_ms: u64,
        out: &mut Vec<Tell>,
    ) -> Result<(), ErrorBody> {
        self.check_name(name, token)?;
        let holder = self.askers.get(&token).copied();
        let before = out.len();
        self.give_back(asker.connection, token, now_ms, out)?;
        // Before whatever follows from it for others.
        let told = holder.filter(|holder| *holder != asker).into_iter();
        let told = told.chain([asker]);
        let told = told.map(|to| Tell::last(to, LeaseEvent::Released {}));
        out.splice(before..before, told);
        Ok(())
    }

    fn give_back(
        &mut self,
        owner: ConnectionId,
        token: u64,
        now_ms: u64,
        out: &mut Vec<Tell>,
    ) -> Result<(), ErrorBody> {
        self.act(now_ms, out, |leases, fence, events| {
            leases.release(owner, token, now_ms, fence, events)
        })
    }

    fn observe(
        &mut self,
        asker: Asker,
        name: &str,
        now_ms: u64,
        out: &mut Vec<Tell>,
    ) -> Result<(), ErrorBody> {
        let name = checked(name)?;
        if self.tokens.contains_key(&asker) {
            return Err(ErrorCode::IdInUse.into());
        }
        self.act(now_ms, out, |leases, _, events| {
            leases.observe(asker, name, events)
        })
    }

    fn check(&self, ttl_ms: Option<u64>, value: &[u8]) -> Result<(), ErrorBody> {
        let limit = self.limits.lease_ttl_ms;
        if let Some(ttl) = ttl_ms.filter(|ttl| !(1..=limit).contains(ttl)) {
            let why = "a lease lives for a millisecond at least, and as long as the limit at most";
            return Err(ErrorBody::new(ErrorCode::Invalid, why)
                .limit(limit)
                .actual(ttl));
        }
        let limit = self.limits.lease_value_bytes;
        if value.len() > limit {
            let error = ErrorBody::new(ErrorCode::Invalid, "the value of the lease is too long");
            return Err(error.limit(limit).actual(value.len()));
        }
        Ok(())
    }

    /// A token of another lease is none of this.
    fn check_name(&self, name: &str, token: u64) -> Result<(), ErrorBody> {
        let record = self.leases.record(token);
        if record.is_some_and(|record| record.key == name.as_bytes()) {
            Ok(())
        } else {
            Err(ErrorCode::NotHeld.into())
        }
    }
}

/// # What follows
impl LeaseService {
    /// Calls the leases, and does what follows for others.
    fn act<R>(
        &mut self,
        now_ms: u64,
        out: &mut Vec<Tell>,
        call: impl FnOnce(
            &mut Leases,
            crate::leases::Fence<'_>,
            &mut Vec<Event>,
        ) -> Result<R, LeaseError>,
    ) -> Result<R, ErrorBody> {
        let mut events = Vec::new();
        let records = &mut self.records;
        let outcome = call(&mut self.leases, &mut || records.next_token(), &mut events);
        let failed = self.follow(events, now_ms, out);
        match (outcome, failed) {
            (Err(error), _) => Err(self.error(&error)),
            (Ok(_), Some(failed)) => Err(failed),
            (Ok(value), None) => Ok(value),
        }
    }

    /// Writes records and tells clients. Returns why the record of a lease that goes on could not be
    /// written.
    fn follow(
        &mut self,
        events: Vec<Event>,
        now_ms: u64,
        out: &mut Vec<Tell>,
    ) -> Option<ErrorBody> {
        let mut failed = None;
        let mut events = VecDeque::from(events);
        while let Some(event) = events.pop_front() {
            match event {
                Event::Keep(record) => {
                    if let Err(error) = self.records.keep(&record) {
                        if !self.take_back(record.token, &error, now_ms, &mut events, out) {
                            failed = Some(error);
                        }
                    }
                }
                Event::Forget(token) => {
                    self.records.forget(token);
                    if let Some(asker) = self.askers.remove(&token) {
                        self.tokens.remove(&asker);
                    }
                }
                Event::Granted(asker, token) => {
                    self.note(asker, token);
                    let reclaimed = false;
                    out.push(Tell::going(asker, LeaseEvent::Granted { token, reclaimed }));
                }
                Event::NotGranted(asker, why) => {
                    let error = match why {
                        NotGranted::TimedOut => ErrorCode::Timeout.into(),
                        NotGranted::NoToken => self.error(&LeaseError::NoToken),
                    };
                    out.push(Tell::error(asker, error));
                }
                Event::Expired(_, token) => {
                    if let Some(asker) = self.askers.get(&token) {
                        let why = "its time to live was over";
                        let error = ErrorBody::new(ErrorCode::Timeout, why);
                        out.push(Tell::last(*asker, LeaseEvent::Lost { token, error }));
                    }
                }
                Event::Holders(observer, name) => {
                    let event = LeaseEvent::Holders {
                        holders: self.holders(&name),
                        waiting: self.leases.waiting(&name) as u64,
                    };
                    out.push(Tell::going(observer, event));
                }
            }
        }
        failed
    }

    /// Undoes a grant whose record could not be written: the one who would have it is told why, and
    /// has nothing. `false` if its holder had the lease before.
    fn take_back(
        &mut self,
        token: u64,
        error: &ErrorBody,
        now_ms: u64,
        events: &mut VecDeque<Event>,
        out: &mut Vec<Tell>,
    ) -> bool {
        let is_its = |event: &Event| matches!(event, Event::Granted(_, of) if *of == token);
        let Some(Event::Granted(asker, _)) = events
            .iter()
            .position(is_its)
            .and_then(|at| events.remove(at))
        else {
            return false;
        };
        out.push(Tell::error(asker, error.clone()));
        let mut more = Vec::new();
        let records = &mut self.records;
        // It was granted a moment ago, so giving it back can't fail.
        let _ = self.leases.release(
            asker.connection,
            token,
            now_ms,
            &mut || records.next_token(),
            &mut more,
        );
        events.extend(more);
        true
    }

    fn note(&mut self, asker: Asker, token: u64) {
        self.askers.insert(token, asker);
        self.tokens.insert(asker, token);
    }

    fn error(&mut self, error: &LeaseError) -> ErrorBody {
        let body = |code| ErrorBody::new(code, error.to_string());
        match error {
            LeaseError::Held => ErrorCode::Taken.into(),
            LeaseError::Disagree { permits } => body(ErrorCode::Invalid).actual(*permits),
            LeaseError::Permits { limit } => body(ErrorCode::Invalid).limit(*limit),
            LeaseError::Duplicate { .. } => ErrorCode::IdInUse.into(),
            LeaseError::Keys { limit } | LeaseError::TooMany { limit } => {
                body(ErrorCode::TooManyLeases).limit(*limit)
            }
            LeaseError::Waiters { limit } => body(ErrorCode::TooManyWaiters).limit(*limit),
            LeaseError::NotHeld { .. } => ErrorCode::NotHeld.into(),
            LeaseError::NoToken => {
                let why = self.records.failed.take();
                why.unwrap_or_else(|| body(ErrorCode::Unavailable))
            }
        }
    }
}

impl Tell {
    fn going(to: Asker, event: LeaseEvent) -> Self {
        let what = Told::Event(event);
        Self {
            to,
            what,
            ends: false,
        }
    }

    fn last(to: Asker, event: LeaseEvent) -> Self {
        let what = Told::Event(event);
        Self {
            to,
            what,
            ends: true,
        }
    }

    fn error(to: Asker, error: ErrorBody) -> Self {
        let what = Told::Error(error);
        Self {
            to,
            what,
            ends: true,
        }
    }
}

fn checked(name: &str) -> Result<&[u8], ErrorBody> {
    let checked: Result<Group, _> = name.parse();
    checked.map_err(ErrorBody::from)?;
    Ok(name.as_bytes())
}

#[cfg(test)]
mod tests;

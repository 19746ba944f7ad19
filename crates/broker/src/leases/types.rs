//! What is asked, told and refused about leases.

use crate::ids::{ConnectionId, RequestId};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Who asks, and under which number it wants the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Asker {
    /// Whose question it is.
    pub connection: ConnectionId,
    /// Its number.
    pub request: RequestId,
}

/// A wish for a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Of what.
    pub key: Bytes,
    /// How many may hold it at a time, 1 for locks and elections; all must agree on that.
    pub permits: u32,
    /// What observers see.
    pub value: Bytes,
    /// After so long without renewal it is taken away; `None` leaves that to the connection's end.
    pub ttl_ms: Option<u64>,
    /// Until when to wait for it; `u64::MAX` waits for ever, `None` not at all.
    pub wait_until_ms: Option<u64>,
}

/// A held lease, as it is kept in the region for the next broker to find.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRecord {
    /// The fencing token, by which it is also named. Tokens only grow.
    pub token: u64,
    /// Of what.
    pub key: Bytes,
    /// How many may hold it at a time, 1 for locks and elections; all must agree on that.
    pub permits: u32,
    /// What observers see.
    pub value: Bytes,
    /// How long a renewal is good for.
    pub ttl_ms: Option<u64>,
    /// When it is taken away if it is not renewed, by the clock of the region.
    pub expires_at_ms: Option<u64>,
}

impl LeaseRecord {
    /// The record as bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>, rmp_serde::encode::Error> {
        rmp_serde::to_vec_named(self)
    }

    /// The record that [`LeaseRecord::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, rmp_serde::decode::Error> {
        rmp_serde::from_slice(bytes)
    }
}

/// What the server has to do, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseEvent {
    /// Write the record (again), before the holder learns of its lease.
    Keep(LeaseRecord),
    /// Remove the record of this token.
    Forget(u64),
    /// Tell who asked that it has the lease of this token.
    Granted(Asker, u64),
    /// Tell who asked that it gets none.
    NotGranted(Asker, NotGranted),
    /// Tell a holder that its lease was taken away because it was not renewed.
    Expired(ConnectionId, u64),
    /// Tell an observer who holds this key now: see [`Leases::holders`](super::Leases::holders).
    Holders(Asker, Bytes),
}

/// Why a wait ended without a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotGranted {
    /// It waited as long as it wanted to.
    TimedOut,
    /// There was no fencing token to be had.
    NoToken,
}

/// Bounds on leases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseLimits {
    /// Keys that are held, waited for or observed.
    pub keys: usize,
    /// Leases, waits and observations of one connection.
    pub per_connection: usize,
    /// Waits for one key.
    pub waiters: usize,
    /// Permits of a semaphore.
    pub permits: u32,
}

/// Why a call about a lease failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseError {
    /// Somebody has it, and the asker does not wait.
    #[error("it is held by another")]
    Held,
    /// Others use the key with another number of permits.
    #[error("the others say it has {permits} permits")]
    Disagree {
        /// Their number.
        permits: u32,
    },
    /// No or too many permits.
    #[error("a lease has 1 to {limit} permits")]
    Permits {
        /// The limit.
        limit: u32,
    },
    /// The number is in use by this connection.
    #[error("request {} is still waiting", request.0)]
    Duplicate {
        /// The number.
        request: RequestId,
    },
    /// Too many keys.
    #[error("{limit} keys are leased: there may be no more")]
    Keys {
        /// The limit.
        limit: usize,
    },
    /// Too much of one connection.
    #[error("this connection has {limit} leases and waits: there may be no more")]
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// Too many waiters.
    #[error("{limit} wait for this key: there may be no more")]
    Waiters {
        /// The limit.
        limit: usize,
    },
    /// There was no fencing token to be had.
    #[error("there is no fencing token to be had")]
    NoToken,
    /// The lease ended, or is another's.
    #[error("this connection has no lease {token}")]
    NotHeld {
        /// The token it named.
        token: u64,
    },
}

/// What happened to leases so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LeaseTotals {
    /// Leases granted.
    pub granted: u64,
    /// Leases given back.
    pub released: u64,
    /// Leases taken away because they were not renewed.
    pub expired: u64,
    /// Leases ended by the end of their holder's connection.
    pub holder_gone: u64,
    /// Leases of an earlier broker that were claimed again.
    pub reclaimed: u64,
    /// Leases of an earlier broker that nobody claimed in time.
    pub unclaimed: u64,
    /// Waits that came to their end.
    pub timed_out: u64,
    /// Grants that failed for want of a token.
    pub no_token: u64,
    /// Wishes refused because of a limit.
    pub refused: u64,
}

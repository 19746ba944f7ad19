//! Locks, semaphores and elections: all of them leases.
//!
//! A lease has a name and a number of permits, 1 for locks and elections. Each grant has a fencing
//! token, greater than any before it; with the name it also says which grant is meant.

use crate::body::bodies;
use crate::error::ErrorBody;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Body of [`Op::Lease`](crate::Op::Lease).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LeaseRequest {
    /// Answered by [`LeaseEvent::Granted`] or an error; [`LeaseEvent::Queued`] may come before, and
    /// [`LeaseEvent::Lost`] after. Cancelling its id ends the wait, or gives the lease back.
    Acquire(Acquire),
    /// Begins the time to live anew: [`LeaseEvent::Renewed`].
    Renew {
        /// The lease.
        name: String,
        /// Of the grant.
        token: u64,
        /// A new time to live, in milliseconds; absent: the one it has.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ttl_ms: Option<u64>,
        /// A new value; absent: the one it has.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        value: Option<Bytes>,
    },
    /// Gives it back: [`LeaseEvent::Released`].
    Release {
        /// The lease.
        name: String,
        /// Of the grant.
        token: u64,
    },
    /// Who holds it, now and after each change: [`LeaseEvent::Holders`] until the id is cancelled.
    Observe {
        /// The lease.
        name: String,
    },
}

/// Asks for a lease.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Acquire {
    /// Its name: text without whitespace and control characters.
    pub name: String,
    /// How many permits there are; all who ask for the same name must agree. 0 is 1: a lock.
    pub permits: u32,
    /// It is released after so many milliseconds without renewal; absent: only with the connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
    /// How long to wait in the queue; absent: for ever, 0: not at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
    /// What observers see, the leader's address for example.
    pub value: Bytes,
    /// The token of a grant of an earlier connection, to go on with it after the broker was
    /// restarted or the connection was lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reclaim: Option<u64>,
}

/// Body of [`Op::LeaseEvent`](crate::Op::LeaseEvent).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LeaseEvent {
    /// It has to wait.
    Queued {
        /// Those in front of it.
        ahead: u64,
    },
    /// It is held.
    Granted {
        /// The fencing token.
        token: u64,
        /// Whether it is the earlier grant that was reclaimed.
        #[serde(default)]
        reclaimed: bool,
    },
    /// Its time to live began anew.
    Renewed {},
    /// It was given back.
    Released {},
    /// It is not held any more, without having been given back.
    Lost {
        /// Of the grant.
        token: u64,
        /// Why.
        error: ErrorBody,
    },
    /// Who holds it.
    Holders {
        /// All of them; none if it is free.
        holders: Vec<Holder>,
        /// Those who wait.
        #[serde(default)]
        waiting: u64,
    },
}

/// One who holds a lease.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Holder {
    /// The fencing token.
    pub token: u64,
    /// What it said of itself.
    pub value: Bytes,
    /// The name of its client.
    pub client: String,
    /// Its process.
    pub pid: u32,
    /// Its connection; 0 if it has not come back since the broker's restart.
    pub connection: u64,
}

bodies! {
    LeaseRequest => Lease,
    LeaseEvent => LeaseEvent,
}

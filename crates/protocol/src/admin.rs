//! Looking into the broker, and telling it what to do.

use crate::body::bodies;
use crate::kv::RegionStats;
use crate::lease::Holder;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Body of [`Op::Admin`](crate::Op::Admin). Each variant says which [`AdminReply`] answers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AdminRequest {
    /// The channels and their subscribers, in the order of their patterns: `Topics`.
    Topics {
        /// Only patterns that begin so.
        #[serde(default)]
        prefix: String,
        /// Only patterns after this one: the `next` of the page before.
        #[serde(default)]
        after: Option<String>,
    },
    /// The connections, in the order of their numbers: `Clients`.
    Clients {
        /// Only numbers after this one: the `next` of the page before.
        #[serde(default)]
        after: u64,
    },
    /// The leases, in the order of their names: `Leases`.
    Leases {
        /// Only names that begin so.
        #[serde(default)]
        prefix: String,
        /// Only names after this one: the `next` of the page before.
        #[serde(default)]
        after: Option<String>,
    },
    /// The broker's numbers: `Stats`.
    Stats {},
    /// All counters as Prometheus text: `Metrics`.
    Metrics {},
    /// Every message of a pattern as it goes through, without being one of its subscribers:
    /// `Subscribed`, then `Message` frames of the request's id until it is cancelled. One that is too
    /// slow gets gaps.
    Tap {
        /// Which subjects.
        pattern: String,
    },
    /// Writes the region to a file of the broker's home: `AdminProgress`, then `Snapshot`.
    Snapshot {},
    /// Reads a snapshot into the region: `AdminProgress`, then `Snapshot`.
    Restore {
        /// Its name in the broker's home; absent: the newest sound one.
        #[serde(default)]
        name: Option<String>,
    },
    /// Checks every invariant of the region: `Audit`.
    Audit {},
    /// Ends a connection: `Done`.
    Disconnect {
        /// Its number.
        connection: u64,
    },
}

/// Body of [`Op::AdminReply`](crate::Op::AdminReply).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AdminReply {
    /// A page of channels.
    Topics {
        /// The channels.
        topics: Vec<Topic>,
        /// Where to go on; absent when all were listed.
        #[serde(default)]
        next: Option<String>,
    },
    /// A page of connections.
    Clients {
        /// The connections.
        clients: Vec<ClientInfo>,
        /// Where to go on; absent when all were listed.
        #[serde(default)]
        next: Option<u64>,
    },
    /// A page of leases.
    Leases {
        /// The leases.
        leases: Vec<LeaseInfo>,
        /// Where to go on; absent when all were listed.
        #[serde(default)]
        next: Option<String>,
    },
    /// The broker's numbers.
    Stats {
        /// The numbers.
        stats: Box<BrokerStats>,
    },
    /// Prometheus text.
    Metrics {
        /// The text.
        text: String,
    },
    /// What was written or read.
    Snapshot {
        /// The snapshot's name in the broker's home.
        name: String,
        /// Entries in it.
        entries: u64,
        /// Its bytes.
        bytes: u64,
        /// Snapshots that were tried before it and refused, and why.
        #[serde(default)]
        refused: Vec<String>,
    },
    /// What an audit found.
    Audit {
        /// Entries that were looked at.
        entries: u64,
        /// One sentence per broken invariant; none if all is sound.
        problems: Vec<String>,
    },
    /// Whether there was anything to do.
    Done {
        /// Whether.
        done: bool,
    },
}

/// Body of [`Op::AdminProgress`](crate::Op::AdminProgress).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct AdminProgress {
    /// Entries done.
    pub done: u64,
    /// Entries there are, about.
    pub total: u64,
}

/// A channel: a pattern that has or had subscribers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Topic {
    /// Its pattern.
    pub pattern: String,
    /// Messages that were published to it.
    pub published: u64,
    /// Bytes of them.
    pub published_bytes: u64,
    /// The number of the last message; 0 if there was none.
    pub last_seq: u64,
    /// Messages in its ring.
    pub ring_messages: u64,
    /// Bytes in its ring.
    pub ring_bytes: u64,
    /// Its subscribers.
    pub subscribers: Vec<Subscriber>,
}

/// A subscription, as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Subscriber {
    /// Its connection.
    pub connection: u64,
    /// The client's name.
    pub client: String,
    /// Its process.
    pub pid: u32,
    /// Its id on that connection.
    pub id: u32,
    /// Its queue group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Whether it answers requests.
    pub responds: bool,
    /// Messages it is behind.
    pub lag: u64,
    /// Messages it got.
    pub delivered: u64,
    /// Messages it lost.
    pub dropped: u64,
    /// Messages that newer ones replaced.
    pub conflated: u64,
    /// Messages and requests it has not acknowledged or answered.
    pub outstanding: u64,
}

/// A connection, as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ClientInfo {
    /// Its number.
    pub connection: u64,
    /// What it calls itself.
    pub name: String,
    /// Library and version.
    pub software: String,
    /// Its process.
    pub pid: u32,
    /// Its user.
    pub uid: u32,
    /// Milliseconds since it connected.
    pub age_ms: u64,
    /// Whether it was given the region.
    pub region: bool,
    /// Bytes and frames that came from it.
    pub bytes_in: u64,
    /// See `bytes_in`.
    pub frames_in: u64,
    /// Bytes and frames that went to it.
    pub bytes_out: u64,
    /// See `bytes_out`.
    pub frames_out: u64,
    /// Bytes that wait to be written to it.
    pub outbox_bytes: u64,
    /// Its subscriptions.
    pub subscriptions: u64,
    /// Its watches.
    pub watches: u64,
    /// The leases it holds.
    pub leases: u64,
    /// Its requests that wait for a reply.
    pub pending_requests: u64,
    /// Messages its subscriptions lost.
    pub dropped: u64,
}

/// A lease, as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LeaseInfo {
    /// Its name.
    pub name: String,
    /// How many permits there are.
    pub permits: u32,
    /// Who holds it.
    pub holders: Vec<Holder>,
    /// Those who wait.
    pub waiting: u64,
}

/// The broker's numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BrokerStats {
    /// Program and version.
    pub software: String,
    /// Its process.
    pub pid: u32,
    /// Its run.
    pub epoch: u64,
    /// Milliseconds it runs.
    pub uptime_ms: u64,
    /// Every counter by its name in the metrics, without the labels.
    pub counters: BTreeMap<String, u64>,
    /// The region's numbers.
    pub region: RegionStats,
}

bodies! {
    AdminRequest => Admin,
    AdminReply => AdminReply,
    AdminProgress => AdminProgress,
}

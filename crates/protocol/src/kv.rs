//! Key-value operations for clients that don't map the region: every one, and batches.
//!
//! The four most frequent ones have a form without MessagePack too: see [`crate::kv_fast`].

use crate::body::bodies;
use crate::error::ErrorBody;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Body of [`Op::Kv`](crate::Op::Kv). Each variant says which [`KvReply`] answers it; any of them
/// may be answered by an [`Op::Error`](crate::Op::Error) instead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum KvRequest {
    /// The value of a key: `Value`.
    Get {
        /// The key.
        key: Bytes,
    },
    /// The value, revision and time to live of a key: `Entry`.
    Entry {
        /// The key.
        key: Bytes,
    },
    /// Stores a value: `Written`.
    Set {
        /// The key.
        key: Bytes,
        /// The value.
        value: Bytes,
        /// What it requires, and what it gives the key.
        #[serde(default)]
        options: SetOptions,
    },
    /// Removes a key: `Done`.
    Delete {
        /// The key.
        key: Bytes,
        /// Only if its revision is this.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        if_revision: Option<u64>,
    },
    /// Adds to a counter: `Sum`.
    Incr {
        /// The key.
        key: Bytes,
        /// How much.
        by: i64,
        /// A counter that begins here expires after so many milliseconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ttl_ms: Option<u64>,
    },
    /// Adds bytes to the end of a value: `Count`, its new length.
    Append {
        /// The key.
        key: Bytes,
        /// What is added.
        value: Bytes,
    },
    /// Lets a key expire: `Done`.
    Expire {
        /// The key.
        key: Bytes,
        /// Milliseconds from now.
        ttl_ms: u64,
    },
    /// Makes sure that a key lives at least so long: `Done`.
    Touch {
        /// The key.
        key: Bytes,
        /// Milliseconds from now.
        ttl_ms: u64,
    },
    /// Lets a key live for ever: `Done`.
    Persist {
        /// The key.
        key: Bytes,
    },
    /// How long a key lives: `Ttl`.
    Ttl {
        /// The key.
        key: Bytes,
    },
    /// Whether a key is there: `Done`.
    Exists {
        /// The key.
        key: Bytes,
    },
    /// How many entries there are: `Count`.
    Len {},
    /// A page of the entries whose keys begin with a prefix: `Page`.
    Scan {
        /// The prefix; empty for all keys.
        #[serde(default)]
        prefix: Bytes,
        /// Where to go on: the `next` of the page before, 0 at the beginning.
        #[serde(default)]
        cursor: u64,
        /// About how many entries; 0 for as many as the broker likes.
        #[serde(default)]
        limit: u32,
        /// Without values.
        #[serde(default)]
        keys_only: bool,
    },
    /// Removes all keys but Ganger's own: `Count`, how many.
    Clear {},
    /// The values of several keys: `Values`.
    GetMany {
        /// The keys.
        keys: Vec<Bytes>,
    },
    /// Numbers of the region: `Stats`.
    Stats {},
    /// Several operations, one after the other: `Batch`. Others may write in between; one that
    /// fails does not stop those behind it. Batches don't nest.
    Batch {
        /// The operations.
        requests: Vec<Self>,
    },
}

/// What a set requires of the key, and what it gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SetOptions {
    /// The key expires after so many milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
    /// Only if the key is not there.
    #[serde(default, skip_serializing_if = "is_false")]
    pub if_absent: bool,
    /// Only if the key is there.
    #[serde(default, skip_serializing_if = "is_false")]
    pub if_present: bool,
    /// Only if its revision is this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_revision: Option<u64>,
    /// A key that is there keeps its expiry.
    #[serde(default, skip_serializing_if = "is_false")]
    pub keep_expiry: bool,
    /// The key goes when the connection ends.
    #[serde(default, skip_serializing_if = "is_false")]
    pub ephemeral: bool,
}

impl SetOptions {
    /// Whether at most one condition is set; more are [`Invalid`](crate::ErrorCode::Invalid).
    pub fn is_sound(&self) -> bool {
        let conditions = [self.if_absent, self.if_present, self.if_revision.is_some()];
        conditions
            .into_iter()
            .filter(|&condition| condition)
            .count()
            <= 1
    }
}

/// Body of [`Op::KvReply`](crate::Op::KvReply).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum KvReply {
    /// A value, or that there is none.
    Value {
        /// The value.
        value: Option<Bytes>,
    },
    /// An entry, or that there is none.
    Entry {
        /// The entry.
        entry: Option<Entry>,
    },
    /// The revision of what was written, or that the condition was not met.
    Written {
        /// The revision.
        revision: Option<u64>,
    },
    /// Whether the key was there (and the condition met).
    Done {
        /// Whether.
        done: bool,
    },
    /// What a counter is now.
    Sum {
        /// Its value.
        value: i64,
    },
    /// A length or a number of keys.
    Count {
        /// How many.
        count: u64,
    },
    /// How long a key lives.
    Ttl {
        /// Whether it is there.
        exists: bool,
        /// Milliseconds left, if it expires.
        #[serde(default)]
        ttl_ms: Option<u64>,
    },
    /// A page of a scan.
    Page {
        /// Its entries, in no particular order.
        entries: Vec<PageEntry>,
        /// Where to go on; absent when all was seen.
        #[serde(default)]
        next: Option<u64>,
    },
    /// The values of several keys, in their order.
    Values {
        /// Each value, or that there is none.
        values: Vec<Option<Bytes>>,
    },
    /// Numbers of the region, by name.
    Stats {
        /// The numbers.
        stats: RegionStats,
    },
    /// The replies to a batch, in its order.
    Batch {
        /// Each reply.
        replies: Vec<Self>,
    },
    /// In a batch: this part failed.
    Failed {
        /// Why.
        error: ErrorBody,
    },
}

/// A key's value, with what is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The value; a counter's are 8 bytes, little-endian.
    pub value: Bytes,
    /// The revision of its last write.
    pub revision: u64,
    /// Milliseconds until it expires, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
    /// Whether it is a counter.
    #[serde(default, skip_serializing_if = "is_false")]
    pub counter: bool,
    /// Whether it goes with the session or connection that wrote it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub ephemeral: bool,
}

/// One entry of a scan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageEntry {
    /// Its key.
    pub key: Bytes,
    /// The entry; without value if only keys were asked for.
    pub entry: Entry,
}

/// Numbers of a region: those of `ganger_region::Stats`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)] // each is documented where it is counted
pub struct RegionStats {
    pub entries: u64,
    pub bytes: u64,
    pub declared_bytes: u64,
    pub committed_bytes: u64,
    pub pages: u64,
    pub pages_used: u64,
    pub pages_free: u64,
    pub shards: u64,
    pub buckets: u64,
    pub writes: u64,
    pub expired: u64,
    pub evicted: u64,
    pub repairs: u64,
    pub damaged: u64,
    pub sessions: u64,
    pub sessions_attached: u64,
}

bodies! {
    KvRequest => Kv,
    KvReply => KvReply,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's shape
fn is_false(flag: &bool) -> bool {
    !flag
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_with_two_conditions_is_not_sound() {
        let absent = SetOptions {
            if_absent: true,
            ..SetOptions::default()
        };
        let both = SetOptions {
            if_revision: Some(2),
            ..absent
        };
        assert!(SetOptions::default().is_sound() && absent.is_sound() && !both.is_sound());
    }
}

//! The keys, by either way: directly in the region, or over the broker's socket.

use crate::failure::Failure;
use bytes::Bytes;
use ganger_client::protocol::kv::{Entry, RegionStats};
use ganger_client::{Cursor, Error, Expiry, Kv, RemoteKv, SetOptions};
use std::time::Duration;
use tokio::runtime::Runtime;

pub(crate) enum Store<'a> {
    Direct(Kv),
    Socket(&'a Runtime, RemoteKv),
}

/// A page of keys with their entries, and where to go on.
pub(crate) type Page = (Vec<(Vec<u8>, Entry)>, Option<u64>);

/// The same call by either way.
macro_rules! either {
    ($store:expr, $kv:ident => $call:expr) => {
        match $store {
            Self::Direct($kv) => Ok($call?),
            Self::Socket(runtime, $kv) => {
                let done: Result<_, Error> = runtime.block_on(async { $call.await });
                Ok(done?)
            }
        }
    };
}

impl Store<'_> {
    pub(crate) fn entry(&self, key: &[u8]) -> Result<Option<Entry>, Failure> {
        match self {
            Self::Direct(kv) => Ok(kv.entry(key)?.map(of_region)),
            Self::Socket(runtime, kv) => Ok(runtime.block_on(kv.entry(key))?),
        }
    }

    pub(crate) fn set(
        &self,
        key: &[u8],
        value: &[u8],
        options: SetOptions,
    ) -> Result<Option<u64>, Failure> {
        either!(self, kv => kv.set_with(key, value, options))
    }

    pub(crate) fn delete(&self, key: &[u8], if_revision: Option<u64>) -> Result<bool, Failure> {
        match if_revision {
            Some(revision) => either!(self, kv => kv.delete_if(key, revision)),
            None => either!(self, kv => kv.delete(key)),
        }
    }

    pub(crate) fn incr(&self, key: &[u8], by: i64, ttl: Option<Duration>) -> Result<i64, Failure> {
        match ttl {
            Some(ttl) => either!(self, kv => kv.incr_for(key, by, ttl)),
            None => either!(self, kv => kv.incr(key, by)),
        }
    }

    pub(crate) fn append(&self, key: &[u8], more: &[u8]) -> Result<u64, Failure> {
        either!(self, kv => kv.append(key, more))
    }

    pub(crate) fn ttl(&self, key: &[u8]) -> Result<Option<Expiry>, Failure> {
        either!(self, kv => kv.ttl(key))
    }

    pub(crate) fn expire(&self, key: &[u8], ttl: Duration) -> Result<bool, Failure> {
        either!(self, kv => kv.expire(key, ttl))
    }

    pub(crate) fn touch(&self, key: &[u8], ttl: Duration) -> Result<bool, Failure> {
        either!(self, kv => kv.touch(key, ttl))
    }

    pub(crate) fn persist(&self, key: &[u8]) -> Result<bool, Failure> {
        either!(self, kv => kv.persist(key))
    }

    /// One page of a scan: about `limit` entries from `cursor` on.
    pub(crate) fn scan(
        &self,
        prefix: &[u8],
        cursor: u64,
        limit: u32,
        keys_only: bool,
    ) -> Result<Page, Failure> {
        match self {
            Self::Direct(kv) => {
                let page = kv.scan(prefix, Cursor::from_u64(cursor), limit as usize)?;
                let entries = page.entries.into_iter();
                let entries = entries.map(|(key, entry)| (key, of_region(entry)));
                Ok((entries.collect(), page.next.map(Cursor::to_u64)))
            }
            Self::Socket(runtime, kv) => {
                let page = runtime.block_on(async {
                    match keys_only {
                        true => kv.scan_keys(prefix, cursor, limit).await,
                        false => kv.scan(prefix, cursor, limit).await,
                    }
                })?;
                Ok((page.entries, page.next))
            }
        }
    }

    pub(crate) fn stats(&self) -> Result<RegionStats, Failure> {
        match self {
            Self::Direct(kv) => Ok(of_stats(&kv.stats())),
            Self::Socket(runtime, kv) => Ok(runtime.block_on(kv.stats())?),
        }
    }
}

fn of_region(entry: ganger_client::Entry) -> Entry {
    Entry {
        value: Bytes::from(entry.value),
        revision: entry.revision,
        ttl_ms: entry.ttl_ms,
        counter: entry.is_counter,
        ephemeral: entry.is_ephemeral,
    }
}

fn of_stats(stats: &ganger_client::Stats) -> RegionStats {
    RegionStats {
        entries: stats.entries,
        bytes: stats.bytes,
        declared_bytes: stats.declared_bytes,
        committed_bytes: stats.committed_bytes,
        pages: stats.pages,
        pages_used: stats.pages_used,
        pages_free: stats.pages_free,
        shards: stats.shards,
        buckets: stats.buckets,
        writes: stats.writes,
        expired: stats.expired,
        evicted: stats.evicted,
        repairs: stats.repairs,
        damaged: stats.damaged,
        sessions: stats.sessions,
        sessions_attached: stats.sessions_attached,
    }
}

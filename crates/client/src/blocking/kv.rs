//! Keys over the socket.

use super::Shared;
use crate::client::{self as nonblocking, Error, RemotePage};
use crate::kv::Expiry;
use crate::set::SetOptions;
use ganger_protocol::kv::{Entry, KvReply, KvRequest, RegionStats};
use std::time::Duration;

/// As [`ganger_client::RemoteKv`](crate::RemoteKv), each call of which blocks here until it is done.
#[derive(Clone)]
pub struct RemoteKv {
    pub(super) inner: nonblocking::RemoteKv,
    pub(super) runtime: Shared,
}

impl RemoteKv {
    /// As [`RemoteKv::get`](crate::RemoteKv::get).
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>, Error> {
        self.runtime.wait(self.inner.get(key))
    }

    /// As [`RemoteKv::entry`](crate::RemoteKv::entry).
    pub fn entry(&self, key: impl AsRef<[u8]>) -> Result<Option<Entry>, Error> {
        self.runtime.wait(self.inner.entry(key))
    }

    /// As [`RemoteKv::get_many`](crate::RemoteKv::get_many).
    pub fn get_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        self.runtime.wait(self.inner.get_many(keys))
    }

    /// As [`RemoteKv::exists`](crate::RemoteKv::exists).
    pub fn exists(&self, key: impl AsRef<[u8]>) -> Result<bool, Error> {
        self.runtime.wait(self.inner.exists(key))
    }

    /// As [`RemoteKv::ttl`](crate::RemoteKv::ttl).
    pub fn ttl(&self, key: impl AsRef<[u8]>) -> Result<Option<Expiry>, Error> {
        self.runtime.wait(self.inner.ttl(key))
    }

    /// As [`RemoteKv::len`](crate::RemoteKv::len).
    pub fn len(&self) -> Result<u64, Error> {
        self.runtime.wait(self.inner.len())
    }

    /// As [`RemoteKv::is_empty`](crate::RemoteKv::is_empty).
    pub fn is_empty(&self) -> Result<bool, Error> {
        self.runtime.wait(self.inner.is_empty())
    }

    /// As [`RemoteKv::scan`](crate::RemoteKv::scan).
    pub fn scan(
        &self,
        prefix: impl AsRef<[u8]>,
        cursor: u64,
        limit: u32,
    ) -> Result<RemotePage, Error> {
        self.runtime.wait(self.inner.scan(prefix, cursor, limit))
    }

    /// As [`RemoteKv::scan_keys`](crate::RemoteKv::scan_keys).
    pub fn scan_keys(
        &self,
        prefix: impl AsRef<[u8]>,
        cursor: u64,
        limit: u32,
    ) -> Result<RemotePage, Error> {
        self.runtime
            .wait(self.inner.scan_keys(prefix, cursor, limit))
    }

    /// As [`RemoteKv::stats`](crate::RemoteKv::stats).
    pub fn stats(&self) -> Result<RegionStats, Error> {
        self.runtime.wait(self.inner.stats())
    }

    /// As [`RemoteKv::set`](crate::RemoteKv::set).
    pub fn set(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<u64, Error> {
        self.runtime.wait(self.inner.set(key, value))
    }

    /// As [`RemoteKv::set_for`](crate::RemoteKv::set_for).
    pub fn set_for(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        ttl: Duration,
    ) -> Result<u64, Error> {
        self.runtime.wait(self.inner.set_for(key, value, ttl))
    }

    /// As [`RemoteKv::set_with`](crate::RemoteKv::set_with).
    pub fn set_with(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        options: SetOptions,
    ) -> Result<Option<u64>, Error> {
        self.runtime.wait(self.inner.set_with(key, value, options))
    }

    /// As [`RemoteKv::delete`](crate::RemoteKv::delete).
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool, Error> {
        self.runtime.wait(self.inner.delete(key))
    }

    /// As [`RemoteKv::delete_if`](crate::RemoteKv::delete_if).
    pub fn delete_if(&self, key: impl AsRef<[u8]>, revision: u64) -> Result<bool, Error> {
        self.runtime.wait(self.inner.delete_if(key, revision))
    }

    /// As [`RemoteKv::incr`](crate::RemoteKv::incr).
    pub fn incr(&self, key: impl AsRef<[u8]>, by: i64) -> Result<i64, Error> {
        self.runtime.wait(self.inner.incr(key, by))
    }

    /// As [`RemoteKv::incr_for`](crate::RemoteKv::incr_for).
    pub fn incr_for(&self, key: impl AsRef<[u8]>, by: i64, ttl: Duration) -> Result<i64, Error> {
        self.runtime.wait(self.inner.incr_for(key, by, ttl))
    }

    /// As [`RemoteKv::append`](crate::RemoteKv::append).
    pub fn append(&self, key: impl AsRef<[u8]>, more: impl AsRef<[u8]>) -> Result<u64, Error> {
        self.runtime.wait(self.inner.append(key, more))
    }

    /// As [`RemoteKv::expire`](crate::RemoteKv::expire).
    pub fn expire(&self, key: impl AsRef<[u8]>, ttl: Duration) -> Result<bool, Error> {
        self.runtime.wait(self.inner.expire(key, ttl))
    }

    /// As [`RemoteKv::touch`](crate::RemoteKv::touch).
    pub fn touch(&self, key: impl AsRef<[u8]>, ttl: Duration) -> Result<bool, Error> {
        self.runtime.wait(self.inner.touch(key, ttl))
    }

    /// As [`RemoteKv::persist`](crate::RemoteKv::persist).
    pub fn persist(&self, key: impl AsRef<[u8]>) -> Result<bool, Error> {
        self.runtime.wait(self.inner.persist(key))
    }

    /// As [`RemoteKv::clear`](crate::RemoteKv::clear).
    pub fn clear(&self) -> Result<u64, Error> {
        self.runtime.wait(self.inner.clear())
    }

    /// As [`RemoteKv::batch`](crate::RemoteKv::batch).
    pub fn batch(&self, requests: Vec<KvRequest>) -> Result<Vec<KvReply>, Error> {
        self.runtime.wait(self.inner.batch(requests))
    }
}

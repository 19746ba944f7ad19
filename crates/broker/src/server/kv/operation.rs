//! All operations of the store, and batches of them.

use super::super::broker::Broker;
use super::super::janitor;
use super::ephemeral::Ephemeral;
use super::errors::Failure;
use super::open_key;
use crate::reserved::is_reserved;
use bytes::Bytes;
use ganger_protocol::kv::{Entry, KvReply, KvRequest, PageEntry, RegionStats, SetOptions};
use ganger_protocol::limits::FRAME_LEN_MAX;
use ganger_protocol::{ErrorBody, ErrorCode, Frame, Head, Op, Tail};
use ganger_region::{Cursor, Region};
use std::sync::Arc;

/// Bytes of keys and values of one page of a scan, about.
const PAGE_BYTES: usize = 1 << 20;
/// Keys read at a time by `get_many`.
const MANY: usize = 64;
/// Bytes that an answer's frame has for what is not values, at least.
const MARGIN: usize = 4096;

/// What an operation needs; it can run on another thread.
pub(super) struct Executor {
    broker: Arc<Broker>,
    ephemeral: Ephemeral,
    /// Bytes of values that the answer may still hold.
    room: usize,
}

impl Executor {
    pub(super) fn new(broker: &Arc<Broker>, ephemeral: &Ephemeral) -> Self {
        Self {
            broker: Arc::clone(broker),
            ephemeral: ephemeral.clone(),
            room: FRAME_LEN_MAX - MARGIN,
        }
    }

    pub(super) fn count_failure(&self) {
        self.broker.counters.kv_failed.count();
    }

    /// Carries out any operation.
    pub(super) fn run(&mut self, request: KvRequest) -> Result<KvReply, Failure> {
        match request {
            KvRequest::Batch { requests } => self.batch(requests),
            request => self.run_one(request),
        }
    }

    fn run_one(&mut self, request: KvRequest) -> Result<KvReply, Failure> {
        let region = &self.broker.region;
        let done = |done| Ok(KvReply::Done { done });
        match request {
            KvRequest::Get { key } => {
                let value = region.get(open_key(&key)?)?;
                let value = value.map(|value| self.fits(value)).transpose()?;
                Ok(KvReply::Value { value })
            }
            KvRequest::Entry { key } => {
                let entry = region.entry(open_key(&key)?)?;
                let entry = entry.map(|entry| self.entry(entry)).transpose()?;
                Ok(KvReply::Entry { entry })
            }
            KvRequest::Set {
                key,
                value,
                options,
            } => {
                let revision = self.set(&key, &value, &options)?;
                Ok(KvReply::Written { revision })
            }
            KvRequest::Delete { key, if_revision } => done(self.delete(&key, if_revision)?),
            KvRequest::Incr { key, by, ttl_ms } => {
                let value = region.incr_with(open_key(&key)?, by, ttl_ms)?;
                self.expires(ttl_ms);
                Ok(KvReply::Sum { value })
            }
            KvRequest::Append { key, value } => {
                let count = region.append(open_key(&key)?, &value)?;
                self.ephemeral.changed(&key, region);
                Ok(KvReply::Count { count })
            }
            KvRequest::Expire { key, ttl_ms } => {
                let there = region.expire(open_key(&key)?, ttl_ms)?;
                self.expires(Some(ttl_ms));
                done(there)
            }
            KvRequest::Touch { key, ttl_ms } => done(region.touch(open_key(&key)?, ttl_ms)?),
            KvRequest::Persist { key } => done(region.persist(open_key(&key)?)?),
            KvRequest::Ttl { key } => {
                let ttl = region.ttl(open_key(&key)?)?;
                Ok(KvReply::Ttl {
                    exists: ttl.is_some(),
                    ttl_ms: ttl.flatten(),
                })
            }
            KvRequest::Exists { key } => done(region.exists(open_key(&key)?)?),
            KvRequest::Len {} => Ok(KvReply::Count {
                count: region.len(),
            }),
            KvRequest::Scan {
                prefix,
                cursor,
                limit,
                keys_only,
            } => self.scan(&prefix, cursor, limit, keys_only),
            KvRequest::Clear {} => self.clear(),
            KvRequest::GetMany { keys } => self.get_many(&keys),
            KvRequest::Stats {} => Ok(KvReply::Stats {
                stats: stats(region),
            }),
            KvRequest::Batch { .. } => {
                Err(ErrorBody::new(ErrorCode::Invalid, "a batch within a batch").into())
            }
            _ => Err(ErrorCode::UnknownOperation.into()),
        }
    }

    pub(super) fn set(
        &self,
        key: &[u8],
        value: &[u8],
        options: &SetOptions,
    ) -> Result<Option<u64>, Failure> {
        if !options.is_sound() {
            let why = "a set has one condition at most";
            return Err(ErrorBody::new(ErrorCode::Invalid, why).into());
        }
        let limit = self.broker.limits().ephemeral_keys;
        if options.ephemeral && !self.ephemeral.has_room_for(key, limit) {
            return Err(ErrorBody::from(ErrorCode::TooManyEphemeral)
                .limit(limit)
                .into());
        }
        let revision =
            self.broker
                .region
                .set_with(open_key(key)?, value, region_options(options))?;
        match revision {
            Some(revision) if options.ephemeral => self.ephemeral.add(key, revision),
            Some(_) => self.ephemeral.written(key),
            None => {}
        }
        self.expires(options.ttl_ms);
        Ok(revision)
    }

    pub(super) fn delete(&self, key: &[u8], if_revision: Option<u64>) -> Result<bool, Failure> {
        let region = &self.broker.region;
        let key = open_key(key)?;
        let done = match if_revision {
            Some(revision) => region.delete_if(key, revision)?,
            None => region.delete(key)?,
        };
        if done {
            self.ephemeral.written(key);
        }
        Ok(done)
    }

    /// The room of a key that expires is taken back in time.
    fn expires(&self, ttl_ms: Option<u64>) {
        if let Some(ttl_ms) = ttl_ms {
            janitor::expires_in(&self.broker, ttl_ms);
        }
    }

    /// A page holds what one look into the region found, so none is much longer than it should be.
    fn scan(
        &mut self,
        prefix: &[u8],
        cursor: u64,
        limit: u32,
        keys_only: bool,
    ) -> Result<KvReply, Failure> {
        if is_reserved(prefix) {
            return Err(ErrorCode::ReservedKey.into());
        }
        let most = self.broker.limits().scan_page;
        let limit = usize::try_from(limit).map_or(most, |limit| limit.min(most));
        let limit = if limit == 0 { most } else { limit };
        let (mut entries, mut bytes) = (Vec::new(), 0);
        let mut next = Some(Cursor::from_u64(cursor));
        while let Some(cursor) = next.filter(|_| entries.len() < limit && bytes < PAGE_BYTES) {
            let page = self.broker.region.scan(prefix, cursor, 1)?;
            next = page.next;
            for (key, mut entry) in page.entries {
                if is_reserved(&key) {
                    continue;
                }
                if keys_only {
                    entry.value = Vec::new();
                }
                bytes += key.len() + entry.value.len();
                let key = Bytes::from(key);
                entries.push(PageEntry {
                    key,
                    entry: self.entry(entry)?,
                });
            }
        }
        let next = next.map(Cursor::to_u64);
        Ok(KvReply::Page { entries, next })
    }

    /// Ganger's own keys stay.
    fn clear(&self) -> Result<KvReply, Failure> {
        let region = &self.broker.region;
        let (mut count, mut next) = (0, Some(Cursor::START));
        while let Some(cursor) = next {
            let page = region.scan(b"", cursor, 1)?;
            next = page.next;
            for (key, _) in page.entries {
                count += u64::from(!is_reserved(&key) && region.delete(&key)?);
            }
        }
        Ok(KvReply::Count { count })
    }

    fn get_many(&mut self, keys: &[Bytes]) -> Result<KvReply, Failure> {
        let limit = self.broker.limits().batch;
        if keys.len() > limit {
            let error = ErrorBody::from(ErrorCode::BatchTooLong);
            return Err(error.limit(limit).actual(keys.len()).into());
        }
        let mut values = Vec::with_capacity(keys.len());
        for part in keys.chunks(MANY) {
            for key in part {
                open_key(key)?;
            }
            for value in self.broker.region.get_many(part)? {
                values.push(value.map(|value| self.fits(value)).transpose()?);
            }
        }
        Ok(KvReply::Values { values })
    }

    fn batch(&mut self, requests: Vec<KvRequest>) -> Result<KvReply, Failure> {
        let limit = self.broker.limits().batch;
        if requests.len() > limit {
            let error = ErrorBody::from(ErrorCode::BatchTooLong);
            return Err(error.limit(limit).actual(requests.len()).into());
        }
        let run = |request| {
            self.broker.counters.kv_operations.count();
            self.run_one(request).unwrap_or_else(|Failure(error)| {
                self.count_failure();
                KvReply::Failed { error }
            })
        };
        let replies = requests.into_iter().map(run).collect();
        Ok(KvReply::Batch { replies })
    }

    /// A value, if the answer has room for it.
    fn fits(&mut self, value: Vec<u8>) -> Result<Bytes, Failure> {
        match self.room.checked_sub(value.len()) {
            Some(left) => {
                self.room = left;
                Ok(value.into())
            }
            None => Err(ErrorCode::AnswerTooLong.into()),
        }
    }

    fn entry(&mut self, entry: ganger_region::Entry) -> Result<Entry, Failure> {
        Ok(Entry {
            value: self.fits(entry.value)?,
            revision: entry.revision,
            ttl_ms: entry.ttl_ms,
            counter: entry.is_counter,
            ephemeral: entry.is_ephemeral,
        })
    }
}

/// Whether an operation looks at more of the region than a few keys.
pub(super) fn takes_long(request: &KvRequest) -> bool {
    match request {
        KvRequest::Scan { .. } | KvRequest::Clear {} => true,
        KvRequest::Batch { requests } => requests.iter().any(takes_long),
        _ => false,
    }
}

fn region_options(options: &SetOptions) -> ganger_region::SetOptions {
    let mut to = ganger_region::SetOptions::new();
    if let Some(ttl_ms) = options.ttl_ms {
        to = to.ttl_ms(ttl_ms);
    }
    if options.if_absent {
        to = to.if_absent();
    }
    if options.if_present {
        to = to.if_present();
    }
    if let Some(revision) = options.if_revision {
        to = to.if_revision(revision);
    }
    if options.keep_expiry {
        to = to.keep_expiry();
    }
    if options.ephemeral {
        to = to.ephemeral();
    }
    to
}

pub(super) fn stats(region: &Region) -> RegionStats {
    let stats = region.stats();
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

/// The frame of an error. The sentence of an error is short, so it fits.
pub(in crate::server) fn error_frame(id: u32, error: &ErrorBody) -> Frame {
    let bare = || Frame::new(Head::new(Op::Error, id), Tail::default());
    Frame::control(id, error).unwrap_or_else(|_| bare())
}

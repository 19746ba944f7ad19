//! The region that the broker handed over, and payloads that go through it.

use super::backoff::random;
use super::error::Error;
use crate::error::KvError;
use crate::kv::Kv;
use crate::options::KvOptions;
use ganger_protocol::limits::PAYLOAD_KEY_PREFIX;
use ganger_protocol::Reference;
use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of payloads that one client keeps in the region for those who have not read them yet, at
/// most: as much as one topic keeps in the broker's own memory.
const STORED_BYTES_MAX: u64 = 64 << 20;
/// And at most this part of the region.
const STORED_PART: u64 = 8;
/// At most this part of what it keeps belongs to messages that the broker has not got yet: the others
/// are for those who have still to read them.
const AHEAD_PART: u64 = 4;

/// The region behind a descriptor, attached when it is first needed.
pub(crate) struct Mapped {
    fd: OwnedFd,
    /// Device and inode: which region it is.
    which: (u64, u64),
    kv: OnceLock<Result<Kv, Arc<KvError>>>,
    stored: Mutex<Stored>,
    /// A permit for each byte that may be ahead of the broker.
    ahead: OnceLock<Arc<Semaphore>>,
}

#[derive(Default)]
struct Stored {
    keys: VecDeque<(Vec<u8>, u64)>,
    bytes: u64,
    number: u64,
    name: Option<u64>,
}

impl Mapped {
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        let stat = rustix::fs::fstat(&fd)?;
        Ok(Self {
            fd,
            which: (stat.st_dev, stat.st_ino),
            kv: OnceLock::new(),
            stored: Mutex::default(),
            ahead: OnceLock::new(),
        })
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.which == other.which
    }

    pub(crate) fn kv(&self) -> Result<&Kv, Error> {
        let attach = || {
            let fd = self.fd.try_clone();
            let fd = fd.map_err(|error| KvError::Attach(ganger_region::AttachError::Io(error)))?;
            // It is from the broker of a home that is safe, which may serve a region with a name.
            KvOptions::new().take_unsealed().from_fd(fd)
        };
        let kv = self.kv.get_or_init(|| attach().map_err(Arc::new));
        kv.as_ref().map_err(|error| Error::Kv(Arc::clone(error)))
    }

    /// Waits until so many bytes more may be sent by reference before the broker has answered for those
    /// that were sent before; the permit is to be kept until it answers for these. `None` if the region
    /// can't be used.
    pub(crate) async fn run_ahead(&self, len: usize) -> Option<OwnedSemaphorePermit> {
        let most = self.most().ok()? / AHEAD_PART;
        // At most a quarter of `STORED_BYTES_MAX`.
        let most = u32::try_from(most).unwrap_or(u32::MAX);
        let ahead = self
            .ahead
            .get_or_init(|| Arc::new(Semaphore::new(most as usize)));
        let bytes = u32::try_from(len).unwrap_or(u32::MAX).min(most);
        Arc::clone(ahead).acquire_many_owned(bytes).await.ok()
    }

    /// Stores a payload for a while and returns what refers to it; `None` if the region has no room.
    pub(crate) fn store(&self, payload: &[u8], ttl_ms: u64) -> Option<Vec<u8>> {
        let region = self.kv().ok()?.region();
        let len = payload.len() as u64;
        let most = self.most().ok()?;
        if len > most {
            return None;
        }
        let (key, gone) = {
            let mut stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
            stored.make_room(len, most)
        };
        for key in gone {
            // If it is gone already, all the better; else its time to live ends it.
            let _ = region.delete(&key);
        }
        let options = ganger_region::SetOptions::new().ttl_ms(ttl_ms);
        region.set_with(&key, payload, options).ok()?;
        Some(Reference { len, key: &key }.to_payload().to_vec())
    }

    fn most(&self) -> Result<u64, Error> {
        let part = self.kv()?.region().declared_len() / STORED_PART;
        Ok(part.min(STORED_BYTES_MAX))
    }

    /// The payload that a reference means; `None` if it is not there any more.
    pub(crate) fn load(&self, reference: &[u8]) -> Option<Vec<u8>> {
        let reference = Reference::from_payload(reference)?;
        if !reference.key.starts_with(PAYLOAD_KEY_PREFIX) {
            return None;
        }
        let value = self.kv().ok()?.region().get(reference.key).ok()??;
        (value.len() as u64 == reference.len).then_some(value)
    }

    /// What was referred to is not needed any more.
    pub(crate) fn forget(&self, reference: &[u8]) {
        let key = Reference::from_payload(reference).map(|reference| reference.key);
        if let (Some(key), Ok(kv)) = (key, self.kv()) {
            let _ = kv.region().delete(key);
        }
    }
}

impl Stored {
    /// A key for `len` bytes, and the keys that have to go for it.
    fn make_room(&mut self, len: u64, most: u64) -> (Vec<u8>, Vec<Vec<u8>>) {
        let mut gone = Vec::new();
        while self.bytes + len > most {
            let Some((key, len)) = self.keys.pop_front() else {
                break;
            };
            self.bytes -= len;
            gone.push(key);
        }
        // Two clients, in one process or in two of different namespaces, must not meet.
        let name = *self
            .name
            .get_or_insert_with(|| u64::from(random()) << 32 | u64::from(random()));
        self.number += 1;
        let tail = format!("{name:016x}-{}", self.number);
        let key = [PAYLOAD_KEY_PREFIX, tail.as_bytes()].concat();
        self.keys.push_back((key.clone(), len));
        self.bytes += len;
        (key, gone)
    }
}

//! Memory of this process alone, for tests: copies of regions at the moment of a crash, hostile
//! bytes, deaths on demand. Handles made from the same backing see the same sessions.

use super::Backing;
use crate::error::SessionError;
use crate::sync::local::{AtomicU64, Ordering};
use std::collections::HashSet;
use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, PoisonError};

pub(crate) struct HeapBacking {
    words: Box<[AtomicU64]>,
    claimed: Mutex<HashSet<u64>>,
    /// Bytes that may be committed beyond what already is, to play a machine without memory.
    budget: AtomicU64,
}

impl HeapBacking {
    pub(crate) fn zeroed(len: u64) -> Self {
        let words = usize::try_from(len / 8).unwrap_or(0);
        Self::new((0..words).map(|_| AtomicU64::new(0)).collect())
    }

    /// A copy of `bytes`, the last word padded with zeros.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        Self::new(
            bytes
                .chunks(8)
                .map(|chunk| {
                    let mut word = [0; 8];
                    word[..chunk.len()].copy_from_slice(chunk);
                    AtomicU64::new(u64::from_le_bytes(word))
                })
                .collect(),
        )
    }

    fn new(words: Box<[AtomicU64]>) -> Self {
        Self {
            words,
            claimed: Mutex::default(),
            budget: AtomicU64::new(u64::MAX),
        }
    }

    /// From now on only `bytes` more can be committed.
    pub(crate) fn limit_commits(&self, bytes: u64) {
        self.budget.store(bytes, Ordering::Relaxed);
    }

    /// As if every process that holds a session were killed.
    pub(crate) fn kill_all_sessions(&self) {
        self.claimed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}

// SAFETY: the words are allocated once, aligned to 8, live as long as the backing, and are atomics.
unsafe impl Backing for HeapBacking {
    fn base(&self) -> *mut u8 {
        self.words.as_ptr().cast::<u8>().cast_mut()
    }

    fn len(&self) -> u64 {
        self.words.len() as u64 * 8
    }

    fn writable(&self) -> bool {
        true
    }

    fn commit(&self, bytes: Range<u64>) -> io::Result<()> {
        let len = bytes.end - bytes.start;
        self.budget
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(len)
            })
            .map(|_| ())
            .map_err(|_| io::Error::from_raw_os_error(libc::ENOSPC))
    }

    fn decommit(&self, bytes: Range<u64>) -> bool {
        let word = |offset: u64| usize::try_from(offset / 8).unwrap_or(usize::MAX);
        let Some(words) = self.words.get(word(bytes.start)..word(bytes.end)) else {
            return false;
        };
        words
            .iter()
            .for_each(|word| word.store(0, Ordering::Relaxed));
        true
    }

    fn claim_session(&self, session: u64) -> Result<bool, SessionError> {
        Ok(self
            .claimed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(session))
    }

    fn session_is_claimed(&self, session: u64) -> io::Result<bool> {
        Ok(self
            .claimed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(&session))
    }

    fn release_session(&self, session: u64) {
        self.claimed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&session);
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

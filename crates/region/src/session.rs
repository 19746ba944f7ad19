//! Sessions: who is attached, and the proof that somebody is dead.
//!
//! A session is a slot of the session table plus a liveness lock that the kernel drops with the
//! process (see `backing/file.rs`). Locks and ephemeral entries name an [`OwnerId`], slot plus
//! incarnation, so they can never be mistaken for those of a later process in the same slot.
//!
//! The incarnation grows while the new process already holds the liveness lock. A process that is
//! stopped exactly between the two looks like its dead predecessor to those who wait for a lock of
//! that one; they wait for it, as they would for any stopped holder.

use crate::backing::file::{forks, ForkGate};
use crate::error::SessionError;
use crate::layout::{session, WORD};
use crate::region::Inner;
use crate::sync::local::AtomicU64 as LocalU64;
use crate::sync::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Slot (from 1, 16 bits) and incarnation (48 bits) of a session. Never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OwnerId(pub(crate) u64);

impl OwnerId {
    /// Owner of a lock whose holder panicked: nobody, and dead.
    pub(crate) const ABANDONED: Self = Self(0xffff);

    fn new(slot: u64, incarnation: u64) -> Self {
        Self(incarnation << 16 | (slot + 1))
    }

    fn slot(self) -> Option<u64> {
        (self.0 & 0xffff).checked_sub(1)
    }

    fn incarnation(self) -> u64 {
        self.0 >> 16
    }
}

/// This handle's own session.
#[derive(Default)]
pub(crate) struct Session {
    owner: LocalU64,
    at_forks: LocalU64,
    registering: Mutex<()>,
}

impl Session {
    /// The session that this process (not its parent) has.
    #[inline(always)]
    pub(crate) fn current(&self) -> Option<OwnerId> {
        let owner = self.owner.load(Ordering::Acquire);
        let is_ours = owner != 0 && self.at_forks.load(Ordering::Relaxed) == forks();
        is_ours.then_some(OwnerId(owner))
    }

    /// Takes a session, unless another thread just did.
    pub(crate) fn register(&self, region: &Inner) -> Result<OwnerId, SessionError> {
        let _gate = ForkGate::enter();
        let _one_at_a_time = self
            .registering
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(owner) = self.current() {
            return Ok(owner);
        }
        let owner = take_slot(region)?;
        self.at_forks.store(forks(), Ordering::Relaxed);
        self.owner.store(owner.0, Ordering::Release);
        Ok(owner)
    }

    /// Leaves the session as a kill would, and returns its slot.
    #[cfg(loom)]
    pub(crate) fn forget(&self) -> Option<u64> {
        OwnerId(self.owner.swap(0, Ordering::AcqRel)).slot()
    }

    /// Ends the session in good order, if this process (not its parent) began it.
    pub(crate) fn end(&self, region: &Inner) {
        let owner = OwnerId(self.owner.swap(0, Ordering::AcqRel));
        if self.at_forks.load(Ordering::Relaxed) != forks() {
            return;
        }
        if let Some(slot) = owner.slot() {
            word(region, slot, session::ATTACHED).store(0, Ordering::Release);
            region.memory.backing().release_session(slot);
        }
    }
}

/// Whether the owner can still act. Errors of the system count as alive: a lock is only ever taken
/// over on proof.
pub(crate) fn is_alive(region: &Inner, owner: OwnerId) -> bool {
    let Some(slot) = owner
        .slot()
        .filter(|slot| *slot < region.geometry.session_count)
    else {
        return false;
    };
    if word(region, slot, session::INCARNATION).load(Ordering::Acquire) & (u64::MAX >> 16)
        != owner.incarnation()
    {
        return false;
    }
    region
        .memory
        .backing()
        .session_is_claimed(slot)
        .unwrap_or(true)
}

/// Process id of an owner, for messages.
pub(crate) fn pid_of(region: &Inner, owner: OwnerId) -> u64 {
    owner
        .slot()
        .filter(|slot| *slot < region.geometry.session_count)
        .map_or(0, |slot| {
            word(region, slot, session::PID).load(Ordering::Relaxed)
        })
}

/// Frees the slots of dead processes and returns how many there were.
pub(crate) fn release_dead(region: &Inner) -> u64 {
    let backing = region.memory.backing();
    (0..region.geometry.session_count)
        .filter(|&slot| {
            let attached = word(region, slot, session::ATTACHED).load(Ordering::Acquire) != 0;
            let dead = attached
                && !backing.session_is_claimed(slot).unwrap_or(true)
                && backing.claim_session(slot).unwrap_or(false);
            if dead {
                next_incarnation(region, slot);
                word(region, slot, session::ATTACHED).store(0, Ordering::Release);
                backing.release_session(slot);
            }
            dead
        })
        .count() as u64
}

/// Processes attached right now: session slot and process id.
pub(crate) fn attached(region: &Inner) -> impl Iterator<Item = (u64, u64)> + '_ {
    (0..region.geometry.session_count)
        .filter(|&slot| word(region, slot, session::ATTACHED).load(Ordering::Acquire) != 0)
        .map(|slot| {
            (
                slot,
                word(region, slot, session::PID).load(Ordering::Relaxed),
            )
        })
}

/// Free slots first, then those of the dead, and those that somebody freed meanwhile.
fn take_slot(region: &Inner) -> Result<OwnerId, SessionError> {
    let limit = region.geometry.session_count;
    let backing = region.memory.backing();
    for of_the_dead_too in [false, true] {
        for slot in 0..limit {
            let attached = word(region, slot, session::ATTACHED).load(Ordering::Acquire) != 0;
            if (of_the_dead_too || !attached) && backing.claim_session(slot)? {
                let incarnation = next_incarnation(region, slot);
                word(region, slot, session::PID)
                    .store(u64::from(std::process::id()), Ordering::Relaxed);
                word(region, slot, session::ATTACHED).store(1, Ordering::Release);
                return Ok(OwnerId::new(slot, incarnation));
            }
        }
    }
    Err(SessionError::Exhausted { limit })
}

/// Only called with the slot's liveness lock held, so nobody else writes the word.
fn next_incarnation(region: &Inner, slot: u64) -> u64 {
    let incarnation = word(region, slot, session::INCARNATION);
    let next = incarnation.load(Ordering::Relaxed).wrapping_add(1) & (u64::MAX >> 16);
    incarnation.store(next, Ordering::Release);
    next
}

fn word(region: &Inner, slot: u64, index: u64) -> &AtomicU64 {
    let base = region.geometry.sessions_offset + slot * session::WORDS * WORD;
    region.memory.word(base + index * WORD)
}

//! Events: processes that wait for one another, without a lock that could die with its holder.
//!
//! A region has [`events::COUNT`] of them. The interface is that of the crate `raw_sync`
//! ([`EventInit`], [`EventImpl`]); on Linux the implementation is [`FutexEvent`], elsewhere it is
//! `raw_sync`'s own event, whose mutex a killed process leaves locked.
//!
//! A futex event is two words. The state is 0 or, when set, 1: a setter stores it and wakes who
//! sleeps on it. The kind is 0 until somebody makes the event, by one compare-and-swap, so there is
//! no half-made event. A setter may be killed between its store and the wake, and a waiter between
//! being woken and taking the event: so every sleep is short, and looks at the state again.

use crate::clock::wait_begins;
use crate::error::Damaged;
use crate::futex;
use crate::layout::{events, WORD};
use crate::region::Region;
use crate::sync::{AtomicU64, Ordering};
use raw_sync::events::{EventImpl, EventInit, EventState};
use raw_sync::Timeout;
use std::fmt;
use std::time::Duration;

/// What becomes of an event that is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventReset {
    /// It stays set, and lets all waiters pass, until somebody clears it.
    Manual,
    /// It lets one waiter pass and is clear again.
    Auto,
}

/// Why an event could not be had or set.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EventError {
    /// A region has a fixed number of events.
    #[error("there is no event {slot}: events are numbered 0 to {}", events::COUNT - 1)]
    Slot {
        /// The number asked for.
        slot: u64,
    },
    /// The event was made with the other [`EventReset`].
    #[error("event {slot} was made with {made:?} reset: open it with that, or use another number")]
    OtherReset {
        /// Its number.
        slot: u64,
        /// What it was made with.
        made: EventReset,
    },
    /// Nobody made the event yet, and a read-only handle can't.
    #[error("event {slot} is not made yet, which takes a handle that may write")]
    NotMade {
        /// Its number.
        slot: u64,
    },
    /// Setting, clearing, or waiting on an event that resets itself, with a read-only handle.
    #[error("this handle is read-only: it can wait for manual-reset events and nothing else")]
    ReadOnly,
    /// The bytes make no sense.
    #[error(transparent)]
    Damaged(#[from] Damaged),
    /// The system's event failed; never on Linux.
    #[error("the event failed: {0}")]
    System(String),
}

/// One of a region's events, which other processes have too. It keeps the region attached.
pub struct Event {
    native: Box<dyn EventImpl>,
    slot: u64,
    reset: EventReset,
    region: Region,
}

// SAFETY: an event is made to be used by many threads at once, and `native` has no other state than
// the words in the region, which `region` keeps mapped wherever this goes.
unsafe impl Send for Event {}
// SAFETY: as above.
unsafe impl Sync for Event {}

impl Region {
    /// The event of a number below 64, made if nobody did before. All its users must ask for the
    /// same reset. A read-only handle can open a manual-reset event that is made already.
    pub fn event(&self, slot: u64, reset: EventReset) -> Result<Event, EventError> {
        if slot >= events::COUNT {
            return Err(EventError::Slot { slot });
        }
        let offset = self.inner.geometry.events_offset + slot * events::LEN;
        let words: *const AtomicU64 = self.inner.memory.word(offset);
        let kind = self.inner.memory.word(offset + KIND * WORD);
        let made_here = self.inner.is_writable()
            && kind
                .compare_exchange(0, kind_of(reset), Ordering::AcqRel, Ordering::Acquire)
                .is_ok();
        match kind.load(Ordering::Acquire) {
            0 => return Err(EventError::NotMade { slot }),
            kind => match reset_of(kind) {
                Some(made) if made == reset => {}
                Some(made) => return Err(EventError::OtherReset { slot, made }),
                None => {
                    return Err(EventError::Damaged(Damaged {
                        what: "an event of no known kind",
                        offset,
                    }))
                }
            },
        }
        if reset == EventReset::Auto && !self.inner.is_writable() {
            return Err(EventError::ReadOnly);
        }
        // SAFETY: the memory is the slot's, `events::LEN` bytes inside the mapping, aligned to a
        // cache line, with a valid kind; the event returned keeps the mapping. A read-only mapping
        // is only waited on.
        let native = unsafe { native(words.cast_mut().cast(), reset, made_here) };
        Ok(Event {
            native: native.map_err(|error| EventError::System(error.to_string()))?,
            slot,
            reset,
            region: self.clone(),
        })
    }
}

impl Event {
    /// Waits until the event is set, for `timeout` at most; `false` if it was not.
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        self.native.wait(Timeout::Val(timeout)).is_ok()
    }

    /// Sets the event: lets one waiter pass, or all, as its [`EventReset`] says.
    pub fn set(&self) -> Result<(), EventError> {
        self.change(EventState::Signaled)
    }

    /// Clears the event: who waits from now on waits for the next [`Event::set`].
    pub fn clear(&self) -> Result<(), EventError> {
        self.change(EventState::Clear)
    }

    fn change(&self, state: EventState) -> Result<(), EventError> {
        if !self.region.is_writable() {
            return Err(EventError::ReadOnly);
        }
        self.native
            .set(state)
            .map_err(|error| EventError::System(error.to_string()))
    }
}

impl EventImpl for Event {
    fn wait(&self, timeout: Timeout) -> RawResult<()> {
        self.native.wait(timeout)
    }

    fn set(&self, state: EventState) -> RawResult<()> {
        Ok(self.change(state)?)
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("slot", &self.slot)
            .field("reset", &self.reset)
            .finish_non_exhaustive()
    }
}

/// An event in two words of any shared memory: the first is its state, the second its kind.
///
/// It is made and opened through [`EventInit`]. To both functions the caller promises that
/// - `mem` is aligned to 8 and names 16 bytes that stay mapped as long as the event is used, here
///   and in every other process (a mapping without write permission allows nothing but
///   `from_existing` and waiting for a manual-reset event);
/// - every process accesses these bytes only through `FutexEvent`, or as atomic words of 8 bytes;
/// - to `new`: nobody else uses the bytes until it returns.
pub struct FutexEvent {
    words: *const AtomicU64,
    reset: EventReset,
}

// SAFETY: the words are only accessed as atomics, and the maker promised that they stay mapped.
unsafe impl Send for FutexEvent {}
// SAFETY: as above.
unsafe impl Sync for FutexEvent {}

impl EventInit for FutexEvent {
    fn size_of(_: Option<*mut u8>) -> usize {
        2 * size_of::<AtomicU64>()
    }

    unsafe fn new(mem: *mut u8, auto_reset: bool) -> RawResult<(Box<dyn EventImpl>, usize)> {
        let reset = if auto_reset {
            EventReset::Auto
        } else {
            EventReset::Manual
        };
        let event = Self {
            words: mem.cast_const().cast(),
            reset,
        };
        event.word(STATE).store(0, Ordering::Relaxed);
        // Release pairs with the Acquire in `from_existing`: who sees the kind sees the cleared
        // state.
        event.word(KIND).store(kind_of(reset), Ordering::Release);
        Ok((Box::new(event), Self::size_of(None)))
    }

    unsafe fn from_existing(mem: *mut u8) -> RawResult<(Box<dyn EventImpl>, usize)> {
        let mut event = Self {
            words: mem.cast_const().cast(),
            reset: EventReset::Manual,
        };
        event.reset = reset_of(event.word(KIND).load(Ordering::Acquire))
            .ok_or("there is no event in this memory")?;
        Ok((Box::new(event), Self::size_of(None)))
    }
}

impl EventImpl for FutexEvent {
    fn wait(&self, timeout: Timeout) -> RawResult<()> {
        let started = wait_begins();
        let state = self.word(STATE);
        loop {
            if self.pass(state) {
                return Ok(());
            }
            let left = match timeout {
                Timeout::Infinite => SLEEP_MAX,
                Timeout::Val(timeout) => timeout.saturating_sub(started.elapsed()),
            };
            if left.is_zero() {
                return Err("the event was not set in time".into());
            }
            futex::wait_on(state, 0, left.min(SLEEP_MAX));
        }
    }

    fn set(&self, state: EventState) -> RawResult<()> {
        match state {
            EventState::Clear => self.word(STATE).store(0, Ordering::Release),
            EventState::Signaled => {
                // Release pairs with the Acquire in `pass`: a waiter sees what was stored before.
                self.word(STATE).store(1, Ordering::Release);
                let sleepers = match self.reset {
                    EventReset::Manual => i32::MAX,
                    EventReset::Auto => 1,
                };
                futex::wake_on(self.word(STATE), sleepers);
            }
        }
        Ok(())
    }
}

impl FutexEvent {
    /// Whether the event is set; of those who ask an auto-reset one, only the first learns it.
    fn pass(&self, state: &AtomicU64) -> bool {
        match self.reset {
            EventReset::Manual => state.load(Ordering::Acquire) != 0,
            // Looks first: a failed swap would still take the cache line from the others.
            EventReset::Auto => {
                state.load(Ordering::Relaxed) != 0 && state.swap(0, Ordering::Acquire) != 0
            }
        }
    }

    fn word(&self, index: u64) -> &AtomicU64 {
        // SAFETY: whoever made this promised two words at `words`; `index` is one of theirs.
        let word = unsafe { self.words.add(usize::from(index == KIND)) };
        // SAFETY: the maker promised that they are aligned, mapped, and accessed as atomics by
        // everyone.
        unsafe { &*word }
    }
}

type RawResult<T> = Result<T, Box<dyn std::error::Error>>;

/// Word indices of an event.
const STATE: u64 = 0;
const KIND: u64 = 1;
/// Longest sleep before looking at the state again.
const SLEEP_MAX: Duration = Duration::from_millis(50);

fn kind_of(reset: EventReset) -> u64 {
    match reset {
        EventReset::Manual => 1,
        EventReset::Auto => 2,
    }
}

fn reset_of(kind: u64) -> Option<EventReset> {
    match kind {
        1 => Some(EventReset::Manual),
        2 => Some(EventReset::Auto),
        _ => None,
    }
}

/// The system's event in the slot at `mem`. On Linux the kind, which the caller has set, is all it
/// takes to make it.
///
/// # Safety
/// Those of [`FutexEvent`], for [`events::LEN`] bytes; the kind is set.
#[cfg(target_os = "linux")]
unsafe fn native(mem: *mut u8, _: EventReset, _: bool) -> RawResult<Box<dyn EventImpl>> {
    // SAFETY: the caller's promise.
    Ok(unsafe { FutexEvent::from_existing(mem) }?.0)
}

/// The system's event, behind the two words in the slot at `mem`. It is used on no system that was
/// tested, and there who makes an event must be done before others open it.
///
/// # Safety
/// `mem` names [`events::LEN`] bytes, aligned to 8, mapped writable as long as the event is used;
/// nobody uses those behind the first two words but through this.
#[cfg(any(test, not(target_os = "linux")))]
#[cfg_attr(target_os = "linux", allow(dead_code))]
unsafe fn portable(mem: *mut u8, reset: EventReset, make: bool) -> RawResult<Box<dyn EventImpl>> {
    use raw_sync::events::Event as Portable;
    let head = FutexEvent::size_of(None);
    // SAFETY: the slot is longer than its two words.
    let mem = unsafe { mem.add(head) };
    if (head + Portable::size_of(Some(mem))) as u64 > events::LEN {
        return Err("this system's event is longer than a slot".into());
    }
    let event = if make {
        // SAFETY: the caller's promise, and the event fits.
        unsafe { Portable::new(mem, reset == EventReset::Auto) }
    } else {
        // SAFETY: as above.
        unsafe { Portable::from_existing(mem) }
    };
    Ok(event?.0)
}
#[cfg(not(target_os = "linux"))]
use portable as native;

#[cfg(test)]
mod tests {
    use super::*;

    /// A slot of its own, like the region's.
    fn slot() -> Box<[u64; 16]> {
        Box::new([0; 16])
    }

    #[test]
    fn an_event_is_two_words_and_open_to_who_finds_them() {
        let mut memory = slot();
        let mem: *mut u8 = memory.as_mut_ptr().cast();
        // SAFETY: the memory is aligned, long enough, used by this test alone, and lives to its
        // end.
        assert!(unsafe { FutexEvent::from_existing(mem) }.is_err());
        // SAFETY: as above.
        let (made, len) = unsafe { FutexEvent::new(mem, true) }.unwrap();
        assert_eq!(len, 16);
        // SAFETY: as above.
        let (found, _) = unsafe { FutexEvent::from_existing(mem) }.unwrap();
        made.set(EventState::Signaled).unwrap();
        assert!(found.wait(Timeout::Val(Duration::ZERO)).is_ok());
        assert!(made.wait(Timeout::Val(Duration::ZERO)).is_err());
    }

    #[test]
    fn a_regions_event_is_one_to_users_of_raw_sync() {
        let region = Region::create(&crate::Config::new(1 << 20), crate::Options::new()).unwrap();
        let event: Box<dyn EventImpl> = Box::new(region.event(5, EventReset::Auto).unwrap());
        drop(region);
        event.set(EventState::Signaled).unwrap();
        event.wait(Timeout::Infinite).unwrap();
        event.set(EventState::Signaled).unwrap();
        event.set(EventState::Clear).unwrap();
        assert!(event.wait(Timeout::Val(Duration::ZERO)).is_err());
    }

    #[test]
    fn an_event_of_no_known_kind_is_damage() {
        let region = Region::create(&crate::Config::new(1 << 20), crate::Options::new()).unwrap();
        let offset = region.inner.geometry.events_offset + 6 * events::LEN;
        let kind = region.inner.memory.word(offset + KIND * WORD);
        for unknown in [3, u64::MAX] {
            kind.store(unknown, Ordering::Relaxed);
            let error = region.event(6, EventReset::Auto).unwrap_err();
            assert!(matches!(error, EventError::Damaged(_)), "{error:?}");
        }
    }

    #[test]
    fn the_portable_event_fits_in_a_slot_and_leaves_its_words_alone() {
        let mut memory = slot();
        memory[..2].copy_from_slice(&[7, 8]);
        let mem: *mut u8 = memory.as_mut_ptr().cast();
        // SAFETY: the memory is a slot's length, aligned, used by this test alone, and lives to its
        // end.
        let made = unsafe { portable(mem, EventReset::Manual, true) }.unwrap();
        // SAFETY: as above.
        let found = unsafe { portable(mem, EventReset::Manual, false) }.unwrap();
        made.set(EventState::Signaled).unwrap();
        assert!(found.wait(Timeout::Val(Duration::from_secs(5))).is_ok());
        drop((made, found));
        assert_eq!(memory[..2], [7, 8]);
    }
}

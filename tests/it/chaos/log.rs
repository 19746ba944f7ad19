//! What each client did, in memory that outlives it. A record is begun before its operation and
//! ended after it, so a killed client leaves at most one that has no end.
//!
//! Each client has a slot; the process that takes a dead one's place goes on where that one
//! stopped.

use crate::harness::fork::{count_panics, Shared};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{fence, Ordering};

/// Clients at the same time.
pub(super) const SLOTS: usize = 8;
/// Records of a slot in one round.
const RECORDS: usize = 1 << 17;
const RECORD_WORDS: usize = 7;
/// Words before the slots: whether clients are to end, how many found something that must not be,
/// and whether they are to open the change feed.
const QUIT: usize = 0;
const FAULTS: usize = 1;
const FEED: usize = 2;
const HEAD_WORDS: usize = 8;
const SLOT_WORDS: usize = HEAD_WORDS + RECORDS * RECORD_WORDS;

// Words of a record.
const START: usize = 0;
const END: usize = 1;
const WHAT: usize = 2;
const ARGUMENT: usize = 3;
const RESULT: usize = 4;
const REVISION: usize = 5;
const MORE: usize = 6;

/// Result of a read that met a torn value.
pub(super) const TORN: u64 = u64::MAX;

/// What a record tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verb {
    /// Argument: id of the value.
    Set,
    /// As `Set`. Result: whether the key was there.
    SetIfPresent,
    /// As `Set`, in the place of the value whose id is in `more`. Result: whether that was there.
    Swap,
    /// Argument: id of the value. Result: id of the value that is there then.
    GetOrInsert,
    /// Result: whether the key was there.
    Delete,
    /// Result: id of the value, 0 for absent. Of a lease, `revision` is its expiry.
    Get,
    /// Result: whether the key was there.
    Exists,
    /// Argument: what was added, 0 for a look. Result: the sum.
    Incr,
    /// As `Incr`, by a compare-and-set loop.
    Update,
    /// Result: whether the lock was got.
    Acquire,
    Release,
    /// Argument: id of the record. Result: the length then.
    Append,
    /// Result: how many records were there, [`TORN`] if they were none. Revision: their digest.
    ReadAll,
    /// Argument: id of the value. More: its time to live.
    SetFor,
    /// Argument: id of the value.
    SetKeepingExpiry,
    /// More: the time to live. Result: whether the key was there.
    Expire,
    /// As `Expire`.
    Touch,
    /// Result: whether the key was there.
    Persist,
    /// Result: how many keys were met.
    Scan,
    /// Result: how many keys there are.
    Len,
    /// Result: how many changes were told.
    Follow,
    /// Written for the dead: from before the kill until the process was gone.
    Died,
}

const VERBS: [Verb; 22] = [
    Verb::Set,
    Verb::SetIfPresent,
    Verb::Swap,
    Verb::GetOrInsert,
    Verb::Delete,
    Verb::Get,
    Verb::Exists,
    Verb::Incr,
    Verb::Update,
    Verb::Acquire,
    Verb::Release,
    Verb::Append,
    Verb::ReadAll,
    Verb::SetFor,
    Verb::SetKeepingExpiry,
    Verb::Expire,
    Verb::Touch,
    Verb::Persist,
    Verb::Scan,
    Verb::Len,
    Verb::Follow,
    Verb::Died,
];

/// All that a client does.
pub(super) fn verbs() -> &'static [Verb] {
    &VERBS[..VERBS.len() - 1]
}

/// The logs of all slots.
pub(super) struct Logs(Shared);

/// A record that was begun.
pub(super) struct Begun(usize);

/// What an operation brought.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) result: u64,
    pub(super) revision: u64,
}

impl Logs {
    pub(super) fn create() -> Self {
        Self(Shared::create(HEAD_WORDS + SLOTS * SLOT_WORDS))
    }

    /// The side of the clients, whose panics count as faults.
    pub(super) fn open(path: &str) -> &'static Self {
        let logs: &'static Self = Box::leak(Box::new(Self(Shared::open(path))));
        count_panics(&logs.0, FAULTS);
        logs
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.fd()
    }

    pub(super) fn reset(&self) {
        self.0.set(QUIT, 0);
        (0..SLOTS).for_each(|slot| self.0.set(slot_base(slot), 0));
    }

    pub(super) fn quit(&self) {
        self.0.set(QUIT, 1);
    }

    pub(super) fn is_over(&self) -> bool {
        self.0.get(QUIT) != 0
    }

    /// From now on clients follow the change feed now and then, which turns it on.
    pub(super) fn use_feed(&self) {
        self.0.set(FEED, 1);
    }

    pub(super) fn uses_feed(&self) -> bool {
        self.0.get(FEED) != 0
    }

    pub(super) fn count_fault(&self) {
        self.0.word(FAULTS).fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn faults(&self) -> u64 {
        self.0.get(FAULTS)
    }

    fn len(&self, slot: usize) -> usize {
        usize::try_from(self.0.get(slot_base(slot))).unwrap()
    }

    /// Whether the slot has no room left but for a few deaths.
    pub(super) fn is_full(&self, slot: usize) -> bool {
        self.len(slot) + RECORDS / 16 > RECORDS
    }

    /// Names the next record, and so the value it writes, among all of the round.
    pub(super) fn next_id(&self, slot: usize) -> u64 {
        (slot as u64) << 32 | (self.len(slot) as u64 + 1)
    }

    pub(super) fn begin(&self, slot: usize, verb: Verb, key: u64, argument: u64) -> Begun {
        self.begin_with(slot, verb, key, argument, 0)
    }

    /// With a second argument.
    pub(super) fn begin_with(
        &self,
        slot: usize,
        verb: Verb,
        key: u64,
        argument: u64,
        more: u64,
    ) -> Begun {
        let index = self.len(slot);
        assert!(index < RECORDS);
        let base = slot_base(slot) + HEAD_WORDS + index * RECORD_WORDS;
        self.0.set(base + END, 0);
        self.0.set(base + WHAT, key << 8 | verb as u64);
        self.0.set(base + ARGUMENT, argument);
        self.0.set(base + MORE, more);
        self.0.set(base + START, now());
        self.0.set(slot_base(slot), index as u64 + 1);
        // The operation's loads must not be done before the time was read.
        fence(Ordering::SeqCst);
        Begun(base)
    }

    pub(super) fn end(&self, begun: &Begun, result: u64, revision: u64) {
        self.end_at(begun, finished(), result, revision);
    }

    pub(super) fn end_at(&self, begun: &Begun, end: u64, result: u64, revision: u64) {
        self.0.set(begun.0 + RESULT, result);
        self.0.set(begun.0 + REVISION, revision);
        self.0.set(begun.0 + END, end);
    }

    /// Notes an operation that is over, which took place from `start` to `end`.
    pub(super) fn add(&self, slot: usize, verb: Verb, key: u64, times: (u64, u64), seen: Seen) {
        let begun = self.begin(slot, verb, key, 0);
        self.0.set(begun.0 + START, times.0);
        self.end_at(&begun, times.1, seen.result, seen.revision);
    }

    /// Notes that the process of a slot is gone, and when it was still alive.
    pub(super) fn log_death(&self, slot: usize, alive: u64) {
        let record = self.begin(slot, Verb::Died, 0, 0);
        self.0.set(record.0 + START, alive);
        self.end(&record, 0, 0);
    }

    pub(super) fn records(&self, slot: usize) -> impl Iterator<Item = Record> + '_ {
        (0..self.len(slot)).map(move |index| {
            let base = slot_base(slot) + HEAD_WORDS + index * RECORD_WORDS;
            let word = |word: usize| self.0.get(base + word);
            let what = word(WHAT);
            Record {
                start: word(START),
                end: word(END),
                verb: VERBS[usize::try_from(what & 0xff).unwrap()],
                key: what >> 8,
                argument: word(ARGUMENT),
                result: word(RESULT),
                revision: word(REVISION),
                more: word(MORE),
            }
        })
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Record {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) verb: Verb,
    pub(super) key: u64,
    pub(super) argument: u64,
    pub(super) result: u64,
    pub(super) revision: u64,
    pub(super) more: u64,
}

fn slot_base(slot: usize) -> usize {
    HEAD_WORDS + slot * SLOT_WORDS
}

/// The time at which an operation that just returned was done.
pub(super) fn finished() -> u64 {
    // Whoever could learn of the result would learn of it after these stores reached all
    // processors; a time read from the clock alone does not wait for that.
    fence(Ordering::SeqCst);
    now()
}

/// Nanoseconds on the clock that the region holds expiries against.
pub(super) fn now() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

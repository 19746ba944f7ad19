//! What each client did, in memory that outlives it. A record is begun before its operation and
//! ended after it, so a killed client leaves at most one that has no end.
//!
//! Each client has a slot; the process that takes a dead one's place goes on where that one
//! stopped.

use super::history::{Deed, Hold, Op, Step};
use crate::harness::fork::{count_panics, Shared};
use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{fence, Ordering};

/// Clients at the same time.
pub(super) const SLOTS: usize = 8;
/// Records of a slot in one round.
const RECORDS: usize = 1 << 17;
const RECORD_WORDS: usize = 6;
/// Words before the slots: whether clients are to end, and how many found something that must not
/// be.
const QUIT: usize = 0;
const FAULTS: usize = 1;
const HEAD_WORDS: usize = 8;
const SLOT_WORDS: usize = HEAD_WORDS + RECORDS * RECORD_WORDS;

// Words of a record.
const START: usize = 0;
const END: usize = 1;
const WHAT: usize = 2;
const ARGUMENT: usize = 3;
const RESULT: usize = 4;
const REVISION: usize = 5;

/// Result of a read that met a torn value.
pub(super) const TORN: u64 = u64::MAX;

/// What a record tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    /// Argument: id of the value.
    Set,
    /// Result: whether the key was there.
    Delete,
    /// Result: id of the value, 0 for absent.
    Get,
    /// Argument: what was added, 0 for a look. Result: the sum.
    Add,
    /// Result: whether the lock was got.
    Acquire,
    Release,
    /// Written for the dead: from before the kill until the process was gone.
    Died,
}

const VERBS: [Verb; 7] = [
    Verb::Set,
    Verb::Delete,
    Verb::Get,
    Verb::Add,
    Verb::Acquire,
    Verb::Release,
    Verb::Died,
];

/// The logs of all slots.
pub(super) struct Logs(Shared);

/// A record that was begun.
pub(super) struct Begun(usize);

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
        let index = self.len(slot);
        assert!(index < RECORDS);
        let base = slot_base(slot) + HEAD_WORDS + index * RECORD_WORDS;
        self.0.set(base + END, 0);
        self.0.set(base + WHAT, key << 8 | verb as u64);
        self.0.set(base + ARGUMENT, argument);
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

    /// Notes that the process of a slot is gone, and when it was still alive.
    pub(super) fn log_death(&self, slot: usize, alive: u64) {
        let record = self.begin(slot, Verb::Died, 0, 0);
        self.0.set(record.0 + START, alive);
        self.end(&record, 0, 0);
    }

    fn records(&self, slot: usize) -> impl Iterator<Item = Record> + '_ {
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
            }
        })
    }
}

#[derive(Debug, Clone, Copy)]
struct Record {
    start: u64,
    end: u64,
    verb: Verb,
    key: u64,
    argument: u64,
    result: u64,
    revision: u64,
}

/// All that was logged, by key.
#[derive(Default)]
pub(super) struct Histories {
    pub(super) registers: HashMap<u64, Vec<Op>>,
    pub(super) numbers: HashMap<u64, Vec<Step>>,
    pub(super) locks: HashMap<u64, Vec<Hold>>,
    pub(super) operations: u64,
    pub(super) cut_off: u64,
    /// Duration of the longest operation in nanoseconds.
    pub(super) longest: u64,
    /// Releases of a lock that somebody had taken away from its living holder.
    pub(super) robbed: u64,
}

impl Histories {
    /// Of a round whose clients have all ended.
    pub(super) fn read(logs: &Logs) -> Self {
        let mut all = Self::default();
        for slot in 0..SLOTS {
            let records: Vec<Record> = logs.records(slot).collect();
            let mut held = HashMap::new();
            let deaths = deaths_after(&records);
            for (record, death) in records.iter().zip(deaths) {
                if record.verb == Verb::Died {
                    for (key, from) in held.drain() {
                        all.add_hold(key, from, record.start, true);
                    }
                    continue;
                }
                // Only a death cuts an operation off.
                let end = if record.end == 0 { death } else { record.end };
                all.add(record, end, &mut held);
            }
        }
        all
    }

    fn add(&mut self, record: &Record, end: u64, held: &mut HashMap<u64, u64>) {
        let returned = record.end != 0;
        self.operations += 1;
        self.cut_off += u64::from(!returned);
        if returned {
            self.longest = self.longest.max(end - record.start);
        }
        let deed = match record.verb {
            Verb::Set => Deed::Set(record.argument),
            // A delete that found nothing to delete is a read.
            Verb::Delete if returned && record.result == 0 => Deed::Saw(None),
            Verb::Delete => Deed::Delete,
            Verb::Get if !returned => return,
            Verb::Get => match record.result {
                TORN => Deed::SawTorn,
                0 => Deed::Saw(None),
                id => Deed::Saw(Some(id)),
            },
            Verb::Add => {
                let step = Step {
                    start: record.start,
                    end,
                    by: record.argument.cast_signed(),
                    sum: returned.then_some(record.result.cast_signed()),
                };
                self.numbers.entry(record.key).or_default().push(step);
                return;
            }
            Verb::Acquire => {
                if returned && record.result != 0 {
                    held.insert(record.key, end);
                }
                return;
            }
            Verb::Release => {
                self.robbed += u64::from(returned && record.result == 0);
                if let Some(from) = held.remove(&record.key) {
                    self.add_hold(record.key, from, record.start, false);
                }
                return;
            }
            Verb::Died => return,
        };
        self.registers.entry(record.key).or_default().push(Op {
            start: record.start,
            end,
            returned,
            deed,
            revision: if returned { record.revision } else { 0 },
        });
    }

    fn add_hold(&mut self, key: u64, from: u64, until: u64, killed: bool) {
        let hold = Hold {
            from,
            until,
            killed,
        };
        self.locks.entry(key).or_default().push(hold);
    }
}

/// For each record, when the process that made it was dead.
fn deaths_after(records: &[Record]) -> Vec<u64> {
    let mut death = u64::MAX;
    let mut deaths: Vec<u64> = records
        .iter()
        .rev()
        .map(|record| {
            if record.verb == Verb::Died {
                death = record.end;
            }
            death
        })
        .collect();
    deaths.reverse();
    deaths
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

/// Nanoseconds on a clock that all processes share.
pub(super) fn now() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

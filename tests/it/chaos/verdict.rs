//! What is looked at after each round, when all its clients have ended.

use super::client::{number, seen};
use super::histories::{Count, Histories};
use super::history::{judge_lock, judge_number, judge_register, Deed, Op};
use super::keys::{name, COUNTERS, LOCKS, REGISTERS, SEQUENCES, STABLE, UPDATED};
use super::lease::judge_lease;
use super::log::{self, finished, now, Logs, Verb};
use super::sequence::{judge_sequence, parts, Turn};
use super::value;
use ganger_region::{Region, SetOptions};
use std::collections::BTreeMap;

/// What a whole run met.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) rounds: u64,
    pub(super) kills: u64,
    pub(super) stops: u64,
    pub(super) longest_us: u64,
    pub(super) repairs: u64,
    pub(super) evicted: u64,
    pub(super) locks_of_the_dead: u64,
    pub(super) audits: u64,
    /// Keys whose last change the feed told.
    pub(super) proven_by_feed: u64,
    pub(super) changes_told: u64,
    pub(super) gaps_told: u64,
    pub(super) verbs: BTreeMap<Verb, Count>,
}

impl Tally {
    pub(super) fn total(&self) -> Count {
        let mut total = Count::default();
        for count in self.verbs.values() {
            total.done += count.done;
            total.cut_off += count.cut_off;
        }
        total
    }
}

#[track_caller]
fn assert_none<F: std::fmt::Debug>(what: &str, key: u64, faults: &[F]) {
    let first = &faults[..faults.len().min(10)];
    assert!(faults.is_empty(), "{what} {key}: {first:#?}");
}

/// Gives the keys that nobody deletes a value each.
pub(super) fn set_stable(region: &Region) -> Vec<(u64, Op)> {
    let mut value = Vec::new();
    let set = |key| {
        let id = 0xff << 32 | key;
        value::make(key, id, &mut value);
        let start = now();
        let revision = region.set(&name(key), &value).unwrap();
        let op = Op {
            start,
            end: finished(),
            returned: true,
            deed: Deed::Set(id),
            revision,
        };
        (key, op)
    };
    STABLE.map(set).collect()
}

/// Judges the logs of a round, together with what the keys hold at its end. `before` was done
/// before it began.
pub(super) fn judge(
    region: &Region,
    logs: &Logs,
    before: &[(u64, Op)],
    evicts: bool,
    tally: &mut Tally,
) {
    let mut histories = Histories::read(logs);
    for (key, op) in before {
        histories.registers.entry(*key).or_default().push(*op);
    }
    judge_registers(region, &mut histories, evicts);
    judge_numbers(region, &histories, evicts);
    judge_sequences(region, &histories, evicts);
    for (key, (acts, sights)) in &histories.leases {
        assert_none("lease", *key, &judge_lease(acts, sights, evicts));
    }
    if !evicts {
        judge_locks(&mut histories, tally);
    }
    for (verb, count) in histories.counts {
        let all = tally.verbs.entry(verb).or_default();
        all.done += count.done;
        all.cut_off += count.cut_off;
    }
    tally.longest_us = tally.longest_us.max(histories.longest / 1000);
}

fn judge_registers(region: &Region, histories: &mut Histories, evicts: bool) {
    for key in (0..REGISTERS).chain(STABLE) {
        let start = now();
        let entry = region.entry(&name(key)).unwrap();
        let value = entry.as_ref().map(|entry| entry.value.as_slice());
        let deed = match seen(key, value) {
            log::TORN => Deed::SawTorn,
            0 => Deed::Saw(None),
            id => Deed::Saw(Some(id)),
        };
        histories.registers.entry(key).or_default().push(Op {
            start,
            end: finished(),
            returned: true,
            deed,
            revision: entry.map_or(0, |entry| entry.revision),
        });
    }
    for (key, ops) in &mut histories.registers {
        if evicts {
            ops.retain(|op| !op.deed.is_absence());
        }
        assert_none("key", *key, &judge_register(ops));
    }
}

fn judge_numbers(region: &Region, histories: &Histories, evicts: bool) {
    for key in COUNTERS.chain(UPDATED) {
        let last = number(region, &name(key), COUNTERS.contains(&key)).cast_signed();
        let steps = histories.numbers.get(&key).map_or(&[][..], Vec::as_slice);
        if evicts {
            // It began anew at any time; all that was ever added is the most that it can be.
            let most: i64 = steps.iter().map(|step| step.by).sum();
            let sums = steps.iter().filter_map(|step| step.sum).chain([last]);
            let wrong = Vec::from_iter(sums.filter(|sum| !(0..=most).contains(sum)));
            assert_none("number", key, &wrong);
        } else {
            assert_none("number", key, &judge_number(steps, last));
        }
    }
}

fn judge_sequences(region: &Region, histories: &Histories, evicts: bool) {
    for key in SEQUENCES {
        let last = region.get(&name(key)).unwrap().unwrap_or_default();
        let last = parts(key, &last).expect("whole records at the end");
        let turns = histories.sequences.get(&key).map_or(&[][..], Vec::as_slice);
        if evicts {
            let torn = turns
                .iter()
                .filter(|timed| matches!(timed.turn, Turn::Saw(None)));
            assert_none("sequence", key, &Vec::from_iter(torn));
        } else {
            assert_none("sequence", key, &judge_sequence(turns, &last));
        }
    }
}

fn judge_locks(histories: &mut Histories, tally: &mut Tally) {
    for (key, holds) in &mut histories.locks {
        assert_none("lock", *key, &judge_lock(holds));
        // Each that was followed by another hold was taken over from the dead.
        let followed = &holds[..holds.len().saturating_sub(1)];
        tally.locks_of_the_dead += followed.iter().filter(|hold| hold.killed).count() as u64;
    }
    assert_eq!(histories.robbed, 0, "locks were taken from living holders");
}

/// With all clients gone: locks of the dead are free, no session and no page stays behind.
pub(super) fn settle(region: &Region) {
    for key in LOCKS {
        let options = SetOptions::new().if_absent();
        let free = region.set_with(&name(key), b"mine", options).unwrap();
        assert!(
            free.is_some(),
            "the lock {key} of a dead process is still held"
        );
    }
    region.reap().unwrap();
    let stats = region.stats();
    assert_eq!(stats.sessions_attached, 1, "only this process lives");
    assert_eq!(stats.damaged, 0);
    assert_clean(region);
    let (stats, audit) = (region.stats(), region.check().unwrap());
    assert_eq!(
        (audit.entries, audit.bytes, audit.pages_used),
        (stats.entries, stats.bytes, stats.pages_used)
    );
    region.clear().unwrap();
    region.sweep().unwrap();
    let stats = region.stats();
    assert_eq!((stats.entries, stats.bytes, stats.pages_used), (0, 0, 0));
    assert_clean(region);
}

pub(super) fn assert_clean(region: &Region) {
    let audit = region.check().unwrap();
    assert!(audit.is_clean(), "{:?}", audit.problems);
}

//! The logs of a round, sorted by key into what the judges take.

use super::history::{Deed, Hold, Op, Step};
use super::keys::LEASES;
use super::lease::{self, Act, Expiry, Sight};
use super::log::{Logs, Record, Verb, SLOTS, TORN};
use super::sequence::{Timed, Turn};
use std::collections::{BTreeMap, HashMap};

/// All that was logged, by key.
#[derive(Default)]
pub(super) struct Histories {
    pub(super) registers: HashMap<u64, Vec<Op>>,
    pub(super) numbers: HashMap<u64, Vec<Step>>,
    pub(super) locks: HashMap<u64, Vec<Hold>>,
    pub(super) sequences: HashMap<u64, Vec<Timed>>,
    pub(super) leases: HashMap<u64, (Vec<Act>, Vec<Sight>)>,
    pub(super) counts: BTreeMap<Verb, Count>,
    /// Duration of the longest operation in nanoseconds.
    pub(super) longest: u64,
    /// Releases of a lock that somebody had taken away from its living holder.
    pub(super) robbed: u64,
}

/// How often something was done, and how often a kill cut it off.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Count {
    pub(super) done: u64,
    pub(super) cut_off: u64,
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
                let returned = record.end != 0;
                let end = if returned { record.end } else { death };
                all.count(record, returned);
                all.add(record, end, returned, &mut held);
            }
        }
        all
    }

    fn count(&mut self, record: &Record, returned: bool) {
        let count = self.counts.entry(record.verb).or_default();
        if returned {
            count.done += 1;
            self.longest = self.longest.max(record.end - record.start);
        } else {
            count.cut_off += 1;
        }
    }

    fn add(&mut self, record: &Record, end: u64, returned: bool, held: &mut HashMap<u64, u64>) {
        match record.verb {
            _ if LEASES.contains(&record.key) => self.add_to_lease(record, end, returned),
            Verb::Incr | Verb::Update => {
                let step = Step {
                    start: record.start,
                    end,
                    by: record.argument.cast_signed(),
                    sum: returned.then_some(record.result.cast_signed()),
                };
                self.numbers.entry(record.key).or_default().push(step);
            }
            Verb::Acquire => {
                if returned && record.result != 0 {
                    held.insert(record.key, end);
                }
            }
            Verb::Release => {
                self.robbed += u64::from(returned && record.result == 0);
                if let Some(from) = held.remove(&record.key) {
                    self.add_hold(record.key, from, record.start, false);
                }
            }
            Verb::Append | Verb::ReadAll => self.add_to_sequence(record, end, returned),
            Verb::Scan | Verb::Len | Verb::Follow | Verb::Died => {}
            _ => {
                let ops = self.registers.entry(record.key).or_default();
                let deeds = register_deeds(record, returned).into_iter().flatten();
                ops.extend(deeds.map(|deed| Op {
                    start: record.start,
                    end,
                    returned,
                    deed,
                    revision: if returned { record.revision } else { 0 },
                }));
            }
        }
    }

    fn add_to_sequence(&mut self, record: &Record, end: u64, returned: bool) {
        let turn = match record.verb {
            Verb::Append => Turn::Appended {
                id: record.argument,
                len: returned.then_some(record.result),
            },
            _ if !returned => return,
            _ if record.result == TORN => Turn::Saw(None),
            _ => Turn::Saw(Some((record.result, record.revision))),
        };
        let start = record.start;
        let turns = self.sequences.entry(record.key).or_default();
        turns.push(Timed { start, end, turn });
    }

    fn add_to_lease(&mut self, record: &Record, end: u64, returned: bool) {
        let (acts, sights) = self.leases.entry(record.key).or_default();
        let (id, ttl) = (record.argument, record.more);
        let deed = match record.verb {
            Verb::Get => {
                if returned {
                    sights.push(Sight {
                        start: record.start,
                        end,
                        id: (record.result != 0).then_some(record.result),
                        expiry: Expiry::from_word(record.revision),
                    });
                }
                return;
            }
            Verb::Set => lease::Deed::Set { id, ttl: None },
            Verb::SetFor => lease::Deed::Set { id, ttl: Some(ttl) },
            Verb::SetKeepingExpiry => lease::Deed::SetKeepingExpiry { id },
            Verb::Expire => lease::Deed::Expire(ttl),
            Verb::Touch => lease::Deed::Touch(ttl),
            Verb::Persist => lease::Deed::Persist,
            Verb::Delete => lease::Deed::Delete,
            verb => panic!("nobody does {verb:?} to a lease"),
        };
        acts.push(Act {
            start: record.start,
            end,
            deed,
            done: returned.then_some(record.result != 0),
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

/// What a record tells of its register; one that was absent until it was written was both seen and
/// written.
fn register_deeds(record: &Record, returned: bool) -> [Option<Deed>; 2] {
    let id = record.argument;
    let was_there = record.result != 0;
    let seen = match record.result {
        TORN => Deed::SawTorn,
        0 => Deed::Saw(None),
        id => Deed::Saw(Some(id)),
    };
    let (first, second) = match (record.verb, returned) {
        (Verb::Get, true) => (Some(seen), None),
        (Verb::Exists, true) if was_there => (Some(Deed::SawSome), None),
        // A write that found nothing to change is a read.
        (Verb::Exists | Verb::Delete | Verb::SetIfPresent, true) if !was_there => {
            (Some(Deed::Saw(None)), None)
        }
        (Verb::Set, _) | (Verb::SetIfPresent | Verb::GetOrInsert, false) => {
            (Some(Deed::Set(id)), None)
        }
        (Verb::SetIfPresent, true) => (Some(Deed::Replace(id)), None),
        (Verb::Swap, true) if !was_there => (Some(Deed::Missed(record.more)), None),
        (Verb::Swap, _) => {
            let from = record.more;
            (Some(Deed::Swap { from, to: id }), None)
        }
        (Verb::GetOrInsert, true) if record.result == id => {
            (Some(Deed::Saw(None)), Some(Deed::Set(id)))
        }
        (Verb::GetOrInsert, true) => (Some(seen), None),
        (Verb::Delete, _) => (Some(Deed::Delete), None),
        _ => (None, None),
    };
    [first, second]
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

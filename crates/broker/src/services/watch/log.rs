//! The changes of the region that watches are told of, in one order, the newest so many of them.

use ganger_region::Change;
use std::collections::VecDeque;

/// Bytes a record is counted for besides its key.
const RECORD_COST: usize = 64;

/// One thing that happened in the region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    /// A key changed. Its value is read when a watcher is told of it.
    Change {
        change: Change,
        key: Box<[u8]>,
        revision: u64,
    },
    /// Changes of this shard are not known.
    Gap { shard: u64 },
}

/// The log. Numbers begin at 1; each record has one more than the one before.
#[derive(Debug)]
pub(super) struct Log {
    records: VecDeque<What>,
    next: u64,
    bytes: usize,
    records_max: usize,
    bytes_max: usize,
}

impl Log {
    pub(super) fn new(records_max: usize, bytes_max: usize) -> Self {
        Self {
            records: VecDeque::new(),
            next: 1,
            bytes: 0,
            records_max,
            bytes_max,
        }
    }

    /// Adds a record and returns its number. The oldest go until the bounds hold.
    pub(super) fn push(&mut self, what: What) -> u64 {
        self.bytes += cost(&what);
        self.records.push_back(what);
        self.next += 1;
        while self.records.len() > self.records_max || self.bytes > self.bytes_max {
            let Some(oldest) = self.records.pop_front() else {
                break;
            };
            self.bytes -= cost(&oldest);
        }
        self.next - 1
    }

    pub(super) fn get(&self, seq: u64) -> Option<&What> {
        let index = seq.checked_sub(self.first())?;
        self.records.get(usize::try_from(index).ok()?)
    }

    /// Number of the oldest record that is kept; of the next one, if none is.
    pub(super) fn first(&self) -> u64 {
        self.next - self.records.len() as u64
    }

    /// Number of the next record.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// Forgets everything: from here on changes are not followed, so nobody may go on at a position
    /// that was given out.
    pub(super) fn void(&mut self) {
        self.records = VecDeque::new();
        self.bytes = 0;
        self.next += 1;
    }

    /// The records from a number on, with their numbers; `None` if some are not kept any more, or
    /// never were.
    pub(super) fn since(&self, seq: u64) -> Option<impl Iterator<Item = (u64, &What)>> {
        if !(self.first()..=self.next).contains(&seq) {
            return None;
        }
        let skip = usize::try_from(seq - self.first()).ok()?;
        Some((seq..).zip(self.records.iter().skip(skip)))
    }
}

fn cost(what: &What) -> usize {
    RECORD_COST
        + match what {
            What::Change { key, .. } => key.len(),
            What::Gap { .. } => 0,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(key: &str, revision: u64) -> What {
        What::Change {
            change: Change::Set,
            key: key.as_bytes().into(),
            revision,
        }
    }

    #[test]
    fn one_record_more_than_allowed_pushes_the_oldest_out() {
        let mut log = Log::new(3, usize::MAX);
        for revision in 1..=3 {
            assert_eq!(log.push(change("k", revision)), revision);
        }
        assert_eq!((log.first(), log.next(), log.len()), (1, 4, 3));
        log.push(change("k", 4));
        assert_eq!((log.first(), log.next(), log.len()), (2, 5, 3));
        assert_eq!((log.get(1), log.get(2)), (None, Some(&change("k", 2))));
        assert_eq!((log.get(0), log.get(5)), (None, None));
    }

    #[test]
    fn one_byte_more_than_allowed_pushes_the_oldest_out() {
        let mut log = Log::new(100, 2 * (RECORD_COST + 3));
        log.push(change("one", 1));
        log.push(change("two", 2));
        assert_eq!(log.len(), 2);
        log.push(change("3", 3));
        assert_eq!((log.first(), log.len()), (2, 2));
        log.push(change("four", 4));
        assert_eq!(log.len(), 2);
    }

    #[test]
    fn positions_that_were_given_out_are_void_when_nobody_follows() {
        let mut log = Log::new(3, usize::MAX);
        assert_eq!(log.since(1).unwrap().count(), 0);
        for revision in 1..=4 {
            log.push(change("k", revision));
        }
        let numbers = |log: &Log, from| {
            let records = log.since(from)?;
            Some(records.map(|(seq, _)| seq).collect::<Vec<_>>())
        };
        assert_eq!(numbers(&log, 1), None);
        assert_eq!(numbers(&log, 2), Some(vec![2, 3, 4]));
        assert_eq!(numbers(&log, 5), Some(vec![]));
        assert_eq!(numbers(&log, 6), None);
        log.void();
        assert_eq!(numbers(&log, 5), None);
        assert_eq!(numbers(&log, 6), Some(vec![]));
    }
}

//! Judges walks over all keys, and what the change feed tells.

use ganger_region::{Change, FeedItem};
use std::collections::HashMap;
use std::ops::Range;

/// Whether a whole scan met every key once that was there all the time, and no other one twice.
pub(super) fn judge_walk(met: &[u64], stable: &Range<u64>) -> Vec<String> {
    let mut met = met.to_vec();
    met.sort_unstable();
    let twice = met.windows(2).filter(|pair| pair[0] == pair[1]);
    let mut faults = Vec::from_iter(twice.map(|pair| format!("{} was met twice", pair[0])));
    let missed = stable.clone().filter(|key| met.binary_search(key).is_err());
    faults.extend(missed.map(|key| format!("{key} was not met")));
    faults
}

/// What follows from the changes that a feed told.
pub(super) struct Sum {
    /// Of each key what is known: its revision, or that it is gone.
    keys: HashMap<Vec<u8>, Option<u64>>,
    shards: Vec<Shard>,
    pub(super) changes: u64,
    pub(super) gaps: u64,
    pub(super) faults: Vec<String>,
}

#[derive(Clone, Copy)]
struct Shard {
    /// The last revision told.
    revision: u64,
    /// Whether all changes are known.
    complete: bool,
}

impl Sum {
    /// Of a region without keys.
    pub(super) fn new(shards: u64) -> Self {
        let shard = Shard {
            revision: 0,
            complete: true,
        };
        Self {
            keys: HashMap::new(),
            shards: vec![shard; usize::try_from(shards).unwrap()],
            changes: 0,
            gaps: 0,
            faults: Vec::new(),
        }
    }

    pub(super) fn take(&mut self, item: FeedItem, shard_of: impl Fn(&[u8]) -> u64) {
        match item {
            FeedItem::Change {
                change,
                key,
                revision,
            } => {
                self.changes += 1;
                let shard = &mut self.shards[usize::try_from(shard_of(&key)).unwrap()];
                if revision <= shard.revision {
                    let text = format!("{revision} was told after {}", shard.revision);
                    self.faults.push(text);
                }
                shard.revision = revision;
                let is_there = change == Change::Set;
                self.keys.insert(key, is_there.then_some(revision));
            }
            FeedItem::Gap { shard } => {
                self.gaps += 1;
                self.shards[usize::try_from(shard).unwrap()].complete = false;
                self.keys.retain(|key, _| shard_of(key) != shard);
            }
            other => self.faults.push(format!("{other:?}")),
        }
    }

    /// Whether changes of any shard were lost.
    pub(super) fn is_incomplete(&self) -> bool {
        self.shards.iter().any(|shard| !shard.complete)
    }

    /// Looks at the keys anew where changes were lost. What is told from now on was done after the
    /// gap, so it is either seen here or told.
    pub(super) fn catch_up(
        &mut self,
        now: &HashMap<Vec<u8>, u64>,
        shard_of: impl Fn(&[u8]) -> u64,
    ) {
        for (key, revision) in now {
            let shard = &self.shards[usize::try_from(shard_of(key)).unwrap()];
            if !shard.complete {
                self.keys.insert(key.clone(), Some(*revision));
            }
        }
        self.shards
            .iter_mut()
            .for_each(|shard| shard.complete = true);
    }

    /// Whether what was told is what is there now, and how many keys that proved. Without a gap, a
    /// key of which nothing was told is not there. What goes by itself may be gone untold.
    pub(super) fn judge(
        &self,
        now: &HashMap<Vec<u8>, u64>,
        shard_of: impl Fn(&[u8]) -> u64,
        goes_by_itself: impl Fn(&[u8]) -> bool,
    ) -> (u64, Vec<String>) {
        let mut faults = self.faults.clone();
        let mut proven = 0;
        for (key, told) in &self.keys {
            let found = now.get(key).copied();
            proven += u64::from(found == *told);
            if found != *told && !(found.is_none() && goes_by_itself(key)) {
                let key = String::from_utf8_lossy(key);
                faults.push(format!("{key}: told {told:?}, found {found:?}"));
            }
        }
        for key in now.keys().filter(|key| !self.keys.contains_key(*key)) {
            if self.shards[usize::try_from(shard_of(key)).unwrap()].complete {
                faults.push(format!("{}: never told", String::from_utf8_lossy(key)));
            }
        }
        (proven, faults)
    }
}

#[test]
fn keys_that_a_scan_misses_or_meets_twice_are_flagged() {
    assert_eq!(judge_walk(&[9, 3, 5, 4, 100], &(3..6)), [""; 0]);
    assert_eq!(judge_walk(&[3, 5], &(3..6)), ["4 was not met"]);
    assert_eq!(judge_walk(&[3, 4, 5, 4], &(3..6)), ["4 was met twice"]);
    assert_eq!(judge_walk(&[9, 9], &(3..3)), ["9 was met twice"]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(change: Change, key: &[u8], revision: u64) -> FeedItem {
        FeedItem::Change {
            change,
            key: key.to_vec(),
            revision,
        }
    }

    /// Faults of what was told of one shard whose keys are `now`.
    fn faults(items: &[FeedItem], now: &[(&[u8], u64)]) -> Vec<String> {
        let mut sum = Sum::new(1);
        for item in items {
            sum.take(item.clone(), |_| 0);
        }
        let now = now.iter().map(|(key, revision)| (key.to_vec(), *revision));
        sum.judge(&now.collect(), |_| 0, |key| key == b"lease").1
    }

    #[test]
    fn told_changes_agree_with_what_is_there() {
        let told = [
            change(Change::Set, b"a", 2),
            change(Change::Set, b"b", 4),
            change(Change::Set, b"a", 6),
            change(Change::Delete, b"b", 8),
            change(Change::Set, b"lease", 10),
        ];
        assert_eq!(faults(&told, &[(b"a", 6)]), [""; 0]);
        assert_eq!(faults(&told, &[(b"a", 6), (b"lease", 10)]), [""; 0]);
        // A gap, after which less is known.
        let gap = [&told[..], &[FeedItem::Gap { shard: 0 }]].concat();
        assert_eq!(faults(&gap, &[(b"a", 12), (b"c", 14)]), [""; 0]);
    }

    #[test]
    fn after_a_gap_the_keys_are_looked_at_anew() {
        let mut sum = Sum::new(1);
        sum.take(change(Change::Set, b"a", 2), |_| 0);
        sum.take(FeedItem::Gap { shard: 0 }, |_| 0);
        assert!(sum.is_incomplete());
        let now = HashMap::from([(b"b".to_vec(), 6)]);
        sum.catch_up(&now, |_| 0);
        let faults = |now| sum.judge(&now, |_| 0, |_| false).1.len();
        assert_eq!(faults(now), 0);
        assert_eq!(faults(HashMap::new()), 1, "a delete was not told");
        let more = [(b"b".to_vec(), 6), (b"c".to_vec(), 8)];
        assert_eq!(faults(HashMap::from(more)), 1, "a set was not told");
    }

    #[test]
    fn changes_that_were_not_told_are_flagged() {
        let told = [change(Change::Set, b"a", 2)];
        assert_eq!(faults(&told, &[(b"a", 4)]).len(), 1, "a later set");
        assert_eq!(faults(&told, &[]).len(), 1, "a delete");
        assert_eq!(
            faults(&told, &[(b"a", 2), (b"b", 4)]).len(),
            1,
            "another key"
        );
        let gone = [change(Change::Delete, b"a", 2)];
        assert_eq!(faults(&gone, &[(b"a", 4)]).len(), 1, "a set");
        let back = [told[0].clone(), told[0].clone()];
        assert_eq!(faults(&back, &[(b"a", 2)]).len(), 1, "the same twice");
    }
}

//! Values that grow: records one after the other, each of which proves who appended it.

use super::random::mix;
use std::collections::{HashMap, HashSet};

/// Words of the longest record.
const WORDS_MAX: u64 = 16;
/// An id (see `value`) has 40 bits; the rest of a record's first word proves it.
const PROOF_BITS: u32 = 24;

/// The record of that id.
pub(super) fn record(key: u64, id: u64) -> Vec<u8> {
    let seed = mix(mix(key ^ 0x2545_f491) ^ id);
    let head = id << PROOF_BITS | seed >> (64 - PROOF_BITS);
    let filler = (1..1 + seed % WORDS_MAX).map(|word| mix(seed ^ word));
    let words = std::iter::once(head).chain(filler);
    words.flat_map(u64::to_le_bytes).collect()
}

/// A record within a value: its id, and where it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) id: u64,
    pub(super) end: u64,
}

/// The records of a value; `None` if it is no sequence of whole ones, each there once.
pub(super) fn parts(key: u64, value: &[u8]) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    let mut met = HashSet::new();
    let mut rest = value;
    while !rest.is_empty() {
        let id = u64::from_le_bytes(*rest.first_chunk()?) >> PROOF_BITS;
        rest = rest.strip_prefix(&record(key, id)[..])?;
        let end = (value.len() - rest.len()) as u64;
        parts.push(Part { id, end });
        if !met.insert(id) {
            return None;
        }
    }
    Some(parts)
}

/// A number that stands for all records of a value, in their order.
pub(super) fn digest(parts: &[Part]) -> u64 {
    parts.iter().fold(0, |digest, part| mix(digest ^ part.id))
}

/// What was done to a sequence, or seen of it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Turn {
    /// Which record, and the length that was returned, if one was.
    Appended { id: u64, len: Option<u64> },
    /// How many records, and their digest; `None` if they were torn.
    Saw(Option<(u64, u64)>),
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Timed {
    pub(super) start: u64,
    /// For an operation that was cut off: when its process was dead.
    pub(super) end: u64,
    pub(super) turn: Turn,
}

/// Whether every acknowledged record is in `last` once, unacknowledged ones are at most once, in an
/// order that time allows, and every read saw the beginning of it that was there at its time.
pub(super) fn judge_sequence(turns: &[Timed], last: &[Part]) -> Vec<String> {
    let places: HashMap<u64, usize> = (1..)
        .zip(last)
        .map(|(place, part)| (part.id, place))
        .collect();
    let mut faults = Vec::new();
    if places.len() != last.len() {
        faults.push(format!("a record is there twice: {last:?}"));
    }
    let mut digests = vec![0];
    digests.extend((1..=last.len()).map(|count| digest(&last[..count])));
    let mut begun = HashSet::new();
    // By how many records were there afterwards; the append comes before the reads of its record.
    let mut order = Vec::new();
    for timed in turns {
        match timed.turn {
            Turn::Appended { id, len } => {
                begun.insert(id);
                match (places.get(&id), len) {
                    (None, Some(_)) => faults.push(format!("lost: {timed:?}")),
                    (None, None) => {}
                    (Some(&place), len) => {
                        if len.is_some_and(|len| len != last[place - 1].end) {
                            faults.push(format!("another length: {timed:?}"));
                        }
                        order.push((place, 0, timed));
                    }
                }
            }
            Turn::Saw(Some((count, seen))) => {
                let count = usize::try_from(count).unwrap();
                if digests.get(count) == Some(&seen) {
                    order.push((count, 1, timed));
                } else {
                    faults.push(format!("no beginning of what is there: {timed:?}"));
                }
            }
            Turn::Saw(None) => faults.push(format!("torn: {timed:?}")),
        }
    }
    let invented = last.iter().filter(|part| !begun.contains(&part.id));
    faults.extend(invented.map(|part| format!("invented: {part:?}")));
    order.sort_unstable_by_key(|(place, is_read, timed)| (*place, *is_read, timed.start));
    let mut last_start = 0;
    for (_, _, timed) in order {
        if timed.end < last_start {
            faults.push(format!(
                "ended before what was there earlier began: {timed:?}"
            ));
        }
        last_start = last_start.max(timed.start);
    }
    faults
}

#[test]
fn records_prove_who_appended_them() {
    let value: Vec<u8> = (1..50).flat_map(|id| record(3, id)).collect();
    let found = parts(3, &value).unwrap();
    assert!(found.iter().map(|part| part.id).eq(1..50));
    assert_eq!(found.last().unwrap().end, value.len() as u64);
    assert_eq!(parts(3, b""), Some(Vec::new()));
    assert_eq!(parts(4, &value), None, "under another key");
    for cut in 1..8 {
        assert_eq!(parts(3, &value[..value.len() - cut]), None, "cut");
    }
    assert_eq!(
        parts(3, &[record(3, 1), record(3, 1)].concat()),
        None,
        "twice"
    );
    for place in 0..value.len() {
        let mut changed = value.clone();
        changed[place] ^= 1;
        assert_eq!(parts(3, &changed), None, "one bit");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(ids: &[u64]) -> Vec<Part> {
        let value: Vec<u8> = ids.iter().flat_map(|id| record(1, *id)).collect();
        let mut parts = Vec::new();
        for id in ids {
            let end = parts.last().map_or(0, |part: &Part| part.end);
            let end = end + record(1, *id).len() as u64;
            parts.push(Part { id: *id, end });
        }
        assert_eq!(parts.last().map_or(0, |part| part.end), value.len() as u64);
        parts
    }

    fn appended(start: u64, end: u64, id: u64, parts: &[Part]) -> Timed {
        let len = parts.last().map(|part| part.end);
        let turn = Turn::Appended { id, len };
        Timed { start, end, turn }
    }

    fn cut_off(start: u64, end: u64, id: u64) -> Timed {
        let turn = Turn::Appended { id, len: None };
        Timed { start, end, turn }
    }

    fn saw(start: u64, end: u64, parts: &[Part]) -> Timed {
        let turn = Turn::Saw(Some((parts.len() as u64, digest(parts))));
        Timed { start, end, turn }
    }

    #[track_caller]
    fn assert_flagged(turns: &[Timed], last: &[Part], fault: &str) {
        let faults = judge_sequence(turns, last);
        assert!(
            faults.iter().any(|found| found.starts_with(fault)),
            "{faults:?}"
        );
    }

    #[test]
    fn right_sequences_pass() {
        let (one, two) = (sequence(&[1]), sequence(&[1, 2]));
        let turns = [
            saw(1, 2, &[]),
            appended(3, 4, 1, &one),
            saw(4, 9, &one),
            appended(5, 8, 2, &two),
            saw(6, 7, &two),
        ];
        assert_eq!(judge_sequence(&turns, &two), [""; 0]);
        // One that was cut off is there, or it is not.
        let turns = [appended(1, 2, 1, &one), cut_off(3, 4, 2), saw(5, 6, &two)];
        assert_eq!(judge_sequence(&turns, &two), [""; 0]);
        assert_eq!(judge_sequence(&turns[..2], &one), [""; 0]);
    }

    #[test]
    fn records_that_are_lost_doubled_or_invented_are_flagged() {
        let (one, two) = (sequence(&[1]), sequence(&[1, 2]));
        let turns = [appended(1, 2, 1, &one), appended(3, 4, 2, &two)];
        assert_flagged(&turns, &one, "lost");
        assert_flagged(&turns[..1], &two, "invented");
        assert_flagged(&turns, &sequence(&[1, 2, 1]), "a record is there twice");
        // Both made it as long as one record: one of them wrote over the other.
        let both = [appended(1, 9, 1, &one), appended(1, 9, 2, &sequence(&[2]))];
        assert_flagged(&both, &two, "another length");
        let turn = Turn::Saw(None);
        assert_flagged(
            &[Timed {
                start: 1,
                end: 2,
                turn,
            }],
            &[],
            "torn",
        );
    }

    #[test]
    fn orders_that_time_does_not_allow_are_flagged() {
        let (one, two) = (sequence(&[1]), sequence(&[1, 2]));
        let late = "ended before";
        let swapped = [appended(3, 4, 1, &one), appended(1, 2, 2, &two)];
        assert_flagged(&swapped, &two, late);
        let turns = [appended(1, 2, 1, &one), appended(3, 4, 2, &two)];
        let with = |read| [turns[0], turns[1], read];
        assert_flagged(&with(saw(5, 6, &one)), &two, late);
        assert_flagged(&with(saw(1, 2, &two)), &two, late);
        assert_flagged(&with(saw(5, 6, &sequence(&[2]))), &two, "no beginning");
        assert_flagged(
            &with(saw(5, 6, &sequence(&[1, 2, 3]))),
            &two,
            "no beginning",
        );
    }
}

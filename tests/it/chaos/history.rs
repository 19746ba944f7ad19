//! Judges what clients saw against what they were promised, after the run, in O(n log n) per key.
//!
//! Each operation took place at one moment between its start and its end. A key is a register, so a
//! history is right if there is an order of such moments in which every read returns the last
//! write. Values are unique, which makes that decidable by sorting (Gibbons and Korach, SIAM J.
//! Comput. 1997): all operations of one value form a cluster, and a cluster whose first end lies
//! before its last start was certainly the register's value from that end to that start. No other
//! cluster, and no absence, fits into that time.

use std::collections::HashMap;

/// What a register operation did or saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    Set(u64),
    /// A write of "absent".
    Delete,
    /// A read of this value, or of "absent".
    Saw(Option<u64>),
    /// A read of something nobody wrote in one piece.
    SawTorn,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Op {
    pub(super) start: u64,
    /// For an operation that was cut off: when its process was dead.
    pub(super) end: u64,
    /// Whether it returned. A write that did not may have happened before `end`, or not at all.
    pub(super) returned: bool,
    pub(super) deed: Deed,
    /// Revision of a set that returned, or of the entry that was read; 0 if not known.
    pub(super) revision: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// A value that was never whole.
    Torn,
    /// A value nobody had begun to write when it was read.
    Invented,
    /// A value that an acknowledged write had replaced before the read began.
    Stale,
    /// Absence, although an acknowledged set had put a value there and no delete can have followed.
    Lost,
    /// Another value, or none, between two sights of the same one.
    Interrupted,
    /// Revisions that contradict the order of writes.
    Revision,
}

/// Faults of one key's history, each with what shows it.
pub(super) fn judge_register(ops: &[Op]) -> Vec<(Fault, String)> {
    let mut faults = judge_reads(ops);
    faults.extend(judge_zones(ops));
    faults.extend(judge_revisions(ops));
    faults
}

/// For questions like: of the operations that ended before this, when did the last one start?
struct Latest(Vec<(u64, u64)>);

impl Latest {
    /// From pairs of what is asked by and what is asked for.
    fn new(mut pairs: Vec<(u64, u64)>) -> Self {
        pairs.sort_unstable();
        let mut latest = 0;
        for pair in &mut pairs {
            latest = latest.max(pair.1);
            pair.1 = latest;
        }
        Self(pairs)
    }

    fn before(&self, bound: u64) -> u64 {
        match self.0.partition_point(|pair| pair.0 < bound) {
            0 => 0,
            count => self.0[count - 1].1,
        }
    }
}

fn judge_reads(ops: &[Op]) -> Vec<(Fault, String)> {
    let written = |wanted: fn(&Deed) -> bool| {
        let acknowledged = ops.iter().filter(|op| op.returned && wanted(&op.deed));
        Latest::new(acknowledged.map(|op| (op.end, op.start)).collect())
    };
    let replaced = written(|deed| matches!(deed, Deed::Set(_) | Deed::Delete));
    let put = written(|deed| matches!(deed, Deed::Set(_)));
    let deletes = ops.iter().filter(|op| op.deed == Deed::Delete);
    let deleted = Latest::new(deletes.map(|op| (op.start, op.end)).collect());
    let sets = sets_of(ops);
    let mut faults = Vec::new();
    for read in ops.iter().filter(|op| op.returned) {
        let fault = match read.deed {
            Deed::Set(_) | Deed::Delete => None,
            Deed::SawTorn => Some(Fault::Torn),
            Deed::Saw(Some(id)) => match sets.get(&id) {
                None => Some(Fault::Invented),
                Some(set) if set.start > read.end => Some(Fault::Invented),
                Some(set) if replaced.before(read.start) > set.end => Some(Fault::Stale),
                Some(_) => None,
            },
            // The key began absent, at time 0.
            Deed::Saw(None) => {
                let set = put.before(read.start);
                (set > deleted.before(read.end + 1)).then_some(Fault::Lost)
            }
        };
        faults.extend(fault.map(|fault| (fault, format!("{read:?}"))));
    }
    faults
}

fn sets_of(ops: &[Op]) -> HashMap<u64, &Op> {
    let sets = ops.iter().filter_map(|op| match op.deed {
        Deed::Set(id) => Some((id, op)),
        _ => None,
    });
    sets.collect()
}

/// The time of one value: from the first end to the last start of its operations, or the other way
/// round.
#[derive(Clone, Copy)]
struct Cluster {
    first_end: u64,
    last_start: u64,
    /// Whether it is certain that the value was ever there.
    certain: bool,
}

fn judge_zones(ops: &[Op]) -> Vec<(Fault, String)> {
    let mut clusters: HashMap<u64, Cluster> = HashMap::new();
    let mut moments = Vec::new();
    for op in ops {
        match op.deed {
            Deed::Set(id) | Deed::Saw(Some(id)) => {
                let cluster = clusters.entry(id).or_insert(Cluster {
                    first_end: u64::MAX,
                    last_start: 0,
                    certain: false,
                });
                cluster.first_end = cluster.first_end.min(op.end);
                cluster.last_start = cluster.last_start.max(op.start);
                cluster.certain |= op.returned;
            }
            Deed::Delete | Deed::Saw(None) if op.returned => moments.push((op.start, op.end)),
            _ => {}
        }
    }
    let mut zones = Vec::new();
    for cluster in clusters.values().filter(|cluster| cluster.certain) {
        if cluster.first_end < cluster.last_start {
            zones.push((cluster.first_end, cluster.last_start));
        } else {
            moments.push((cluster.last_start, cluster.first_end));
        }
    }
    zones.sort_unstable();
    let mut faults = Vec::new();
    for pair in zones.windows(2).filter(|pair| pair[0].1 > pair[1].0) {
        faults.push((Fault::Interrupted, format!("values at {pair:?}")));
    }
    for (start, end) in moments {
        let before = zones.partition_point(|zone| zone.0 < start);
        let around = before.checked_sub(1).map(|index| zones[index]);
        if let Some(zone) = around.filter(|zone| end < zone.1) {
            faults.push((
                Fault::Interrupted,
                format!("{:?} in {zone:?}", (start, end)),
            ));
        }
    }
    faults
}

/// A value has the revision its set returned, and later sets have higher ones.
fn judge_revisions(ops: &[Op]) -> Vec<(Fault, String)> {
    let sets = sets_of(ops);
    let mut faults = Vec::new();
    for read in ops.iter().filter(|op| op.returned && op.revision != 0) {
        if let Deed::Saw(Some(id)) = read.deed {
            let told = sets.get(&id).map_or(0, |set| set.revision);
            if told != 0 && told != read.revision {
                faults.push((Fault::Revision, format!("{read:?}, but the set got {told}")));
            }
        }
    }
    let mut told: Vec<&Op> = sets.into_values().filter(|set| set.revision != 0).collect();
    told.sort_unstable_by_key(|set| set.revision);
    let mut last_start = 0;
    for pair in told.windows(2) {
        last_start = last_start.max(pair[0].start);
        if pair[0].revision == pair[1].revision || pair[1].end < last_start {
            faults.push((Fault::Revision, format!("{pair:?}")));
        }
    }
    faults
}

/// An addition to a number, or (with 0) a look at it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) by: i64,
    /// What it returned, if it did.
    pub(super) sum: Option<i64>,
}

/// Whether every acknowledged addition is in `last`, each exactly once, and they were done in an
/// order that time allows. A number only grows.
pub(super) fn judge_number(steps: &[Step], last: i64) -> Vec<String> {
    let mut faults = Vec::new();
    let total = |done: bool| -> i64 {
        let steps = steps.iter().filter(|step| step.sum.is_some() == done);
        steps.map(|step| step.by).sum()
    };
    let (acknowledged, perhaps) = (total(true), total(false));
    if !(acknowledged..=acknowledged + perhaps).contains(&last) {
        faults.push(format!(
            "{last} after {acknowledged} acknowledged and {perhaps} unacknowledged"
        ));
    }
    let mut told: Vec<(i64, Step)> = steps
        .iter()
        .filter_map(|step| Some((step.sum?, *step)))
        .collect();
    // Of equal sums, the addition comes before the looks at it.
    told.sort_unstable_by_key(|(sum, step)| (*sum, step.by == 0, step.start));
    let mut last_start = 0;
    let mut before = 0;
    for (sum, step) in told {
        if sum - step.by < before {
            faults.push(format!("{before} was there before {step:?}"));
        }
        if step.end < last_start {
            faults.push(format!("{step:?} ended before a lower sum was begun"));
        }
        last_start = last_start.max(step.start);
        before = sum;
    }
    faults
}

/// From when until when somebody certainly held a lock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hold {
    pub(super) from: u64,
    pub(super) until: u64,
    /// Whether the holder's death ended it.
    pub(super) killed: bool,
}

/// Whether nobody held a lock together with another.
pub(super) fn judge_lock(holds: &mut [Hold]) -> Vec<String> {
    holds.sort_unstable_by_key(|hold| hold.from);
    let overlap = holds.windows(2).filter(|pair| pair[0].until > pair[1].from);
    overlap.map(|pair| format!("{pair:?}")).collect()
}

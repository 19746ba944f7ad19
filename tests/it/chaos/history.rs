//! Judges what clients saw against what they were promised, after the run, in O(n log n) per key.
//!
//! Each operation took place at one moment between its start and its end. A key is a register, so a
//! history is right if there is an order of such moments in which every read returns the last
//! write. Values are unique, which makes that decidable by sorting (Gibbons and Korach, SIAM J.
//! Comput. 1997): all operations of one value form a cluster, and a cluster whose first end lies
//! before its last start was certainly the register's value from that end to that start. No other
//! cluster, and no absence, fits into that time. A compare-and-set joins the clusters of two values:
//! nothing was between them.

use std::collections::{HashMap, HashSet};

/// What a register operation did or saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    Set(u64),
    /// A write in the place of another value, which was there until then.
    Swap {
        from: u64,
        to: u64,
    },
    /// A write in the place of any value.
    Replace(u64),
    /// A write of "absent".
    Delete,
    /// A read of this value, or of "absent".
    Saw(Option<u64>),
    /// A read of any value.
    SawSome,
    /// A compare-and-set that did not find this value.
    Missed(u64),
    /// A read of something nobody wrote in one piece.
    SawTorn,
}

impl Deed {
    /// The value that it wrote.
    fn put(self) -> Option<u64> {
        match self {
            Self::Set(id) | Self::Replace(id) | Self::Swap { to: id, .. } => Some(id),
            _ => None,
        }
    }

    /// The value that was there before it.
    fn found(self) -> Option<u64> {
        match self {
            Self::Saw(id) => id,
            Self::Swap { from, .. } => Some(from),
            _ => None,
        }
    }

    /// Whether it tells that nothing, or another value, was there: where entries are evicted, that
    /// may be so at any time.
    pub(super) fn is_absence(self) -> bool {
        matches!(self, Self::Saw(None) | Self::Missed(_))
    }
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
    /// Two compare-and-sets in the place of the same value.
    SwappedTwice,
    /// A compare-and-set that did not find what was there.
    Refused,
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
struct Latest(Vec<Answer>);

struct Answer {
    bound: u64,
    latest: u64,
    /// The latest but for that one.
    second: u64,
}

impl Latest {
    /// From pairs of what is asked by and what is asked for.
    fn new(mut pairs: Vec<(u64, u64)>) -> Self {
        pairs.sort_unstable();
        let (mut latest, mut second) = (0, 0);
        let answers = pairs.into_iter().map(|(bound, number)| {
            second = second.max(latest.min(number));
            latest = latest.max(number);
            Answer {
                bound,
                latest,
                second,
            }
        });
        Self(answers.collect())
    }

    fn before(&self, bound: u64) -> u64 {
        self.answer(bound).map_or(0, |answer| answer.latest)
    }

    /// The same without one that has this number.
    fn before_except(&self, bound: u64, number: u64) -> u64 {
        self.answer(bound).map_or(0, |answer| {
            if answer.latest == number {
                answer.second
            } else {
                answer.latest
            }
        })
    }

    fn answer(&self, bound: u64) -> Option<&Answer> {
        let count = self.0.partition_point(|answer| answer.bound < bound);
        self.0[..count].last()
    }
}

fn judge_reads(ops: &[Op]) -> Vec<(Fault, String)> {
    let written = |wanted: fn(&Deed) -> bool| {
        let acknowledged = ops.iter().filter(|op| op.returned && wanted(&op.deed));
        Latest::new(acknowledged.map(|op| (op.end, op.start)).collect())
    };
    let replaced = written(|deed| deed.put().is_some() || *deed == Deed::Delete);
    let put = written(|deed| deed.put().is_some());
    let gone = written(|deed| *deed == Deed::Delete);
    let moments = |wanted: fn(&Op) -> bool| {
        let ops = ops.iter().filter(|op| wanted(op));
        Latest::new(ops.map(|op| (op.start, op.end)).collect())
    };
    let deleted = moments(|op| op.deed == Deed::Delete);
    let perhaps_put = moments(|op| op.deed.put().is_some());
    let puts = puts_of(ops);
    let judge = |read: &Op| {
        if let Some(id) = read.deed.found() {
            return match puts.get(&id) {
                None => Some(Fault::Invented),
                Some(put) if put.start > read.end => Some(Fault::Invented),
                Some(put) if replaced.before(read.start) > put.end => Some(Fault::Stale),
                Some(_) => None,
            };
        }
        match read.deed {
            Deed::SawTorn => Some(Fault::Torn),
            // The key began absent, at time 0.
            Deed::Saw(None) => {
                let set = put.before(read.start);
                (set > deleted.before(read.end + 1)).then_some(Fault::Lost)
            }
            Deed::SawSome | Deed::Replace(_) => {
                let is_own = read.deed.put().is_some();
                let set = if is_own {
                    perhaps_put.before_except(read.end + 1, read.end)
                } else {
                    perhaps_put.before(read.end + 1)
                };
                (set == 0 || set < gone.before(read.start)).then_some(Fault::Invented)
            }
            _ => None,
        }
    };
    let mut faults = Vec::new();
    for read in ops.iter().filter(|op| op.returned) {
        faults.extend(judge(read).map(|fault| (fault, format!("{read:?}"))));
    }
    faults
}

fn puts_of(ops: &[Op]) -> HashMap<u64, &Op> {
    let puts = ops.iter().filter_map(|op| Some((op.deed.put()?, op)));
    puts.collect()
}

/// The time of one value, or of several that followed each other: from the first end to the last
/// start of its operations, or the other way round.
#[derive(Debug, Clone, Copy)]
struct Cluster {
    first_end: u64,
    last_start: u64,
}

impl Cluster {
    const EMPTY: Self = Self {
        first_end: u64::MAX,
        last_start: 0,
    };

    fn add(&mut self, start: u64, end: u64) {
        self.first_end = self.first_end.min(end);
        self.last_start = self.last_start.max(start);
    }

    /// Whether the value was certainly there before `start` and after `end`.
    fn surrounds(self, start: u64, end: u64) -> bool {
        self.first_end < start && end < self.last_start
    }
}

fn judge_zones(ops: &[Op]) -> Vec<(Fault, String)> {
    let returned = ops.iter().filter(|op| op.returned);
    let certain: HashSet<u64> = returned
        .flat_map(|op| [op.deed.put(), op.deed.found()])
        .flatten()
        .collect();
    // A write that was cut off was done if somebody saw its value.
    let was_done = |op: &&Op| op.returned || op.deed.put().is_some_and(|id| certain.contains(&id));
    let mut clusters: HashMap<u64, Cluster> = HashMap::new();
    let mut moments = Vec::new();
    let mut swaps = HashMap::new();
    let mut faults = Vec::new();
    for op in ops.iter().filter(was_done) {
        for id in [op.deed.put(), op.deed.found()].into_iter().flatten() {
            let cluster = clusters.entry(id).or_insert(Cluster::EMPTY);
            cluster.add(op.start, op.end);
        }
        match op.deed {
            Deed::Swap { from, to } => {
                if let Some(other) = swaps.insert(from, to) {
                    let text = format!("{from} was swapped for {other} and for {to}");
                    faults.push((Fault::SwappedTwice, text));
                }
            }
            Deed::Delete | Deed::Saw(None) => moments.push((op.start, op.end)),
            _ => {}
        }
    }
    for op in ops.iter().filter(|op| op.returned) {
        if let Deed::Missed(id) = op.deed {
            let was_there = clusters
                .get(&id)
                .filter(|was| was.surrounds(op.start, op.end));
            faults.extend(was_there.map(|zone| (Fault::Refused, format!("{op:?}: {zone:?}"))));
        }
    }
    let (chains, out_of_order) = join(&clusters, &swaps);
    faults.extend(out_of_order);
    let mut zones = Vec::new();
    for chain in chains {
        if chain.first_end < chain.last_start {
            zones.push((chain.first_end, chain.last_start));
        } else {
            moments.push((chain.last_start, chain.first_end));
        }
    }
    faults.extend(judge_overlaps(zones, &moments));
    faults
}

/// Joins the clusters of values that were swapped for each other, and whether each was there after
/// the one that it replaced.
fn join(
    clusters: &HashMap<u64, Cluster>,
    swaps: &HashMap<u64, u64>,
) -> (Vec<Cluster>, Vec<(Fault, String)>) {
    let made: HashSet<&u64> = swaps.values().collect();
    let mut faults = Vec::new();
    let first = clusters.iter().filter(|(id, _)| !made.contains(id));
    let chains = first.map(|(first, cluster)| {
        let mut chain = *cluster;
        let mut id = first;
        while let Some(next) = swaps.get(id) {
            let cluster = &clusters[next];
            if cluster.first_end < chain.last_start {
                let text = format!("{next} was there before {id} was gone");
                faults.push((Fault::Interrupted, text));
            }
            chain.add(cluster.last_start, cluster.first_end);
            id = next;
        }
        chain
    });
    (chains.collect(), faults)
}

/// Whether no zone overlaps another, and no moment lies within one.
fn judge_overlaps(mut zones: Vec<(u64, u64)>, moments: &[(u64, u64)]) -> Vec<(Fault, String)> {
    zones.sort_unstable();
    let mut faults = Vec::new();
    for pair in zones.windows(2).filter(|pair| pair[0].1 > pair[1].0) {
        faults.push((Fault::Interrupted, format!("values at {pair:?}")));
    }
    for &(start, end) in moments {
        let before = zones.partition_point(|zone| zone.0 < start);
        let around = before.checked_sub(1).map(|index| zones[index]);
        if let Some(zone) = around.filter(|zone| end < zone.1) {
            let text = format!("{:?} in {zone:?}", (start, end));
            faults.push((Fault::Interrupted, text));
        }
    }
    faults
}

/// A value has the revision its set returned, and later sets have higher ones.
fn judge_revisions(ops: &[Op]) -> Vec<(Fault, String)> {
    let sets = puts_of(ops);
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

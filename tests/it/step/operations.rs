//! The operations that are stepped: what is in the region before, what is done, and what that
//! changes.
//!
//! - `values`: values of all lengths, counters, conditions.
//! - `expiry`: all that has to do with time.
//! - `index`: buckets split, merged, overflown, and their pages.
//! - `room`: pages and memory, full regions, caches.
//! - `sessions`: ephemeral keys, sessions, the feed, and what concerns a whole region.

mod expiry;
mod index;
mod room;
mod sessions;
mod values;

use super::contents::Written;
use super::verify::key_of_shard;
use ganger_region::layout::PAGE_LEN;
use ganger_region::{Config, Region, WhenFull};

/// An operation, known by its name to parent and child.
pub(crate) struct Operation {
    pub(crate) name: &'static str,
    /// Bytes of the region.
    pub(crate) len: u64,
    /// Shards, where the operation is stepped alone.
    pub(crate) shards: u64,
    /// Whether the region evicts; then the changes are learnt from a trial.
    pub(crate) evicts: bool,
    pub(crate) prepare: fn(&Region) -> Plan,
    pub(crate) perform: Perform,
}

/// What the child does between its marks.
pub(crate) enum Perform {
    /// Something on a region that it has attached.
    On(fn(&Region, &Task)),
    /// Attaching.
    Attach,
    /// Detaching, with some ephemeral keys of its own.
    Detach,
}

/// What the operation gets, made before the first mark: only the region's own instructions are to
/// be stepped.
pub(crate) struct Task {
    pub(crate) key: Vec<u8>,
    /// Bytes of the value called `new`, of which the operation takes as many as it wants.
    pub(crate) new: Vec<u8>,
}

impl Task {
    pub(crate) fn new(key: &[u8]) -> Self {
        Self {
            key: key.to_vec(),
            new: value("new", TWO_PAGES),
        }
    }
}

/// What an operation does to which keys.
pub(crate) struct Plan {
    /// The key handed to the operation.
    pub(crate) subject: Vec<u8>,
    /// All keys there are or will be.
    pub(crate) keys: Vec<Vec<u8>>,
    /// How keys read after the operation, if otherwise than before.
    pub(crate) changes: Vec<(Vec<u8>, Option<Written>)>,
}

impl Plan {
    fn new(subject: Vec<u8>, mut keys: Vec<Vec<u8>>, after: Option<Written>) -> Self {
        keys.push(subject.clone());
        Self {
            changes: vec![(subject.clone(), after)],
            subject,
            keys,
        }
    }
}

impl Operation {
    pub(crate) fn named(name: &str) -> &'static Self {
        let mut all = OPERATIONS.into_iter().flatten();
        let found = all.find(|operation| operation.name == name);
        found.unwrap_or_else(|| panic!("no operation is called {name}"))
    }

    pub(crate) fn config(&self, shards: u64) -> Config {
        let when_full = if self.evicts {
            WhenFull::Evict
        } else {
            WhenFull::Reject
        };
        Config::new(self.len)
            .shards(shards)
            .sessions(8)
            .when_full(when_full)
    }
}

pub(crate) use sessions::ephemeral_keys;

/// Bytes that tell which value they are from, at every place.
pub(crate) fn value(name: &str, len: usize) -> Vec<u8> {
    let words = (0..).flat_map(|number: u32| format!("{name}{number:04} ").into_bytes());
    words.take(len).collect()
}

const SMALL: u64 = 1 << 20;
const HOUR_MS: u64 = 3_600_000;
/// One byte more than fits a block: in pages of its own.
const LARGE: usize = 32_800;
/// One byte more than a page.
const TWO_PAGES: usize = PAGE_LEN as usize + 1;

static OPERATIONS: [&[Operation]; 5] = [
    values::OPERATIONS,
    expiry::OPERATIONS,
    index::OPERATIONS,
    room::OPERATIONS,
    sessions::OPERATIONS,
];

const fn on(
    name: &'static str,
    prepare: fn(&Region) -> Plan,
    perform: fn(&Region, &Task),
) -> Operation {
    Operation {
        name,
        len: SMALL,
        shards: 1,
        evicts: false,
        prepare,
        perform: Perform::On(perform),
    }
}

fn set_new(region: &Region, task: &Task, len: usize) {
    region.set(&task.key, &task.new[..len]).unwrap();
}

fn delete(region: &Region, task: &Task) {
    assert!(region.delete(&task.key).unwrap());
}

fn incr(region: &Region, task: &Task) {
    assert!(region.incr(&task.key, 1).unwrap() > 0);
}

fn subject(region: &Region) -> Vec<u8> {
    key_of_shard(region, 0, "subject", 0)
}

/// So many keys of the first shard, with values of 40 bytes.
fn fill(region: &Region, count: usize) -> Vec<Vec<u8>> {
    let keys = (0..count).map(|number| key_of_shard(region, 0, "bystander", number));
    let keys: Vec<_> = keys.collect();
    for (number, key) in keys.iter().enumerate() {
        let bystander = value(&format!("bystander {number} "), 40);
        region.set(key, &bystander).unwrap();
    }
    keys
}

fn inserting(region: &Region, bystanders: usize, len: usize) -> Plan {
    let keys = fill(region, bystanders);
    Plan::new(
        subject(region),
        keys,
        Some(Written::plain(&value("new", len))),
    )
}

fn replacing(region: &Region, old: usize, new: usize) -> Plan {
    let plan = inserting(region, 12, new);
    region.set(&plan.subject, &value("old", old)).unwrap();
    plan
}

fn deleting(region: &Region, len: usize) -> Plan {
    let plan = replacing(region, len, 0);
    Plan::new(plan.subject, plan.keys, None)
}

fn counting(region: &Region, from: Option<i64>) -> Plan {
    let plan = inserting(region, 12, 0);
    if let Some(from) = from {
        region.incr(&plan.subject, from).unwrap();
    }
    let sum = from.unwrap_or(0) + 1;
    Plan::new(plan.subject, plan.keys, Some(Written::counter(sum)))
}

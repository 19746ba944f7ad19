//! The operations that are stepped: what is in the region before, what is done, and what that
//! changes.

use super::contents::Written;
use super::image::Image;
use super::verify::key_of_shard;
use ganger_region::{Config, Options, Region, SetOptions, WhenFull};

/// An operation, known by its name to parent and child.
pub(crate) struct Operation {
    pub(crate) name: &'static str,
    /// Bytes of the region.
    pub(crate) len: u64,
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
            new: value("new", LARGE),
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
        let found = OPERATIONS.iter().find(|operation| operation.name == name);
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

/// Keys of the child that detaches.
pub(crate) fn ephemeral_keys(region: &Region) -> Vec<Vec<u8>> {
    (0..3)
        .map(|number| key_of_shard(region, 0, "ephemeral", number))
        .collect()
}

/// Bytes that tell which value they are from, at every place.
pub(crate) fn value(name: &str, len: usize) -> Vec<u8> {
    let words = (0..).flat_map(|number: u32| format!("{name}{number:04} ").into_bytes());
    words.take(len).collect()
}

/// Most entries of a shard with the 16 buckets that it begins with.
const UNSPLIT_MAX: usize = 48;
const SMALL: u64 = 1 << 20;
/// For regions that are to be full: each image takes as long as there are bytes to read.
const TINY: u64 = 640 << 10;
const HOUR_MS: u64 = 3_600_000;
/// One byte more than fits a block: in pages of its own.
const LARGE: usize = 32_800;

const fn on(
    name: &'static str,
    prepare: fn(&Region) -> Plan,
    perform: fn(&Region, &Task),
) -> Operation {
    Operation {
        name,
        len: SMALL,
        evicts: false,
        prepare,
        perform: Perform::On(perform),
    }
}

static OPERATIONS: &[Operation] = &[
    on(
        "insert",
        |region| inserting(region, 12, 40),
        |region, task| set_new(region, task, 40),
    ),
    on(
        "insert_that_commits_memory",
        |region| inserting(region, 0, 40),
        |region, task| set_new(region, task, 40),
    ),
    on(
        "insert_that_claims_a_page",
        |region| inserting(region, 12, 300),
        |region, task| set_new(region, task, 300),
    ),
    on(
        "insert_that_splits_a_bucket",
        |region| inserting(region, UNSPLIT_MAX, 40),
        |region, task| set_new(region, task, 40),
    ),
    on(
        "insert_that_splits_an_overflowing_bucket",
        |region| {
            let mut keys = crowd(region, 10);
            let rest = fill(region, UNSPLIT_MAX - keys.len());
            keys.extend(rest);
            Plan::new(
                subject(region),
                keys,
                Some(Written::plain(&value("new", 40))),
            )
        },
        |region, task| set_new(region, task, 40),
    ),
    on(
        "insert_that_overflows_a_bucket",
        |region| {
            let mut keys = crowd(region, 8);
            let subject = keys.pop().unwrap();
            assert!(region.delete(&subject).unwrap());
            Plan::new(subject, keys, Some(Written::plain(&value("new", 40))))
        },
        |region, task| set_new(region, task, 40),
    ),
    on(
        "replace_in_the_same_class",
        |region| replacing(region, 40, 40),
        |region, task| set_new(region, task, 40),
    ),
    on(
        "replace_in_another_class",
        |region| replacing(region, 40, 300),
        |region, task| set_new(region, task, 300),
    ),
    on(
        "replace_small_by_large",
        |region| replacing(region, 40, LARGE),
        |region, task| set_new(region, task, LARGE),
    ),
    on(
        "replace_large_by_small",
        |region| replacing(region, LARGE, 40),
        |region, task| set_new(region, task, 40),
    ),
    on("delete", |region| deleting(region, 40), delete),
    on(
        "delete_that_gives_a_page_back",
        |region| deleting(region, 300),
        delete,
    ),
    on(
        "delete_a_large_value",
        |region| deleting(region, LARGE),
        delete,
    ),
    on(
        "delete_that_shortens_a_chain",
        |region| {
            let mut keys = crowd(region, 8);
            let subject = keys.remove(0);
            Plan::new(subject, keys, None)
        },
        delete,
    ),
    on(
        "delete_that_merges_buckets",
        |region| {
            // The shard has 17 buckets now; with fewer entries than that it merges two.
            let mut keys = fill(region, UNSPLIT_MAX + 1);
            for key in keys.drain(17..) {
                assert!(region.delete(&key).unwrap());
            }
            let subject = keys.pop().unwrap();
            Plan::new(subject, keys, None)
        },
        delete,
    ),
    on("incr_a_new_counter", |region| counting(region, None), incr),
    on("incr_in_place", |region| counting(region, Some(41)), incr),
    on(
        "append",
        |region| {
            let plan = replacing(region, 40, 0);
            let whole = [value("old", 40), value("new", 40)].concat();
            Plan::new(plan.subject, plan.keys, Some(Written::plain(&whole)))
        },
        |region, task| {
            assert_eq!(region.append(&task.key, &task.new[..40]).unwrap(), 80);
        },
    ),
    on(
        "update",
        |region| replacing(region, 40, 40),
        |region, task| {
            let new = region.update(&task.key, |old| old.map(|_| task.new[..40].to_vec()));
            assert_eq!(new.unwrap().as_deref(), Some(&task.new[..40]));
        },
    ),
    on(
        "expire",
        |region| {
            let plan = replacing(region, 40, 40);
            let after = Written::plain(&value("old", 40))
                .expiring(HOUR_MS)
                .keeping_revision();
            Plan::new(plan.subject, plan.keys, Some(after))
        },
        |region, task| assert!(region.expire(&task.key, HOUR_MS).unwrap()),
    ),
    on(
        "persist",
        |region| {
            let plan = replacing(region, 40, 40);
            assert!(region.expire(&plan.subject, HOUR_MS).unwrap());
            let after = Written::plain(&value("old", 40)).keeping_revision();
            Plan::new(plan.subject, plan.keys, Some(after))
        },
        |region, task| assert!(region.persist(&task.key).unwrap()),
    ),
    on(
        "set_with_expiry",
        |region| {
            let plan = inserting(region, 12, 40);
            let after = Written::plain(&value("new", 40)).expiring(HOUR_MS);
            Plan::new(plan.subject, plan.keys, Some(after))
        },
        |region, task| {
            let options = SetOptions::new().ttl_ms(HOUR_MS);
            let set = region.set_with(&task.key, &task.new[..40], options);
            assert!(set.unwrap().is_some());
        },
    ),
    on(
        "set_over_an_expired_key",
        |region| {
            let plan = inserting(region, 12, 40);
            expired(region, &plan.subject);
            plan
        },
        |region, task| set_new(region, task, 40),
    ),
    on("sweep", sweeping, |region, _| {
        assert_eq!(region.sweep().unwrap(), 3);
    }),
    // The others' writes sweep as well.
    on("sweep_among_others", sweeping, |region, _| {
        assert!(region.sweep().unwrap() <= 3);
    }),
    on("clear", clearing, |region, _| {
        assert_eq!(region.clear().unwrap(), 12);
    }),
    // Their keys go too, if they are there before their bucket's turn.
    on("clear_among_others", clearing, |region, _| {
        assert!((12..=14).contains(&region.clear().unwrap()));
    }),
    on(
        "set_ephemeral",
        |region| {
            let plan = inserting(region, 12, 40);
            let after = Written::plain(&value("new", 40)).ephemeral();
            Plan::new(plan.subject, plan.keys, Some(after))
        },
        |region, task| {
            let set = region.set_with(&task.key, &task.new[..40], SetOptions::new().ephemeral());
            assert!(set.unwrap().is_some());
        },
    ),
    on(
        "reap",
        |region| {
            let mut keys = fill(region, 12);
            let dying = ephemeral_keys(region);
            for key in &dying {
                let set = region.set_with(key, b"mine", SetOptions::new().ephemeral());
                assert!(set.unwrap().is_some());
            }
            keys.extend_from_slice(&dying);
            Plan {
                subject: keys[0].clone(),
                keys,
                changes: dying.into_iter().map(|key| (key, None)).collect(),
            }
        },
        |region, _| assert_eq!(region.reap().unwrap().ephemeral, 3),
    ),
    on(
        "turn_the_feed_on",
        |region| unchanged(fill(region, 12)),
        |region, _| drop(region.feed().unwrap()),
    ),
    on(
        "set_with_feed",
        |region| fed(region, replacing(region, 40, 40)),
        |region, task| {
            set_new(region, task, 40);
        },
    ),
    on(
        "delete_with_feed",
        |region| fed(region, deleting(region, 40)),
        delete,
    ),
    on(
        "incr_with_feed",
        |region| fed(region, counting(region, Some(41))),
        incr,
    ),
    Operation {
        len: TINY,
        evicts: true,
        ..on("insert_that_evicts", crowded, |region, task| {
            set_new(region, task, 9000)
        })
    },
    Operation {
        len: TINY,
        evicts: true,
        ..on("insert_that_evicts_a_page", crowded, |region, task| {
            set_new(region, task, 40)
        })
    },
    Operation {
        evicts: true,
        ..on(
            "replace_in_a_cache",
            |region| replacing(region, 40, 40),
            |region, task| {
                set_new(region, task, 40);
            },
        )
    },
    on(
        "inherit",
        |_| panic!("an heir gets a region that somebody left"),
        |region, task| set_new(region, task, 40),
    ),
    Operation {
        len: 8 << 20,
        ..on("delete_that_gives_memory_back", giving_back, delete)
    },
    Operation {
        perform: Perform::Attach,
        ..on(
            "attach_a_session",
            |region| unchanged(fill(region, 12)),
            |_, _| {},
        )
    },
    Operation {
        perform: Perform::Detach,
        ..on(
            "detach",
            |region| {
                let mut keys = fill(region, 12);
                let own = ephemeral_keys(region);
                keys.extend_from_slice(&own);
                Plan {
                    subject: keys[0].clone(),
                    keys,
                    changes: own.into_iter().map(|key| (key, None)).collect(),
                }
            },
            |_, _| {},
        )
    },
];

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

fn sweeping(region: &Region) -> Plan {
    let plan = inserting(region, 12, 40);
    let mut keys = plan.keys;
    for number in 0..3 {
        keys.push(key_of_shard(region, 0, "short-lived", number));
        expired(region, keys.last().unwrap());
    }
    Plan {
        subject: plan.subject,
        keys,
        changes: Vec::new(),
    }
}

fn clearing(region: &Region) -> Plan {
    let keys = fill(region, 12);
    Plan {
        subject: keys[0].clone(),
        changes: keys.iter().map(|key| (key.clone(), None)).collect(),
        keys,
    }
}

fn unchanged(keys: Vec<Vec<u8>>) -> Plan {
    Plan {
        subject: keys[0].clone(),
        keys,
        changes: Vec::new(),
    }
}

fn fed(region: &Region, plan: Plan) -> Plan {
    drop(region.feed().unwrap());
    plan
}

/// So many keys in the first bucket of the first shard.
fn crowd(region: &Region, count: usize) -> Vec<Vec<u8>> {
    let mapping = super::image::Mapping::new(region.fd().unwrap(), region.declared_len());
    let mut keys = Vec::new();
    for number in 0.. {
        let key = key_of_shard(region, 0, "crowd", number);
        region.set(&key, &value("crowd", 40)).unwrap();
        if keys.len() >= 7 {
            // The bucket is full: a key of it is not in any inline bucket, which the others are.
            if Image::take(&mapping).find(&key).is_none() {
                keys.push(key.clone());
            }
        } else if Image::take(&mapping)
            .find(&key)
            .is_some_and(|(_, bucket)| bucket == 0)
        {
            keys.push(key.clone());
        }
        if keys.last() != Some(&key) {
            assert!(region.delete(&key).unwrap());
        }
        if keys.len() == count {
            break;
        }
    }
    keys
}

/// A key that is there, but expired. Whoever writes it has a clock that stands still when the system
/// began, and so sweeps no others.
fn expired(region: &Region, key: &[u8]) {
    let fd = region.fd().unwrap().try_clone_to_owned().unwrap();
    let past = Region::from_fd(fd, Options::new().clock(|| 1)).unwrap();
    let options = SetOptions::new().ttl_ms(1);
    past.set_with(key, &value("expired", 40), options).unwrap();
    assert!(past.exists(key).unwrap() && !region.exists(key).unwrap());
}

/// A cache that is full of values of one class.
fn crowded(region: &Region) -> Plan {
    let mut keys = Vec::new();
    while region.stats().evicted == 0 {
        let key = key_of_shard(region, 0, "bystander", keys.len());
        region
            .set(&key, &value(&format!("bystander {} ", keys.len()), 9000))
            .unwrap();
        keys.push(key);
    }
    Plan {
        subject: subject(region),
        keys: [keys, vec![subject(region)]].concat(),
        changes: Vec::new(),
    }
}

/// More free pages than the pool keeps: those of the next large value go back to the system.
fn giving_back(region: &Region) -> Plan {
    let len = usize::try_from(region.value_len_max()).unwrap();
    let mut plan = deleting(region, len);
    let others: Vec<_> = (0..2)
        .map(|number| key_of_shard(region, 0, "other", number))
        .collect();
    for key in &others {
        region.set(key, &value("other", len)).unwrap();
    }
    for key in &others {
        assert!(region.delete(key).unwrap());
    }
    plan.keys.extend(others);
    assert!(region.stats().pages_free > 60);
    plan
}

//! Pages and memory taken and given back, and regions that are full: with something expired, with
//! nothing to give, and caches.

use super::super::contents::Written;
use super::super::verify::key_of_shard;
use super::expiry::wait_until_gone;
use super::{
    delete, deleting, inserting, on, set_new, subject, value, Operation, Plan, Task, LARGE,
    TWO_PAGES,
};
use ganger_region::{Region, WriteError};

/// For regions that are to be full: each image takes as long as there are bytes to read.
const TINY: u64 = 640 << 10;
/// Values of which two fill a page.
const HALF_A_PAGE: usize = 32_000;

pub(super) static OPERATIONS: &[Operation] = &[
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
        "delete_that_gives_a_page_back",
        |region| deleting(region, 300),
        delete,
    ),
    Operation {
        len: 8 << 20,
        ..on("delete_that_gives_memory_back", giving_back, delete)
    },
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
        len: TINY,
        shards: 2,
        ..on(
            "insert_that_finds_room_in_another_shard",
            |region| {
                let stale = key_of_shard(region, 1, "stale", 0);
                region.set(&stale, &value("stale", TWO_PAGES)).unwrap();
                let mut keys = stuff(region);
                assert!(region.expire(&stale, 1).unwrap());
                wait_until_gone(region, &stale);
                keys.push(stale);
                let new = Written::plain(&value("new", 40));
                Plan::new(subject(region), keys, Some(new))
            },
            |region, task| set_new(region, task, 40),
        )
    },
    Operation {
        len: TINY,
        ..on(
            "insert_that_uses_the_spare_block",
            |region| {
                // Of the long value, whose page has nothing else.
                let key = key_of_shard(region, 0, "replaced", 0);
                region.set(&key, &value("long", 20_000)).unwrap();
                region.set(&key, &value("short", 40)).unwrap();
                let small = small(region);
                let keys = [stuff(region), vec![key, small]].concat();
                let new = Written::plain(&value("new", 300));
                Plan::new(subject(region), keys, Some(new))
            },
            |region, task| set_new(region, task, 300),
        )
    },
    Operation {
        len: TINY,
        ..on(
            "insert_that_is_refused",
            |region| {
                let keys = stuff_but_one(region);
                unchanged_with(keys, subject(region))
            },
            |region, task| refused(region, task, LARGE),
        )
    },
    Operation {
        len: TINY,
        ..on(
            "replace_that_is_refused",
            |region| {
                region.set(&subject(region), &value("old", 40)).unwrap();
                let small = small(region);
                let keys = [stuff_but_one(region), vec![small]].concat();
                unchanged_with(keys, subject(region))
            },
            |region, task| refused(region, task, TWO_PAGES),
        )
    },
    Operation {
        len: TINY,
        shards: 2,
        evicts: true,
        ..on(
            "insert_that_evicts_in_another_shard",
            |region| crowded_in(region, 1),
            |region, task| set_new(region, task, 40),
        )
    },
];

/// A cache that is full of values of one class.
fn crowded(region: &Region) -> Plan {
    crowded_in(region, 0)
}

fn crowded_in(region: &Region, shard: u64) -> Plan {
    let mut keys = Vec::new();
    while region.stats().evicted == 0 {
        let key = key_of_shard(region, shard, "bystander", keys.len());
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

/// An entry beside which there is room for the next write, and for the list of a large value's pages.
fn small(region: &Region) -> Vec<u8> {
    let key = key_of_shard(region, 0, "small", 0);
    region.set(&key, b"small").unwrap();
    key
}

/// Fills all pages, but for the half of one that may be left; the write after it finds none.
fn stuff(region: &Region) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    while region.stats().pages_used < region.stats().pages {
        keys.push(key_of_shard(region, 0, "stuffing", keys.len()));
        region
            .set(keys.last().unwrap(), &value("stuffing", HALF_A_PAGE))
            .unwrap();
    }
    keys
}

/// Fills all pages but one.
fn stuff_but_one(region: &Region) -> Vec<Vec<u8>> {
    let mut keys = stuff(region);
    // The first block in the last page.
    assert!(region.delete(&keys.pop().unwrap()).unwrap());
    assert_eq!(region.stats().pages_used, region.stats().pages - 1);
    keys
}

fn unchanged_with(keys: Vec<Vec<u8>>, subject: Vec<u8>) -> Plan {
    Plan {
        keys: [keys, vec![subject.clone()]].concat(),
        subject,
        changes: Vec::new(),
    }
}

fn refused(region: &Region, task: &Task, len: usize) {
    let set = region.set(&task.key, &task.new[..len]);
    assert!(matches!(set, Err(WriteError::Full)), "{set:?}");
}

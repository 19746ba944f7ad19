//! Buckets split, merged, overflown and given up, with the pages that hold them.

use super::super::contents::Written;
use super::super::image::{Image, Mapping};
use super::super::verify::key_of_shard;
use super::{delete, fill, inserting, on, set_new, subject, value, Operation, Plan};
use ganger_region::layout::PAGE_BUCKETS;
use ganger_region::Region;

/// Most entries of a shard with the 16 buckets that it begins with.
const UNSPLIT_MAX: usize = 48;
/// And of one whose buckets fill an index page.
const PAGE_ENTRIES: usize = 3 * PAGE_BUCKETS as usize;

pub(super) static OPERATIONS: &[Operation] = &[
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
    on(
        "insert_that_splits_into_another_index_page",
        |region| inserting(region, PAGE_ENTRIES, 40),
        |region, task| set_new(region, task, 40),
    ),
    on(
        "delete_that_merges_an_index_page_away",
        |region| {
            // One bucket is in the second page now.
            let mut keys = fill(region, PAGE_ENTRIES + 1);
            for key in keys.drain(PAGE_BUCKETS as usize + 1..) {
                assert!(region.delete(&key).unwrap());
            }
            let subject = keys.pop().unwrap();
            Plan::new(subject, keys, None)
        },
        delete,
    ),
    on("delete_that_forgets_buckets", forgetting, delete),
];

/// So many keys in the first bucket of the first shard.
fn crowd(region: &Region, count: usize) -> Vec<Vec<u8>> {
    let mapping = Mapping::new(region.fd().unwrap(), region.declared_len());
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

/// The last entry of a shard that has more buckets than it begins with: as long as two buckets had too
/// many entries to be merged, none was.
fn forgetting(region: &Region) -> Plan {
    let crowded = crowd_of_merged(region, 33);
    let others = fill(region, 150 - crowded.len());
    for key in &crowded {
        region.set(key, &value("crowd", 40)).unwrap();
    }
    assert_eq!(region.stats().buckets - region.stats().shards * 16, 34);
    for key in others.iter().chain(&crowded[1..]) {
        assert!(region.delete(key).unwrap());
    }
    Plan::new(crowded[0].clone(), Vec::new(), None)
}

/// So many names that belong in bucket 17 of 32, or in the last of 50, which is merged into that.
fn crowd_of_merged(region: &Region, count: usize) -> Vec<Vec<u8>> {
    let mapping = Mapping::new(region.fd().unwrap(), region.declared_len());
    let names = (0..).map(|number| key_of_shard(region, 0, "crowd", number));
    let belongs = |key: &Vec<u8>| {
        region.set(key, b"").unwrap();
        let hash = Image::take(&mapping).hash(key).unwrap();
        assert!(region.delete(key).unwrap());
        hash % 32 == 17
    };
    names.filter(belongs).take(count).collect()
}

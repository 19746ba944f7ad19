//! Takeover and repair can be killed as well: a second child finds a shard whose holder died in the
//! middle of a write, and is stepped through the write that takes the lock over. Every image of
//! that is verified in turn.

use super::contents::Written;
use super::image::{Change, Image, Scratch};
use super::operations::{value, Operation, Plan};
use super::verify::{attach, key_of_shard, Checker};
use super::{changes_of_trial, Stage, Walked, STUCK};
use crate::harness::Watchdog;
use crate::tracer::{OneProcessor, Stop};
use ganger_region::Access;

/// Images of an operation that are handed to an heir each.
const ESTATES: usize = if cfg!(debug_assertions) { 1 } else { 3 };
/// Images of an operation that are kept, of all those in which its shard is locked: some have hundreds.
const KEPT_MAX: usize = 32;

macro_rules! repairs_after {
    ($($(#[$attribute:meta])* $test:ident: $operation:ident),* $(,)?) => {
        $(
            #[test]
            $(#[$attribute])*
            fn $test() {
                prove_repairs_after(stringify!($operation));
            }
        )*
    };
}

repairs_after!(
    repair_of_a_commit: insert_that_commits_memory,
    repair_of_a_page_claim: insert_that_claims_a_page,
    repair_of_a_small_split: insert_that_splits_a_bucket,
    repair_of_a_split: insert_that_splits_an_overflowing_bucket,
    repair_of_an_overflow: insert_that_overflows_a_bucket,
    #[ignore = "millions of instructions: a minute or two"]
    repair_of_an_index_page_claim: insert_that_splits_into_another_index_page,
    repair_of_a_replace: replace_in_the_same_class,
    repair_of_a_replace_in_another_class: replace_in_another_class,
    repair_of_a_large_insert: replace_small_by_large,
    repair_of_a_large_replace: replace_large_by_small,
    repair_of_a_delete: delete,
    repair_of_a_page_return: delete_that_gives_a_page_back,
    repair_of_a_large_delete: delete_a_large_value,
    repair_of_a_compaction: delete_that_shortens_a_chain,
    repair_of_a_merge: delete_that_merges_buckets,
    #[ignore = "millions of instructions: a minute or two"]
    repair_of_an_index_page_return: delete_that_merges_an_index_page_away,
    repair_of_a_forgetting: delete_that_forgets_buckets,
    repair_of_a_memory_return: delete_that_gives_memory_back,
    repair_of_a_counter: incr_in_place,
    repair_of_an_append: append,
    repair_of_a_set_over_an_expired_key: set_over_an_expired_key,
    repair_of_a_sweep: sweep,
    repair_of_a_clear: clear,
    repair_of_an_ephemeral: set_ephemeral,
    repair_of_a_reap: reap,
    repair_with_feed: set_with_feed,
    repair_of_an_eviction: insert_that_evicts,
    repair_of_a_refusal: replace_that_is_refused,
    repair_of_an_eviction_in_another_shard: insert_that_evicts_in_another_shard,
    repair_of_room_in_another_shard: insert_that_finds_room_in_another_shard,
    repair_of_a_page_eviction: insert_that_evicts_a_page,
    repair_in_a_cache: replace_in_a_cache,
);

fn prove_repairs_after(name: &'static str) {
    let _watchdog = Watchdog::new(name, STUCK);
    let _one = OneProcessor::new();
    let operation = Operation::named(name);
    let stage = Stage::new(operation, operation.shards);
    let estates = held_images(&stage);
    let mut all = Walked::default();
    for number in 0..ESTATES {
        // The last images of the write have the most done and the least settled, so they are always
        // among them.
        let image = &estates[(estates.len() - 1) * (number + 1) / ESTATES];
        let walked = inherit(&stage, image, Scratch::new(image.bytes()));
        all.boundaries += walked.boundaries;
        all.images += walked.images;
    }
    all.tell(&format!("{ESTATES} repairs after {name}"));
    assert!(all.images >= 10 * ESTATES as u64);
}

/// A writer that is really killed, in the middle of moving entries, with its death proven by the
/// kernel.
#[test]
fn repair_after_a_real_kill() {
    let name = "insert_that_splits_a_bucket";
    let _watchdog = Watchdog::new(name, STUCK);
    let _one = OneProcessor::new();
    let stage = Stage::new(Operation::named(name), 1);
    let mut child = stage.child();
    let mut image = Image::take(&stage.file.mapping);
    let root = image.root(0);
    while image.root(0) == root {
        assert_eq!(child.step(), Stop::Instruction, "the insert did not split");
        image.follow(&stage.file.mapping);
    }
    assert_ne!(image.lock(0), 0, "a split without the lock");
    // Alive, however long it stands there.
    let patient = attach(&stage.file, Access::ReadOnly).unwrap();
    assert_eq!(patient.stats().repairs, 0);
    drop(patient);
    child.kill();
    let Stage {
        operation,
        file,
        plan,
    } = stage;
    let stage = Stage {
        operation,
        file: Scratch::new(image.bytes()),
        plan,
    };
    inherit(&stage, &image, file).tell("repair after a real kill");
}

/// Images of an operation in which the shard is locked, from the first to the last.
fn held_images(stage: &Stage) -> Vec<Image> {
    let mut child = stage.child();
    let mut held = Vec::new();
    let mut last = None;
    let (mut number, mut every) = (0_usize, 1);
    stage.walk(&mut child, |image, change| {
        // Fillings of values, word by word, are not worth their room.
        if image.lock(0) == 0 || (change == Change::Pages && number >= 64) {
            return;
        }
        last = Some(image.clone());
        number += 1;
        if number.is_multiple_of(every) {
            held.push(image.clone());
        }
        if held.len() > KEPT_MAX {
            every *= 2;
            let mut kept = 0;
            held.retain(|_| {
                kept += 1;
                kept % 2 == 0
            });
        }
    });
    child.release().hear();
    held.extend(last);
    assert!(held.len() >= 4, "the operation held its lock for nothing");
    held
}

/// Steps a write by another child to a region whose last writer died at `image`.
fn inherit(stage: &Stage, image: &Image, file: Scratch) -> Walked {
    let reader = attach(&file, Access::ReadOnly).unwrap();
    let heir = key_of_shard(&reader, 0, "heir", 0);
    assert_eq!(reader.stats().repairs, 0);
    let operation = Operation::named("inherit");
    let mut plan = Plan {
        keys: [stage.plan.keys.clone(), vec![heir.clone()]].concat(),
        changes: vec![(heir.clone(), Some(Written::plain(&value("new", 40))))],
        subject: heir,
    };
    if image.evicts() {
        plan.changes = changes_of_trial(operation, image, &plan);
    }
    let stage = Stage {
        operation,
        file,
        plan,
    };
    let mut child = stage.child();
    let start = Image::take(&stage.file.mapping);
    assert_eq!(start.lock(0), image.lock(0), "attaching takes no lock over");
    let mut checker = Checker::new(&start, stage.expected());
    let walked = stage.prove_with(&mut child, &mut checker);
    assert_eq!(reader.stats().repairs, 1, "the lock was not taken over");
    assert_eq!(child.release().hear(), "done");
    walked
}

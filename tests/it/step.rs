//! The proof of "killed at any instruction": a child executes an operation one instruction at a
//! time, and each time the region's bytes have changed, a copy of them is put through everything
//! that has to hold after a kill. The bytes at a stop are what SIGKILL would leave there, so the
//! child need not die for it.
//!
//! - `image`: the bytes, taken from outside.
//! - `contents`: what readers get, and what they may get during a write.
//! - `verify`: what has to hold in each image.
//! - `operations`: what is stepped.
//! - `heirs`: stepping those who take over from the dead.
//! - `alive`: the same stops, but the child lives on, and others work meanwhile.
//! - `births`: regions killed while they are made.
//! - `liars`: writers that do it wrong, to see that the method notices.
//!
//! What is tested is the machine code of this build on this processor. That other orders of the
//! same stores are harmless as well is for the model checker to show.

mod alive;
mod births;
mod contents;
mod heirs;
mod image;
mod liars;
mod operations;
mod verify;

use crate::harness::{self, Watchdog};
use crate::tracer::{be_traced, mark, OneProcessor, Stop, Tracee};
use contents::{observe, Expected, Written};
use ganger_region::{Access, Options, Region, SetOptions};
use image::{Change, Image, Scratch};
use operations::{ephemeral_keys, Operation, Perform, Plan, Task};
use verify::{attach, Checker};

/// Every how many images all of [`Checker::verify`] is run. Unoptimised code takes too long for
/// more; what readers see is verified in every image in any case.
const THOROUGH: u64 = if cfg!(debug_assertions) { 16 } else { 1 };
/// Instructions of an operation that are stepped from its first change on; what is left then runs
/// on its own. Unoptimised code has ten times as many as what is shipped, and each costs tens of
/// microseconds.
const BOUNDARIES_MAX: u64 = if cfg!(debug_assertions) {
    500_000
} else {
    u64::MAX
};
/// Seconds after which a test has to be stuck.
const STUCK: u64 = 600;

/// One test for each operation.
macro_rules! every_instruction_of {
    ($($operation:ident),* $(,)?) => {
        $(
            #[test]
            fn $operation() {
                prove(stringify!($operation));
            }
        )*
    };
}

every_instruction_of!(
    insert,
    insert_that_commits_memory,
    insert_that_claims_a_page,
    insert_that_splits_a_bucket,
    insert_that_splits_an_overflowing_bucket,
    insert_that_overflows_a_bucket,
    insert_that_splits_into_another_index_page,
    replace_in_the_same_class,
    replace_in_another_class,
    replace_small_by_large,
    replace_large_by_small,
    set_if_revision,
    get_or_insert,
    delete,
    delete_if_revision,
    delete_that_gives_a_page_back,
    delete_a_large_value,
    delete_that_shortens_a_chain,
    delete_that_merges_buckets,
    delete_that_merges_an_index_page_away,
    delete_that_forgets_buckets,
    delete_that_gives_memory_back,
    incr_a_new_counter,
    incr_in_place,
    incr_a_new_counter_with_expiry,
    incr_that_keeps_the_expiry,
    incr_of_an_expired_counter,
    append,
    append_in_the_same_class,
    append_that_makes_a_value_large,
    append_to_an_absent_key,
    update,
    update_of_a_counter,
    expire,
    touch,
    persist,
    set_with_expiry,
    set_over_an_expired_key,
    sweep,
    clear,
    set_ephemeral,
    reap,
    turn_the_feed_on,
    set_with_feed,
    delete_with_feed,
    incr_with_feed,
    insert_that_evicts,
    insert_that_evicts_a_page,
    insert_that_evicts_in_another_shard,
    replace_in_a_cache,
    insert_that_finds_room_in_another_shard,
    insert_that_uses_the_spare_block,
    insert_that_is_refused,
    replace_that_is_refused,
    attach_a_session,
    detach,
);

/// A region on which an operation is about to happen.
struct Stage {
    operation: &'static Operation,
    file: Scratch,
    plan: Plan,
}

impl Stage {
    /// Prepares a region. The process that did is dead for all who attach to it from here on.
    fn new(operation: &'static Operation, shards: u64) -> Self {
        let region = Region::create(&operation.config(shards), Options::new()).unwrap();
        let mut plan = (operation.prepare)(&region);
        let mapping = image::Mapping::new(region.fd().unwrap(), region.declared_len());
        let image = Image::take(&mapping);
        if operation.evicts {
            plan.changes = changes_of_trial(operation, &image, &plan);
        }
        Self {
            operation,
            file: Scratch::new(image.bytes()),
            plan,
        }
    }

    /// What readers get now, and what the operation is to make of it.
    fn expected(&self) -> Expected {
        let reader = attach(&self.file, Access::ReadOnly).unwrap();
        let before = observe(&reader, self.plan.keys.iter()).unwrap();
        let start = Image::take(&self.file.mapping);
        Expected::new(&reader, &start, before, &self.plan.changes)
    }

    /// A child that stands right before the operation.
    fn child(&self) -> Tracee {
        let path = harness::path_of(self.file.fd());
        let subject = String::from_utf8(self.plan.subject.clone()).unwrap();
        Tracee::start("step", &[self.operation.name.to_owned(), path, subject])
    }

    /// Steps the child from its mark to the next and calls `each` for every image on the way.
    fn walk(&self, child: &mut Tracee, mut each: impl FnMut(&mut Image, Change)) -> Walked {
        let mut image = Image::take(&self.file.mapping);
        let mut walked = Walked::default();
        let begun_at = child.steps;
        let mut changed_at = None;
        while child.step() == Stop::Instruction {
            let change = image.follow(&self.file.mapping);
            if change != Change::None {
                walked.images += 1;
                changed_at = changed_at.or(Some(child.steps));
                each(&mut image, change);
            }
            if changed_at.is_some_and(|at| child.steps - at == BOUNDARIES_MAX) {
                child.run();
                child.wait_for_mark();
                break;
            }
        }
        walked.boundaries = child.steps - begun_at;
        walked
    }

    /// Steps the operation in a child and verifies every image.
    fn prove(&self) -> Walked {
        let mut child = self.child();
        let start = Image::take(&self.file.mapping);
        let mut checker = Checker::new(&start, self.expected());
        let walked = self.prove_with(&mut child, &mut checker);
        let root = Image::take(&self.file.mapping).root(0);
        let name = self.operation.name;
        let moves = ["_splits_", "_merges_", "_forgets_"].map(|word| name.contains(word));
        assert_eq!(
            root != start.root(0),
            moves.contains(&true),
            "{name} does not do what it says"
        );
        assert_eq!(child.release().hear(), "done");
        walked
    }

    fn prove_with(&self, child: &mut Tracee, checker: &mut Checker) -> Walked {
        let mut number = 0_u64;
        let walked = self.walk(child, |image, _| {
            number += 1;
            let verified = if number.is_multiple_of(THOROUGH) {
                checker.verify(image)
            } else {
                checker.verify_reads(image).map(|_| ())
            };
            if let Err(problem) = verified {
                panic!("{}, image {number}: {problem}", self.operation.name);
            }
        });
        let end = Image::take(&self.file.mapping);
        if let Err(problem) = checker.verify_end(&end) {
            panic!("{}, when done: {problem}", self.operation.name);
        }
        walked
    }
}

/// How far a child was stepped.
#[derive(Debug, Clone, Copy, Default)]
struct Walked {
    boundaries: u64,
    images: u64,
}

impl Walked {
    /// Tells what was tested, and fails if that was next to nothing.
    fn tell(self, what: &str) {
        // Only these two change a handful of words: a session's three, a flag and a lock.
        let few = ["attach_a_session", "turn_the_feed_on"];
        let few = few.iter().any(|few| what.contains(few));
        let images_min = if few { 3 } else { 5 };
        let Self { boundaries, images } = self;
        println!("{what}: {boundaries} boundaries, {images} distinct images");
        assert!(
            boundaries >= 200 && images >= images_min,
            "{what} was not really stepped"
        );
    }
}

fn prove(name: &'static str) {
    let _watchdog = Watchdog::new(name, STUCK);
    let _one = OneProcessor::new();
    let operation = Operation::named(name);
    let stage = Stage::new(operation, operation.shards);
    stage.prove().tell(name);
}

/// What an eviction drops follows from the region's bytes, so a copy of them tells.
fn changes_of_trial(
    operation: &Operation,
    image: &Image,
    plan: &Plan,
) -> Vec<(Vec<u8>, Option<Written>)> {
    let trial = Scratch::new(image.bytes());
    let region = attach(&trial, Access::ReadWrite).unwrap();
    let before = observe(&region, plan.keys.iter()).unwrap();
    // Reading marked all entries as visited, which the operation's own region is not.
    drop(region);
    let trial = Scratch::new(image.bytes());
    let region = attach(&trial, Access::ReadWrite).unwrap();
    let Perform::On(perform) = operation.perform else {
        panic!("only operations on a region evict");
    };
    perform(&region, &Task::new(&plan.subject));
    let after = observe(&region, plan.keys.iter()).unwrap();
    assert!(after[&plan.subject].is_some());
    let changed = after.into_iter().filter(|(key, seen)| &before[key] != seen);
    changed
        .map(|(key, seen)| (key, seen.as_ref().map(Written::of_trial)))
        .collect()
}

pub(crate) use alive::play_rounds;
pub(crate) use births::play_birth;
pub(crate) use liars::play_liar;

/// The child's part: attaches, and does the operation between two marks.
pub(crate) fn play(operation: &str, path: &str, subject: &str) {
    let attach = || Region::from_fd(harness::open(path), Options::new()).unwrap();
    let region = match Operation::named(operation).perform {
        Perform::On(perform) => {
            let region = attach();
            let task = Task::new(subject.as_bytes());
            be_traced();
            perform(&region, &task);
            mark();
            Some(region)
        }
        Perform::Attach => {
            be_traced();
            let region = attach();
            mark();
            Some(region)
        }
        Perform::Detach => {
            let region = attach();
            for key in ephemeral_keys(&region) {
                let set = region.set_with(&key, b"mine", SetOptions::new().ephemeral());
                assert!(set.unwrap().is_some());
            }
            be_traced();
            drop(region);
            mark();
            None
        }
    };
    harness::report("done");
    // The session goes with the process.
    std::mem::forget(region);
}

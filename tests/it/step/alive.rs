//! The same stops, but nobody is killed: a child that stands still in the middle of a write is
//! alive, however long it stands there. Others read and write meanwhile, nobody takes its lock
//! over, and when it goes on it finishes what it began. This is what breaks every takeover that
//! trusts a timeout.

use super::contents::{observe, Expected, Written};
use super::image::{Change, Image, Mapping};
use super::operations::{value, Operation};
use super::verify::{audit, key_of_shard, Checker};
use super::{Stage, Walked, STUCK};
use crate::harness::{self, Watchdog};
use crate::tracer::{be_traced, mark, OneProcessor, Stop, Tracee};
use ganger_region::{Config, Options, Region, WriteError};
use std::ops::Range;
use std::time::Duration;

/// Patience of the writer that meets the child's lock.
const SHORT: Duration = Duration::from_millis(2);
/// Every how many images the others get to work.
const PAUSE_EVERY: u64 = if cfg!(debug_assertions) { 4 } else { 1 };
/// Images that differ in contents of pages only, at all of which the others get to work; then at every
/// so many. They are the filling of values, word by word, and each costs the others their patience.
const PAGES_ALL: u64 = 64;
const PAGES_EVERY: u64 = 64;
/// Pairs of stops.
const PAIRS: u64 = if cfg!(debug_assertions) { 8 } else { 40 };

/// The number of the round that is stepped alone: the first inserts a key, the second finds no block that
/// was left by a replaced value, and all after it are alike.
const MEASURED: u64 = 2;

macro_rules! paused_during {
    ($($test:ident: $operation:ident),* $(,)?) => {
        $(
            #[test]
            fn $test() {
                prove_paused_during(stringify!($operation));
            }
        )*
    };
}

paused_during!(
    paused_insert: insert,
    paused_commit: insert_that_commits_memory,
    paused_page_claim: insert_that_claims_a_page,
    paused_small_split: insert_that_splits_a_bucket,
    paused_split: insert_that_splits_an_overflowing_bucket,
    paused_overflow: insert_that_overflows_a_bucket,
    paused_index_page_claim: insert_that_splits_into_another_index_page,
    paused_small_replace: replace_in_the_same_class,
    paused_replace: replace_in_another_class,
    paused_large_insert: replace_small_by_large,
    paused_large_replace: replace_large_by_small,
    paused_set_if_revision: set_if_revision,
    paused_get_or_insert: get_or_insert,
    paused_small_delete: delete,
    paused_delete_if_revision: delete_if_revision,
    paused_page_return: delete_that_gives_a_page_back,
    paused_large_delete: delete_a_large_value,
    paused_compaction: delete_that_shortens_a_chain,
    paused_merge: delete_that_merges_buckets,
    paused_index_page_return: delete_that_merges_an_index_page_away,
    paused_forgetting: delete_that_forgets_buckets,
    paused_memory_return: delete_that_gives_memory_back,
    paused_new_counter: incr_a_new_counter,
    paused_counter: incr_in_place,
    paused_new_counter_with_expiry: incr_a_new_counter_with_expiry,
    paused_counter_with_expiry: incr_that_keeps_the_expiry,
    paused_expired_counter: incr_of_an_expired_counter,
    paused_append: append,
    paused_small_append: append_in_the_same_class,
    paused_large_append: append_that_makes_a_value_large,
    paused_first_append: append_to_an_absent_key,
    paused_update: update,
    paused_update_of_a_counter: update_of_a_counter,
    paused_expire: expire,
    paused_touch: touch,
    paused_persist: persist,
    paused_set_with_expiry: set_with_expiry,
    paused_set_over_an_expired_key: set_over_an_expired_key,
    paused_sweep: sweep_among_others,
    paused_clear: clear_among_others,
    paused_ephemeral: set_ephemeral,
    paused_reap: reap,
    paused_feed: turn_the_feed_on,
    paused_with_feed: set_with_feed,
    paused_delete_with_feed: delete_with_feed,
    paused_counter_with_feed: incr_with_feed,
    paused_eviction: insert_that_evicts,
    paused_page_eviction: insert_that_evicts_a_page,
    paused_replace_in_a_cache: replace_in_a_cache,
    paused_attach: attach_a_session,
    paused_detach: detach,
);

/// Lets another handle read and write while a child stands still at each of its images.
fn prove_paused_during(name: &'static str) {
    let _watchdog = Watchdog::new(name, STUCK);
    let _one = OneProcessor::new();
    let stage = Stage::new(Operation::named(name), 2);
    let mut others = Others::new(&stage);
    let mut child = stage.child();
    let expected = stage.expected();
    let (mut number, mut pages_only, mut held) = (0_u64, 0_u64, 0);
    let pid = u64::try_from(child.pid()).unwrap();
    let walked = stage.walk(&mut child, |image, change| {
        number += 1;
        pages_only += u64::from(change == Change::Pages);
        let sampled = change == Change::Pages && pages_only > PAGES_ALL;
        let every = if sampled { PAGES_EVERY } else { PAUSE_EVERY };
        if !number.is_multiple_of(every) {
            return;
        }
        let seen = observe(&others.region, stage.plan.keys.iter()).unwrap();
        for (key, seen) in &seen {
            let known = expected.is_before(key, seen) || expected.is_after(key, seen);
            let known = known || others.may_lose && seen.is_none();
            assert!(known, "{name}, image {number}: {key:?} reads {seen:?}");
        }
        let holders = [0, 1].map(|shard| (image.lock(shard) != 0).then_some(pid));
        held += u64::from(holders != [None; 2]);
        others.write(holders);
        // What the others did is no news of the child's.
        image.follow(&stage.file.mapping);
    });
    // Attaching takes no shard's lock.
    let locks = name != "attach_a_session";
    assert_eq!(held > 0, locks, "how often the child stood with a lock");
    assert_eq!(child.release().hear(), "done");
    for (key, seen) in observe(&others.region, stage.plan.keys.iter()).unwrap() {
        let gone = others.may_lose && seen.is_none() && key != stage.plan.subject;
        let done = expected.is_after(&key, &seen);
        assert!(done || gone, "{name}, when done: {key:?} reads {seen:?}");
    }
    others.verify();
    audit(&others.region).unwrap();
    assert_eq!(others.region.stats().repairs, 0, "nobody died");
    walked.tell(&format!(
        "pauses during {name}, {held} of them with a lock held"
    ));
}

/// A process that uses the region while the child stands still.
struct Others {
    region: Region,
    /// A key in the child's shard, and one in the other.
    keys: [Vec<u8>; 2],
    /// What was written to them and acknowledged.
    acknowledged: [Option<u64>; 2],
    round: u64,
    /// Whether keys may go that nobody of them removed: by eviction, or because the child clears.
    may_lose: bool,
}

impl Others {
    fn new(stage: &Stage) -> Self {
        let fd = stage.file.fd().try_clone_to_owned().unwrap();
        let region = Region::from_fd(fd, Options::new().lock_timeout(SHORT)).unwrap();
        let evicts = stage.operation.evicts;
        let mut others = Self {
            keys: [0, 1].map(|shard| key_of_shard(&region, shard, "others", 0)),
            acknowledged: [None; 2],
            round: 0,
            may_lose: evicts || stage.operation.name == "clear_among_others",
            region,
        };
        if evicts {
            // Each write needs a page in its shard, which it could take only from the child's: so
            // they have theirs before.
            others.write([None; 2]);
        }
        others
    }

    /// Writes to both shards, whose locks are held by these processes, if by anybody.
    fn write(&mut self, holders: [Option<u64>; 2]) {
        self.round += 1;
        let value = self.round.to_le_bytes();
        for (shard, holder) in holders.into_iter().enumerate().rev() {
            match (self.region.set(&self.keys[shard], &value), holder) {
                (Ok(_), None) => self.acknowledged[shard] = Some(self.round),
                (Err(WriteError::Stalled { pid, .. }), Some(holder)) => assert_eq!(pid, holder),
                (result, holder) => {
                    panic!("locked by {holder:?}, a write to shard {shard} ended with {result:?}")
                }
            }
        }
        self.verify();
    }

    fn verify(&self) {
        for (key, acknowledged) in self.keys.iter().zip(self.acknowledged) {
            let written = acknowledged.map(|round| round.to_le_bytes().to_vec());
            let value = self.region.get(key).unwrap();
            assert!(
                value == written || self.may_lose && value.is_none(),
                "{key:?} reads {value:?}, not {written:?}"
            );
        }
    }
}

/// Two writers, both killed in the middle of a write of their own: first on shards of their own,
/// then on one.
#[test]
fn two_writers_killed_at_sampled_pairs() {
    let _watchdog = Watchdog::new("two writers", STUCK);
    let _one = OneProcessor::new();
    for second_shard in [1, 0] {
        kill_pairs(second_shard);
    }
}

fn kill_pairs(second_shard: u64) {
    let config = Config::new(1 << 20).shards(2).sessions(8);
    let region = Region::create(&config, Options::new()).unwrap();
    let keys = [
        key_of_shard(&region, 0, "first", 0),
        key_of_shard(&region, second_shard, "second", 0),
    ];
    let bystanders = (0..12).map(|number| {
        let shard = number as u64 % 2;
        key_of_shard(&region, shard, "bystander", number)
    });
    let mut all = keys.to_vec();
    for bystander in bystanders {
        region.set(&bystander, b"here").unwrap();
        all.push(bystander);
    }
    let path = harness::path_of(region.fd().unwrap());
    let mapping = Mapping::new(region.fd().unwrap(), region.declared_len());
    let mut children = keys.each_ref().map(|key| {
        let key = String::from_utf8(key.clone()).unwrap();
        Tracee::start("rounds", &[path.clone(), key])
    });
    let measured = children.each_mut().map(|child| {
        // A mark begins each round, but for the first, and one ends it.
        for _ in 0..2 * MEASURED {
            child.run();
            child.wait_for_mark();
        }
        Measured::of_round(child, &mapping)
    });
    let mut random = 1_u64;
    let mut both_held = 0;
    let mut boundaries = 0;
    for round in MEASURED + 1..=MEASURED + PAIRS {
        let before = observe(&region, all.iter()).unwrap();
        let written = Written::plain(&round_value(round));
        let changes = keys
            .each_ref()
            .map(|key| (key.clone(), Some(written.clone())));
        let start = Image::take(&mapping);
        let expected = Expected::new(&region, &start, before, &changes);
        let mut checker = Checker::new(&start, expected);
        let mut running = [true; 2];
        for ((child, measured), runs) in children.iter_mut().zip(&measured).zip(&mut running) {
            // To the mark that begins the round, and from there into it.
            child.run();
            child.wait_for_mark();
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            // Anywhere, and in every second round about where the lock is held.
            let among = match round % 2 {
                0 => measured.held.clone(),
                _ => 0..measured.length,
            };
            let stop_after = among.start + (random >> 33) % (among.end - among.start);
            *runs = (0..stop_after).all(|_| child.step() == Stop::Instruction);
            boundaries += stop_after;
        }
        let image = Image::take(&mapping);
        both_held += u64::from(image.lock(0) != 0 && image.lock(1) != 0);
        if let Err(problem) = checker.verify(&image) {
            panic!("round {round}, second shard {second_shard}: {problem}");
        }
        // Together: one may hold what the other waits for.
        let mut stopped: Vec<_> = children.iter_mut().zip(running).collect();
        stopped.retain(|(_, runs)| *runs);
        stopped.iter_mut().for_each(|(child, _)| child.run());
        stopped
            .iter_mut()
            .for_each(|(child, _)| child.wait_for_mark());
        if let Err(problem) = checker.verify_end(&Image::take(&mapping)) {
            panic!("after round {round}, second shard {second_shard}: {problem}");
        }
    }
    assert_eq!(region.stats().repairs, 0, "nobody died");
    assert!(
        both_held > 0 || second_shard == 0,
        "never two locks at once"
    );
    let walked = Walked {
        boundaries,
        images: PAIRS,
    };
    walked.tell(&format!(
        "pairs of stops, in {both_held} of them two locks held"
    ));
}

/// What stepping through a round alone showed, in steps.
struct Measured {
    length: u64,
    /// When it holds a lock.
    held: Range<u64>,
}

impl Measured {
    fn of_round(child: &mut Tracee, mapping: &Mapping) -> Self {
        let begun_at = child.steps;
        let mut held: Option<Range<u64>> = None;
        while child.step() == Stop::Instruction {
            let image = Image::take(mapping);
            if image.lock(0) != 0 || image.lock(1) != 0 {
                let now = child.steps - begun_at;
                held = Some(held.map_or(now, |held| held.start)..now + 1);
            }
        }
        Self {
            length: child.steps - begun_at,
            held: held.expect("a round holds a lock"),
        }
    }
}

fn round_value(round: u64) -> Vec<u8> {
    value(&format!("round {round} "), 100)
}

/// The child's part: round after round, another value between two marks.
pub(crate) fn play_rounds(path: &str, key: &str) {
    let region = Region::from_fd(harness::open(path), Options::new()).unwrap();
    for round in 0_u64.. {
        let value = round_value(round);
        if round == 0 {
            be_traced();
        } else {
            mark();
        }
        region.set(key.as_bytes(), &value).unwrap();
        mark();
    }
}

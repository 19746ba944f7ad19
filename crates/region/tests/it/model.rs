//! Random and exhaustive programs of operations, each compared with a plain map after every step.

use crate::bodies::oracle::{Place, World};
use crate::bodies::program::{How, If, Op, Val};
use crate::watchdog::Watchdog;
use ganger_region::WhenFull;
use proptest::collection::vec;
use proptest::prelude::*;
use std::cell::Cell;

/// Programs per setting of the random tests.
const CASES: u32 = if cfg!(debug_assertions) { 24 } else { 120 };
/// Steps of an exhaustive program.
const DEPTH: usize = if cfg!(debug_assertions) { 3 } else { 4 };

fn key() -> impl Strategy<Value = u16> {
    0..24_u16
}

fn value() -> impl Strategy<Value = Val> {
    let len = prop_oneof![
        6 => 0..200_u32,
        2 => 200..5000_u32,
        1 => 30_000..70_000_u32,
        1 => 70_000..300_000_u32,
    ];
    (len, any::<u8>()).prop_map(|(len, seed)| Val { len, seed })
}

fn ttl() -> impl Strategy<Value = Option<u64>> {
    prop_oneof![
        4 => Just(None),
        4 => (1..100_u64).prop_map(Some),
        1 => Just(Some(0)),
        1 => Just(Some(u64::MAX)),
    ]
}

fn how() -> impl Strategy<Value = How> {
    let condition = prop_oneof![
        3 => Just(If::Always),
        1 => Just(If::Absent),
        1 => Just(If::Present),
        1 => Just(If::Current),
        1 => Just(If::Stale),
    ];
    (condition, ttl(), any::<bool>(), prop::bool::weighted(0.2)).prop_map(
        |(condition, ttl, keep_expiry, ephemeral)| How {
            condition,
            ttl,
            keep_expiry,
            ephemeral,
        },
    )
}

fn op() -> impl Strategy<Value = Op> {
    let small = (0..120_u32, any::<u8>()).prop_map(|(len, seed)| Val { len, seed });
    let single = prop_oneof![
        6 => (key(), value()).prop_map(|(key, value)| Op::Set(key, value)),
        8 => (key(), value(), how()).prop_map(|(key, value, how)| Op::SetWith(key, value, how)),
        3 => key().prop_map(Op::Delete),
        2 => (key(), any::<bool>()).prop_map(|(key, stale)| Op::DeleteIf(key, stale)),
        3 => (key(), -3..4_i64, ttl()).prop_map(|(key, by, ttl)| Op::Incr(key, by, ttl)),
        1 => key().prop_map(|key| Op::Incr(key, i64::MAX, None)),
        4 => (key(), value()).prop_map(|(key, value)| Op::Append(key, value)),
        2 => (key(), value()).prop_map(|(key, value)| Op::GetOrInsert(key, value)),
        2 => key().prop_map(Op::Lengthen),
        1 => key().prop_map(Op::UpdateAway),
        1 => (key(), 0..100_u64).prop_map(|(key, ttl)| Op::Expire(key, ttl)),
        1 => (key(), 0..100_u64).prop_map(|(key, ttl)| Op::Touch(key, ttl)),
        1 => key().prop_map(Op::Persist),
    ];
    let many = prop_oneof![
        3 => (0..900_u16, 0..500_u16, small, ttl())
            .prop_map(|(first, count, value, ttl)| Op::Fill(first, count, value, ttl)),
        2 => (0..900_u16, 0..500_u16).prop_map(|(first, count)| Op::Drain(first, count)),
    ];
    let world = prop_oneof![
        1 => Just(Op::Clear),
        2 => Just(Op::Sweep),
        6 => (1..80_u64).prop_map(Op::Advance),
        4 => (0..3_u8).prop_map(Op::Use),
        2 => Just(Op::Reattach),
        2 => Just(Op::Crash),
        2 => Just(Op::Verify),
    ];
    prop_oneof![8 => single, 1 => many, 3 => world]
}

fn random_programs(place: Place, shards: u64, when_full: WhenFull) {
    let config = ProptestConfig {
        cases: CASES,
        failure_persistence: None,
        max_shrink_iters: 4000,
        ..ProptestConfig::default()
    };
    let watchdog = Watchdog::new("random programs");
    let refused = Cell::new(0);
    proptest!(config, |(program in vec(op(), 1..60))| {
        watchdog.next(format!("{shards} shards: {program:?}"));
        let mut world = World::new(place, 1 << 20, shards, when_full, 3);
        program.into_iter().for_each(|op| world.apply(op));
        world.verify();
        refused.set(refused.get() + world.refused);
    });
    // Fullness is part of what is tested here.
    assert_eq!(refused.get() > 0, when_full == WhenFull::Reject);
}

#[test]
fn random_programs_agree_with_a_map_in_one_shard() {
    random_programs(Place::Heap, 1, WhenFull::Reject);
}

#[test]
fn random_programs_agree_with_a_map_in_sixteen_shards() {
    random_programs(Place::Heap, 16, WhenFull::Reject);
}

#[test]
fn random_programs_agree_with_a_map_that_evicts_in_one_shard() {
    random_programs(Place::Heap, 1, WhenFull::Evict);
}

#[test]
fn random_programs_agree_with_a_map_that_evicts_in_sixteen_shards() {
    random_programs(Place::Heap, 16, WhenFull::Evict);
}

#[test]
fn random_programs_agree_with_a_map_in_a_memory_file() {
    random_programs(Place::Memfd, 1, WhenFull::Reject);
    random_programs(Place::Memfd, 16, WhenFull::Evict);
}

#[test]
fn every_short_program_agrees_with_a_map() {
    const SMALL: Val = Val { len: 20, seed: 1 };
    const LARGE: Val = Val {
        len: 70_000,
        seed: 2,
    };
    const SHORT_LIVED: How = How {
        ttl: Some(10),
        ..How::PLAIN
    };
    const EPHEMERAL: How = How {
        ephemeral: true,
        ..How::PLAIN
    };
    const ALPHABET: [Op; 12] = [
        Op::Set(0, SMALL),
        Op::Set(1, LARGE),
        Op::SetWith(0, SMALL, SHORT_LIVED),
        Op::SetWith(1, SMALL, EPHEMERAL),
        Op::Delete(0),
        Op::Delete(1),
        Op::Incr(0, 1, None),
        Op::Incr(2, 1, Some(10)),
        Op::Append(0, LARGE),
        Op::Append(1, SMALL),
        Op::Advance(10),
        Op::Crash,
    ];
    let watchdog = Watchdog::new("short programs");
    for program in 0..ALPHABET.len().pow(DEPTH as u32) {
        let mut world = World::new(Place::Heap, 640 << 10, 1, WhenFull::Reject, 1);
        let mut rest = program;
        watchdog.next(format!("short program {program}"));
        for _ in 0..DEPTH {
            world.apply(ALPHABET[rest % ALPHABET.len()]);
            world.check();
            rest /= ALPHABET.len();
        }
        world.verify();
    }
}

/// Buckets that merged into ones the sweep had passed kept their expired entries, and the bound on
/// the next expiry rose above them.
#[test]
fn a_sweep_meets_entries_of_buckets_that_merge_meanwhile() {
    let _watchdog = Watchdog::new("a sweep while buckets merge");
    let mut world = World::new(Place::Heap, 1 << 20, 1, WhenFull::Reject, 1);
    world.apply(Op::Fill(0, 400, Val { len: 10, seed: 1 }, Some(5)));
    world.apply(Op::Advance(5));
    world.apply(Op::Sweep);
}

/// As above: `clear` left entries behind.
#[test]
fn a_clear_meets_entries_of_buckets_that_merge_meanwhile() {
    let _watchdog = Watchdog::new("a clear while buckets merge");
    let mut world = World::new(Place::Heap, 1 << 20, 1, WhenFull::Reject, 1);
    world.apply(Op::Fill(0, 400, Val { len: 10, seed: 1 }, None));
    world.apply(Op::Clear);
    world.verify();
}

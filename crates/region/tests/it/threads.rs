//! Several threads, through one handle and through several, on one region.

use crate::watchdog::Watchdog;
use ganger_region::test_support::Heap;
use ganger_region::{Config, Cursor, Options, Region, SetOptions, WriteError};
use std::collections::BTreeMap;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Work of each thread.
const ROUNDS: u64 = if cfg!(debug_assertions) {
    3_000
} else {
    30_000
};

fn heap() -> (Heap, Region) {
    Heap::create(&Config::new(4 << 20).shards(2).sessions(16), Options::new()).unwrap()
}

fn is_clean(region: &Region) {
    let audit = region.check().unwrap();
    assert!(audit.is_clean(), "{:?}", audit.problems);
}

#[test]
fn no_increment_is_lost() {
    let _watchdog = Watchdog::new("increments");
    let (heap, region) = heap();
    thread::scope(|scope| {
        for number in 0..4_u64 {
            // Two through handles of their own, two through clones of one.
            let handle = if number < 2 {
                heap.attach(Options::new()).unwrap()
            } else {
                region.clone()
            };
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    handle.incr(b"shared", 1).unwrap();
                    handle.incr(format!("own {number}").as_bytes(), 1).unwrap();
                    if round % 3 == 0 {
                        handle
                            .incr(b"up and down", if round % 2 == 0 { 5 } else { -5 })
                            .unwrap();
                    }
                }
            });
        }
    });
    let counter =
        |key: &[u8]| i64::from_le_bytes(region.get(key).unwrap().unwrap().try_into().unwrap());
    assert_eq!(counter(b"shared"), 4 * ROUNDS as i64);
    assert_eq!(counter(b"up and down"), 0);
    for number in 0..4 {
        assert_eq!(counter(format!("own {number}").as_bytes()), ROUNDS as i64);
    }
    is_clean(&region);
}

#[test]
fn no_update_is_lost() {
    let _watchdog = Watchdog::new("updates");
    let (heap, region) = heap();
    thread::scope(|scope| {
        for _ in 0..4 {
            let handle = heap.attach(Options::new()).unwrap();
            scope.spawn(move || {
                for _ in 0..ROUNDS / 10 {
                    let sum =
                        handle.update_typed(b"sum", |old: Option<u64>| Some(old.unwrap_or(0) + 1));
                    assert!(sum.unwrap().is_some());
                    handle.append(b"log", b"x").unwrap();
                }
            });
        }
    });
    let expected = 4 * (ROUNDS / 10);
    assert_eq!(region.get_typed::<u64>(b"sum").unwrap(), Some(expected));
    assert_eq!(region.get(b"log").unwrap().unwrap().len() as u64, expected);
    is_clean(&region);
}

/// A value that tells by itself whether it is whole: its length and bytes follow from its seed.
fn whole_value(seed: u64) -> Vec<u8> {
    let len = match seed % 5 {
        0 => 8,
        1 => 60 + seed % 100,
        2 => 5_000,
        3 => 40_000,
        _ => 150_000 + seed % 1000,
    };
    let mut value = seed.to_le_bytes().to_vec();
    value.resize(len as usize, (seed * 7 + 1) as u8);
    value
}

fn assert_whole(value: &[u8]) {
    let seed = u64::from_le_bytes(value[..8].try_into().unwrap());
    assert!(
        value == whole_value(seed),
        "a torn value, seed {seed}, {} bytes",
        value.len()
    );
}

#[test]
fn readers_never_see_a_torn_value() {
    const KEYS: [&[u8]; 3] = [b"a", b"b", b"c"];
    let _watchdog = Watchdog::new("torn values");
    let (heap, region) = heap();
    for key in KEYS {
        region.set(key, &whole_value(0)).unwrap();
    }
    let done = AtomicBool::new(false);
    let reads = thread::scope(|scope| {
        let writers: Vec<_> = (0..2_u64)
            .map(|number| {
                let handle = heap.attach(Options::new()).unwrap();
                scope.spawn(move || {
                    for round in 0..ROUNDS / 15 {
                        let seed = round * 2 + number;
                        handle
                            .set(KEYS[(seed % 3) as usize], &whole_value(seed))
                            .unwrap();
                        // Blocks and pages of theirs are what the next values are written into.
                        let other = format!("other {}", seed % 40);
                        handle
                            .set(other.as_bytes(), &whole_value(seed * 3))
                            .unwrap();
                        handle.delete(other.as_bytes()).unwrap();
                    }
                })
            })
            .collect();
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let (handle, done) = (region.clone(), &done);
                scope.spawn(move || {
                    let (mut value, mut reads) = (Vec::new(), 0_u64);
                    while !done.load(Ordering::Relaxed) {
                        for key in KEYS {
                            assert!(handle.get_into(key, &mut value).unwrap(), "a key is gone");
                            assert_whole(&value);
                        }
                        let values = handle.get_many(&KEYS).unwrap();
                        values
                            .iter()
                            .for_each(|value| assert_whole(value.as_ref().unwrap()));
                        assert_whole(&handle.entry(b"a").unwrap().unwrap().value);
                        reads += 1;
                    }
                    reads
                })
            })
            .collect();
        let ended: Vec<_> = writers
            .into_iter()
            .map(thread::ScopedJoinHandle::join)
            .collect();
        done.store(true, Ordering::Relaxed);
        ended.into_iter().for_each(Result::unwrap);
        readers
            .into_iter()
            .map(|reader| reader.join().unwrap())
            .sum::<u64>()
    });
    assert!(reads > 0);
    is_clean(&region);
}

#[test]
fn a_scan_meets_every_stable_key_once_while_the_index_grows_and_shrinks() {
    let _watchdog = Watchdog::new("scans");
    let (heap, region) = heap();
    let stable: BTreeMap<Vec<u8>, Vec<u8>> = (0..300_u64)
        .map(|number| {
            (
                format!("stable {number}").into_bytes(),
                whole_value(number * 5 + 1),
            )
        })
        .collect();
    for (key, value) in &stable {
        region.set(key, value).unwrap();
    }
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let churn = heap.attach(Options::new()).unwrap();
        let done = &done;
        let churner = scope.spawn(move || {
            let mut rounds = 0;
            while !done.load(Ordering::Relaxed) {
                for number in 0..2500_u64 {
                    churn
                        .set(format!("passing {number}").as_bytes(), b"by")
                        .unwrap();
                }
                for number in 0..2500_u64 {
                    assert!(churn
                        .delete(format!("passing {number}").as_bytes())
                        .unwrap());
                }
                rounds += 1;
            }
            rounds
        });
        let mut buckets = (u64::MAX, 0);
        for limit in 0..ROUNDS / 60 {
            let mut met = BTreeMap::new();
            let mut next = Some(Cursor::START);
            while let Some(cursor) = next {
                let page = region
                    .scan(b"stable", cursor, 1 + limit as usize % 40)
                    .unwrap();
                for (key, entry) in page.entries {
                    assert!(met.insert(key, entry.value).is_none(), "met twice");
                }
                next = page.next;
                let now = region.stats().buckets;
                buckets = (buckets.0.min(now), buckets.1.max(now));
            }
            assert!(
                met == stable,
                "{} of {} stable keys",
                met.len(),
                stable.len()
            );
        }
        done.store(true, Ordering::Relaxed);
        churner.join().unwrap();
        assert!(buckets.0 < buckets.1, "the index neither grew nor shrank");
    });
    is_clean(&region);
}

/// A caller's clock is asked under the lock. If it panics there, the shard must neither stay locked
/// nor be taken for whole.
#[test]
fn a_clock_that_panics_under_the_lock_leaves_the_shard_to_repair() {
    static PANICS: AtomicBool = AtomicBool::new(false);
    let _watchdog = Watchdog::new("a clock that panics");
    let clock = || {
        assert!(!PANICS.load(Ordering::Relaxed), "the clock is broken");
        1000
    };
    let config = Config::new(1 << 20).shards(1).sessions(2);
    let (_heap, region) = Heap::create(&config, Options::new().clock(clock)).unwrap();
    let expiring = SetOptions::new().ttl_ms(60_000);
    for round in 1..=3 {
        region.set_with(b"key", b"old", expiring).unwrap();
        PANICS.store(true, Ordering::Relaxed);
        let set = catch_unwind(AssertUnwindSafe(|| region.set(b"key", b"new")));
        PANICS.store(false, Ordering::Relaxed);
        assert!(set.is_err());
        assert_eq!(region.get(b"key").unwrap().unwrap(), b"old");
        region.set(b"key", b"new").unwrap();
        assert_eq!(region.stats().repairs, round);
        is_clean(&region);
    }
}

/// A shard takes sixteen pages at a time from the system. In a small region these are all of them.
#[test]
fn no_write_is_refused_while_another_shard_gets_memory() {
    let _watchdog = Watchdog::new("pages");
    for _ in 0..200 {
        let config = Config::new(1 << 20).shards(8);
        let region = Region::create(&config, Options::new()).unwrap();
        let keys = (0..8).map(|shard| {
            let mut names = (0_u32..).map(u32::to_le_bytes);
            names.find(|name| region.shard_of_key(name) == shard)
        });
        let keys: Vec<_> = keys.flatten().collect();
        let together = std::sync::Barrier::new(4);
        thread::scope(|scope| {
            for keys in keys.chunks(2) {
                let (region, together) = (&region, &together);
                scope.spawn(move || {
                    together.wait();
                    for key in keys {
                        region.set(key, b"value").unwrap();
                    }
                });
            }
        });
        assert_eq!(region.len(), 8);
        is_clean(&region);
    }
}

/// Under the lock, the writer's clock has another handle scan; a third one finds the lock taken.
#[test]
fn a_scan_goes_on_while_a_writer_holds_the_lock() {
    let _watchdog = Watchdog::new("a scan under a lock");
    let config = Config::new(2 << 20).shards(1).sessions(4);
    let (heap, region) = Heap::create(&config, Options::new().clock(|| 1000)).unwrap();
    for number in 0..100_u32 {
        region.set(&number.to_le_bytes(), b"value").unwrap();
    }
    let expiring = SetOptions::new().ttl_ms(60_000);
    region.set_with(b"expiring", b"value", expiring).unwrap();
    let short = Duration::from_millis(2);
    let hasty = heap.attach(Options::new().lock_timeout(short)).unwrap();
    let scans = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&scans);
    let clock = move || {
        let page = region.scan(b"", Cursor::START, usize::MAX).unwrap();
        assert_eq!((page.entries.len(), page.next), (101, None));
        let written = hasty.persist(&[0; 4]);
        assert!(
            matches!(written, Err(WriteError::Stalled { .. })),
            "{written:?}"
        );
        counted.fetch_add(1, Ordering::Relaxed);
        1000
    };
    let writer = heap.attach(Options::new().clock(clock)).unwrap();
    assert_eq!(writer.append(b"expiring", b" and more").unwrap(), 14);
    assert!(scans.load(Ordering::Relaxed) > 0);
    is_clean(&writer);
}

#[test]
fn all_who_insert_a_key_get_the_value_of_one_of_them() {
    let _watchdog = Watchdog::new("get_or_insert_with");
    let (heap, region) = heap();
    let got: Vec<Vec<Vec<u8>>> = thread::scope(|scope| {
        let workers: Vec<_> = (0..4_u8)
            .map(|number| {
                let handle = heap.attach(Options::new()).unwrap();
                let insert = move |key: u64| {
                    handle.get_or_insert_with(&key.to_le_bytes(), || vec![number; 20])
                };
                scope.spawn(move || (0..1000).map(|key| insert(key).unwrap()).collect())
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap())
            .collect()
    });
    for key in 0..1000_usize {
        let value = region.get(&(key as u64).to_le_bytes()).unwrap().unwrap();
        assert!(value.len() == 20 && value[0] < 4);
        assert!(got.iter().all(|got| got[key] == value), "key {key}");
    }
    is_clean(&region);
}

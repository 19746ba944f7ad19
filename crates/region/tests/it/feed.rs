//! The change feed: order, completeness, gaps, and waking.

use crate::watchdog::Watchdog;
use ganger_region::test_support::Heap;
use ganger_region::{Access, Change, Config, Feed, FeedItem, Options, Region, WhenFull};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// What a follower knows: the last change of each key, and which shards it lost track of.
#[derive(Default)]
struct Follower {
    last: HashMap<Vec<u8>, (Change, u64)>,
    revisions: HashMap<u64, u64>,
    gaps: Vec<u64>,
}

impl Follower {
    fn poll(&mut self, feed: &mut Feed, region: &Region) {
        feed.poll(|item| match item {
            FeedItem::Change {
                change,
                key,
                revision,
            } => {
                let last = self.revisions.entry(region.shard_of_key(&key)).or_default();
                assert!(revision > *last, "revision {revision} after {last}");
                *last = revision;
                self.last.insert(key, (change, revision));
            }
            FeedItem::Gap { shard } => self.gaps.push(shard),
            other => panic!("{other:?}"),
        });
    }

    fn agrees_with(&self, region: &Region, key: &[u8]) {
        let entry = region.entry(key).unwrap();
        match (self.last.get(key), entry) {
            (Some((Change::Set, revision)), Some(entry)) => assert_eq!(entry.revision, *revision),
            (Some((Change::Delete | Change::Expire | Change::Evict, _)) | None, None) => {}
            (last, entry) => panic!("the feed says {last:?}, the region {entry:?}"),
        }
    }
}

fn key(number: u64) -> Vec<u8> {
    format!("key {number}").into_bytes()
}

fn work(region: &Region, seed: u64, ops: u64) {
    for op in 0..ops {
        let number = (seed.wrapping_mul(0x9e37_79b9) ^ op.wrapping_mul(0x85eb_ca6b)) >> 3;
        let key = key(number % 20);
        match number / 20 % 5 {
            0 => assert!(region.delete(&key).is_ok()),
            1 => assert!(region.update(&key, |_| Some(vec![1; 8])).is_ok()),
            2 => assert!(region.append(&key, b"more").is_ok()),
            _ => assert!(region.set(&key, &number.to_le_bytes()).is_ok()),
        }
        region.incr(b"counter", 1).unwrap();
    }
}

#[test]
fn changes_of_several_threads_come_in_order_and_completely() {
    let _watchdog = Watchdog::new("feed order");
    let config = Config::new(2 << 20).shards(2).sessions(8);
    let (heap, region) = Heap::create(&config, Options::new()).unwrap();
    let mut feed = region.feed().unwrap();
    let mut follower = Follower::default();
    for round in 0..20 {
        // Few enough between two looks that no ring overruns.
        thread::scope(|scope| {
            for number in 0..4 {
                let handle = heap.attach(Options::new()).unwrap();
                scope.spawn(move || work(&handle, round * 4 + number, 25));
            }
        });
        follower.poll(&mut feed, &region);
        assert_eq!(follower.gaps, []);
        (0..20).for_each(|number| follower.agrees_with(&region, &key(number)));
        follower.agrees_with(&region, b"counter");
    }
    assert_eq!(follower.last.len(), 21);
}

/// A follower that polls while threads write sees the last change of a key, or a gap of its shard.
#[test]
fn a_follower_of_busy_writers_loses_nothing_silently() {
    let _watchdog = Watchdog::new("feed of busy writers");
    let config = Config::new(2 << 20).shards(2).sessions(8);
    let (heap, region) = Heap::create(&config, Options::new()).unwrap();
    let mut feed = region.feed().unwrap();
    let mut follower = Follower::default();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..3)
            .map(|number| {
                let handle = heap.attach(Options::new()).unwrap();
                scope.spawn(move || work(&handle, number, 5000))
            })
            .collect();
        while workers.iter().any(|worker| !worker.is_finished()) {
            follower.poll(&mut feed, &region);
        }
    });
    follower.poll(&mut feed, &region);
    for number in 0..20 {
        let gap = follower.gaps.contains(&region.shard_of_key(&key(number)));
        if !gap {
            follower.agrees_with(&region, &key(number));
        }
    }
    // Whatever was lost: from here on nothing is.
    work(&region, 99, 100);
    follower.gaps.clear();
    follower.poll(&mut feed, &region);
    assert_eq!(follower.gaps, []);
    follower.agrees_with(&region, b"counter");
}

#[test]
fn an_overrun_is_a_gap_and_the_feed_goes_on_behind_it() {
    let _watchdog = Watchdog::new("feed overrun");
    let config = Config::new(1 << 20).shards(1);
    let (_heap, region) = Heap::create(&config, Options::new()).unwrap();
    let mut feed = region.feed().unwrap();
    work(&region, 1, 5000);
    let mut follower = Follower::default();
    follower.poll(&mut feed, &region);
    assert_eq!(follower.gaps, [0]);
    let revision = region.set(b"after", b"the gap").unwrap();
    follower.poll(&mut feed, &region);
    assert_eq!(follower.gaps, [0]);
    assert_eq!(
        follower.last.get(&b"after"[..]),
        Some(&(Change::Set, revision))
    );
}

#[test]
fn evictions_and_expiries_are_told() {
    let _watchdog = Watchdog::new("feed of evictions");
    let config = Config::new(1 << 20).shards(1).when_full(WhenFull::Evict);
    let now = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(1000));
    let clock = std::sync::Arc::clone(&now);
    let options = Options::new().clock(move || clock.load(Ordering::Relaxed));
    let (_heap, region) = Heap::create(&config, options).unwrap();
    let mut feed = region.feed().unwrap();
    let mut follower = Follower::default();
    for number in 0..2000 {
        region.set(&key(number), &[1; 1000]).unwrap();
        follower.poll(&mut feed, &region);
    }
    region.expire(&key(1999), 5).unwrap();
    now.fetch_add(5, Ordering::Relaxed);
    assert_eq!(region.sweep().unwrap(), 1);
    follower.poll(&mut feed, &region);
    assert_eq!(follower.gaps, []);
    (0..2000).for_each(|number| follower.agrees_with(&region, &key(number)));
    let told = |wanted| {
        follower
            .last
            .values()
            .filter(|(change, _)| *change == wanted)
            .count()
    };
    assert_eq!(told(Change::Evict) as u64, region.stats().evicted);
    assert_eq!(told(Change::Expire), 1);
}

#[test]
fn a_read_only_handle_follows_a_feed_that_is_on() {
    let _watchdog = Watchdog::new("read-only feed");
    let region = Region::create(&Config::new(1 << 20).shards(2), Options::new()).unwrap();
    let attach = || {
        let fd = region.fd().unwrap().try_clone_to_owned().unwrap();
        Region::from_fd(fd, Options::new().access(Access::ReadOnly)).unwrap()
    };
    assert!(
        attach().feed().is_err(),
        "a read-only handle turned the feed on"
    );
    let _on = region.feed().unwrap();
    let reader = attach();
    let mut feed = reader.feed().unwrap();
    let mut follower = Follower::default();
    for wake in [false, true] {
        region.wake_read_only_waiters(wake).unwrap();
        assert!(!feed.wait(Duration::from_millis(5)), "news from nowhere");
        thread::scope(|scope| {
            scope.spawn(|| region.set(b"key", b"value").unwrap());
            assert!(feed.wait(Duration::from_secs(60)));
        });
        follower.poll(&mut feed, &reader);
        follower.agrees_with(&reader, b"key");
    }
    assert_eq!(follower.gaps, []);
}

#[test]
fn a_wait_ends_with_the_change_or_with_its_time() {
    let _watchdog = Watchdog::new("feed wait");
    let (heap, region) = Heap::create(&Config::new(1 << 20), Options::new()).unwrap();
    let mut feed = region.feed().unwrap();
    let started = Instant::now();
    assert!(!feed.wait(Duration::from_millis(30)));
    assert!(started.elapsed() >= Duration::from_millis(30));
    for round in 0..50_u64 {
        let writer = heap.attach(Options::new()).unwrap();
        thread::scope(|scope| {
            scope.spawn(move || writer.set(&key(round), b"value").unwrap());
            assert!(feed.wait(Duration::from_secs(60)));
        });
        let mut told = Vec::new();
        feed.poll(|item| told.push(item));
        assert!(
            matches!(&told[..], [FeedItem::Change { key: told, .. }] if *told == key(round)),
            "{told:?}"
        );
    }
}

#[test]
fn a_sleeper_is_woken_by_a_change_and_gives_up_when_it_is_to() {
    let _watchdog = Watchdog::new("feed sleep");
    let (heap, region) = Heap::create(&Config::new(1 << 20), Options::new()).unwrap();
    let mut feed = region.feed().unwrap();
    let ages = Duration::from_secs(3600);
    for round in 0..50_u64 {
        let writer = heap.attach(Options::new()).unwrap();
        thread::scope(|scope| {
            scope.spawn(move || writer.set(&key(round), b"value").unwrap());
            assert!(feed.sleep(ages, || false));
        });
        feed.poll(|_| {});
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let sleeper = scope.spawn(|| feed.sleep(ages, || is_over.load(Ordering::SeqCst)));
            is_over.store(true, Ordering::SeqCst);
            region.wake_feeds().unwrap();
            assert!(!sleeper.join().unwrap(), "news from nowhere");
        });
    }
}

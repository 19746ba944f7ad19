//! Values of serde types, and values of more pages than one entry lists.

use crate::watchdog::Watchdog;
use ganger_region::test_support::Heap;
use ganger_region::{Config, Options, Region, SetOptions, TypedError, WhenFull};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Visit {
    user: String,
    pages: Vec<u32>,
    referrer: Option<String>,
}

fn visit() -> Visit {
    Visit {
        user: "ada".to_owned(),
        pages: vec![1, 1 << 20],
        referrer: None,
    }
}

#[test]
fn a_struct_comes_back_as_it_was() {
    let _watchdog = Watchdog::new("a struct");
    let (_heap, region) = Heap::create(&Config::new(1 << 20), Options::new()).unwrap();
    assert_eq!(region.get_typed::<Visit>(b"visit").unwrap(), None);
    region.set_typed(b"visit", &visit()).unwrap();
    assert_eq!(region.get_typed(b"visit").unwrap(), Some(visit()));
}

#[test]
fn update_typed_changes_makes_and_deletes() {
    let _watchdog = Watchdog::new("update_typed");
    let (_heap, region) = Heap::create(&Config::new(1 << 20), Options::new()).unwrap();
    let mut expected = visit();
    for page in 0..3 {
        let made = region.update_typed(b"visit", |old: Option<Visit>| {
            let mut new = old.unwrap_or_else(visit);
            new.pages.push(page);
            Some(new)
        });
        expected.pages.push(page);
        assert_eq!(made.unwrap(), Some(expected.clone()));
        assert_eq!(region.get_typed(b"visit").unwrap(), Some(expected.clone()));
    }
    region
        .update_typed(b"visit", |_: Option<Visit>| None)
        .unwrap();
    assert!(!region.exists(b"visit").unwrap());
}

#[test]
fn a_value_of_another_type_is_an_error_and_stays() {
    let _watchdog = Watchdog::new("another type");
    let (_heap, region) = Heap::create(&Config::new(1 << 20), Options::new()).unwrap();
    let revision = region.set(b"visit", b"\xc1 is never MessagePack").unwrap();
    let read = region.get_typed::<Visit>(b"visit");
    assert!(matches!(read, Err(TypedError::Decode(_))), "{read:?}");
    let updated = region.update_typed(b"visit", |_: Option<Visit>| panic!("nothing to change"));
    assert!(matches!(updated, Err(TypedError::Decode(_))), "{updated:?}");
    let entry = region.entry(b"visit").unwrap().unwrap();
    assert_eq!(
        (entry.value.as_slice(), entry.revision),
        (&b"\xc1 is never MessagePack"[..], revision)
    );
}

/// 1024 pages are listed by the entry itself; more by pages that list pages.
#[test]
fn a_value_of_more_pages_than_an_entry_lists_lives_and_goes() {
    let _watchdog = Watchdog::new("many pages");
    let region = Region::create(&Config::new(512 << 20), Options::new()).unwrap();
    let mut value: Vec<u8> = (0..64 << 20 >> 2_u32).flat_map(u32::to_le_bytes).collect();
    region.set(b"large", &value).unwrap();
    let at_the_limit = region.stats().pages_used;
    // 100,000 bytes more than 64 MiB: two pages of value, and one that lists.
    let more = [0xab; 100_000];
    assert_eq!(
        region.append(b"large", &more).unwrap(),
        value.len() as u64 + 100_000
    );
    value.extend_from_slice(&more);
    assert!(region.get(b"large").unwrap().unwrap() == value);
    assert_eq!(region.stats().pages_used, at_the_limit + 3);
    let audit = region.check().unwrap();
    assert!(audit.is_clean(), "{:?}", audit.problems);
    region.set(b"large", b"small").unwrap();
    assert!(
        region.stats().pages_used <= 2,
        "pages stay: {:?}",
        region.stats()
    );
    assert!(region.check().unwrap().is_clean());
}

/// Long values are copied line by line, and those of more than a block page by page.
#[test]
fn values_come_back_whole_whatever_their_length() {
    let _watchdog = Watchdog::new("all lengths");
    let region = Region::create(&Config::new(64 << 20), Options::new()).unwrap();
    let bytes: Vec<u8> = (0..1 << 18 >> 2_u32).flat_map(u32::to_le_bytes).collect();
    let mut into = Vec::new();
    for edge in [64, 4096, 8192, 16_384, 32_768, 65_536, 131_072, 200_000] {
        for len in edge - 80..edge + 80 {
            // Not from the beginning of a line.
            let value = &bytes[3..3 + len];
            region.set(b"key", value).unwrap();
            assert!(region.get(b"key").unwrap().as_deref() == Some(value));
            assert!(region.get_into(b"key", &mut into).unwrap() && into == value);
        }
    }
}

#[test]
fn many_keys_at_once_give_what_each_gives_alone() {
    let _watchdog = Watchdog::new("many keys");
    let region = Region::create(&Config::new(64 << 20), Options::new()).unwrap();
    // Keys of all kinds of lengths, half of them there; enough for buckets that overflow.
    let key = |number: usize| format!("{number:0width$}", width = 5 + number % 40).into_bytes();
    for number in (0..20_000).step_by(2) {
        let value = vec![
            number as u8;
            if number % 100 == 0 {
                9000
            } else {
                number % 200
            }
        ];
        region.set(&key(number), &value).unwrap();
    }
    for start in (0..20_000).step_by(50) {
        let keys: Vec<_> = (start..start + 50).map(key).collect();
        let alone: Vec<_> = keys.iter().map(|key| region.get(key).unwrap()).collect();
        assert_eq!(region.get_many(&keys).unwrap(), alone);
    }
}

#[test]
fn revisions_grow_and_compare_and_set_takes_the_current_one_alone() {
    let _watchdog = Watchdog::new("revisions");
    let config = Config::new(1 << 20).shards(1);
    let (_heap, region) = Heap::create(&config, Options::new()).unwrap();
    let revision_of = |key: &[u8]| region.entry(key).unwrap().unwrap().revision;
    let writes: [&dyn Fn() -> &'static [u8]; 7] = [
        &|| region.set(b"key", b"value").map(|_| b"key").unwrap(),
        &|| region.set(b"key", b"longer value").map(|_| b"key").unwrap(),
        &|| region.append(b"key", &[7; 90_000]).map(|_| b"key").unwrap(),
        &|| {
            region
                .update(b"key", |_| Some(vec![8]))
                .map(|_| b"key")
                .unwrap()
        },
        &|| region.incr(b"count", 1).map(|_| b"count").unwrap(),
        &|| region.incr(b"count", 1).map(|_| b"count").unwrap(),
        // As before, but not the same: a key that went and came back is another.
        &|| {
            region
                .delete(b"key")
                .and_then(|_| region.set(b"key", &[8]))
                .map(|_| b"key")
                .unwrap()
        },
    ];
    let mut last = 0;
    for write in writes {
        let key = write();
        let revision = revision_of(key);
        assert!(
            revision > last && revision.is_multiple_of(2),
            "{revision} after {last}"
        );
        last = revision;
        let before = region.entry(key).unwrap();
        for other in [revision - 2, revision + 2, revision - 1, 0] {
            let stale = SetOptions::new().if_revision(other);
            assert_eq!(region.set_with(key, b"never", stale).unwrap(), None);
            assert!(!region.delete_if(key, other).unwrap());
        }
        assert_eq!(region.entry(key).unwrap(), before);
    }
    let current = SetOptions::new().if_revision(last);
    let next = region
        .set_with(b"key", b"swapped", current)
        .unwrap()
        .unwrap();
    assert!(next > last);
    assert_eq!(region.set_with(b"key", b"again", current).unwrap(), None);
    assert_eq!(
        region.get(b"key").unwrap().as_deref(),
        Some(&b"swapped"[..])
    );
    // An expiry is none of the value.
    assert!(region.expire(b"key", 60_000).unwrap());
    assert_eq!(revision_of(b"key"), next);
    assert!(region.delete_if(b"key", next).unwrap());
    assert!(!region.exists(b"key").unwrap());
}

#[test]
fn the_numbers_of_a_region_tell_what_happened_in_it() {
    let _watchdog = Watchdog::new("stats");
    let now = Arc::new(AtomicU64::new(1000));
    let clock = Arc::clone(&now);
    let options = Options::new().clock(move || clock.load(Ordering::Relaxed));
    let config = Config::new(2 << 20)
        .shards(2)
        .sessions(5)
        .when_full(WhenFull::Evict);
    let (heap, region) = Heap::create(&config, options.clone()).unwrap();
    let key = |number: u32| number.to_le_bytes();
    for number in 0..100 {
        region.set(&key(number), &[1; 10]).unwrap();
    }
    for number in 0..30 {
        assert!(region.delete(&key(number)).unwrap());
    }
    let expiring = SetOptions::new().ttl_ms(5);
    for number in 30..50 {
        region.set_with(&key(number), &[2; 6], expiring).unwrap();
    }
    let stats = region.stats();
    assert_eq!((stats.entries, stats.bytes), (70, 20 * 10 + 50 * 14));
    assert_eq!((stats.writes, stats.expired, stats.evicted), (150, 0, 0));
    assert_eq!((stats.shards, stats.declared_bytes), (2, 2 << 20));
    assert_eq!((stats.sessions, stats.sessions_attached), (5, 1));
    assert_eq!((stats.repairs, stats.damaged), (0, 0));
    now.fetch_add(5, Ordering::Relaxed);
    assert_eq!(region.sweep().unwrap(), 20);
    let other = heap.attach(options).unwrap();
    let stats = other.stats();
    assert_eq!(
        (stats.entries, stats.bytes, stats.expired),
        (50, 50 * 14, 20)
    );
    assert_eq!((stats.sessions_attached, other.len()), (2, 50));
    // What does not fit goes, and is counted.
    for number in 1000..6000 {
        region.set(&key(number), &[3; 1000]).unwrap();
    }
    let stats = region.stats();
    assert_eq!(stats.entries + stats.evicted, 50 + 5000);
    assert!(stats.pages_used + stats.pages_free <= stats.pages);
    assert!(stats.committed_bytes <= stats.declared_bytes);
    assert!(stats.pages_used >= stats.entries / 51, "{stats:?}");
}

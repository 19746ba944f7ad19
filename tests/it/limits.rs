use crate::harness::Watchdog;
use crate::regions::assert_clean;
use ganger_region::test_support::Heap;
use ganger_region::{Config, Options, ReadError, Region, SetOptions, WhenFull, WriteError};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

/// Limits that are numbers: attempts, handles, shards.
mod counts;

pub(crate) fn play(role: &str, arguments: &[&str]) -> bool {
    match (role, arguments) {
        ("limits-handles", [path]) => counts::hold_all(path),
        _ => return false,
    }
    true
}

fn region(len: u64, when_full: WhenFull) -> Region {
    Region::create(&Config::new(len).when_full(when_full), Options::new()).unwrap()
}

/// A small generator, so that a failure can be repeated (Marsaglia 2003).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// A value that tells which key and length it was made for.
fn value_of(key: u64, len: usize) -> Vec<u8> {
    let mut value: Vec<u8> = (key.wrapping_mul(0x9e37_79b9_7f4a_7c15))
        .to_le_bytes()
        .repeat(len / 8 + 1);
    value.truncate(len);
    value
}

/// Fills a region with numbered keys until it takes no more, and says how many it took.
fn fill(region: &Region, value_len: usize) -> u64 {
    for key in 0_u64.. {
        match region.set(&key.to_le_bytes(), &value_of(key, value_len)) {
            Ok(_) => {}
            Err(WriteError::Full | WriteError::NoMemory(_)) => return key,
            Err(error) => panic!("{error}"),
        }
    }
    unreachable!()
}

fn assert_filled(region: &Region, keys: std::ops::Range<u64>, value_len: usize) {
    for key in keys {
        let value = region.get(&key.to_le_bytes()).unwrap();
        assert_eq!(value, Some(value_of(key, value_len)), "key {key}");
    }
}

#[test]
fn keys_of_0_and_1025_bytes_are_refused_by_every_operation() {
    let _watchdog = Watchdog::new(
        "keys_of_0_and_1025_bytes_are_refused_by_every_operation",
        300,
    );
    let region = region(1 << 20, WhenFull::Reject);
    region.set(b"other", b"value").unwrap();
    for len in [0, 1025, 100_000] {
        let key = &vec![b'k'; len][..];
        let reads = [
            region.get(key).map(drop),
            region.get_into(key, &mut Vec::new()).map(drop),
            region.get_many(&[b"other", key]).map(drop),
            region.entry(key).map(drop),
            region.exists(key).map(drop),
            region.ttl(key).map(drop),
        ];
        for error in reads.map(Result::unwrap_err) {
            assert!(matches!(error, ReadError::KeyLen { len: told } if told == len));
            assert_tells_key_len(&error.to_string(), len);
        }
        let update = |_: Option<&[u8]>| Some(b"value".to_vec());
        let writes = [
            region.set(key, b"value").map(drop),
            region
                .set_with(key, b"value", SetOptions::new().if_absent())
                .map(drop),
            region.delete(key).map(drop),
            region.delete_if(key, 2).map(drop),
            region.incr(key, 1).map(drop),
            region.append(key, b"more").map(drop),
            region.expire(key, 1).map(drop),
            region.touch(key, 1).map(drop),
            region.persist(key).map(drop),
            region.update(key, update).map(drop),
            region.get_or_insert_with(key, Vec::new).map(drop),
        ];
        for error in writes.map(Result::unwrap_err) {
            assert!(matches!(error, WriteError::KeyLen { len: told } if told == len));
            assert_tells_key_len(&error.to_string(), len);
        }
    }
    assert_eq!(region.len(), 1);
    assert_eq!(
        region.get(b"other").unwrap().as_deref(),
        Some(&b"value"[..])
    );
    assert_clean(&region);
}

fn assert_tells_key_len(text: &str, len: usize) {
    assert!(
        text.contains(&format!("{len} bytes")) && text.contains("1 to 1024"),
        "{text}"
    );
}

#[test]
fn keys_of_1_and_1024_bytes_work_with_every_operation() {
    let _watchdog = Watchdog::new("keys_of_1_and_1024_bytes_work_with_every_operation", 300);
    let region = region(1 << 20, WhenFull::Reject);
    for len in [1, 1024] {
        let key = &vec![b'k'; len][..];
        region.set(key, b"value").unwrap();
        assert_eq!(region.append(key, b"!").unwrap(), 6);
        assert_eq!(region.get(key).unwrap().as_deref(), Some(&b"value!"[..]));
        assert_eq!(region.get_many(&[key]).unwrap(), [Some(b"value!".to_vec())]);
        assert!(region.exists(key).unwrap());
        assert!(region.expire(key, 60_000).unwrap());
        assert!(region.touch(key, 90_000).unwrap());
        assert!(region.persist(key).unwrap());
        assert_eq!(region.ttl(key).unwrap(), Some(None));
        let revision = region.entry(key).unwrap().unwrap().revision;
        assert!(region.delete_if(key, revision).unwrap());
        assert_eq!(region.incr(key, 7).unwrap(), 7);
        let made = region.get_or_insert_with(key, Vec::new).unwrap();
        assert_eq!(made, 7_i64.to_le_bytes());
        assert!(region.delete(key).unwrap());
    }
    assert!(region.is_empty());
    assert_clean(&region);
}

#[test]
fn the_longest_value_fits_and_one_byte_more_does_not() {
    let _watchdog = Watchdog::new("the_longest_value_fits_and_one_byte_more_does_not", 300);
    for when_full in [WhenFull::Reject, WhenFull::Evict] {
        let region = region(4 << 20, when_full);
        region.set(b"other", b"value").unwrap();
        let limit = region.value_len_max();
        assert!(limit >= 3 << 18, "{limit}");
        let longest = value_of(1, usize::try_from(limit).unwrap());
        let longer = value_of(2, longest.len() + 1);
        region.set(b"key", &longest).unwrap();
        let errors = [
            region.set(b"key", &longer).unwrap_err(),
            region.set(b"new", &longer).unwrap_err(),
            region.append(b"key", b"x").unwrap_err(),
            region.append(b"other", &longest).unwrap_err(),
            region.update(b"key", |_| Some(longer.clone())).unwrap_err(),
        ];
        for error in errors {
            let text = error.to_string();
            assert!(text.contains(&format!("up to {limit} bytes")), "{text}");
            let WriteError::ValueLen { len, limit: told } = error else {
                panic!("{error:?}")
            };
            assert!(told == limit && len > limit, "{len} {told}");
        }
        assert_eq!(region.get(b"key").unwrap(), Some(longest));
        assert_eq!(
            region.get(b"other").unwrap().as_deref(),
            Some(&b"value"[..])
        );
        assert!(!region.exists(b"new").unwrap());
        // One byte short of the limit, an append still fits.
        let short = value_of(3, usize::try_from(limit - 1).unwrap());
        region.set(b"key", &short).unwrap();
        assert_eq!(region.append(b"key", b"x").unwrap(), limit);
        assert_clean(&region);
    }
}

#[test]
fn a_counter_stops_at_the_ends_of_its_range() {
    let _watchdog = Watchdog::new("a_counter_stops_at_the_ends_of_its_range", 300);
    let region = region(1 << 20, WhenFull::Reject);
    for (end, beyond) in [(i64::MAX, 1), (i64::MIN, -1)] {
        assert_eq!(region.incr(b"count", end).unwrap(), end);
        for by in [beyond, end] {
            let error = region.incr(b"count", by).unwrap_err();
            assert!(matches!(error, WriteError::Overflow { value } if value == end));
            let text = error.to_string();
            assert!(text.contains(&format!("stays at {end}")), "{text}");
        }
        assert_eq!(region.incr(b"count", 0).unwrap(), end);
        assert_eq!(region.incr(b"count", -beyond).unwrap(), end - beyond);
        region.delete(b"count").unwrap();
    }
    assert_clean(&region);
}

#[test]
fn counters_and_values_are_not_taken_for_each_other() {
    let _watchdog = Watchdog::new("counters_and_values_are_not_taken_for_each_other", 300);
    let region = region(1 << 20, WhenFull::Reject);
    region.set(b"value", &[1; 8]).unwrap();
    region.incr(b"count", 3).unwrap();
    let error = region.incr(b"value", 1).unwrap_err();
    assert!(matches!(error, WriteError::NotACounter), "{error:?}");
    let error = region.append(b"count", b"more").unwrap_err();
    assert!(matches!(error, WriteError::IsCounter), "{error:?}");
    assert_eq!(region.get(b"value").unwrap().as_deref(), Some(&[1; 8][..]));
    assert_eq!(region.incr(b"count", 1).unwrap(), 4);
    assert_clean(&region);
}

#[test]
fn a_full_region_refuses_keeps_all_and_takes_again_what_was_deleted() {
    let _watchdog = Watchdog::new(
        "a_full_region_refuses_keeps_all_and_takes_again_what_was_deleted",
        300,
    );
    for value_len in [0, 100, 5000, 200_000] {
        // What a region does if nothing else was asked for.
        let region = Region::create(&Config::new(2 << 20), Options::new()).unwrap();
        let keys = fill(&region, value_len);
        assert!(keys >= 3, "{value_len}: {keys}");
        let error = region
            .set(b"one more", &value_of(0, value_len))
            .unwrap_err();
        assert!(matches!(error, WriteError::Full), "{error:?}");
        assert!(error.to_string().contains("delete something"), "{error}");
        // A replacement needs room beside the old value, which stays.
        let replaced = region.set(&0_u64.to_le_bytes(), &value_of(7, 300_000));
        assert!(matches!(replaced, Err(WriteError::Full)), "{replaced:?}");
        assert_filled(&region, 0..keys, value_len);
        assert_clean(&region);
        for round in 0..3 {
            assert!(region.delete(&round_key(round)).unwrap());
            region
                .set(&round_key(round), &value_of(round, value_len))
                .unwrap();
        }
        assert_filled(&region, 0..keys, value_len);
        assert_clean(&region);
        assert_eq!(region.clear().unwrap(), keys);
        // Another size can use all of it: each page but one for buckets, and perhaps one for those
        // that overflow.
        let pages = region.stats().pages;
        let taken = fill(&region, 1000);
        let blocks = BLOCKS_OF_1000 * (pages - 2)..=BLOCKS_OF_1000 * (pages - 1);
        assert!(blocks.contains(&taken), "{value_len}: {taken}, {blocks:?}");
        assert_filled(&region, 0..taken, 1000);
        assert_clean(&region);
    }
}

/// Entries of a page with keys of 8 bytes and values of 1000: with their heads of 32 bytes they lie in
/// blocks of 1280.
const BLOCKS_OF_1000: u64 = ganger_region::layout::PAGE_LEN / 1280;

/// Pages of a large value may lie anywhere.
#[test]
fn a_large_value_needs_no_pages_in_a_row() {
    let _watchdog = Watchdog::new("a_large_value_needs_no_pages_in_a_row", 120);
    let region = region(4 << 20, WhenFull::Reject);
    // Each has a page to itself.
    let keys = fill(&region, 40_000);
    for key in (0..keys).step_by(2) {
        assert!(region.delete(&key.to_le_bytes()).unwrap());
    }
    let free = keys.div_ceil(2);
    assert!(free > 20, "{free}");
    let pages = free.min(region.value_len_max() / 65_536);
    let large = value_of(keys, usize::try_from(pages * 65_536).unwrap());
    region.set(b"large", &large).unwrap();
    assert_eq!(region.get(b"large").unwrap(), Some(large));
    for key in (1..keys).step_by(2) {
        let value = region.get(&key.to_le_bytes()).unwrap();
        assert_eq!(value, Some(value_of(key, 40_000)));
    }
    assert_clean(&region);
}

fn round_key(round: u64) -> [u8; 8] {
    round.to_le_bytes()
}

#[test]
fn a_cache_gives_up_what_is_expired_first() {
    let _watchdog = Watchdog::new("a_cache_gives_up_what_is_expired_first", 300);
    let config = Config::new(1 << 20).shards(1).when_full(WhenFull::Evict);
    let region = Region::create(&config, Options::new()).unwrap();
    let set = |name: &str, number: u64, options: SetOptions| {
        let key = format!("{name} {number}");
        let value = value_of(number, 1000);
        region.set_with(key.as_bytes(), &value, options).unwrap();
    };
    (0..300).for_each(|number| set("lasting", number, SetOptions::new()));
    (0..300).for_each(|number| set("expired", number, SetOptions::new().ttl_ms(0)));
    assert_eq!(region.stats().evicted, 0);
    // There is room for some 650 of them.
    (0..300).for_each(|number| set("new", number, SetOptions::new()));
    let stats = region.stats();
    assert!(stats.expired > 200, "{stats:?}");
    assert!(stats.evicted < 20, "{stats:?}");
    assert_clean(&region);
}

#[test]
fn expired_entries_are_no_reason_to_be_full() {
    let _watchdog = Watchdog::new("expired_entries_are_no_reason_to_be_full", 300);
    let now = Arc::new(AtomicU64::new(1000));
    let clock = Arc::clone(&now);
    let options = Options::new().clock(move || clock.load(Ordering::SeqCst));
    let region = Region::create(&Config::new(2 << 20).shards(4), options).unwrap();
    let set = |key: u64| {
        let ttl = SetOptions::new().ttl_ms(100);
        region.set_with(&key.to_le_bytes(), &value_of(key, 1000), ttl)
    };
    let keys = (0_u64..).find(|key| set(*key).is_err()).unwrap();
    assert!(matches!(set(keys), Err(WriteError::Full)));
    now.store(1100, Ordering::SeqCst);
    // Large, so that the room must come from the other shards too.
    region.set(b"large", &value_of(1, 300_000)).unwrap();
    assert_eq!(region.get(b"large").unwrap(), Some(value_of(1, 300_000)));
    for key in 0..100 {
        set(key).unwrap();
    }
    assert_filled(&region, 0..100, 1000);
    assert_clean(&region);
}

#[test]
fn a_cache_takes_values_of_all_sizes_for_ever_and_they_are_right_or_absent() {
    let _watchdog = Watchdog::new(
        "a_cache_takes_values_of_all_sizes_for_ever_and_they_are_right_or_absent",
        300,
    );
    let region = region(4 << 20, WhenFull::Evict);
    let mut random = Random(0x5eed);
    let mut lens = HashMap::new();
    let sizes = [0, 8, 100, 1000, 9000, 40_000, 150_000, 800_000];
    let mut hits = 0;
    for round in 0..10_000_u64 {
        let key = random.below(2000);
        // Large values are rarer.
        let most = 1 << random.below(sizes.len() as u64);
        let len = sizes[(random.below(most) % 8) as usize];
        region
            .set(&key.to_le_bytes(), &value_of(key, len))
            .unwrap_or_else(|error| panic!("round {round}, {len} bytes: {error}"));
        lens.insert(key, len);
        assert_eq!(
            region.get(&key.to_le_bytes()).unwrap(),
            Some(value_of(key, len)),
            "a value just written"
        );
        let other = random.below(2000);
        if let Some(value) = region.get(&other.to_le_bytes()).unwrap() {
            hits += 1;
            assert_eq!(value, value_of(other, lens[&other]), "round {round}");
        }
        if round % 2000 == 0 {
            assert_clean(&region);
        }
    }
    let stats = region.stats();
    assert!(stats.evicted > 500, "{stats:?}");
    assert!(hits > 100, "{hits}");
    assert_clean(&region);
    // The longest value there can be finds room as well.
    let longest = value_of(1, usize::try_from(region.value_len_max()).unwrap());
    region.set(b"longest", &longest).unwrap();
    assert_eq!(region.get(b"longest").unwrap(), Some(longest));
    assert_clean(&region);
}

/// Each read of the hot set comes with two keys that are never read again. First in, first out
/// loses a hot key as often as any other; what is read must stay.
#[test]
fn a_hot_set_survives_a_stream_of_keys_used_once() {
    let _watchdog = Watchdog::new("a_hot_set_survives_a_stream_of_keys_used_once", 300);
    let region = region(8 << 20, WhenFull::Evict);
    let value = [7; 64];
    let mut once = 0_u64;
    while region.stats().evicted == 0 {
        region.set(&once.to_le_bytes(), &value).unwrap();
        once += 1;
    }
    let capacity = region.len();
    let hot = capacity / 8;
    let hot_key = |number: u64| (1 << 63 | number).to_le_bytes();
    let mut fifo = Fifo::new(capacity);
    let mut random = Random(0xcafe);
    let (mut reads, mut hits, mut fifo_hits) = (0_u64, 0_u64, 0_u64);
    let warm = hot * 8;
    for step in 0..warm * 4 {
        for _ in 0..2 {
            region.set(&once.to_le_bytes(), &value).unwrap();
            fifo.insert(once);
            once += 1;
        }
        let number = random.below(hot);
        let counted = u64::from(step >= warm);
        reads += counted;
        fifo_hits += counted & u64::from(!fifo.insert(1 << 63 | number));
        if region.get(&hot_key(number)).unwrap().is_some() {
            hits += counted;
        } else {
            region.set(&hot_key(number), &value).unwrap();
        }
    }
    let ratio = |hits: u64| hits as f64 / reads as f64;
    eprintln!(
        "{capacity} keys, {hot} hot: hit ratio {:.4}, first in first out {:.4}",
        ratio(hits),
        ratio(fifo_hits)
    );
    assert!(ratio(hits) > 0.9, "{}", ratio(hits));
    assert!((reads - hits) * 2 < reads - fifo_hits);
    assert_clean(&region);
}

/// A cache that drops the oldest key, to compare with.
struct Fifo {
    keys: HashSet<u64>,
    queue: VecDeque<u64>,
    capacity: u64,
}

impl Fifo {
    fn new(capacity: u64) -> Self {
        Self {
            keys: HashSet::new(),
            queue: VecDeque::new(),
            capacity,
        }
    }

    /// Whether the key was missing.
    fn insert(&mut self, key: u64) -> bool {
        let missing = self.keys.insert(key);
        if missing {
            self.queue.push_back(key);
        }
        if self.keys.len() as u64 > self.capacity {
            let oldest = self.queue.pop_front().unwrap();
            self.keys.remove(&oldest);
        }
        missing
    }
}

/// The system may refuse at each of the moments at which a region asks it for memory.
#[test]
fn a_region_is_whole_after_every_refused_commit() {
    let _watchdog = Watchdog::new("a_region_is_whole_after_every_refused_commit", 300);
    let page = ganger_region::layout::PAGE_LEN;
    for when_full in [WhenFull::Reject, WhenFull::Evict] {
        let mut refusals = 0;
        for pages in 0..40 {
            let config = Config::new(4 << 20).shards(2).when_full(when_full);
            let (heap, region) = Heap::create(&config, Options::new()).unwrap();
            heap.limit_commits(pages * page);
            let (mut kept, refused) = work_until_refused(&region);
            refusals += refused;
            assert_clean(&region);
            if when_full == WhenFull::Reject {
                assert_eq!(region.len(), kept.len() as u64, "{pages} pages");
            } else {
                kept.retain(|key, _| region.exists(&key.to_le_bytes()).unwrap());
            }
            for (key, len) in &kept {
                let value = region.get(&key.to_le_bytes()).unwrap();
                assert_eq!(value, Some(value_of(*key, *len)), "{pages} pages");
            }
            // When there is memory again, work goes on.
            heap.limit_commits(u64::MAX);
            region.set(b"after", &value_of(9, 100_000)).unwrap();
            assert_clean(&region);
        }
        assert!(refusals >= 40, "{refusals}");
    }
}

/// Writes values of all kinds of sizes; returns what the region took, and how often it did not.
fn work_until_refused(region: &Region) -> (HashMap<u64, usize>, u64) {
    let mut random = Random(0xfeed);
    let (mut kept, mut refused) = (HashMap::new(), 0);
    for _ in 0..400 {
        let key = random.below(300);
        let len = [30, 300, 3000, 30_000, 130_000, 600_000][random.below(6) as usize];
        match region.set(&key.to_le_bytes(), &value_of(key, len)) {
            Ok(_) => {
                kept.insert(key, len);
            }
            Err(error @ (WriteError::NoMemory(_) | WriteError::Full)) => {
                assert!(error.to_string().contains("memory") || matches!(error, WriteError::Full));
                refused += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    (kept, refused)
}

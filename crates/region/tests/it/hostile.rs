//! Nothing read from the region is trusted: whatever its bytes are, every operation ends with a
//! result or a typed error. In debug builds, overflow checks are part of that.

use crate::bodies::image::{clocked, Image};
use crate::bodies::program::key_of;
use crate::bodies::region_attach::{
    abandon_locks, areas, damaged, exercise, run, swap_pages, to_bytes, ABANDONED, VALUES,
};
use crate::watchdog::Watchdog;
use ganger_region::layout::{session, shard, Geometry, WORD};
use ganger_region::test_support::Heap;

/// Only every so many-th of the systematic cases runs; another one for each value.
const STRIDE: usize = if cfg!(debug_assertions) { 97 } else { 5 };
/// Cases of each random test.
pub(crate) const CASES: u64 = if cfg!(debug_assertions) { 100 } else { 2500 };

/// Orders in which the pages of each image are put.
const PAGE_SEEDS: u64 = if cfg!(debug_assertions) { 2 } else { 12 };

/// SplitMix64 (Steele, Lea, Flood 2014).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

/// The words of an image that are worth damaging: all of the tables, and of the pages those that
/// hold something, thinned out to a few hundred.
fn words_of_interest(image: &Image) -> Vec<usize> {
    let areas = areas(image);
    let range = |(start, count): (u64, u64)| (start as usize)..((start + count) as usize);
    let mut words: Vec<usize> = areas[..7].iter().copied().flat_map(range).collect();
    for area in &areas[7..] {
        let used: Vec<usize> = range(*area)
            .filter(|&word| image.words[word] != 0)
            .collect();
        words.extend(used.iter().step_by((used.len() / 300).max(1)));
    }
    words
}

fn damage_every_word(name: &str) {
    let image = Image::all()
        .iter()
        .find(|image| image.name == name)
        .unwrap();
    let watchdog = Watchdog::new(name);
    let words = words_of_interest(image);
    let mut random = Random(words.len() as u64);
    for value in 0..VALUES {
        for &word in words
            .iter()
            .skip(usize::from(value) % STRIDE)
            .step_by(STRIDE)
        {
            let parameter = random.next() as u32;
            let mut changed = image.words.clone();
            changed[word] = damaged(image, &image.words, changed[word], value, parameter);
            if changed[word] == image.words[word] {
                continue;
            }
            for abandoned in [false, true] {
                watchdog.next(format!(
                    "{name}: word {word} is {:#x}, abandoned: {abandoned}",
                    changed[word]
                ));
                if abandoned {
                    abandon_locks(image, &mut changed);
                }
                exercise(&Heap::from_bytes(&to_bytes(&changed)));
            }
        }
    }
}

#[test]
fn any_damaged_word_of_a_region_of_small_values_is_survived() {
    damage_every_word("small values");
}

#[test]
fn any_damaged_word_of_a_region_of_large_values_is_survived() {
    damage_every_word("large values");
}

#[test]
fn any_damaged_word_of_a_region_that_evicts_is_survived() {
    damage_every_word("evict");
}

#[test]
fn any_damaged_word_of_a_region_of_ephemeral_entries_is_survived() {
    damage_every_word("ephemeral");
}

#[test]
fn any_damaged_word_of_a_region_with_a_feed_is_survived() {
    damage_every_word("feed");
}

#[test]
fn any_damaged_word_of_a_full_region_is_survived() {
    damage_every_word("full");
}

#[test]
fn random_damages_are_survived() {
    let watchdog = Watchdog::new("random damages");
    for seed in 0..CASES {
        watchdog.next(format!("random damages, seed {seed}"));
        let mut random = Random(seed);
        let damages = 1 + (random.next() % 24) as usize;
        let mut program = random.bytes(2 + damages * 8);
        program[0] %= 0xf0;
        // Truncation leaves little to look at; it has a test of its own.
        program[1] &= !4;
        run(&program);
    }
}

#[test]
fn random_bytes_behind_a_sound_header_are_survived() {
    let watchdog = Watchdog::new("random bytes");
    for seed in 0..CASES / 10 {
        watchdog.next(format!("random bytes, seed {seed}"));
        let mut random = Random(seed);
        let mut program = random.bytes(2 + 60_000);
        program[0] = 0xf1 + (seed % 8) as u8;
        program[1] &= 0x03;
        run(&program);
    }
}

#[test]
fn random_bytes_are_no_region() {
    let mut random = Random(1);
    for len in [0, 1, 7, 8, 4095, 4096, 4097, 100_000, 1 << 20] {
        let heap = Heap::from_bytes(&random.bytes(len));
        assert!(heap.attach(clocked()).is_err());
    }
}

#[test]
fn pages_that_changed_places_are_survived() {
    let watchdog = Watchdog::new("pages");
    for image in Image::all() {
        for seed in 0..PAGE_SEEDS {
            watchdog.next(format!("{}: pages swapped with seed {seed}", image.name));
            let mut words = image.words.clone();
            swap_pages(image, &mut words, seed);
            exercise(&Heap::from_bytes(&to_bytes(&words)));
            abandon_locks(image, &mut words);
            exercise(&Heap::from_bytes(&to_bytes(&words)));
        }
    }
}

#[test]
fn a_truncated_region_is_refused() {
    for image in Image::all() {
        let bytes = to_bytes(&image.words);
        assert!(Heap::from_bytes(&bytes).attach(clocked()).is_ok());
        for len in [
            0,
            8,
            4088,
            4096,
            65_536,
            100_001,
            bytes.len() - 65_536,
            bytes.len() - 8,
        ] {
            let heap = Heap::from_bytes(&bytes[..len]);
            assert!(heap.attach(clocked()).is_err(), "{len} bytes");
        }
    }
}

/// An image with some words changed.
fn with_words(name: &str, change: impl FnOnce(&Geometry, &mut [u64])) -> Heap {
    let image = Image::all()
        .iter()
        .find(|image| image.name == name)
        .unwrap();
    let mut words = image.words.clone();
    change(&image.geometry, &mut words);
    Heap::from_bytes(&to_bytes(&words))
}

fn shard_word(geometry: &Geometry, word: u64) -> usize {
    (geometry.shard_offset(0) / WORD + word) as usize
}

/// The next write added 2 to it and overflowed.
#[test]
fn a_revision_at_the_end_of_its_range_overflows_nowhere() {
    for lock in [0, ABANDONED] {
        for revision in [u64::MAX, u64::MAX - 1] {
            let heap = with_words("small values", |geometry, words| {
                words[shard_word(geometry, shard::REVISION)] = revision;
                words[shard_word(geometry, shard::LOCK)] = lock;
            });
            exercise(&heap);
        }
    }
}

/// Attaching added 1 to it and overflowed.
#[test]
fn an_incarnation_at_the_end_of_its_range_overflows_nowhere() {
    let heap = with_words("small values", |geometry, words| {
        for slot in 0..geometry.session_count {
            let start = geometry.sessions_offset / WORD + slot * session::WORDS;
            words[(start + session::INCARNATION) as usize] = u64::MAX;
        }
    });
    let region = heap.attach(clocked()).unwrap();
    region.set(b"key", b"value").unwrap();
    assert_eq!(region.get(b"key").unwrap().unwrap(), b"value");
}

/// A merge gave the page back that the directory named behind its end, whatever it was.
#[test]
fn a_directory_word_beyond_the_pages_is_not_followed() {
    let heap = with_words("small values", |geometry, words| {
        words[(geometry.directory_offset / WORD + 1) as usize] = u64::MAX;
    });
    let region = heap.attach(clocked()).unwrap();
    let buckets = region.stats().buckets;
    for number in 0..150 {
        region.delete(&key_of(number)).unwrap();
    }
    assert!(region.stats().buckets < buckets, "no merge took place");
}

/// The list was walked as often as the count of entries said, which was damaged too.
#[test]
fn a_circle_of_ephemeral_entries_is_left() {
    let _watchdog = Watchdog::new("a circle of ephemeral entries");
    let heap = with_words("ephemeral", |geometry, words| {
        words[shard_word(geometry, shard::ENTRIES)] = u64::MAX;
        let head = words[shard_word(geometry, shard::EPHEMERAL_HEAD)];
        // Owner, next, previous: a living owner, and the entry itself.
        let links = (head / WORD + ganger_region::layout::entry::HEAD_WORDS) as usize;
        words[links] = words[(geometry.sessions_offset / WORD) as usize] << 16 | 1;
        words[links + 1] = head;
        words[links + 2] = head;
    });
    let region = heap.attach(clocked()).unwrap();
    assert!(region.reap().is_err());
    assert!(!region.check().unwrap().is_clean());
}

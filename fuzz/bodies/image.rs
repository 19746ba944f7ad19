//! Real regions as bytes, the same in every run, to be damaged.

use super::program::key_of;
use ganger_region::layout::{header, Geometry, FEATURE_EVICT, WORD};
use ganger_region::{Config, Options, Region, SetOptions, WhenFull, WriteError};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

/// Twelve pages, and one for the bookkeeping.
const LEN: u64 = 13 * 64 * 1024;
/// Keys that an image may hold, and that the exercise uses.
pub const KEYS: u16 = 40;

/// The bytes of a region.
#[derive(Clone)]
pub struct Image {
    pub name: &'static str,
    pub words: Vec<u64>,
    pub geometry: Geometry,
}

impl Image {
    /// All images.
    pub fn all() -> &'static [Self] {
        static IMAGES: OnceLock<Vec<Image>> = OnceLock::new();
        IMAGES.get_or_init(|| {
            vec![
                make("small values", 1, WhenFull::Reject, fill_small),
                make("large values", 1, WhenFull::Reject, fill_large),
                make("evict", 1, WhenFull::Evict, fill_evict),
                make("ephemeral", 2, WhenFull::Reject, fill_ephemeral),
                make("feed", 2, WhenFull::Reject, fill_feed),
                make("full", 1, WhenFull::Reject, fill_full),
            ]
        })
    }
}

fn make(name: &'static str, shards: u64, when_full: WhenFull, fill: fn(&Region)) -> Image {
    let config = Config::new(LEN)
        .sessions(4)
        .shards(shards)
        .when_full(when_full);
    let file = {
        let region = Region::create(&config, Options::new()).unwrap();
        File::from(region.fd().unwrap().try_clone_to_owned().unwrap())
    };
    // The key of the hash is random: a fixed one makes every run's bytes the same.
    let write = |index: u64, word: u64| {
        file.write_all_at(&word.to_le_bytes(), index * WORD)
            .unwrap();
    };
    for index in 0..8 {
        let secret = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(2 * index + 1) | 1;
        write(header::HASH_SEED + index, secret);
    }
    write(header::REGION_ID, 1);
    let check = header::check(|index| {
        let mut word = [0; 8];
        file.read_exact_at(&mut word, index * WORD).unwrap();
        u64::from_le_bytes(word)
    });
    write(header::CHECK, check);
    let region = Region::from_fd(file.try_clone().unwrap().into(), clocked()).unwrap();
    fill(&region);
    let mut bytes = vec![0; LEN as usize];
    // Before the handle detaches: what a killed process leaves.
    file.read_exact_at(&mut bytes, 0).unwrap();
    let words = bytes
        .chunks_exact(8)
        .map(|word| u64::from_le_bytes(word.try_into().unwrap()));
    let features = if when_full == WhenFull::Evict {
        FEATURE_EVICT
    } else {
        0
    };
    Image {
        name,
        words: words.collect(),
        geometry: Geometry::new(LEN, Some(shards), 4, features).unwrap(),
    }
}

/// The clock of images, and of those who read them.
pub fn clocked() -> Options {
    Options::new().clock(|| 1000)
}

fn fill_small(region: &Region) {
    for number in 0..150 {
        region.set(&key_of(number), &[7; 50]).unwrap();
    }
    for number in (0..150).step_by(3) {
        region.delete(&key_of(number)).unwrap();
    }
    region.incr(b"counter", 5).unwrap();
}

fn fill_large(region: &Region) {
    region.set(&key_of(0), &[1; 70_000]).unwrap();
    region.set(&key_of(1), &[2; 40_000]).unwrap();
    region.set(&key_of(2), &[3; 30_000]).unwrap();
    region.set(&key_of(3), &[4; 100]).unwrap();
    region.append(&key_of(1), &[5; 30_000]).unwrap();
}

fn fill_evict(region: &Region) {
    for number in 0..600 {
        region.set(&key_of(number), &[number as u8; 700]).unwrap();
        region.get(&key_of(number / 2)).unwrap();
    }
    region.set(&key_of(1), &[1; 70_000]).unwrap();
    assert!(region.stats().evicted > 0);
}

fn fill_ephemeral(region: &Region) {
    for number in 0..80 {
        let options = match number % 3 {
            0 => SetOptions::new().ephemeral(),
            1 => SetOptions::new().ttl_ms(u64::from(number)),
            _ => SetOptions::new(),
        };
        region.set_with(&key_of(number), &[9; 60], options).unwrap();
    }
    region.incr_with(b"counter", 5, Some(100)).unwrap();
}

fn fill_feed(region: &Region) {
    let _feed = region.feed().unwrap();
    for number in 0..900 {
        region
            .set(&key_of(number % 60), &[number as u8; 60])
            .unwrap();
        region.delete(&key_of(number % 50)).unwrap();
    }
}

fn fill_full(region: &Region) {
    let mut number = 0;
    let refused = loop {
        match region.set(&key_of(number), &[3; 3000]) {
            Ok(_) => number += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, WriteError::Full));
}

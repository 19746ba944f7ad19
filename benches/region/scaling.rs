//! How get, set and memory go with the number of keys.

use crate::report::Report;
use crate::workload::{key, Key, Random, KEY_LEN, VALUE, VALUE_LEN};
use crate::Effort;
use dashmap::DashMap;
use ganger_region::{Config, Options, Region};
use std::hint::black_box;
use std::time::Instant;

const COUNTS: [u64; 5] = [1000, 10_000, 100_000, 1_000_000, 10_000_000];
/// The most that the quick form fills.
const QUICK: u64 = 1_000_000;
/// Bytes of the region; the map takes about as many again.
const REGION_BYTES: u64 = 4 << 30;
/// Memory that must be free for so many keys.
const MEMORY_KB: u64 = 6 << 20;
/// Operations of one round.
const ROUND: usize = 1 << 19;

pub(crate) fn run(report: &mut Report, effort: &Effort) {
    if !effort.wants("scaling") {
        return;
    }
    for count in COUNTS {
        if count > QUICK && effort.options.is_quick {
            report.note("scaling: 10 million keys are left out in the quick form");
        } else if count > QUICK && crate::batch::available_kb() < MEMORY_KB {
            report.note("scaling: 10 million keys are left out, they need 6 GB of free memory");
        } else {
            measure(report, effort, count);
        }
    }
}

fn measure(report: &mut Report, effort: &Effort, count: u64) {
    let region = Region::create(&Config::new(REGION_BYTES), Options::new()).unwrap();
    let empty = region.stats().committed_bytes;
    let map = DashMap::new();
    for index in 0..count {
        region.set(&key(index), &VALUE).unwrap();
        map.insert(key(index), VALUE);
    }
    let committed = (region.stats().committed_bytes - empty) as f64 / count as f64;
    let mut random = Random::new(count);
    let mut value = Vec::with_capacity(VALUE_LEN);
    let mut rounds = [const { Vec::new() }; 4];
    for round in 0..=effort.rounds {
        // Other keys for each, so that none finds what another one brought into the caches.
        let [get, set, map_get, map_set] = [(); 4].map(|()| draw(&mut random, count));
        let times = [
            per_key(&get, |key| {
                assert!(region.get_into(key, &mut value).unwrap());
                black_box(&value);
            }),
            per_key(&map_get, |key| {
                let value: Option<[u8; VALUE_LEN]> = map.get(key).map(|value| *value);
                assert!(black_box(value).is_some());
            }),
            per_key(&set, |key| {
                black_box(region.set(key, &VALUE).unwrap());
            }),
            per_key(&map_set, |key| {
                black_box(map.insert(*key, VALUE));
            }),
        ];
        // The first round is the warm-up.
        if round > 0 {
            let both = rounds.iter_mut().zip(times);
            both.for_each(|(rounds, time)| rounds.push(time));
        }
    }
    let sides = ["ganger region", "dashmap"];
    for (operation, rounds) in ["get", "set"].iter().zip(rounds.chunks(2)) {
        for (side, times) in sides.iter().zip(rounds) {
            let what = format!("{operation} among {count} keys, 1 process");
            report.figure(&what, side, "ns/op", times);
            report.on_curve(&format!("{operation} by number of keys"), count as f64);
        }
    }
    let what = format!("memory per entry beyond key and value, {count} keys");
    let beyond = committed - (KEY_LEN + VALUE_LEN) as f64;
    report.figure(&what, "ganger region", "bytes", &[beyond]);
    report.on_curve("memory per entry by number of keys", count as f64);
}

fn draw(random: &mut Random, count: u64) -> Vec<Key> {
    (0..ROUND).map(|_| key(random.below(count))).collect()
}

fn per_key(keys: &[Key], mut operation: impl FnMut(&Key)) -> f64 {
    let started = Instant::now();
    for key in keys {
        operation(black_box(key));
    }
    started.elapsed().as_nanos() as f64 / keys.len() as f64
}

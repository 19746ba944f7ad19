//! `get_many` of sixteen cold keys beside sixteen single gets, at ten million keys.

use crate::report::{Limit, Report, Spread};
use crate::workload::{key, Key, Random, VALUE};
use crate::Effort;
use ganger_region::{Config, Options, Region};
use std::hint::black_box;
use std::time::Instant;

const KEYS: u64 = 10_000_000;
const BATCH: usize = 16;
/// Keys of one round: their entries are many times what the processor's caches hold.
const ROUND: usize = 1 << 20;
/// What must be free: the region takes about half of it.
const MEMORY_KB: u64 = 4 << 20;

pub(crate) fn run(report: &mut Report, effort: &Effort) {
    if !effort.wants("get-many") {
        return;
    }
    if effort.options.is_quick {
        report.note("get-many: skipped in the quick form, it needs 2 GB and a minute");
        return;
    }
    if available_kb() < MEMORY_KB {
        report.note("get-many: skipped, it needs 4 GB of free memory");
        return;
    }
    let region = Region::create(&Config::new(4 << 30), Options::new()).unwrap();
    for index in 0..KEYS {
        region.set(&key(index), &VALUE).unwrap();
    }
    let mut random = Random::new(3);
    let mut value = Vec::new();
    let mut rounds = [const { Vec::new() }; 3];
    for round in 0..=effort.rounds {
        // Other keys for each side, so that none finds what another one brought in.
        let [many, single, into] = [(); 3].map(|()| draw(&mut random));
        let times = [
            per_key(&many, |keys| {
                black_box(region.get_many(keys).unwrap());
            }),
            per_key(&single, |keys| {
                for key in keys {
                    black_box(region.get(key).unwrap());
                }
            }),
            per_key(&into, |keys| {
                for key in keys {
                    assert!(region.get_into(key, &mut value).unwrap());
                    black_box(&value);
                }
            }),
        ];
        if round > 0 {
            rounds
                .iter_mut()
                .zip(times)
                .for_each(|(rounds, time)| rounds.push(time));
        }
    }
    let sides = ["get_many of 16", "16 times get", "16 times get_into"];
    for (side, times) in sides.iter().zip(&rounds) {
        let ratio = Spread::of_ratio(times, &rounds[0]);
        report.figure_with_ratio("cold keys of 10M", side, "ns/key", times, ratio);
    }
    let gain = Spread::of_ratio(&rounds[1], &rounds[0]);
    let what = "cold keys of 10M: speed of get_many / single gets";
    report.target(what, "x", gain, Limit::AtLeast(2.0));
}

fn draw(random: &mut Random) -> Vec<Key> {
    (0..ROUND).map(|_| key(random.below(KEYS))).collect()
}

fn per_key(keys: &[Key], mut read: impl FnMut(&[Key])) -> f64 {
    let started = Instant::now();
    for batch in keys.chunks(BATCH) {
        read(black_box(batch));
    }
    started.elapsed().as_nanos() as f64 / keys.len() as f64
}

pub(crate) fn available_kb() -> u64 {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let number = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

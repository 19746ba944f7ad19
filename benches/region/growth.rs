//! How long single sets take while a table grows from nothing to a million keys.

use crate::report::{Limit, Report, Spread};
use crate::workload::{key, shuffled, Key, VALUE};
use crate::Effort;
use dashmap::DashMap;
use ganger_region::{Config, Options, Region};
use std::time::Instant;

const KEYS: u64 = 1_000_000;
const PERCENTILES: [(&str, f64); 4] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

pub(crate) fn run(report: &mut Report, effort: &Effort) {
    if !effort.wants("growth") {
        return;
    }
    let keys: Vec<Key> = shuffled(KEYS).into_iter().map(key).collect();
    let mut times = vec![0; keys.len()];
    let mut rounds = vec![[[0.0; 2]; PERCENTILES.len()]; effort.rounds];
    for round in &mut rounds {
        let region = Region::create(&Config::new(256 << 20), Options::new()).unwrap();
        time_each(&keys, &mut times, |key| {
            region.set(key, &VALUE).unwrap();
        });
        drop(region);
        note_percentiles(&mut times, round, 0);
        let map = DashMap::new();
        time_each(&keys, &mut times, |key| {
            map.insert(*key, VALUE);
        });
        drop(map);
        note_percentiles(&mut times, round, 1);
    }
    for (index, (name, _)) in PERCENTILES.iter().enumerate() {
        let of = |side: usize| -> Vec<f64> { rounds.iter().map(|r| r[index][side]).collect() };
        let (ganger, dashmap) = (of(0), of(1));
        let what = format!("set while growing to 1M keys, {name}");
        let even = Spread::of_ratio(&ganger, &ganger);
        report.figure_with_ratio(&what, "ganger", "ns", &ganger, even);
        let ratio = Spread::of_ratio(&dashmap, &ganger);
        report.figure_with_ratio(&what, "dashmap", "ns", &dashmap, ratio);
    }
    let tail: Vec<f64> = rounds.iter().map(|round| round[2][0] / 1000.0).collect();
    report.target(
        "set while growing to 1M keys, p99.9",
        "us",
        Spread::of(&tail),
        Limit::Below(2.0),
    );
}

/// The times include two looks at the clock.
fn time_each(keys: &[Key], times: &mut [u64], mut set: impl FnMut(&Key)) {
    for (key, time) in keys.iter().zip(times) {
        let started = Instant::now();
        set(key);
        *time = started.elapsed().as_nanos() as u64;
    }
}

fn note_percentiles(times: &mut [u64], round: &mut [[f64; 2]], side: usize) {
    times.sort_unstable();
    for ((_, part), place) in PERCENTILES.iter().zip(round) {
        let rank = (part * times.len() as f64).ceil() as usize;
        place[side] = times[rank.saturating_sub(1)] as f64;
    }
}

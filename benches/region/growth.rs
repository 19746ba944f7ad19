//! How long single sets take while a table grows from nothing to a million keys.

use crate::report::{Limit, Report, Spread};
use crate::witness;
use crate::workload::{key, shuffled, Key, VALUE};
use crate::Effort;
use dashmap::DashMap;
use ganger_region::{Config, Options, Region};
use std::time::Instant;

const KEYS: u64 = 1_000_000;
const PERCENTILES: [(&str, f64); 4] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];
/// Sets between two looks at how fast the processor runs: a fifth of a millisecond.
const GROUP: usize = 512;
/// So many times the usual time of a look: the processor is slow.
const SLOW: f64 = 1.5;
/// What the target is about, among the percentiles.
const TAIL: usize = 2;

pub(crate) fn run(report: &mut Report, effort: &Effort) {
    if !effort.wants("growth") {
        return;
    }
    let keys: Vec<Key> = shuffled(KEYS).into_iter().map(key).collect();
    let (mut ganger, mut dashmap) = (Rounds::default(), Rounds::default());
    for _ in 0..effort.rounds {
        let region = Region::create(&Config::new(256 << 20), Options::new()).unwrap();
        ganger.note(&keys, |key| {
            region.set(key, &VALUE).unwrap();
        });
        drop(region);
        let map = DashMap::new();
        dashmap.note(&keys, |key| {
            map.insert(*key, VALUE);
        });
    }
    let what = "set while growing to 1M keys";
    for (index, (name, _)) in PERCENTILES.iter().enumerate() {
        let what = format!("{what}, {name}");
        tell(report, &what, &ganger.all(index), &dashmap.all(index));
    }
    let usual = format!("{what}, p99.9 while the processor runs as usual");
    tell(report, &usual, &ganger.usual, &dashmap.usual);
    for (side, rounds) in [("ganger", &ganger), ("dashmap", &dashmap)] {
        let what = format!("{what}, part of them on a slow processor");
        report.figure(&what, side, "%", &rounds.on_slow);
    }
    for (what, nanos) in [
        (format!("{what}, p99.9"), ganger.all(TAIL)),
        (usual, ganger.usual),
    ] {
        let micros: Vec<f64> = nanos.iter().map(|nanos| nanos / 1000.0).collect();
        report.target(&what, "us", Spread::of(&micros), Limit::Below(2.0));
    }
}

fn tell(report: &mut Report, what: &str, ganger: &[f64], dashmap: &[f64]) {
    let even = Spread::of_ratio(ganger, ganger);
    report.figure_with_ratio(what, "ganger", "ns", ganger, even);
    let ratio = Spread::of_ratio(dashmap, ganger);
    report.figure_with_ratio(what, "dashmap", "ns", dashmap, ratio);
}

/// What the rounds of one side showed.
#[derive(Default)]
struct Rounds {
    /// The percentiles of all sets.
    all: Vec<[f64; PERCENTILES.len()]>,
    /// [`TAIL`] of the sets made while the processor ran as usual.
    usual: Vec<f64>,
    /// Per cent of the sets that were not.
    on_slow: Vec<f64>,
}

impl Rounds {
    fn all(&self, index: usize) -> Vec<f64> {
        self.all.iter().map(|round| round[index]).collect()
    }

    /// Times each set of a round. The times include two looks at the clock.
    fn note(&mut self, keys: &[Key], mut set: impl FnMut(&Key)) {
        let mut times = Vec::with_capacity(keys.len());
        let mut looks = vec![witness::look()];
        for group in keys.chunks(GROUP) {
            for key in group {
                let started = Instant::now();
                set(key);
                times.push(started.elapsed().as_nanos() as u64);
            }
            looks.push(witness::look());
        }
        let mut usual: Vec<u64> = times
            .chunks(GROUP)
            .zip(witness::are_slow(&looks, SLOW).windows(2))
            .filter(|(_, around)| **around == [false, false])
            .flat_map(|(group, _)| group)
            .copied()
            .collect();
        let part = 1.0 - usual.len() as f64 / times.len() as f64;
        self.on_slow.push(part * 100.0);
        times.sort_unstable();
        usual.sort_unstable();
        self.all
            .push(PERCENTILES.map(|(_, part)| percentile(&times, part)));
        self.usual.push(percentile(&usual, PERCENTILES[TAIL].1));
    }
}

/// Of sorted times.
fn percentile(times: &[u64], part: f64) -> f64 {
    let rank = (part * times.len() as f64).ceil() as usize;
    times[rank.saturating_sub(1)] as f64
}

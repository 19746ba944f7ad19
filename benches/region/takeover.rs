//! How long a write takes that finds the lock of its shard held by a process that was killed: it
//! proves the death, takes the lock over and repairs the shard, at a million keys.

use crate::crew::fork;
use crate::report::{Limit, Report, Spread};
use crate::shared::Mapping;
use crate::sides::Ganger;
use crate::sides::Store;
use crate::workload::{key, shuffled, Key, Random, VALUE};
use crate::Effort;
use ganger_region::{Config, Options, Region};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const KEYS: u64 = 1_000_000;
/// Takeovers of each kind.
const SAMPLES: usize = 20;
/// Kills that may miss the lock before this gives up.
const KILLS_MAX: usize = 5_000;

/// Where the time of a takeover begins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    /// When the holder is gone: takeover and repair alone.
    Death,
    /// At the signal: the kernel's work to end the process included.
    Kill,
}

pub(crate) fn run(report: &mut Report, effort: &Effort) {
    if !effort.wants("takeover") {
        return;
    }
    let region = Region::create(&Config::new(256 << 20), Options::new()).unwrap();
    for index in shuffled(KEYS) {
        region.set(&key(index), &VALUE).unwrap();
    }
    let shard = region.shard_of_key(&key(0));
    let of_shard = |index: &u64| region.shard_of_key(&key(*index)) == shard;
    let keys: Vec<Key> = (0..KEYS).filter(of_shard).map(key).collect();
    let mut random = Random::new(7);
    let (mut after_death, mut after_kill) = (Vec::new(), Vec::new());
    let mut kills = 0;
    // By turns, so that both kinds see the same machine.
    while after_death.len().min(after_kill.len()) < SAMPLES && kills < KILLS_MAX {
        for (from, times) in [
            (From::Death, &mut after_death),
            (From::Kill, &mut after_kill),
        ] {
            kills += 1;
            times.extend(kill_a_writer(&region, &keys, from, &mut random));
        }
    }
    if after_death.len().min(after_kill.len()) < SAMPLES {
        report.note(format!(
            "takeover: {kills} kills hit the lock {} and {} times only",
            after_death.len(),
            after_kill.len()
        ));
        return;
    }
    let what = format!(
        "write that takes over and repairs 1 of {} shards, 1M keys",
        region.stats().shards
    );
    report.figure(&what, "from the death", "ms", &after_death);
    report.figure(&what, "from the kill", "ms", &after_kill);
    let (spread, worst) = (Spread::of(&after_death), Spread::of(&after_kill));
    let limit = Limit::Below(5.0);
    report.target(
        "takeover and repair at 1M keys, median",
        "ms",
        spread,
        limit,
    );
    let slowest = Spread::of(&[spread.max]);
    report.target(
        "takeover and repair at 1M keys, slowest",
        "ms",
        slowest,
        limit,
    );
    report.target("the same from the kill on, median", "ms", worst, limit);
    assert_eq!(region.len(), KEYS, "a takeover lost or made up keys");
}

/// Kills a process that writes to one shard all the time; the milliseconds of the next write to
/// that shard, if the dead process held the lock.
fn kill_a_writer(region: &Region, keys: &[Key], from: From, random: &mut Random) -> Option<f64> {
    let progress = Mapping::new(4096);
    let written = progress.word(0);
    let mut child = fork(|| {
        let mut store = Ganger::attach(region);
        loop {
            for key in keys {
                store.set(key, &VALUE);
                written.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let started = Instant::now();
    while written.load(Ordering::Relaxed) == 0 {
        assert!(child.is_running() && started.elapsed() < Duration::from_secs(60));
        std::thread::yield_now();
    }
    let wait = Duration::from_nanos(random.below(500_000));
    let started = Instant::now();
    while started.elapsed() < wait {
        std::hint::spin_loop();
    }
    let repairs = region.stats().repairs;
    let mut begun = Instant::now();
    child.kill();
    if from == From::Death {
        child.wait();
        begun = Instant::now();
    }
    region.set(&keys[0], &VALUE).unwrap();
    let elapsed = begun.elapsed();
    (region.stats().repairs > repairs).then_some(elapsed.as_secs_f64() * 1000.0)
}

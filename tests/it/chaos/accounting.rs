//! Ten thousand writers, each killed in its first few hundred microseconds of writing, and not one
//! byte of a small region lost.

use super::random::{derive, Random};
use crate::harness::fork::{self, Forked, Shared};
use crate::harness::{self, listen, path_of, report, wait_until, Child, Watchdog};
use ganger_region::{Config, Cursor, Options, Region, SetOptions, WriteError};
use std::time::Duration;

/// Without optimisation a writer needs many times as long for its work.
const KILLS: u64 = if cfg!(debug_assertions) {
    2_000
} else {
    10_000
};
const KILLS_BETWEEN_CHECKS: u64 = 500;
/// Writers alive at the same time.
const WRITERS: usize = 2;
const KEYS: u64 = 1200;

#[test]
fn no_byte_is_lost_in_ten_thousand_kills() {
    let seed = super::env_number("GANGER_CHAOS_SEED").unwrap_or_else(super::log::now);
    let _watchdog = Watchdog::new("ten thousand kills", 600);
    eprintln!("GANGER_CHAOS_SEED={seed}");
    // Few sessions, so that those of the dead have to be used again.
    let config = Config::new(8 << 20).shards(4).sessions(8);
    let region = Region::create(&config, Options::new()).unwrap();
    let panics = Shared::create(1);
    let paths = [path_of(region.fd().unwrap()), path_of(panics.fd())];
    let mut zygote = Child::spawn("chaos-accounting", &paths);
    let mut unclean = 0;
    for batch in 0..KILLS / KILLS_BETWEEN_CHECKS {
        zygote.tell(&derive(seed, batch).to_string());
        let ended_by_themselves: u64 = zygote.hear().parse().unwrap();
        assert_eq!(
            ended_by_themselves, 0,
            "writers failed; what they said is above"
        );
        let repairs = region.stats().repairs;
        let audit = region.check().unwrap();
        assert!(audit.is_clean(), "batch {batch}: {:?}", audit.problems);
        unclean += region.stats().repairs - repairs;
        let stats = region.stats();
        assert_eq!(
            (audit.entries, audit.bytes, audit.pages_used),
            (stats.entries, stats.bytes, stats.pages_used)
        );
        assert_eq!(stats.damaged, 0);
    }
    let stats = region.stats();
    println!(
        "{KILLS} kills, {} writes, {} repairs, {unclean} of them by the audits, {} expired",
        stats.writes, stats.repairs, stats.expired
    );
    assert!(stats.repairs > 0, "no kill ever hit a lock holder");
    empty(&region);
}

/// Deletes key by key through another handle; then nothing may be left, not even of the dead.
fn empty(region: &Region) {
    let fd = harness::open(&path_of(region.fd().unwrap()));
    let other = Region::from_fd(fd, Options::new()).unwrap();
    other.reap().unwrap();
    let mut cursor = Some(Cursor::START);
    while let Some(here) = cursor {
        let page = other.scan(b"", here, 100).unwrap();
        for (key, _) in &page.entries {
            other.delete(key).unwrap();
        }
        cursor = page.next;
    }
    drop(other);
    // What expired before the scan came by is not seen by it; the rest expires any moment now.
    wait_until("all entries to be gone", || {
        region.sweep().unwrap();
        region.is_empty()
    });
    let stats = region.stats();
    assert_eq!((stats.entries, stats.bytes, stats.pages_used), (0, 0, 0));
    // Nor has the system given more than the region knows of.
    let given = rustix::fs::fstat(region.fd().unwrap()).unwrap().st_blocks * 512;
    assert_eq!(u64::try_from(given).unwrap(), stats.committed_bytes);
    assert_eq!(stats.sessions_attached, 1, "only this process lives");
    let audit = region.check().unwrap();
    assert!(audit.is_clean(), "{:?}", audit.problems);
    // And everything can be used again.
    let half = vec![7; usize::try_from(region.value_len_max()).unwrap()];
    for key in [b"1", b"2", b"3"] {
        region.set(key, &half).unwrap();
    }
}

/// The forking process: a batch of kills for each line it is told, and each time says how many
/// writers ended by themselves.
pub(crate) fn play(region: &str, panics: &str) {
    let panics: &'static Shared = Box::leak(Box::new(Shared::open(panics)));
    fork::count_panics(panics, 0);
    while let Some(line) = listen() {
        let seed = line.parse().unwrap();
        let mut writers: [Option<Forked>; WRITERS] = [const { None }; WRITERS];
        let mut failed = 0;
        for number in 0..KILLS_BETWEEN_CHECKS {
            let place = &mut writers[usize::try_from(number).unwrap() % WRITERS];
            failed += place.take().map_or(0, ended_otherwise);
            *place = Some(Forked::new(|| {
                write_until_killed(region, derive(seed, number))
            }));
        }
        let left: u64 = writers.into_iter().flatten().map(ended_otherwise).sum();
        report(&(failed + left).to_string());
    }
}

/// Waits until the writer is dead; 1 if it was not killed.
fn ended_otherwise(mut writer: Forked) -> u64 {
    let other_end = writer.wait_killed();
    if let Some(status) = other_end {
        eprintln!("a writer ended by itself: {status:?}");
    }
    u64::from(other_end.is_some())
}

fn write_until_killed(path: &str, seed: u64) -> bool {
    let region = Region::from_fd(harness::open(path), Options::new()).unwrap();
    let mut random = Random::new(seed);
    let bytes = vec![seed.to_le_bytes()[0]; 200 * 1024];
    // One in ten lives long enough that the next ones meet it.
    let long = random.chance(10);
    let life_us = random.below(if long { 5000 } else { 400 });
    fork::die_in(Duration::from_micros(life_us));
    loop {
        match write(&region, &mut random, &bytes) {
            // A full region is no fault, and no value can be longer than its limit.
            Ok(()) | Err(WriteError::Full | WriteError::ValueLen { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// One random write, or a run of them that makes the index grow or shrink.
fn write(region: &Region, random: &mut Random, bytes: &[u8]) -> Result<(), WriteError> {
    let len_max = match random.below(100) {
        0..=69 => 300,
        70..=94 => 12_000,
        _ => bytes.len() as u64,
    };
    let value = &bytes[..usize::try_from(random.below(len_max)).unwrap()];
    let number = random.below(KEYS);
    let key = format!("key {number}").into_bytes();
    let counter = format!("counter {}", number % 50).into_bytes();
    match random.below(100) {
        0..=29 => region.set(&key, value).map(drop),
        30..=44 => region.delete(&key).map(drop),
        45..=54 => region.incr(&counter, 1).map(drop),
        55..=59 => region.delete(&counter).map(drop),
        60..=67 => region
            .append(&key, &value[..value.len().min(2000)])
            .map(drop),
        68..=72 => region.expire(&key, random.below(20)).map(drop),
        73..=75 => region.persist(&key).map(drop),
        76..=83 => {
            let options = SetOptions::new().ttl_ms(random.below(20));
            region.set_with(&key, value, options).map(drop)
        }
        84..=88 => {
            let options = SetOptions::new().ephemeral();
            region.set_with(&key, value, options).map(drop)
        }
        89..=91 => region
            .update(&key, |old| old.map(|old| old[..old.len() / 2].to_vec()))
            .map(drop),
        92..=93 => (number..number + 100).try_for_each(|number| {
            let key = format!("row {number}");
            region.set(key.as_bytes(), &number.to_le_bytes()).map(drop)
        }),
        94..=95 => (number..number + 100)
            .try_for_each(|number| region.delete(format!("row {number}").as_bytes()).map(drop)),
        96 => region.sweep().map(drop),
        97 => region.reap().map(drop),
        // Makes room, so that not all the rest is refused.
        98 => (number..number + 200).try_for_each(|number| {
            region
                .delete(format!("key {}", number % KEYS).as_bytes())
                .map(drop)
        }),
        _ => region.clear().map(drop),
    }
}

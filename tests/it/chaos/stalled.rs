//! Stopped lock holders, and the last process alive.

use super::random::Random;
use super::value;
use crate::harness::{self, listen, path_of, report, wait_until, Child, Watchdog};
use ganger_region::{Config, Options, Region, WriteError};
use rustix::process::Signal;
use std::time::{Duration, Instant};

/// The key of the writer that is stopped.
const HOT: u64 = 0;
const KEYS: u64 = 64;
const SHORT: Duration = Duration::from_millis(15);

fn name(key: u64) -> Vec<u8> {
    format!("key {key}").into_bytes()
}

/// Writes one key without a pause, long values now and then, until the parent is gone.
pub(crate) fn play_writer(path: &str, key: &str) {
    let key = key.parse().unwrap();
    std::thread::spawn(|| {
        if listen().is_none() {
            std::process::exit(0);
        }
    });
    let region = Region::from_fd(harness::open(path), Options::new()).unwrap();
    let mut value = Vec::new();
    report("writing");
    for id in 1.. {
        value::make(key, id, &mut value);
        region.set(&name(key), &value).unwrap();
    }
}

fn fresh_region() -> Region {
    let config = Config::new(32 << 20).shards(16);
    let region = Region::create(&config, Options::new()).unwrap();
    let mut value = Vec::new();
    for key in 0..KEYS {
        value::make(key, 1, &mut value);
        region.set(&name(key), &value).unwrap();
    }
    region
}

/// Another handle, which waits for a lock for a moment only.
fn hasty(region: &Region) -> Region {
    let fd = harness::open(&path_of(region.fd().unwrap()));
    Region::from_fd(fd, Options::new().lock_timeout(SHORT)).unwrap()
}

/// Stops the writer at random until it holds its shard's lock.
fn stop_while_it_writes(writer: &Child, hasty: &Region) {
    let mut random = Random::new(super::log::now());
    let given_up = Instant::now() + harness::PATIENCE;
    loop {
        assert!(
            Instant::now() < given_up,
            "never met the writer with the lock"
        );
        std::thread::sleep(Duration::from_micros(random.below(3000)));
        writer.signal(Signal::STOP);
        wait_until("the writer to stop", || state_of(writer) == 'T');
        match hasty.persist(&name(HOT)) {
            Err(WriteError::Stalled { pid, waited }) => {
                assert_eq!(pid, u64::from(writer.pid().cast_unsigned()));
                assert!(waited > SHORT);
                return;
            }
            other => assert!(other.unwrap(), "the key is there"),
        }
        writer.signal(Signal::CONT);
    }
}

/// The letter of a process's state.
fn state_of(child: &Child) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.pid())).unwrap();
    let (_, state) = stat.rsplit_once(") ").unwrap();
    state.chars().next().unwrap()
}

/// Every key has a whole value; keys other than the hot one have the one they were given.
fn assert_readable(region: &Region) {
    for key in 0..KEYS {
        let value = region.get(&name(key)).unwrap().unwrap();
        let id = value::id_of(key, &value);
        assert!(
            if key == HOT {
                id.is_some()
            } else {
                id == Some(1)
            },
            "key {key}: {id:?}"
        );
    }
}

#[test]
fn a_stopped_lock_holder_stalls_writers_of_its_shard_and_nobody_else() {
    let _watchdog = Watchdog::new("a stopped lock holder", 180);
    let region = fresh_region();
    let hasty = hasty(&region);
    let hot_shard = region.shard_of_key(&name(HOT));
    let arguments = [path_of(region.fd().unwrap()), HOT.to_string()];
    let writer = Child::spawn("chaos-writer", &arguments);
    for _ in 0..5 {
        stop_while_it_writes(&writer, &hasty);
        for _ in 0..3 {
            assert_readable(&region);
            // Never a takeover, however often somebody waited in vain.
            for key in 0..KEYS {
                let written = hasty.persist(&name(key));
                let stalled = matches!(&written, Err(WriteError::Stalled { pid, .. })
                    if *pid == u64::from(writer.pid().cast_unsigned()));
                let of_its_shard = region.shard_of_key(&name(key)) == hot_shard;
                assert_eq!(stalled, of_its_shard, "key {key}: {written:?}");
                assert!(
                    stalled || matches!(written, Ok(true)),
                    "key {key}: {written:?}"
                );
            }
        }
        assert_eq!(region.stats().repairs, 0);
        // One with patience waits until the holder goes on, and then gets its turn.
        let waiting = region.clone();
        let patient = std::thread::spawn(move || waiting.persist(&name(HOT)));
        writer.signal(Signal::CONT);
        assert!(patient.join().unwrap().unwrap());
        let before = region.entry(&name(HOT)).unwrap().unwrap().revision;
        wait_until("the writer to write on", || {
            region.entry(&name(HOT)).unwrap().unwrap().revision != before
        });
    }
    drop(writer);
    assert_readable(&region);
    let audit = region.check().unwrap();
    assert!(audit.is_clean(), "{:?}", audit.problems);
}

#[test]
fn a_stopped_lock_holder_that_is_killed_makes_way() {
    let _watchdog = Watchdog::new("a stopped and killed lock holder", 180);
    let region = fresh_region();
    let hasty = hasty(&region);
    let arguments = [path_of(region.fd().unwrap()), HOT.to_string()];
    let mut writer = Child::spawn("chaos-writer", &arguments);
    stop_while_it_writes(&writer, &hasty);
    assert_eq!(region.stats().repairs, 0);
    writer.kill();
    assert!(hasty.persist(&name(HOT)).unwrap());
    assert_eq!(region.stats().repairs, 1);
    assert_readable(&region);
    assert_eq!(region.reap().unwrap().sessions, 1);
    let audit = region.check().unwrap();
    assert!(audit.is_clean(), "{:?}", audit.problems);
}

/// Makes a region, says where it is, and stays.
pub(crate) fn play_maker() {
    let region = fresh_region();
    report(&path_of(region.fd().unwrap()));
    while listen().is_some() {}
}

#[test]
fn the_last_process_alive_reads_and_writes_on() {
    let _watchdog = Watchdog::new("the last process alive", 180);
    let mut maker = Child::spawn("chaos-maker", &[]);
    let path = maker.hear();
    let region = Region::from_fd(harness::open(&path), Options::new()).unwrap();
    let mut others: Vec<Child> = (0..4_u64)
        .map(|key| Child::spawn("chaos-writer", &[path.clone(), key.to_string()]))
        .collect();
    for other in &mut others {
        assert_eq!(other.hear(), "writing");
    }
    let writes = region.stats().writes;
    wait_until("all to be at work", || {
        region.stats().writes > writes + 1000
    });
    others.push(maker);
    for other in &others {
        other.signal(Signal::KILL);
    }
    drop(others);
    let mut value = Vec::new();
    for round in 2..50 {
        for key in 0..KEYS {
            let found = region.get(&name(key)).unwrap().unwrap();
            let id = value::id_of(key, &found);
            // Four keys have what their dead writers made last, the others what was made here.
            let expected = key < 4 && round == 2 || id == Some(round - 1);
            assert!(id.is_some() && expected, "key {key}: {id:?}");
            value::make(key, round, &mut value);
            region.set(&name(key), &value).unwrap();
        }
        assert_eq!(region.incr(b"rounds", 1).unwrap(), round.cast_signed() - 1);
    }
    assert_eq!(region.reap().unwrap().sessions, 5);
    assert_eq!(region.stats().sessions_attached, 1);
    let audit = region.check().unwrap();
    assert!(audit.is_clean(), "{:?}", audit.problems);
}

//! Random kills and stops of many processes under a load whose every operation is logged and
//! judged.
//!
//! `GANGER_CHAOS_SEED` repeats a run's choices, `GANGER_CHAOS_SECONDS` makes it longer. A run is
//! made of rounds: a forking process ([`zygote`]) keeps eight clients ([`client`]) at work, kills
//! and stops them at random; when all have ended, their logs ([`log`]) are judged ([`history`]),
//! and the region is checked, emptied and used again.

mod accounting;
mod client;
mod history;
mod history_tests;
mod log;
mod random;
mod stalled;
mod value;
pub(crate) mod zygote;

pub(crate) use accounting::play as play_accounting;
pub(crate) use random::Random;
pub(crate) use stalled::{play_maker, play_writer};

use crate::harness::{path_of, Child, Watchdog};
use client::{name, number, seen, COUNTERS, LOCKS, REGISTERS, UPDATED};
use ganger_region::{Config, Options, Region, SetOptions};
use history::{judge_lock, judge_number, judge_register, Deed, Op};
use log::{finished, now, Histories, Logs};
use random::derive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const ROUND: Duration = Duration::from_millis(1500);

/// What a whole run met.
#[derive(Debug, Default)]
struct Tally {
    kills: u64,
    stops: u64,
    operations: u64,
    cut_off: u64,
    longest_us: u64,
    repairs: u64,
    locks_of_the_dead: u64,
    audits: u64,
}

#[test]
fn nothing_is_torn_stale_or_lost_while_processes_are_killed_and_stopped() {
    let seconds = env_number("GANGER_CHAOS_SECONDS").unwrap_or(20);
    let seed = env_number("GANGER_CHAOS_SEED").unwrap_or_else(now);
    let _watchdog = Watchdog::new("the chaos run", 4 * seconds + 120);
    eprintln!("GANGER_CHAOS_SEED={seed} GANGER_CHAOS_SECONDS={seconds}");
    let config = Config::new(64 << 20).shards(4).sessions(16);
    let region = Region::create(&config, Options::new()).unwrap();
    let logs = Logs::create();
    let paths = [path_of(region.fd().unwrap()), path_of(logs.fd())];
    let mut zygote = Child::spawn("chaos-zygote", &paths);
    let mut tally = Tally::default();
    let started = Instant::now();
    for round in 0.. {
        if started.elapsed() >= Duration::from_secs(seconds) {
            break;
        }
        zygote.tell(&format!("{} {}", derive(seed, round), ROUND.as_millis()));
        let report = while_auditing(&region, &mut tally.audits, || zygote.hear());
        let (kills, stops) = report.split_once(' ').unwrap();
        tally.kills += kills.parse::<u64>().unwrap();
        tally.stops += stops.parse::<u64>().unwrap();
        assert_eq!(logs.faults(), 0, "clients failed; what they said is above");
        judge(&region, &logs, &mut tally);
        settle(&region);
        tally.repairs = region.stats().repairs;
    }
    println!("{tally:?}");
    assert!(tally.kills > 10 * seconds && tally.stops > 0);
    assert!(tally.repairs > 0, "no kill ever hit a lock holder");
    assert!(tally.cut_off > 0, "no kill ever hit an operation");
    assert!(
        tally.locks_of_the_dead > 0,
        "no lock was ever freed by a death"
    );
}

fn env_number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number")),
    )
}

/// Runs `work` while another thread checks every invariant and cleans up after the dead, again and
/// again.
fn while_auditing<T>(region: &Region, audits: &mut u64, work: impl FnOnce() -> T) -> T {
    struct Stop<'s>(&'s AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let auditor = scope.spawn(|| {
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                let audit = region.check().unwrap();
                assert!(audit.is_clean(), "{:?}", audit.problems);
                region.reap().unwrap();
                count += 1;
                std::thread::sleep(Duration::from_millis(40));
            }
            count
        });
        let stop_at_the_end = Stop(&stop);
        let done = work();
        drop(stop_at_the_end);
        *audits += auditor.join().unwrap();
        done
    })
}

/// Judges the logs of a round, together with what the keys hold at its end.
fn judge(region: &Region, logs: &Logs, tally: &mut Tally) {
    let mut histories = Histories::read(logs);
    for key in 0..REGISTERS {
        let start = now();
        let entry = region.entry(&name(key)).unwrap();
        let value = entry.as_ref().map(|entry| entry.value.as_slice());
        let deed = match seen(key, value) {
            log::TORN => Deed::SawTorn,
            0 => Deed::Saw(None),
            id => Deed::Saw(Some(id)),
        };
        histories.registers.entry(key).or_default().push(Op {
            start,
            end: finished(),
            returned: true,
            deed,
            revision: entry.map_or(0, |entry| entry.revision),
        });
    }
    for (key, ops) in &histories.registers {
        let faults = judge_register(ops);
        assert!(
            faults.is_empty(),
            "key {key}: {:#?}",
            &faults[..faults.len().min(10)]
        );
    }
    for key in COUNTERS.chain(UPDATED) {
        let last = number(region, &name(key), COUNTERS.contains(&key)).cast_signed();
        let steps = histories.numbers.remove(&key).unwrap_or_default();
        let faults = judge_number(&steps, last);
        assert!(
            faults.is_empty(),
            "key {key}: {:#?}",
            &faults[..faults.len().min(10)]
        );
    }
    for (key, holds) in &mut histories.locks {
        let faults = judge_lock(holds);
        assert!(
            faults.is_empty(),
            "lock {key}: {:#?}",
            &faults[..faults.len().min(10)]
        );
        // Each that was followed by another hold was taken over from the dead.
        let followed = &holds[..holds.len().saturating_sub(1)];
        tally.locks_of_the_dead += followed.iter().filter(|hold| hold.killed).count() as u64;
    }
    assert_eq!(histories.robbed, 0, "locks were taken from living holders");
    tally.operations += histories.operations;
    tally.cut_off += histories.cut_off;
    tally.longest_us = tally.longest_us.max(histories.longest / 1000);
}

/// With all clients gone: locks of the dead are free, no session and no page stays behind.
fn settle(region: &Region) {
    for key in LOCKS {
        let options = SetOptions::new().if_absent();
        let free = region.set_with(&name(key), b"mine", options).unwrap();
        assert!(
            free.is_some(),
            "the lock {key} of a dead process is still held"
        );
    }
    region.reap().unwrap();
    let stats = region.stats();
    assert_eq!(stats.sessions_attached, 1, "only this process lives");
    assert_eq!(stats.damaged, 0);
    let audit = region.check().unwrap();
    assert!(audit.is_clean(), "{:?}", audit.problems);
    assert_eq!(
        (audit.entries, audit.bytes, audit.pages_used),
        (stats.entries, stats.bytes, stats.pages_used)
    );
    region.clear().unwrap();
    region.sweep().unwrap();
    let stats = region.stats();
    assert_eq!((stats.entries, stats.bytes, stats.pages_used), (0, 0, 0));
    let audit = region.check().unwrap();
    assert!(audit.is_clean(), "{:?}", audit.problems);
}

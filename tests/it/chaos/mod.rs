//! Random kills and stops of many processes under a load whose every operation is logged and
//! judged.
//!
//! `GANGER_CHAOS_SEED` repeats a run's choices, `GANGER_CHAOS_SECONDS` makes it longer. A run is
//! made of rounds: a forking process ([`zygote`]) keeps eight clients ([`client`]) at work, kills
//! and stops them at random; when all have ended, their logs ([`log`]) are judged ([`history`]),
//! and the region is checked, emptied and used again.

mod accounting;
mod client;
mod follower;
mod histories;
mod history;
mod history_tests;
mod keys;
mod lease;
mod log;
mod random;
mod sequence;
mod stalled;
mod value;
mod verdict;
mod walk;
pub(crate) mod zygote;

pub(crate) use accounting::play as play_accounting;
pub(crate) use random::Random;
pub(crate) use stalled::{play_maker, play_writer};

use crate::harness::{path_of, Child, Watchdog};
use follower::Follower;
use ganger_region::{Config, Options, Region, WhenFull};
use log::{now, Logs, Verb};
use random::derive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use verdict::{assert_clean, judge, set_stable, settle, Tally};

const ROUND: Duration = Duration::from_millis(1500);

#[test]
fn nothing_is_torn_stale_or_lost_while_processes_are_killed_and_stopped() {
    let seconds = env_number("GANGER_CHAOS_SECONDS").unwrap_or(20);
    let config = Config::new(64 << 20).shards(4).sessions(16);
    let tally = run("the chaos run", &config, seconds, false);
    assert!(
        tally.locks_of_the_dead > 0,
        "no lock was ever freed by a death"
    );
    for (verb, count) in &tally.verbs {
        // Over before a kill comes, but by a rare chance.
        let is_short = [Verb::Exists, Verb::Len].contains(verb);
        assert!(count.cut_off > 1 || is_short, "{verb:?}: {count:?}");
    }
}

#[test]
fn nothing_is_torn_or_stale_in_a_region_that_evicts_while_processes_are_killed() {
    let seconds = env_number("GANGER_CHAOS_SECONDS").unwrap_or(16) / 2;
    // Room for one in three of what is written.
    let config = Config::new(3 << 20).shards(4).sessions(16);
    let config = config.when_full(WhenFull::Evict);
    let tally = run("the evicting chaos run", &config, seconds, true);
    assert!(tally.evicted > 0, "there was always room");
}

/// Rounds of chaos in a region; the change feed is on in the second half of them.
fn run(name: &'static str, config: &Config, seconds: u64, evicts: bool) -> Tally {
    let seed = env_number("GANGER_CHAOS_SEED").unwrap_or_else(now);
    let _watchdog = Watchdog::new(name, 4 * seconds + 120);
    eprintln!("GANGER_CHAOS_SEED={seed} GANGER_CHAOS_SECONDS={seconds}");
    let region = Region::create(config, Options::new()).unwrap();
    let logs = Logs::create();
    let paths = [
        path_of(region.fd().unwrap()),
        path_of(logs.fd()),
        evicts.to_string(),
    ];
    let mut zygote = Child::spawn("chaos-zygote", &paths);
    let mut tally = Tally::default();
    let time = Duration::from_secs(seconds);
    let started = Instant::now();
    while started.elapsed() < time {
        let mut follower = None;
        if started.elapsed() >= time / 2 {
            logs.use_feed();
            follower = Some(Follower::new(&region));
        }
        let before = set_stable(&region);
        let order = format!("{} {}", derive(seed, tally.rounds), ROUND.as_millis());
        zygote.tell(&order);
        let audited = while_auditing(&region, follower.as_mut(), || zygote.hear());
        let (report, audits) = audited;
        let (kills, stops) = report.split_once(' ').unwrap();
        tally.rounds += 1;
        tally.audits += audits;
        tally.kills += kills.parse::<u64>().unwrap();
        tally.stops += stops.parse::<u64>().unwrap();
        assert_eq!(logs.faults(), 0, "clients failed; what they said is above");
        // Whoever died last may have told nobody of its change; this repairs what it left.
        assert_clean(&region);
        if let Some(follower) = follower {
            let (proven, changes, gaps) = follower.judge();
            tally.proven_by_feed += proven;
            tally.changes_told += changes;
            tally.gaps_told += gaps;
        }
        judge(&region, &logs, &before, evicts, &mut tally);
        settle(&region);
    }
    tally.repairs = region.stats().repairs;
    tally.evicted = region.stats().evicted;
    println!("{tally:#?}\n{:?}", tally.total());
    assert_enough(&tally, seconds);
    tally
}

/// Whether a run met what it is made for. On two processors with six times as much work as they
/// can do there were 370 kills and 110 stops a second.
fn assert_enough(tally: &Tally, seconds: u64) {
    assert!(tally.kills > 100 * seconds, "{} kills", tally.kills);
    assert!(tally.stops > 40 * seconds, "{} stops", tally.stops);
    assert!(tally.repairs > 0, "no kill ever hit a lock holder");
    assert!(tally.proven_by_feed > 0 && tally.gaps_told > 0);
    for verb in log::verbs() {
        let done = tally.verbs.get(verb).map_or(0, |count| count.done);
        assert!(done >= 100, "{verb:?} was done {done} times");
    }
}

fn env_number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number")),
    )
}

/// Runs `work` while another thread checks every invariant and cleans up after the dead, again and
/// again, and a third follows the change feed; how often all was checked.
fn while_auditing<T>(
    region: &Region,
    follower: Option<&mut Follower>,
    work: impl FnOnce() -> T,
) -> (T, u64) {
    struct Stop<'s>(&'s AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        if let Some(follower) = follower {
            scope.spawn(|| follower.run(&stop));
        }
        let auditor = scope.spawn(|| {
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                assert_clean(region);
                region.reap().unwrap();
                count += 1;
                std::thread::sleep(Duration::from_millis(40));
            }
            count
        });
        let stop_at_the_end = Stop(&stop);
        let done = work();
        drop(stop_at_the_end);
        (done, auditor.join().unwrap())
    })
}
